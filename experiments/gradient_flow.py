"""Do gradients survive their way down a deep network, and which of D1's six remedies help them?

A chain of equal layers, h ← σ(h W), with W normal of 1/√n: the norm of ∂L/∂h is measured before every layer, by the
derived rules, for a random direction of the last layer's output, and told as a factor a layer (the geometric mean).
One change at a time: ReLU, residual connections, batch normalisation, layer normalisation, careful initialisation
(ReLU with 2/n, which keeps the variance). Clipping changes no factor: it bounds the length of a step, and is measured
on weights three times as large, with which gradients explode. The same in GPT-2, with and without its residual
connections and layer norms. "Helps" means: the factor's distance from 1, as a logarithm, shrinks.

    python experiments/gradient_flow.py
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, main, track
from _optax import optax

from refgrad.models import gpt2
from refgrad.ops import operations
from refgrad.ops.multi_head_attention import attend
from refgrad.report.figures import INK, legend_below, series

OPS = operations("derived")
Layer = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The chain's depth, width and examples; the factor on weights that explode; clipping's bound; GPT-2's sizes."""

    depth: int
    width: int
    examples: int
    large: float
    clip: float
    n_layer: int
    n_embd: int
    n_head: int
    sequence: int

    def __post_init__(self) -> None:
        for name in ("depth", "width", "examples", "n_layer", "sequence"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 2")


def _normed(x: jax.Array) -> jax.Array:
    ones = jnp.ones(x.shape[-1], x.dtype)
    return OPS.layer_norm(x, ones, 0 * ones, 1e-5)


def _batched(x: jax.Array) -> jax.Array:
    ones = jnp.ones(x.shape[-1], x.dtype)
    return OPS.batch_norm(x, ones, 0 * ones, 1e-5)


# name → (the layer, the gain of W over 1/√n)
CHAINS: dict[str, tuple[Layer, float]] = {
    "sigmoid": (lambda x, W: OPS.sigmoid(OPS.matmul(x, W)), 1.0),
    "ReLU": (lambda x, W: OPS.relu(OPS.matmul(x, W)), 1.0),
    "residual": (lambda x, W: OPS.residual(x, OPS.sigmoid(OPS.matmul(x, W))), 1.0),
    "batch norm": (lambda x, W: OPS.sigmoid(_batched(OPS.matmul(x, W))), 1.0),
    "layer norm": (lambda x, W: OPS.sigmoid(_normed(OPS.matmul(x, W))), 1.0),
    "ReLU, 2/n": (lambda x, W: OPS.relu(OPS.matmul(x, W)), math.sqrt(2)),
}


def norms_of(layers: list[Callable[[jax.Array], jax.Array]], x: jax.Array) -> np.ndarray:
    """‖∂L/∂h‖ before each layer and after the last, L a fixed random direction of the last output."""

    def loss(nudges: jax.Array) -> jax.Array:
        h = x + nudges[0]
        for layer, nudge in zip(layers, nudges[1:], strict=True):
            h = layer(h) + nudge
        return jnp.sum(h * jax.random.normal(jax.random.key(7), h.shape, h.dtype))

    zeros = jnp.zeros((len(layers) + 1, *x.shape), x.dtype)
    grads = jax.jit(jax.grad(loss))(zeros)
    return np.linalg.norm(np.asarray(grads, np.float64).reshape(len(layers) + 1, -1), axis=1)


def factor(norms: np.ndarray) -> float:
    """The geometric mean of what a layer does to the norm on the way down, as far as its dtype shows any."""
    last = int(np.argmax(norms > 0))
    return float((norms[last] / norms[-1]) ** (1 / (len(norms) - 1 - last)))


def chain(settings: Settings, name: str, gain: float = 1.0) -> np.ndarray:
    """Norms along one chain."""
    layer, own = CHAINS[name]
    shape = (settings.depth, settings.width, settings.width)
    weights = jax.random.normal(jax.random.key(0), shape, jnp.float32) * (gain * own / settings.width**0.5)
    x = jax.random.normal(jax.random.key(1), (settings.examples, settings.width), jnp.float32)
    return norms_of([lambda h, W=W: layer(h, W) for W in weights], x)


def clipped(settings: Settings) -> tuple[float, float]:
    """The global norm of the weights' gradients in the exploding chain: as it is, and after clipping."""
    scale = settings.large * math.sqrt(2 / settings.width)
    shape = (settings.depth, settings.width, settings.width)
    weights = jax.random.normal(jax.random.key(0), shape, jnp.float32) * scale
    x = jax.random.normal(jax.random.key(1), (settings.examples, settings.width), jnp.float32)

    def loss(weights: jax.Array) -> jax.Array:
        h = x
        for W in weights:
            h = OPS.relu(OPS.matmul(h, W))
        return jnp.sum(h)

    grads = jax.jit(jax.grad(loss))(weights)
    after, _ = optax.clip_by_global_norm(settings.clip).update(grads, optax.EmptyState())
    return float(optax.tree.norm(grads)), float(optax.tree.norm(after))


def transformer(settings: Settings, residual: bool, norm: bool) -> np.ndarray:
    """Norms along GPT-2's stream at its own initial weights, with and without its residual connections and norms.

    In float64: with neither, they fall below float32's least number.
    """
    config = gpt2.Config(settings.n_layer, settings.n_head, settings.n_embd, settings.sequence, 256)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), gpt2.init(jax.random.key(0), config))
    tokens = jax.random.randint(jax.random.key(2), (4, settings.sequence), 0, 256, jnp.int32)
    x = OPS.position_embedding(OPS.token_embedding(params["wte"]["weight"], tokens), params["wpe"]["weight"])

    def layer(x: jax.Array, p: Any) -> jax.Array:
        def read(name: str, x: jax.Array) -> jax.Array:
            return OPS.layer_norm(x, p[name]["weight"], p[name]["bias"], config.layer_norm_epsilon) if norm else x

        def add(x: jax.Array, f: jax.Array) -> jax.Array:
            return OPS.residual(x, f) if residual else f

        qkv, out = p["attn"]["c_attn"], p["attn"]["c_proj"]
        attended = attend(OPS, read("ln_1", x), qkv["weight"], qkv["bias"], out["weight"], out["bias"], config.n_head)
        x = add(x, attended)
        fc, proj = p["mlp"]["c_fc"], p["mlp"]["c_proj"]
        hidden = OPS.gelu(OPS.linear(read("ln_2", x), fc["weight"], fc["bias"]))
        return add(x, OPS.linear(hidden, proj["weight"], proj["bias"]))

    return norms_of([lambda x, p=p: layer(x, p) for p in params["h"]], x)


