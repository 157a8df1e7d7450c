"""Do predicted times and memory agree with those measured on this machine, without compiling anything?

The CPU is measured: products and memory by size, arithmetic, exp, tanh, transposition, calls, new memory. Each program
is predicted from its jaxpr, compiled and run. Times, the CPU's figures too, are the best of several rounds that take
every program in turn, straight after itself as a step after a step, since neighbours on the machine disturb single
ones; memory is arguments, outputs and temporaries of XLA's plan.

    python experiments/predict_here.py
"""

import dataclasses
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, track

from refgrad.cost.predict import predict
from refgrad.cost.predict.fusion import XLA_CPU
from refgrad.cost.predict.host import measured
from refgrad.models import gpt2

Program = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rounds of the timing, a factor on the programs' sizes, and bounds of the median errors."""

    rounds: int
    rows: int
    seconds: float
    memory: float

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.rows < 8:
            raise ValueError(f"rounds is {self.rounds} and rows {self.rows}, but must be at least 1 and 8")


def norm(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    """Layer norm as it is written in an afternoon."""
    m = x.mean(-1, keepdims=True)
    v = ((x - m) ** 2).mean(-1, keepdims=True)
    return (x - m) * jax.lax.rsqrt(v + 1e-5) * w + b


def mlp(x: jax.Array, w: jax.Array, b: jax.Array, v: jax.Array, c: jax.Array) -> jax.Array:
    """Two layers with GELU between them."""
    return jax.nn.gelu(x @ w + b) @ v + c


def adam(p: jax.Array, m: jax.Array, v: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    """One update."""
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    return p - 1e-3 * m / (jnp.sqrt(v) + 1e-8), m, v


def backward(f: Callable[..., Any]) -> Callable[..., Any]:
    """The pullback of f, its cotangent first."""
    return lambda cotangent, *args: jax.vjp(f, *args)[1](cotangent)


def programs(rows: int) -> dict[str, Program]:
    """The programs, by name, at so many rows."""

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    x, wide = shape(rows, 768), shape(rows, 3072)
    vector, weights = shape(768), (shape(768, 3072), shape(3072), shape(3072, 768), shape(768))
    heads = (shape(rows // 8, 256, 8, 64),) * 3
    attention = partial(jax.nn.dot_product_attention, is_causal=True)
    config = gpt2.Config(n_layer=2, n_head=4, n_embd=256, n_positions=128, vocab_size=1024)
    found: dict[str, Program] = {
        "product": (jnp.matmul, (x, shape(768, 3072))),
        "layer norm": (norm, (x, vector, vector)),
        "layer norm, backward": (backward(norm), (x, x, vector, vector)),
        "GELU": (jax.nn.gelu, (wide,)),
        "GELU, backward": (backward(jax.nn.gelu), (wide, wide)),
        "softmax": (jax.nn.softmax, (wide,)),
        "MLP": (mlp, (x, *weights)),
        "MLP, backward": (backward(mlp), (x, x, *weights)),
        "Adam": (adam, (shape(rows * 768),) * 4),
        "attention": (attention, heads),
    }
    for rules in ("autodiff", "derived", "fused"):
        loss, *args = gpt2.abstract_loss(config, max(rows // 128, 1), 128, rules=rules)
        found[f"GPT-2, {rules}"] = (jax.value_and_grad(loss), tuple(args))
    return found


def filled(spec: Any) -> jax.Array:
    """Values of a type: ids below 256, floats from a normal."""
    if jnp.issubdtype(spec.dtype, jnp.integer):
        return jnp.arange(spec.size, dtype=spec.dtype).reshape(spec.shape) % 256
    return 0.1 * jax.random.normal(jax.random.key(spec.size), spec.shape, spec.dtype)


def _known(answer: Any) -> Any:
    if answer is None:
        raise RuntimeError(f"the {jax.default_backend()} backend does not analyse its programs")
    return answer


def _finished(program: Callable[..., Any], args: tuple[Any, ...]) -> None:
    jax.block_until_ready(program(*args))


def run(settings: Settings) -> Result:
    """Compile, measure the CPU and the programs in the same rounds, predict."""
    chosen = programs(settings.rows)
    compiled = {name: jax.jit(f).lower(*args).compile() for name, (f, args) in track(list(chosen.items()), "compiled")}
    arrays = {name: jax.tree.map(filled, args) for name, (_, args) in chosen.items()}
    runs = {name: partial(_finished, program, arrays[name]) for name, program in compiled.items()}
    device, best = measured(runs, settings.rounds)
    predicted = {name: predict(f, *args, device=device) for name, (f, args) in track(list(chosen.items()), "predicted")}
    rows = []
    for name, program in compiled.items():
        found, plan, answer = predicted[name], _known(program.memory_analysis()), _known(program.cost_analysis())
        memory = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        moved = answer["bytes accessed"]
        rows.append(
            (
                name,
                best[name] * 1e3,
                found.seconds * 1e3,
                found.seconds / best[name] - 1,
                found.bytes / moved - 1,
                memory,
                found.memory.peak,
                found.memory.peak / memory - 1,
            )
        )
    errors = [statistics.median(abs(row[n]) for row in rows) for n in (3, 4, 7)]
    answer = [
        f"{len(rows)} programs on this CPU, not compiled: median error of times {errors[0]:.1%}, of bytes moved under "
        f"the fusion model {XLA_CPU.name} {errors[1]:.1%}, of memory {errors[2]:.1%}.",
        f"The CPU by measuring it: {device.sizes[-1][1] / 1e9:.0f} GFLOP/s in products of 1024, "
        f"{device.stream(1 << 20) / 1e9:.0f} GB/s within 1 MB and {device.bandwidth / 1e9:.1f} within 64.",
    ]
    failures = []
    if errors[0] > settings.seconds:
        failures.append(f"median error of times ≤ {settings.seconds:.0%}: it is {errors[0]:.1%}")
    if errors[2] > settings.memory:
        failures.append(f"median error of memory ≤ {settings.memory:.0%}: it is {errors[2]:.1%}")

    def paint(axes: Any) -> None:
        axes.loglog([row[1] for row in rows], [row[2] for row in rows], "o", label="programs")
        ends = [min(row[1] for row in rows), max(row[1] for row in rows)]
        axes.loglog(ends, ends, "-", color="gray", label="equal")
        axes.set(xlabel="measured (ms)", ylabel="predicted (ms)")
        axes.legend()

    header = (
        "program",
        "measured (ms)",
        "predicted (ms)",
        "error",
        "error of bytes moved",
        "memory by XLA's plan",
        "predicted",
        "error",
    )
    alt = f"Predicted over measured times of {len(rows)} programs."
    figure = Figure("Predicted and measured on this CPU", alt, paint)
    return Result(answer, Table(header, rows), [figure], failures=failures)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
