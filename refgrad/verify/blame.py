"""Blame of single calls of rules: each is judged by itself, at the values and the cotangent that really reach it."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr

from refgrad._text import short_path
from refgrad.jaxpr.authors import is_library
from refgrad.jaxpr.avals import is_float
from refgrad.jaxpr.methods import is_hiprim, lacked
from refgrad.jaxpr.programs import trace
from refgrad.jaxpr.versions import is_rule
from refgrad.verify.allowance import C, allowance, known_tolerance, reductions
from refgrad.verify.calls import Call, CallRecorder, WholeCall
from refgrad.verify.exact_oracle import ExactOracle
from refgrad.verify.intents import Intent, Pull, known_intent
from refgrad.verify.kinks import kinks
from refgrad.verify.meaning import Meaning
from refgrad.verify.numbers import (
    NEIGHBOURS,
    compared,
    difference,
    draw,
    generator,
    jitter,
    largest,
    magnitude,
    moved_by,
    to_wide,
)
from refgrad.verify.oracle import Leaves, find, first_line, given
from refgrad.verify.points import Points, suspects
from refgrad.verify.report import OK, UNAVAILABLE, Row
from refgrad.verify.rules import remaining_rules
from refgrad.verify.subject import Subject, pullback
from refgrad.verify.verdicts import INHERITED, SILENT, WRONG, Blame, CallVerdict
from refgrad.verify.widen import widen


def blame(
    f: Callable,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    reference: Callable | None = None,
    reference_vjp: Callable | None = None,
    intent: Intent | None = None,
    tolerance: float | None = None,
    cotangent: Any = None,
    seed: int = 0,
    **more: Any,
) -> Blame:
    """Judge every call of a rule inside `f(*args, **kwargs)` alone, at the values and cotangent that reach it.

    Values and cotangents are those of `f` without its rules, so that a wrong rule spoils neither the calls after it nor
    those before it; only where a forward has no reverse mode of its own (a kernel, a callback) do cotangents pass
    through its rule. `f` is run without jit, loops trip by trip.

    Args:
      f: the function, called as `f(*args, **kwargs)`; further keywords are among its own.
      *args: pytrees of arrays.
      kwargs: keyword arguments of `f`.
      argnums: the positions of `args` to differentiate; inputs of calls that do not depend on them are not judged.
      reference: as for `check`, where `f` is itself a rule; so is `reference_vjp`.
      reference_vjp: the meant cotangents, likewise.
      intent: what the rule of every call means.
      tolerance: relative error up to which rules are meant to be right.
      cotangent: that of the outputs of `f` (its float leaves, in their tree); without one it is 1 for a single number
        and drawn from `seed` else.
      seed: seed of that cotangent.

    Returns:
      A `Blame`: a verdict for each call, the guilty ones first when printed.

    Raises:
      ValueError: where an argument has no value (inside jit, or abstract), the cotangent has another tree, a rule that
        cotangents must pass through fails, or a reference is given for a function that is not itself a rule.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import blame
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (7 * x * dy,))  # a wrong rule
      >>> blame(lambda x: jnp.sum(square(x)), jnp.ones(3)).ok
      False
    """
    known_tolerance(tolerance)
    kwargs = {**(kwargs or {}), **more}
    program, arrays, tree = trace(f, args, kwargs)
    for x in arrays:
        if isinstance(x, Tracer | jax.ShapeDtypeStruct):
            raise ValueError(f"blame runs the function on real values, got {x}: call it outside jit, with arrays")
    library = is_library(f)
    first = CallRecorder(library=library)
    first.run(program, arrays)
    calls = first.calls
    if argnums is not None:
        subject = Subject.of(f, args, kwargs, argnums)
        still = _still(program, arrays, library, [any(x is y for y in subject.diff) for x in arrays])
        calls = [dataclasses.replace(call, still=call.still | held) for call, held in zip(calls, still, strict=True)]
    if reference is not None or reference_vjp is not None:
        calls, meanings = _referred(f, calls, Subject.of(f, args, kwargs, argnums), reference, reference_vjp, intent)
    else:
        meanings = [Meaning(call.plain).under(known_intent(intent)) for call in calls]
    cotangents = lambda ys: _cotangents(ys, tree, program.out_avals, cotangent, seed)  # noqa: E731
    upstream = _upstream(calls, program, arrays, cotangents, library)
    judged = [
        _judge(i, call, meaning, ct, tolerance or 0.0)
        for i, (call, meaning, ct) in enumerate(zip(calls, meanings, upstream, strict=True))
    ]
    rows = [row for row, _ in judged]
    for i, row in reversed(list(enumerate(rows))):  # the innermost first
        if row.verdict == WRONG and any(r.within == i and r.verdict in (WRONG, INHERITED) for r in rows):
            rows[i] = dataclasses.replace(row, verdict=INHERITED)
    limits = dict.fromkeys(limit for _, found in judged for limit in found)
    unseen = (*first.unseen, *(f"{r}: applied before it could be seen" for r in remaining_rules(f, *args, **kwargs)))
    return Blame(tuple(rows), unseen, tuple(limits))


def _still(program: ClosedJaxpr, arrays: list, library: bool, chosen: list[bool]) -> list[frozenset[int]]:
    """Return for each call the inputs that do not depend on the chosen arrays: JAX traces those that do."""
    seen: list[frozenset[int]] = []

    def run(moving: list) -> list:
        given, recorder = iter(moving), CallRecorder(library=library)
        recorder.run(program, [next(given) if c else x for x, c in zip(arrays, chosen, strict=True)])
        traced = ((isinstance(x, Tracer) for x in call.values) for call in recorder.calls)
        seen.extend(frozenset(i for i, t in enumerate(call) if not t) for call in traced)
        return []

    moving = [x for x, c in zip(arrays, chosen, strict=True) if c]
    jax.jvp(run, (moving,), (moving,))
    return seen


def _referred(
    f: Callable,
    calls: list[Call],
    subject: Subject,
    reference: Callable | None,
    reference_vjp: Callable | None,
    intent: Intent | None,
) -> tuple[list[Call], list[Meaning]]:
    """Return the calls with what each is held to, the outermost with the reference in the function's own terms."""
    meaning = Meaning.of(subject, reference, reference_vjp, intent)
    if not (is_rule(f) or is_hiprim(f)) or sum(call.within is None for call in calls) != 1:
        raise ValueError(
            f"{meaning.name} is for a function that is itself a rule, but {subject.title} calls rules: "
            "blame the rule alone, or state an intent"
        )
    return (
        [WholeCall.of(call, subject) if call.within is None else call for call in calls],
        [meaning if call.within is None else Meaning(call.plain) for call in calls],
    )


