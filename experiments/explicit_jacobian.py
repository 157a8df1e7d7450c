"""A matrix product's explicit Jacobian: what does it cost beside its rule, in bytes and time, until it no longer fits?

Y = X W, with X of N × D and W of D × M. The Jacobian of Y by X has (N·M)·(N·D) elements, Wᵀ in each of N diagonal
blocks and zeros else; its product with Ȳ gives X̄ = Ȳ Wᵀ, which the rule computes without it. Made explicitly while it
takes no more than `limit` bytes (asked before it is made), and compared with the rule's result; derived beyond.
Temporaries: XLA's plan of the way by the Jacobian, which shows that it is made.

    python experiments/explicit_jacobian.py
"""

import dataclasses
import math
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, interleaved, main, temporaries, track

from refgrad import ops
from refgrad.report.figures import INK, legend_below, series

WIDTH = 4  # bytes of a float32
PRINTED = (62_500_000_000, 250_000_000_000)  # as printed (D3, the matrix product): elements, bytes
ALLOWED = 1e-5  # relative error of X̄ by the Jacobian against the rule's


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sides n of square products, the bytes that a Jacobian may take, the document's N, D, M, rounds of timing."""

    sizes: list[int]
    limit: int
    document: list[int]
    rounds: int

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or self.sizes != sorted(set(self.sizes)):
            raise ValueError(f"sizes is {self.sizes}, but must be rising, from 1 at least")
        if len(self.document) != 3 or min(self.document) < 1:
            raise ValueError(f"document is {self.document}, but must be N, D and M")
        if self.limit < jacobian_bytes(*[self.sizes[0]] * 3):
            raise ValueError(
                f"limit is {self.limit}, but the first size alone takes {jacobian_bytes(*[self.sizes[0]] * 3)}"
            )


@dataclasses.dataclass(frozen=True)
class Point:
    """One square product: bytes of its Jacobian and of what the rule keeps; where it fits also those of XLA's plan,
    seconds of X̄, and the relative difference of the two results."""

    n: int
    explicit_bytes: int
    rule_bytes: int
    temporaries: int = 0
    explicit_s: float = math.nan
    rule_s: float = math.nan
    error: float = math.nan

    @property
    def fits(self) -> bool:
        """True if the Jacobian was made."""
        return self.temporaries > 0

    def row(self) -> list[int | float | None]:
        """The point's line of the table, seconds in milliseconds."""
        made = [self.temporaries, 1e3 * self.explicit_s, 1e3 * self.rule_s, self.error]
        return [self.n, self.explicit_bytes, self.rule_bytes, *(made if self.fits else [None] * len(made))]


def jacobian_bytes(n: int, d: int, m: int) -> int:
    """Bytes of ∂Y/∂X of (n, d) @ (d, m) in float32."""
    return WIDTH * (n * m) * (n * d)


def rule_bytes(n: int, d: int, m: int) -> int:
    """Bytes that the rule keeps: both factors."""
    return WIDTH * (n * d + d * m)


def explicit(w: jax.Array, dy: jax.Array) -> jax.Array:
    """X̄ through the Jacobian, which is made as an array: (N·M, N·D), row (n, m), column (n', d), δ_nn' w_dm."""
    n = dy.shape[0]
    jacobian = jnp.kron(jnp.eye(n, dtype=w.dtype), w.T)
    return (jnp.ravel(dy) @ jacobian).reshape(n, w.shape[0])


def by_rule(x: jax.Array, w: jax.Array, dy: jax.Array) -> jax.Array:
    """X̄ by the operation's own rule."""
    return jax.vjp(lambda x: ops.matmul(x, w), x)[1](dy)[0]


def measure(n: int, settings: Settings) -> Point:
    """One size: bytes derived, time and result where the Jacobian fits."""
    sides = (n, n, n)
    point = Point(n, jacobian_bytes(*sides), rule_bytes(*sides))
    if point.explicit_bytes > settings.limit:
        return point
    rng = np.random.default_rng(n)
    x, w, dy = (jnp.asarray(rng.standard_normal((n, n)), jnp.float32) for _ in range(3))
    compiled = jax.jit(explicit).lower(w, dy).compile()
    calls = {"explicit": partial(compiled, w, dy), "rule": partial(jax.jit(by_rule), x, w, dy)}
    seconds = interleaved(calls, settings.rounds)
    slow, fast = calls["explicit"](), calls["rule"]()
    error = float(jnp.max(jnp.abs(slow - fast)) / jnp.max(jnp.abs(fast)))
    return Point(
        n, point.explicit_bytes, point.rule_bytes, temporaries(compiled), seconds["explicit"], seconds["rule"], error
    )


