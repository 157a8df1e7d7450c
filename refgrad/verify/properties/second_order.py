"""Second order: the rule differentiated once more, against the oracle differentiated once more, in float64.

Reverse over reverse with respect to the arguments and to the cotangent, and forward over reverse where JAX allows it:
a `_fwd` that calls the rule itself shuts forward mode out, which is "not available" and no fault. Both are compared
with the oracle's reverse over reverse, since the Hessian of ⟨cotangent, f⟩ is symmetric.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from refgrad.jaxpr.rules import meets_rule
from refgrad.verify.allowance import C, allowance, reductions
from refgrad.verify.case import LARGEST, Case
from refgrad.verify.numbers import difference, draws_like, generator, to_wide
from refgrad.verify.oracle import Leaves, Wide, first_line
from refgrad.verify.report import FAIL, KINK, OK, UNAVAILABLE, Row
from refgrad.verify.subject import Flat, pullback

REVERSE, FORWARD = "reverse over reverse", "forward over reverse"


def second_order(case: Case) -> Iterator[Row]:
    """One row per argument for each of the two; one for the cotangent."""
    if case.order < 2:
        return
    if case.oracle.program is None:
        yield Row("second order", "", UNAVAILABLE, note="the plain forward has no reverse mode")
        return
    if any(mask is not None for mask in case.kinks.skip):
        yield Row("second order", "", KINK, note="the function has no first derivative at these arguments")
        return
    directions = draws_like(generator(case.seed, 6), [to_wide(x) for x in case.diff])
    given = (case.diff, case.rest, case.drawn(0), directions)
    try:
        truth = Wide(_reverse(case.plain), *given)
    except Exception as error:  # whatever JAX raises about the plain forward
        yield Row("second order", "", UNAVAILABLE, note=f"neither for the plain forward: {first_line(error)}")
        return
    expected = truth(*given)
    limits = _limits(case, truth, given, expected)
    yield from _compare(case, REVERSE, _reverse(case.flat), given, expected, limits)
    if _calls_rule(case, directions):
        yield Row(FORWARD, "", UNAVAILABLE, note="_fwd calls the rule: let it call the plain function")
        return
    yield from _compare(case, FORWARD, _forward(case.flat), given, expected[: len(case.diff)], limits[: len(case.diff)])


def _reverse(flat: Flat) -> Callable:
    """`(floats, others, cts, directions) →` products of the Hessian with the directions, then the same by cotangent."""

    def program(diff, rest, cts, directions):
        _, back = jax.vjp(lambda d, c: pullback(flat)(d, rest, c)[1], list(diff), list(cts))
        seconds, thirds = back([jax.numpy.asarray(v, x.dtype) for v, x in zip(directions, diff, strict=True)])
        return [*seconds, *thirds]

    return program


def _forward(flat: Flat) -> Callable:
    """The same products with the directions by forward mode through the rule."""

    def program(diff, rest, cts, directions):
        tangents = [jax.numpy.asarray(v, x.dtype) for v, x in zip(directions, diff, strict=True)]
        return jax.jvp(lambda d: pullback(flat)(d, rest, cts)[1], (list(diff),), (tangents,))[1]

    return program


def _calls_rule(case: Case, directions: Leaves) -> bool:
    """Whether forward mode meets a rule: JAX stages a call of one as `custom_lin`, and refuses to run it."""
    own = (case.diff, case.rest, case.cotangent(0), directions)
    try:
        traced = jax.make_jaxpr(_forward(case.flat))(*own)
    except Exception:  # said in full by the comparison itself
        return False
    return meets_rule(traced)


def _limits(case: Case, truth: Wide, given: tuple, expected: Leaves) -> list[float]:
    """The allowance of each product, or the noise of the truth itself where that is larger.

    The first derivative is a difference of large terms more often than the function is; its own derivative shows how
    far it moves when the arguments move by a few units in the last place.
    """
    lengths = reductions(truth.traced(*given))
    types = [x.dtype for x in (*case.diff, *case.drawn(0))]
    if not (truth.own_types or truth.limits or case.limits):
        types = [to_wide(np.zeros((), t)).dtype for t in types]
    rng, ulps = generator(case.seed, 7), 4 * float(np.finfo(np.float64).eps)
    diff, *others = given
    moved = truth([to_wide(x) * (1 + ulps * rng.uniform(-1, 1, np.shape(x))) for x in diff], *others)
    noise = [difference(m, e).error for m, e in zip(moved, expected, strict=True)]
    return [max(allowance(t, n), min(C * e, LARGEST)) for t, n, e in zip(types, lengths, noise, strict=True)]


def _compare(
    case: Case, name: str, program: Callable, given: tuple, expected: Leaves, limits: list[float]
) -> Iterator[Row]:
    try:
        got = Wide(program, *given)(*given)
    except Exception as error:  # whatever JAX raises about the rule
        yield Row(name, "", UNAVAILABLE, note=case.lacked(error) or first_line(error))
        return
    outputs = len(expected) - len(case.diff)
    labels = [*case.subject.arguments, *(f"cotangent {k}" if outputs > 1 else "cotangent" for k in range(outputs))]
    for label, g, e, allowed in zip(labels[: len(expected)], got, expected, limits, strict=True):
        found = difference(g, e)
        yield Row(name, label, OK if found.error <= allowed else FAIL, **found.cells(), allowed=allowed)