def _upstream(
    calls: list[Call], program: ClosedJaxpr, arrays: list, cotangents: Callable[[list], list], library: bool
) -> list[list]:
    """The cotangents of the float outputs of every call."""
    floats = [x for x in arrays if is_float(x)]

    def tapped(taps, floats):
        given = iter(floats)
        inputs = [next(given) if is_float(x) else x for x in arrays]
        return [y for y in CallRecorder(calls, taps, library).run(program, inputs) if is_float(y)]

    def pull():
        # with respect to the arguments as well: there are functions of JAX that fail where only some of theirs move
        values, back = jax.vjp(tapped, [c.taps() for c in calls], floats)
        return back(cotangents(values))[0]

    try:
        return pull()
    except Exception:  # whatever JAX raises where a plain forward has no reverse mode: there the rule itself must serve
        for call in calls:
            call.kept = not _reversible(call)
        if not any(call.kept for call in calls):
            raise
    try:
        return pull()
    except Exception as error:
        kept = ", ".join(dict.fromkeys(f"{c.rule.name} ({c.rule.location})" for c in calls if c.kept))
        raise ValueError(
            f"the forward of {kept} has no reverse mode, so that cotangents must pass through its rule, which fails: "
            f"{first_line(error)}; check that rule by itself first"
        ) from error


def _reversible(call: Call) -> bool:
    """Return True if the plain forward of a call has a reverse mode."""
    try:
        jax.eval_shape(pullback(call.plain), call.diff, call.rest, call.taps())
    except Exception:
        return False
    return True


def _cotangents(values: Sequence, tree: Any, avals: Sequence, cotangent: Any, seed: int) -> list:
    """One for each float output of the function: the given ones, 1 for a single number, random ones else."""
    if cotangent is None:
        if len(values) == 1 and values[0].ndim == 0:
            return [jnp.ones_like(values[0])]
        rng = generator(seed, 9)
        return [jnp.asarray(draw(rng, y.shape, y.dtype)) for y in values]
    if jax.tree.structure(cotangent) != tree:
        raise ValueError(f"the cotangent has the tree {jax.tree.structure(cotangent)}, the outputs have {tree}")
    floats = [c for c, aval in zip(jax.tree.leaves(cotangent), avals, strict=True) if is_float(aval)]
    return [jnp.asarray(c, y.dtype) for c, y in zip(floats, values, strict=True)]


