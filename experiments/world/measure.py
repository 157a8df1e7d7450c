"""The verdict of `verify.check` on one use, its seconds, and an independent reference beside it."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import verify
from refgrad.verify.report import NOT_DECIDED, NOT_FINITE
from world.use import Use

MEANT = ("intent", "reference", "reference_vjp")
DIRECTIONS = 3
STEP = {"float64": 1e-5, "float32": 2e-2}
ERROR = {"float64": 1e-6, "float32": 2e-2, "bfloat16": 5e-2, "float16": 2e-2}  # of a difference; a plain re-expression
CLOSE = {"float64": 1e-8, "float32": 2e-4, "bfloat16": 3e-2, "float16": 5e-3}


def measure(use: Use) -> dict[str, Any]:
    """Check one use; exceptions are a result."""
    with jax.enable_x64(use.x64):
        start = time.process_time()
        try:
            report = verify.check(use.f, *use.args, **use.settings)
            outcome, found = verdict(use, report), first_failure(report)
        except Exception as error:
            outcome, found = "crashed", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        seconds = time.process_time() - start
        by, reference = confirm(use)
    return {
        "use": use.name,
        "expected": use.expected,
        "outcome": outcome,
        "seconds": round(seconds, 2),
        "budget": use.settings.get("seconds"),
        "found": found,
        "why": use.why,
        "reference": by,
        "confirmed": reference,
    }


def verdict(use: Use, report: verify.Report) -> str:
    """Return the outcome of a report: undecided where no entry could be compared."""
    if not report.ok:
        return "not decided" if getattr(report, "status", "") == "partial" else "wrong"
    accuracy = [row for row in report.rows if row.property == "accuracy"]
    if accuracy and all(row.verdict in (NOT_DECIDED, NOT_FINITE) for row in accuracy):
        return "not decided"
    return "meant to differ" if any(use.settings.get(key) is not None for key in MEANT) else "right"


def first_failure(report: verify.Report) -> str:
    """Return the first rows that fail, as text."""
    rows = [" ".join(filter(None, (*row.cells(), row.note))) for row in report.failures]
    more = f" (and {len(rows) - 2} more)" if len(rows) > 2 else ""
    return ("; ".join(rows[:2]) + more)[:400]


def confirm(use: Use) -> tuple[str, str]:
    """Compare the rule's cotangents with an independent reference: (which one, "yes", "no", or why not at all).

    The reference is float64 autodiff of the plain re-expression where the use has one, else differences of the forward
    along random directions.
    """
    if use.expected == "meant to differ":
        return "", ""
    kind = "differences" if use.plain is None else "re-expression"
    try:
        error, allowed = by_differences(use) if use.plain is None else by_plain(use, use.plain)
        tolerance = use.settings.get("tolerance") or 0
        return kind, "yes" if error <= max(allowed, 10 * tolerance) else f"no: {error:.1e} for {allowed:.0e}"
    except Exception as error:
        return kind, f"not run: {type(error).__name__}: {' '.join(str(error).split())}"[:160]


def by_plain(use: Use, plain: Callable) -> tuple[float, float]:
    """Return the largest relative error of the rule's cotangents against float64 autodiff of `plain`."""
    flat, arrays = split(use.f, use)
    outputs, back = jax.vjp(flat, *arrays)
    rng = np.random.default_rng(1)
    cotangents = [np.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for y in outputs]
    got = [np.asarray(g, np.complex128) for g in back([jnp.asarray(c) for c in cotangents])]
    with jax.enable_x64(True):
        wide = [widened(x) for x in arrays]
        flat, _ = split(plain, use)
        outputs, back = jax.vjp(flat, *wide)
        truth = back([jnp.asarray(c).astype(y.dtype) for c, y in zip(cotangents, outputs, strict=True)])
    errors = [relative(g, np.asarray(t, np.complex128)) for g, t in zip(got, truth, strict=True)]
    return max(errors), max(CLOSE[coarsest(x)] for x in arrays)


