"""Does XLA on this CPU multiply a bfloat16 step's matrices as fast as PyTorch, and what does a rewriting change?

Every product of a training step of GPT-2, as the fused rules and the roofline make it: bfloat16 in and out, sums in
float32. PyTorch (the extra `peers`) multiplies the same operands. A weight's gradient xᵀ dz is also written in other
ways, each held to the float32 product. The products take turns, and medians count.

    python experiments/bf16_products.py
"""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, interleaved, main, track
from _model import ModelSettings
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

from refgrad import _machine
from refgrad._extras import install
from refgrad.bench.roofline import Matmuls, compiled_product, products
from refgrad.numerics import blocks, product, weight_grad
from refgrad.report.figures import BLUE, VERMILLION, legend_below
from refgrad.train import allocator

BF16 = jnp.bfloat16
XLA, TORCH = "XLA", "PyTorch"
TOLERANCE = 2**-7  # of the largest entry: two roundings of a result in bfloat16


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """The step, and the share of PyTorch's speed that is enough."""

    share: float

    @property
    def products(self) -> list[Matmuls]:
        """Every product of the step."""
        return products(self.config, self.batch, self.sequence)


def stored(x: Array) -> Array:
    """Return the matrix x, stored row by row."""
    return with_layout_constraint(x, Layout((0, 1)))


def by_loop(x: Array) -> Array:
    """Return xᵀ, written twice by a loop that XLA keeps."""
    return jax.lax.fori_loop(0, 2, lambda _, __: x.T, jnp.zeros_like(x.T))