def _judge(index: int, call: Call, meaning: Meaning, cts: list, tolerance: float) -> tuple[CallVerdict, list[str]]:
    """The verdict on one call, and where its truth is limited."""
    eqn = call.eqn
    diff, rest = call.diff, call.rest
    shapes = " ".join(v.aval.str_short(short_dtypes=True) for v in eqn.invars)
    trips = " ".join(call.trips)

    def verdict(leaf: str, error: float, allowed: float, word: str, note: str = "") -> CallVerdict:
        place = short_path(call.place or "an unknown line")
        head = index, call.rule.name, place, call.rule.location, trips, call.within, shapes
        return CallVerdict(*head, leaf, error, allowed, word, note)

    if not any(np.any(to_wide(c)) for c in cts):
        return verdict("", 0.0, 0.0, SILENT), []
    if not all(np.isfinite(to_wide(c)).all() for c in cts):  # from outside: whatever the rule makes of it says nothing
        cts = [jnp.asarray(draw(generator(0, 13), c.shape, c.dtype)) for c in cts]
    ruled = pullback(call.ruled)
    try:
        outputs, cotangents = ruled(diff, rest, cts)
    except Exception as error:  # whatever a user's rule raises: it is the finding
        if note := lacked([call.rule.rule], error):
            return verdict("", 0.0, 0.0, UNAVAILABLE, note), []
        return verdict("", np.inf, 0.0, WRONG, f"raises {first_line(error)}"), []
    names = [f"value {i}" for i in range(len(cts))]
    names += call.arguments
    truth = _truth(meaning, ruled, diff, rest, cts, call.arguments)
    got = [to_wide(y) for y in outputs] + truth.measure([to_wide(c) for c in cotangents])
    first = len(got) - len(diff)
    types = [x.dtype for x in (*outputs, *cotangents)]
    allowed = [
        max(allowance(dtype, n) + truth.tolerance, tolerance) for dtype, n in zip(types, truth.lengths, strict=True)
    ]
    points = _points(truth, got, diff, cts, allowed)
    if meaning.bound is not None:
        points.bounded(meaning.bound * max(largest(to_wide(c)) for c in cts))
    own = [to_wide(y) for y in call.plain(diff, rest)[0]]  # a forward that overflows is not the rule's fault
    values = [
        o if difference(g, o).error <= 2 * a else v for g, o, v, a in zip(got, own, truth.leaves, allowed, strict=False)
    ]
    expected = [*values[:first], *points.truth]
    scales = [
        _scale(e, x, got, cts, i < first) for i, (e, x) in enumerate(zip(expected, (*outputs, *diff), strict=True))
    ]
    errors = [difference(g, e, np.isnan(e), s).error for g, e, s in zip(got, expected, scales, strict=True)]
    for i in range(first, len(got)):
        if errors[i] > allowed[i] and (moves := _movement(truth, diff, cts)) is not None:
            moved = np.maximum(allowed[i], C * moves[i - first] / scales[i])
            found, most = compared(got[i], expected[i], moved, scales[i], np.isnan(expected[i]))
            errors[i], allowed[i] = found.error, most
    rows: list[Row] = []
    autodiff = _autodiff(call, diff, rest, cts, any(mask is not None for mask in points.skip))
    for i in range(first, len(got)):
        rows += points.rows(i - first, names[i], got[i], allowed[i], scales[i], autodiff[i - first])
    worst = max(range(len(got)), key=lambda i: errors[i] / allowed[i])
    word = OK if errors[worst] <= allowed[worst] else WRONG
    if rows and word == OK:
        word = WRONG if any(row.failed for row in rows) else rows[0].verdict
    return verdict(names[worst], errors[worst], allowed[worst], word, "; ".join(row.note for row in rows)), truth.limits


def _points(truth: "CallTruth", got: Leaves, diff: list, cts: list, allowed: list[float]) -> Points:
    """The true cotangents of a call, and where they are not one number."""
    first = len(got) - len(diff)
    leaves, given = truth.leaves[first:], [to_wide(c) for c in cts]
    wrong = any(difference(g, t).error > a for g, t, a in zip(got[first:], leaves, allowed[first:], strict=True))
    if truth.exact.whole or truth.cotangents is None or not wrong:
        return Points(leaves, truth.exact, given)
    sides = kinks(diff, truth.cotangents, leaves, got[first:], generator(0, 4))
    return Points(leaves, truth.exact, given, sides, suspects(leaves, got[first:], generator(0, 4)))


def _autodiff(call: Call, diff: list, rest: list, cts: list, wanted: bool) -> Sequence[np.ndarray | None]:
    """The cotangents by autodiff of the plain forward, where they are wanted and there is a reverse mode."""
    if wanted:
        with contextlib.suppress(Exception):  # JAX raises one of many errors without one
            return [to_wide(g) for g in pullback(call.plain)(diff, rest, cts)[1]]
    return [None] * len(diff)