def by_differences(use: Use) -> tuple[float, float]:
    """Return the error of the rule against central differences of the forward, relative to the sum of sizes."""
    with jax.enable_x64(True):
        flat, arrays = split(use.f, use)
        wide = [widened(x) for x in arrays]
        try:
            outputs, back = jax.vjp(flat, *wide)
        except (TypeError, ValueError):  # a function for its own dtype alone
            wide = arrays
            outputs, back = jax.vjp(flat, *wide)
        kind = str(jnp.result_type(*[jnp.finfo(y.dtype).dtype for y in (*outputs, *wide)]))
        kind = min((str(jnp.finfo(y.dtype).dtype) for y in (*outputs, *wide)), key=lambda d: jnp.finfo(d).bits)
        step = STEP.get(kind, 2e-2)
        rng, worst = np.random.default_rng(1), 0.0
        for _ in range(DIRECTIONS):
            cotangents = [jnp.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for y in outputs]
            gradient = back(cotangents)
            directions = [jnp.asarray(rng.standard_normal(x.shape)).astype(x.dtype) for x in wide]

            def along(t, directions=directions, cotangents=cotangents):
                moved = flat(*[(x + t * d).astype(x.dtype) for x, d in zip(wide, directions, strict=True)])
                return sum(inner(c, y) for c, y in zip(cotangents, moved, strict=True))

            coarse, fine = ((along(h) - along(-h)) / (2 * h) for h in (step, step / 2))
            expected = (4 * fine - coarse) / 3
            terms = [inner(g, d) for g, d in zip(gradient, directions, strict=True)]
            scale = sum(map(abs, terms)) + abs(expected)
            worst = max(worst, abs(sum(terms) - expected) / scale if scale else 0.0)
    return float(worst), ERROR[kind]


def split(f: Callable, use: Use) -> tuple[Callable, list[jax.Array]]:
    """Return `f` as a function from its floating arrays to its floating results, and these arrays."""
    leaves, tree = jax.tree.flatten(use.args)
    argnums = use.settings.get("argnums")
    chosen = range(len(use.args)) if argnums is None else {argnums} if isinstance(argnums, int) else set(argnums)
    owners = [i for i, arg in enumerate(use.args) for _ in jax.tree.leaves(arg)]
    places = [i for i, x in enumerate(leaves) if owners[i] in chosen and inexact(x)]
    kwargs = use.settings.get("kwargs") or {}

    def flat(*arrays: jax.Array) -> list[jax.Array]:
        full = list(leaves)
        for i, x in zip(places, arrays, strict=True):
            full[i] = x
        return [y for y in jax.tree.leaves(f(*jax.tree.unflatten(tree, full), **kwargs)) if inexact(y)]

    return flat, [jnp.asarray(leaves[i]) for i in places]


def inexact(x: Any) -> bool:
    """Return True for floating and complex arrays."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def widened(x: jax.Array) -> jax.Array:
    """Return the array in float64 or complex128."""
    return jnp.asarray(x, jnp.complex128 if jnp.iscomplexobj(x) else jnp.float64)


def coarsest(x: jax.Array) -> str:
    """Return the name of the real dtype of an array."""
    return str(jnp.finfo(x.dtype).dtype)


def inner(a: jax.Array, b: jax.Array) -> float:
    """Return the real part of Σ a·b, in NumPy's float64."""
    return float(np.real(np.sum(np.asarray(a, np.complex128) * np.asarray(b, np.complex128))))


def relative(got: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest error relative to the largest entry of the truth; infinite where one is not finite alone."""
    same = (got == truth) | (np.isnan(got) & np.isnan(truth))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        error = np.abs(got - truth)[~same].max()
    size = np.abs(truth[np.isfinite(truth)]).max(initial=0.0)
    return float("inf") if np.isnan(error) else float(error / size) if size else float("inf")
