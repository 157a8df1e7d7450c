"""`batch`: the rule under `vmap`, against a loop over the examples.

JAX asks `batch` of the forward alone. What it returns has rules of its own, so that the gradient of the mapped rule is
compared too: the cotangent of an argument that the examples share is the sum of theirs.
"""

import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.verify.method_case import Job, MethodCase
from refgrad.verify.numbers import sample
from refgrad.verify.report import Row

EXAMPLES = 3
GRADIENT = ("batch", "vjp_bwd")
PLANS = 8  # ways to place the new axis, at most

Plan = tuple[int | None, ...]  # `in_axes`, one for each leaf


def batch(case: MethodCase) -> Iterator[Row]:
    """Rows of `batch`: the outputs for every plan, and the cotangents for two of them."""
    yield from case.unavailable("batch")
    if "batch" not in case.methods:
        return
    ranks = [np.ndim(x) for x in (*case.diff, *case.rest)]
    plans = _plans(ranks)
    jobs = [Job(_values(case, plan), _stacked(case, plan), _note(case, plan)) for plan in plans]
    pulled = [p for p in plans if p in (plans[0], plans[-1])] if case.sound and case.oracle.entries else []
    cts = [np.stack(c) for c in zip(*map(case.cotangents, range(EXAMPLES)), strict=True)]
    pulls = [Job(_pull(case, p), (*_stacked(case, p), cts), f"gradient, {_note(case, p)}") for p in pulled]
    for plan, job, (outputs, failed) in zip(plans, jobs, case.run_each(("batch",), jobs), strict=True):
        yield from failed or _against_loop(case, plan, outputs, job.note)
    for plan, job, (cotangents, failed) in zip(pulled, pulls, case.run_each(GRADIENT, pulls), strict=True):
        yield from failed or _against_sums(case, plan, cotangents, job)


def _plans(ranks: list[int]) -> list[Plan]:
    """The new axis in the first argument, in front in sets of them, elsewhere in one of them, last in all."""
    n = len(ranks)
    fronts = [plan for plan in itertools.product((None, 0), repeat=n) if any(axis == 0 for axis in plan)]
    alone = [
        tuple(axis if j == i else None for j in range(n)) for i, rank in enumerate(ranks) for axis in range(1, rank + 1)
    ]
    first: Plan = (0, *(None,) * (n - 1))
    return list(dict.fromkeys((first, *sample(fronts, PLANS // 2), *sample(alone, PLANS // 2), tuple(ranks))))


def _examples(case: MethodCase, plan: Plan) -> list[tuple[list, list]]:
    """The arguments of each example: only mapped ones differ."""
    own, n = [*case.diff, *case.rest], len(case.diff)
    found = []
    for k in range(EXAMPLES):
        diff, rest = case.moved(k)
        leaves = [x if axis is not None else o for x, o, axis in zip((*diff, *rest), own, plan, strict=True)]
        found.append((leaves[:n], leaves[n:]))
    return found


def _stacked(case: MethodCase, plan: Plan) -> tuple[list, list]:
    leaves = zip(*((*diff, *rest) for diff, rest in _examples(case, plan)), strict=True)
    full = [jnp.stack(xs, axis) if axis is not None else xs[0] for xs, axis in zip(leaves, plan, strict=True)]
    return full[: len(case.diff)], full[len(case.diff) :]


def _mapped(case: MethodCase, plan: Plan):
    n = len(case.diff)
    return jax.vmap(case.ruled, in_axes=(list(plan[:n]), list(plan[n:])), axis_size=EXAMPLES)


def _note(case: MethodCase, plan: Plan) -> str:
    names = [*case.names, *(f"other {i}" for i in range(len(case.rest)))]
    return "new axis in " + ", ".join(f"{n} at {a}" for n, a in zip(names, plan, strict=True) if a is not None)


def _values(case: MethodCase, plan: Plan) -> Callable:
    return lambda diff, rest: _mapped(case, plan)(diff, rest)[0]


def _pull(case: MethodCase, plan: Plan) -> Callable:
    """The gradient of the mapped rule."""
    return lambda diff, rest, cts: jax.vjp(lambda *d: _mapped(case, plan)(list(d), rest)[0], *diff)[1](cts)


def _against_loop(case: MethodCase, plan: Plan, outputs: list, note: str) -> Iterator[Row]:
    each = [case.values(*example)[: len(case.outputs)] for example in _examples(case, plan)]
    expected = [np.stack(ys) for ys in zip(*each, strict=True)]
    like = [jax.ShapeDtypeStruct((EXAMPLES, *a.shape), a.dtype) for a in case.outputs]
    yield from case.compare("batch", ("batch",), case.labels, outputs, expected, case.allowed()[0], like, note)


def _against_sums(case: MethodCase, plan: Plan, cotangents: list, job: Job) -> Iterator[Row]:
    each = [case.oracle.cotangents(*e, case.cotangents(k)) for k, e in enumerate(_examples(case, plan))]
    expected = [
        np.stack(gs, axis) if axis is not None else np.sum(np.stack(gs), 0)
        for gs, axis in zip(zip(*each, strict=True), plan, strict=False)
    ]
    allowed = [EXAMPLES * a for a in case.allowed(case.oracle.tolerance)[1]]
    yield from case.compare("batch", GRADIENT, case.names, cotangents, expected, allowed, job.args[0], job.note)