def _movement(truth: "CallTruth", diff: list, cts: list) -> Leaves | None:
    """Distances that the true cotangents move between neighbouring arguments; None where they are not known exactly."""
    given, rng = [to_wide(c) for c in cts], generator(0, 11)
    if not truth.exact.whole:
        return None
    found = [truth.exact.gradient([jitter(x, rng) for x in diff], given) for _ in range(NEIGHBOURS)]
    moved = [leaves for leaves in found if leaves is not None]
    return moved_by(moved, truth.leaves[len(truth.leaves) - len(diff) :]) if moved else None


def _scale(expected: np.ndarray, x: Any, got: Leaves, cts: list, value: bool) -> float:
    """The scale of a leaf's errors: its largest entry; where that has no digits, the function's own scale."""
    own = max(largest(to_wide(c) * y) for c, y in zip(cts, got, strict=False)) / magnitude(x)
    size = largest(expected)
    return (size if value or size > float(jnp.finfo(x.dtype).eps) * own else own) or 1.0


class CallTruth(NamedTuple):
    """Outputs and cotangents of a call, and the longest reduction that feeds each of them."""

    leaves: list[np.ndarray]
    lengths: Sequence[int]
    limits: list[str]
    exact: ExactOracle
    measure: Callable[[list], list] = list  # what of a rule's cotangents can be held against it
    tolerance: float = 0.0
    cotangents: Callable[[list], list] | None = None  # those at other arguments, entry by entry


def _truth(meaning: Meaning, ruled: Callable, diff: list, rest: list, cts: list, names: list[str]) -> CallTruth:
    """Return the truth, in exact arithmetic where that is affordable.

    Else by reverse mode of the plain forward in float64, not compiled, since every call is another program; where there
    is none, as `check` does.
    """
    plain, wide_cts = meaning.plain, [to_wide(c) for c in cts]
    if meaning.cotangents is not None:
        return _stated(plain, meaning.cotangents, ruled, diff, rest, cts)
    exact = ExactOracle(plain, diff, rest, names, sweeps=1, stop_gradient=meaning.held)
    if (leaves := exact.outputs_and_gradient(wide_cts)) is not None:
        return CallTruth(leaves, _lengths(plain, ruled, diff, rest, cts), [], exact)
    try:
        wide = widen(pullback(plain), diff, rest, cts)
    except Exception:  # JAX raises one of many errors without a reverse mode
        value = widen(lambda diff, rest: plain(diff, rest)[0], diff, rest)
        oracle = find(plain, diff, rest, wide_cts, generator(0, 2))
        with jax.enable_x64(True):
            leaves = [*map(to_wide, value(*value.args)), *oracle.cotangents(diff, rest, wide_cts)]
        lengths = reductions(jax.make_jaxpr(ruled)(diff, rest, cts))
        return CallTruth(leaves, lengths, [*value.limits, *oracle.limits], exact, oracle.measure, oracle.tolerance)
    with jax.enable_x64(True):
        outputs, cotangents = wide(*wide.args)
        leaves = [*map(to_wide, outputs), *map(to_wide, cotangents)]
    moved = lambda diff: [to_wide(c) for c in wide(diff, *wide.args[1:])[1]]  # noqa: E731
    return CallTruth(leaves, reductions(wide.program), wide.limits, exact, cotangents=moved)


def _stated(plain: Callable, pull: Pull, ruled: Callable, diff: list, rest: list, cts: list) -> CallTruth:
    """The outputs of a call, and the cotangents that are meant."""
    value, meant = widen(lambda diff, rest: plain(diff, rest)[0], diff, rest), given("", pull, diff, rest, cts)
    with jax.enable_x64(True):
        leaves = [*map(to_wide, value(*value.args)), *meant.cotangents(diff, rest, cts)]
    lengths = reductions(jax.make_jaxpr(ruled)(diff, rest, cts))
    return CallTruth(leaves, lengths, value.limits, ExactOracle.unavailable("the cotangents are given"))


def _lengths(plain: Callable, ruled: Callable, diff: list, rest: list, cts: list) -> Sequence[int]:
    """The longest reductions of the plain forward's reverse mode; of the rule where it has none."""
    try:
        return reductions(jax.make_jaxpr(pullback(plain))(diff, rest, cts))
    except Exception:  # JAX raises one of many errors without a reverse mode
        return reductions(jax.make_jaxpr(ruled)(diff, rest, cts))
