"""Beside the exact gradient of a whole GPT-2, how far off are float64 autodiff and the derived rules?

Truth is `refgrad.verify.exact`: the gradient of the loss for every entry of every leaf, in exact arithmetic, with a
bound of its own error. Against it stand autodiff, the derived rules and the fused ones, in float64 and float32. The
error of a leaf is max|got − truth| / ulp(max|truth|), in ulps of the dtype. The gradient of a larger model is only
timed.

    python experiments/true_errors.py
    python experiments/true_errors.py --set sequence=48
"""

import dataclasses
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, main

from refgrad import verify
from refgrad.models import gpt2
from refgrad.report.figures import COLORS, HATCHES
from refgrad.verify.exact import Balls

RULES = ("autodiff", "derived", "fused")
DTYPES = ("float64", "float32")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Batch and sequence of the tiny GPT-2, the sizes of the one that is timed, the most seconds of both, the seed."""

    batch: int
    sequence: int
    n_layer: int
    n_embd: int
    vocab_size: int
    seconds: list[float]
    seed: int

    def __post_init__(self) -> None:
        for key in ("batch", "sequence", "n_layer", "n_embd", "vocab_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}, but must be at least 1")
        if len(self.seconds) != 2:
            raise ValueError(f"seconds is {self.seconds}, but holds two limits: of the tiny model and the larger one")


def model(settings: Settings, config: gpt2.Config, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    """Parameters in float32's values, and tokens with their targets."""
    params = gpt2.init(jax.random.key(settings.seed), config)
    ids = np.random.default_rng(settings.seed).integers(0, config.vocab_size, (settings.batch, settings.sequence + 1))
    ids = ids.astype(np.int32)
    return jax.tree.map(lambda x: x.astype(jnp.float32).astype(dtype), params), (ids[:, :-1], ids[:, 1:])


def truth(settings: Settings, config: gpt2.Config, dtype: str) -> tuple[list[Balls], float]:
    """The exact gradient of the program with its constants in `dtype`, and the seconds, tracing included."""
    params, (tokens, targets) = model(settings, config, jnp.dtype(dtype))
    start = time.perf_counter()
    found = verify.exact(lambda p: gpt2.loss(p, tokens, targets, config, rules="autodiff"), params).gradient()
    return found, time.perf_counter() - start


def errors(settings: Settings, config: gpt2.Config, balls: list, rules: str, dtype: str) -> list[float]:
    """The error of every leaf by one set of rules in one dtype, in ulps."""
    params, (tokens, targets) = model(settings, config, jnp.dtype(dtype))
    loss = lambda p: gpt2.loss(p, tokens, targets, config, rules=rules)  # noqa: E731
    with jax.default_matmul_precision("highest"):
        leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    return [
        float(np.max(ball.error(np.asarray(got)))) / float(np.spacing(np.max(np.abs(ball.mid)).astype(dtype)))
        for ball, got in zip(balls, leaves, strict=True)
    ]


def run(settings: Settings) -> Result:
    """Find both truths, then measure the tiny model's gradients."""
    tiny = gpt2.Config()
    large = gpt2.Config(n_layer=settings.n_layer, n_embd=settings.n_embd, vocab_size=settings.vocab_size)
    with jax.enable_x64(True):
        truths = {dtype: truth(settings, tiny, dtype) for dtype in DTYPES}
        large_balls, large_seconds = truth(settings, large, "float32")
        found = {(r, d): errors(settings, tiny, truths[d][0], r, d) for d in DTYPES for r in RULES}
        params, _ = model(settings, tiny)
    balls, tiny_seconds = truths["float32"]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    sizes = [sum(ball.mid.size for ball in some) for some in (balls, large_balls)]
    bound = max(float(np.max(b.rad) / np.max(np.abs(b.mid))) for b in balls)
    answer = [
        f"The exact gradient of {sizes[0]:,} parameters took {tiny_seconds:.2f} s, that of {sizes[1]:,} "
        f"{large_seconds:.1f} s. In every leaf it is known to {bound:.1e} of the largest entry.",
        *(
            f"{d}: the worst leaf errs by "
            + ", ".join(f"{max(found[r, d]):.3g} ulps ({r})" for r in RULES)
            + "; the median leaf by "
            + ", ".join(f"{statistics.median(found[r, d]):.3g}" for r in RULES)
            + "."
            for d in DTYPES
        ),
    ]
    failures = [
        f"the exact gradient of {size:,} parameters took {took:.1f} s, above {most:g}"
        for size, took, most in zip(sizes, (tiny_seconds, large_seconds), settings.seconds, strict=True)
        if took > most
    ]
    failures += [
        f"{name} has entries without a truth" for name, b in zip(paths, balls, strict=True) if not b.decided.all()
    ]
    rows = [
        [rules, dtype, max(e), paths[int(np.argmax(e))], statistics.median(e)] for (rules, dtype), e in found.items()
    ]
    table = Table(["rules", "dtype", "worst leaf (ulps)", "which", "median leaf (ulps)"], rows)
    lines = [[p, *(found[key][i] for key in found)] for i, p in enumerate(paths)]
    header = ["leaf", *(f"{rules}, {dtype} (ulps)" for rules, dtype in found)]
    return Result(answer, table, [figure(found)], data=Table(header, lines), failures=failures)


def figure(found: dict[tuple[str, str], list[float]]) -> Figure:
    """Leaves in the order of their errors."""

    def paint(axes) -> None:
        for k, (rules, errs) in enumerate((r, found[r, "float32"]) for r in RULES):
            axes.bar(
                [n + 0.28 * k for n in range(len(errs))], sorted(errs), 0.28,
                color=COLORS[k], hatch=HATCHES[k], label=rules,
            )  # fmt: skip
        axes.set(xlabel="leaves, by their error", ylabel="error of the gradient (ulps of float32)")
        axes.legend()

    ends = ", ".join(f"{max(found[r, 'float32']):.3g} by {r}" for r in RULES)
    return Figure("True errors of float32 gradients", f"Bars of each leaf's error; the largest are {ends}.", paint)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
