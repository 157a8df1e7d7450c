"""Second order: the rule differentiated once more in float64, against the truth's second derivatives.

Reverse over reverse with respect to the arguments and to the cotangent, and forward over reverse where JAX allows it:
a `_fwd` that calls the rule itself shuts forward mode out, which is "not available" and no fault. Both are compared
with the same products, since the Hessian of ⟨cotangent, f⟩ is symmetric. Entries that a kink concerns are left out:
there the derivative along a direction is not minus that along the opposite one.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from refgrad.jaxpr.rules import meets_rule
from refgrad.verify.allowance import C, allowance, reductions
from refgrad.verify.case import LARGEST, UNCERTAIN, FunctionCase
from refgrad.verify.intents import Pull
from refgrad.verify.numbers import NOISE, compared, draws_like, errors, generator, largest, magnitude, scaled, to_wide
from refgrad.verify.oracle import Float64Program, Leaves, first_line
from refgrad.verify.report import FAIL, KINK, OK, UNAVAILABLE, Row
from refgrad.verify.subject import Flat, pullback

REVERSE, FORWARD = "reverse over reverse", "forward over reverse"


class Expected(NamedTuple):
    """True products of the Hessian with directions, what is allowed, relatively, and to what."""

    products: Leaves  # NaN where the second derivative does not exist
    allowed: list[float]
    scales: list[float]
    movement: Callable[[], Leaves]  # of the truth at each entry, relatively, where more than that is to be explained


def second_order(case: FunctionCase) -> Iterator[Row]:
    """One row per argument for each of the two; one for the cotangent."""
    if case.order < 2:
        return
    exact = case.lane.exact.whole
    if not exact and case.reference_vjp is None and case.lane.oracle.program is None:
        yield Row("second order", "", UNAVAILABLE, note="the plain forward has no reverse mode")
        return
    if not exact and any(mask is not None for mask in case.points.skip):
        yield Row("second order", "", KINK, note="the function has no first derivative at these arguments")
        return
    directions = draws_like(generator(case.seed, 6), [to_wide(x) for x in case.diff])
    given = (case.diff, case.rest, case.drawn(0), directions)
    first = case.reference_vjp or _cotangents(case.plain)
    try:
        program = Float64Program(_reverse(first), *given, own=case.lane.own)
    except Exception as error:  # whatever JAX raises about the plain forward
        if not exact:
            what = (
                "neither for the plain forward"
                if case.reference_vjp is None
                else "the meant cotangents have no derivative"
            )
            yield Row("second order", "", UNAVAILABLE, note=f"{what}: {first_line(error)}")
            return
        program = None
    expected = _expected(case, program, given)
    yield from _compare(case, REVERSE, _reverse(_cotangents(case.flat)), given, expected, len(expected.products))
    if _calls_rule(case, directions):
        yield Row(FORWARD, "", UNAVAILABLE, note="_fwd calls the rule: let it call the plain function")
        return
    yield from _compare(case, FORWARD, _forward(case.flat), given, expected, len(case.diff))


def _products(case: FunctionCase, program: Float64Program | None, given: tuple) -> Leaves:
    """The true products: in exact arithmetic, or by the oracle in float64."""
    diff, _, cts, directions = given
    if case.lane.exact.whole and (found := case.lane.exact.hessian(diff, directions, cts)) is not None:
        return found
    if program is None:
        return [np.full_like(to_wide(x), np.nan) for x in (*given[0], *given[2])]
    return program(*given)


def _expected(case: FunctionCase, program: Float64Program | None, given: tuple) -> Expected:
    """The truth, and the allowance of each product."""
    diff, rest, cts, directions = given
    products = _products(case, program, given)
    if case.lane.exact.whole and any(mask is not None for mask in case.points.skip):
        behind = _products(case, program, (diff, rest, cts, [-v for v in directions]))
        pairs = zip(products, behind, strict=True)
        products = [np.where(errors(p, -b) <= LARGEST * np.abs(p), p, np.nan) for p, b in pairs]
    leaves = [*case.diff, *case.drawn(0)]
    lengths = reductions(program.traced(*given)) if program else [max(map(np.size, leaves))] * len(leaves)
    types = [x.dtype for x in leaves]
    if not (case.limits or (program and (program.own_types > case.lane.own or program.limits))):
        types = [to_wide(np.zeros((), t)).dtype for t in types]
    steps = [largest(v) / magnitude(x) for v, x in zip(directions, case.diff, strict=True)]
    own = [size * max(steps) for size in case.own_scale]
    own += [largest(to_wide(c)) * max(steps) for c in case.drawn(0)]
    scales = [scaled(largest(p), o, np.float64) for p, o in zip(products, own, strict=True)]
    least = max(case.lane.tolerance, case.tolerance)
    floors = [NOISE * float(np.finfo(np.float64).eps) * o / s for o, s in zip(own, scales, strict=True)]
    allowed = [max(allowance(t, n), least, f) for t, n, f in zip(types, lengths, floors, strict=True)]
    return Expected(products, allowed, scales, lambda: _movement(case, program, given, products, scales))


def _movement(
    case: FunctionCase, program: Float64Program | None, given: tuple, products: Leaves, scales: list[float]
) -> Leaves:
    """Distance that the truth moves with its arguments' last places, and that autodiff errs in float64.

    The first derivative is a difference of large terms more often than the function is.
    """
    diff, *others = given
    rng, ulps = generator(case.seed, 7), 4 * float(np.finfo(np.float64).eps)
    near = [to_wide(x) * (1 + ulps * rng.uniform(-1, 1, np.shape(x))) for x in diff]
    others_too = [program(*given)] if program and case.lane.exact.whole else []
    found = [_products(case, program, (near, *others)), *others_too]
    gaps = [
        C * np.max([errors(m, p) for m in ms], axis=0) / s for *ms, p, s in zip(*found, products, scales, strict=True)
    ]
    most = UNCERTAIN if case.lane.exact.whole else LARGEST
    return [np.where(gap <= most, gap, 0.0) for gap in gaps]


def _cotangents(flat: Flat) -> Pull:
    return lambda diff, rest, cts: pullback(flat)(diff, rest, cts)[1]


def _reverse(pull: Pull) -> Callable:
    """`(floats, others, cts, directions) →` products of the Hessian with the directions, then the same by cotangent."""

    def program(diff, rest, cts, directions):
        _, back = jax.vjp(lambda d, c: pull(d, rest, c), list(diff), list(cts))
        seconds, thirds = back([jax.numpy.asarray(v, x.dtype) for v, x in zip(directions, diff, strict=True)])
        return [*seconds, *thirds]

    return program


def _forward(flat: Flat) -> Callable:
    """The same products with the directions by forward mode through the rule."""

    def program(diff, rest, cts, directions):
        tangents = [jax.numpy.asarray(v, x.dtype) for v, x in zip(directions, diff, strict=True)]
        return jax.jvp(lambda d: pullback(flat)(d, rest, cts)[1], (list(diff),), (tangents,))[1]

    return program


def _calls_rule(case: FunctionCase, directions: Leaves) -> bool:
    """Return True if forward mode meets a rule: JAX stages a call of one as `custom_lin`, and refuses to run it."""
    own = (case.diff, case.rest, case.cotangent(0), directions)
    try:
        traced = jax.make_jaxpr(_forward(case.flat))(*own)
    except Exception:  # said in full by the comparison itself
        return False
    return meets_rule(traced)


def _compare(
    case: FunctionCase, name: str, program: Callable, given: tuple, expected: Expected, count: int
) -> Iterator[Row]:
    """Yield a row for each of the first `count` products."""
    case.clock.check()
    try:
        got = Float64Program(program, *given, own=case.lane.own)(*given)
    except Exception as error:  # whatever JAX raises about the rule
        yield Row(name, "", UNAVAILABLE, note=case.lacked(error) or first_line(error))
        return
    outputs = len(expected.products) - len(case.diff)
    labels = [*case.subject.arguments, *(f"cotangent {k}" if outputs > 1 else "cotangent" for k in range(outputs))]
    for i, (label, g) in enumerate(zip(labels[:count], got, strict=False)):
        e, allowed, scale = expected.products[i], expected.allowed[i], expected.scales[i]
        unknown = np.isnan(e)
        limits = np.full(e.shape, allowed)
        if np.any((errors(g, e) > allowed * scale) & ~unknown):
            limits = np.maximum(allowed, expected.movement()[i])
        found, most = compared(g, e, limits, scale, unknown)
        note = f"no second derivative at {unknown.sum()} of {unknown.size} entries" if unknown.any() else ""
        yield Row(name, label, OK if found.error <= most else FAIL, **found.cells(), allowed=most, note=note)