def run(settings: Settings) -> Result:
    """Every chain, the exploding one, GPT-2's four; then who helps."""
    work: dict[str, Callable[[], np.ndarray]] = {name: lambda name=name: chain(settings, name) for name in CHAINS}
    exploding = f"ReLU, 2/n, × {settings.large:g}"
    work[exploding] = lambda: chain(settings, "ReLU, 2/n", settings.large)
    for residual in (True, False):
        for norm in (True, False):
            parts = [name for name, there in (("residual", residual), ("layer norm", norm)) if there]
            title = f"GPT-2 with {' and '.join(parts)}" if parts else "GPT-2 with neither"
            work[title] = jax.enable_x64(True)(lambda r=residual, n=norm: transformer(settings, r, n))
    norms = {name: work[name]() for name in track(list(work), "measuring")}
    factors = {name: factor(of) for name, of in norms.items()}
    far = {name: abs(math.log(value)) for name, value in factors.items()}
    before, after = clipped(settings)
    remedies = [name for name in CHAINS if name != "sigmoid"]
    helpful = [name for name in remedies if far[name] < far["sigmoid"]]
    gpts = [name for name in norms if name.startswith("GPT-2")]
    failures = [f"{name} does not help: {factors[name]:.3g} a layer" for name in remedies if name not in helpful]
    if not (factors["sigmoid"] < 1 < factors[exploding]):
        failures.append("the plain chain does not vanish, or the one of large weights does not explode")
    if not far[gpts[0]] < min(far[name] for name in gpts[2:]):
        failures.append("GPT-2's gradients do not fare better with its residual connections than without")
    if not after <= settings.clip * (1 + 1e-5):
        failures.append(f"clipping leaves a norm of {after:g}, above {settings.clip:g}")
    rows = [[name, value, float(norms[name][0] / norms[name][-1])] for name, value in factors.items()]
    data = [[name, n, float(value)] for name, of in norms.items() for n, value in enumerate(of)]
    return Result(
        answer=[
            f"The plain sigmoid chain leaves {factors['sigmoid']:.3g} of the gradient a layer. Closer to 1: "
            + ", ".join(f"{name} {factors[name]:.3g}" for name in helpful)
            + ".",
            f"With large weights it grows by {factors[exploding]:.3g} a layer; clipping takes the step's norm from "
            f"{before:.2e} to {after:.3g} and leaves its direction.",
            "GPT-2 a layer: " + "; ".join(f"{name[len('GPT-2 ') :]} {factors[name]:.3g}" for name in gpts) + ".",
        ],
        table=Table(["network", "factor a layer", "first over last"], rows),
        data=Table(["network", "layer", "norm of the gradient"], data),
        figures=[_figure({name: norms[name] for name in CHAINS}, {name: norms[name] for name in gpts}, factors)],
        claims=["D1.12", "D1.13"],
        failures=failures,
    )


def _figure(chains: dict[str, np.ndarray], gpts: dict[str, np.ndarray], factors: dict[str, float]) -> Figure:
    """Left the chains, right GPT-2: the norm before each layer over that after the last."""

    def paint(panels: Any) -> None:
        for axes, group, title in zip(panels, (chains, gpts), ("a chain of layers", "GPT-2"), strict=True):
            for n, (name, norms) in enumerate(group.items()):
                label = name.removeprefix("GPT-2 ")
                shown = np.where(norms > 0, norms / norms[-1], np.nan)
                axes.plot(shown, label=label, markevery=max(1, len(norms) // 8), **series(n))
            axes.axhline(1, color=INK, linewidth=1)
            axes.set_yscale("log")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="layer (0 is the input)", ylabel="norm of ∂L/∂h over that after the last layer")
            axes.set_title(title)
            legend_below(axes, ncols=3 if len(group) > 4 else 2)

    alt = "Norm of the gradient against the layer, on a logarithmic axis. Factor a layer: " + "; ".join(
        f"{name} {factors[name]:.3g}" for name in (*chains, *gpts)
    )
    return Figure("Gradients on their way down", alt, paint, options={"size": (10, 5), "columns": 2})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