def in_blocks(x: Array, dz: Array) -> Array:
    """Return xᵀ dz, a quarter of the rows at a time."""
    rows = -(-x.shape[0] // 4)
    parts = [product("ir,ro->io", stored(x[some].T), dz[some]) for some in blocks(x.shape[0], rows)]
    return reduce(add, parts)


WAYS: dict[str, Callable[[Array, Array], Array]] = {
    "as it stands": partial(product, "ri,ro->io"),
    "summed in bfloat16": lambda x, dz: jnp.einsum("ri,ro->io", x, dz, preferred_element_type=BF16),
    "float32 operands": lambda x, dz: product("ri,ro->io", x.astype(jnp.float32), dz.astype(jnp.float32)),
    "x transposed in a loop": lambda x, dz: product("ir,ro->io", by_loop(x), dz) + 0.0 * dz[:1, :1].astype(jnp.float32),
    "x transposed": lambda x, dz: stored(product("ir,ro->io", stored(x.T), dz)),
    "both transposed": lambda x, dz: stored(product("ir,or->io", stored(x.T), stored(dz.T))),
    "(dzᵀ x)ᵀ": lambda x, dz: stored(product("or,ri->oi", stored(dz.T), x)).T,
    "x transposed, a quarter of the rows at a time": in_blocks,
    "the rules'": weight_grad,
}


def in_torch(item: Matmuls, operands: tuple[Array, ...]) -> Callable[[], Any]:
    """The same product of the same operands as a call of PyTorch."""
    import torch

    x, y = (torch.from_numpy(np.array(a.astype(jnp.float32))).to(torch.bfloat16) for a in operands)
    x = x.mT if item.left_transposed else x
    y = y.mT if item.right_transposed else y
    return lambda: torch.matmul(x, y)


def rewritings(item: Matmuls, operands: tuple[Array, ...]) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """Return the ways to write a weight's gradient that XLA compiles, as calls, and what fails among them."""
    calls, failures = {}, []
    want = np.asarray(product("ri,ro->io", *(a.astype(jnp.float32) for a in operands)))
    for name, way in WAYS.items():
        try:
            call = partial(
                jax.jit(lambda x, dz, way=way: way(x, dz).astype(BF16)).lower(*operands).compile(), *operands
            )
            got = np.asarray(call().astype(jnp.float32))
        except jax.errors.JaxRuntimeError:  # XLA has no kernel for some of them
            continue
        calls[name] = call
        if (error := np.max(np.abs(got - want)) / np.max(np.abs(want))) > TOLERANCE:
            failures.append(f"{item.name}, {name}: error {error:.1e} of the largest entry, but {TOLERANCE:.1e} may be")
    return calls, failures


def programs(item: Matmuls, with_torch: bool) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """Return one product as calls, by XLA, by PyTorch and by each rewriting, and what fails among these."""
    compiled, operands = compiled_product(item, BF16)
    calls: dict[str, Callable[[], Any]] = {XLA: partial(compiled, *operands)}
    failures: list[str] = []
    if with_torch:
        calls[TORCH] = in_torch(item, operands)
    if item.left_transposed and item.batch == 1:
        more, failures = rewritings(item, operands)
        calls |= more
    return calls, failures


def run(settings: Settings) -> Result:
    """Measure every product, and say where PyTorch is ahead."""
    with_torch = importlib.util.find_spec("torch") is not None
    calls, failures = {}, []
    for item in track(settings.products, "compiled"):
        calls[item], wrong = programs(item, with_torch)
        failures += wrong
    work = {(item, name): call for item, of in calls.items() for name, call in of.items()}
    seconds = interleaved(work, settings.rounds)
    every = {item: {name: seconds[item, name] for name in of} for item, of in calls.items()}
    rates = {item: {name: item.flops / item.count / s / 1e9 for name, s in of.items()} for item, of in every.items()}
    rows = [
        (
            item.name,
            item.count,
            item.flops / 1e9,
            rates[item][XLA],
            rates[item].get(TORCH),
            item.count * every[item][XLA],
        )
        for item in every
    ]
    data = [(item.name, name, s, rates[item][name]) for item, of in every.items() for name, s in of.items()]
    answer = [compared(every, settings.share) if with_torch else f"PyTorch is left out: {install('peers')}."]
    answer += [
        f"{item.name}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates[item].items()) + " GFLOP/s."
        for item in every
        if WAYS.keys() & rates[item].keys()
    ]
    answer.append(f"Measured on {_machine.processor()}, {_machine.vector()}.")
    header = ("product", "runs a step", "GFLOP a step", "XLA (GFLOP/s)", "PyTorch (GFLOP/s)", "XLA (s a step)")
    more = Table(("product", "program", "time (s)", "GFLOP/s"), data)
    return Result(answer, Table(header, rows), [figure(rates)], data=more, failures=failures)


def compared(every: Mapping[Matmuls, Mapping[str, float]], share: float) -> str:
    """Return the sentences on both sums over a step, and the products that keep XLA behind."""
    xla, torch = (sum(item.count * of[side] for item, of in every.items()) for side in (XLA, TORCH))
    best = sum(item.count * min(of[XLA], of[TORCH]) for item, of in every.items())
    lost = {item.name: item.count * (of[XLA] - of[TORCH]) for item, of in every.items() if of[TORCH] < share * of[XLA]}
    slow = ", ".join(f"{name} ({1e3 * lost[name]:.0f} ms a step)" for name in sorted(lost, key=lambda n: -lost[n])[:8])
    return (
        f"A step's products take {xla:.2f} s by XLA and {torch:.2f} s by PyTorch, {xla / torch:.2f} times as long; by "
        f"the faster of the two for each, {best / xla:.2f} of XLA's time. Below {share:.0%} of PyTorch's speed: "
        f"{slow or 'none'}."
    )


def figure(rates: Mapping[Matmuls, Mapping[str, float]]) -> Figure:
    """Bars of both sides' speed, product by product."""
    sides = [side for side in (XLA, TORCH) if all(side in of for of in rates.values())]

    def paint(axes: Any) -> None:
        for n, (side, color) in enumerate(zip(sides, (BLUE, VERMILLION), strict=False)):
            places = [row + 0.4 * (n - 0.5 * (len(sides) - 1)) for row in range(len(rates))]
            axes.barh(places, [of[side] for of in rates.values()], height=0.38, color=color, label=side)
        axes.set_yticks(range(len(rates)), [item.name for item in rates])
        axes.invert_yaxis()
        axes.set(xlabel="speed (GFLOP/s)", ylabel="product")
        legend_below(axes)

    fastest, slowest = (pick(rates, key=lambda item: rates[item][XLA]) for pick in (max, min))
    alt = (
        f"Bars of {len(rates)} products. XLA's longest is {fastest.name} with {rates[fastest][XLA]:.0f} GFLOP/s, its "
        f"shortest {slowest.name} with {rates[slowest][XLA]:.0f}."
    )
    return Figure("Products of a bfloat16 step", alt, paint, options={"size": (8, 8)})


if __name__ == "__main__":
    allocator.keep_temporaries()  # or page faults would be timed
    sys.exit(main(__file__, __doc__, Settings, run))