def run(settings: Settings) -> Result:
    """Grow the product until its Jacobian no longer fits, then derive."""
    points = [measure(n, settings) for n in track(settings.sizes, "sizes")]
    fits = [p for p in points if p.fits]
    failures = [
        f"n = {p.n}: X̄ by the Jacobian differs from the rule's by {p.error:.1e}, but may by {ALLOWED:.0e}"
        for p in fits
        if not p.error <= ALLOWED
    ]
    failures += [f"n = {p.n}: XLA's plan makes no Jacobian" for p in fits if p.temporaries < p.explicit_bytes]
    last, too_large = fits[-1], [p.n for p in points if not p.fits]
    elements = jacobian_bytes(*settings.document) // WIDTH
    n, d, m = settings.document
    answer = [
        f"At n = {last.n}, the last that fits, the Jacobian takes {last.explicit_bytes:,} bytes and the rule keeps "
        f"{last.rule_bytes:,}, 1/{last.explicit_bytes // last.rule_bytes:,} of them.",
        f"The gradient by the Jacobian takes {last.explicit_s / last.rule_s:,.0f} times as long there.",
        f"Not within {settings.limit:,} bytes: n = {', '.join(map(str, too_large)) or 'none of these'}.",
        f"The document's {n} × {d} times {d} × {m}: {elements:,} elements, {WIDTH * elements:,} bytes "
        f"(printed: {PRINTED[0]:,} and {PRINTED[1]:,}); the rule keeps {rule_bytes(n, d, m):,} bytes.",
    ]
    header = ["n", "Jacobian (bytes)", "rule keeps (bytes)", "temporaries (bytes)"]
    header += ["by Jacobian (ms)", "by rule (ms)", "difference"]
    rows = [p.row() for p in points]
    return Result(answer, Table(header, rows), [figure(settings, points)], ("D3.13", "D3.12"), failures=failures)


def figure(settings: Settings, points: list[Point]) -> Figure:
    """Left bytes with the limit and the document's product, right time while the Jacobian fits."""
    fits = [p for p in points if p.fits]
    n, d, m = settings.document

    def paint(panels) -> None:
        left, right = panels
        sides = [p.n for p in points]
        left.loglog(sides, [p.explicit_bytes for p in points], label="explicit Jacobian", **series(0))
        left.loglog(sides, [p.rule_bytes for p in points], label="kept by the rule", **series(1))
        left.axhline(settings.limit, color=INK, linewidth=1)
        left.annotate(f"limit, {settings.limit / 1e9:g} GB", (sides[0], settings.limit), va="bottom")
        place = ((n * d * m) ** (1 / 3), jacobian_bytes(n, d, m))
        left.plot(*place, marker="*", markersize=11, linestyle="none", color=series(0)["color"])
        left.annotate(f"{n} × {d} × {m}", place, ha="right", va="center", xytext=(-9, 0), textcoords="offset points")
        left.margins(y=0.12)
        left.set(xlabel="n, side (entries), cube root of N·D·M", ylabel="memory (bytes)")
        legend_below(left)
        right.loglog([p.n for p in fits], [1e3 * p.explicit_s for p in fits], label="by explicit Jacobian", **series(0))
        right.loglog([p.n for p in fits], [1e3 * p.rule_s for p in fits], label="by the rule", **series(1))
        right.set(xlabel="n, side of both matrices (entries)", ylabel="time of X̄ (ms)")
        legend_below(right)

    alt = (
        f"Left, on logarithmic axes: the Jacobian's bytes rise as n⁴ and pass the limit of {settings.limit:,} after "
        f"n = {fits[-1].n}, the rule's rise as n²; a star marks the document's product at {jacobian_bytes(n, d, m):,}. "
        f"Right: at n = {fits[-1].n} the time is {1e3 * fits[-1].explicit_s:.1f} ms by the Jacobian and "
        f"{1e3 * fits[-1].rule_s:.3f} ms by the rule."
    )
    return Figure("An explicit Jacobian against the rule", alt, paint, options={"size": (10, 4.2), "columns": 2})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
