"""One line that checks a backward rule in every way that matters, on any JAX function.

>>> report = check(my_op, x, w)      # prints as a table, `.ok`, `.json()`
>>> assert_ok(my_op, x, w)           # the same in a test: raises with the failures and the rule's file and line
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from refgrad.verify import sizes
from refgrad.verify.allowance import C
from refgrad.verify.arguments import arguments, dimensions, is_text, sized, types, values
from refgrad.verify.blame import blame
from refgrad.verify.case import PRECISION, Case
from refgrad.verify.exact_oracle import BUDGET
from refgrad.verify.oracle import default_device, truth_device
from refgrad.verify.properties import PROPERTIES
from refgrad.verify.properties.methods import METHODS
from refgrad.verify.properties.structure import broken, explain
from refgrad.verify.report import COMPILER, FAIL, Report, Row
from refgrad.verify.sizes import Sizes
from refgrad.verify.subject import Subject, name_of
from refgrad.verify.sweep import at_variants

SIZED: dict[str, Any] = {"order": 1, "properties": ("structure", "accuracy")}  # of the check at each other size


def check(
    f: Callable,
    *args: Any,
    order: int = 2,
    reference: Callable | None = None,
    reference_vjp: Callable | None = None,
    sweep: bool | str = False,
    properties: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 8,
) -> Report:
    """Check the custom rules inside `f` at `args`: against the truth, and under JAX's transformations.

    `f` is a `custom_vjp` or `custom_jvp` function, a HiPrim, or any function with such rules inside; `args` are
    pytrees, and every floating or complex array among their leaves is checked. Truth is found, not supplied: the
    derivative of `f` without its rules in exact arithmetic, or by float64 autodiff where that takes more than 10⁸
    scalar operations, single entries confirmed. For a rule that is meant to differ from it, `reference` is a function
    with the meant gradient, or `reference_vjp(cotangent, *args)` gives the meant cotangents, one per argument.
    `sweep=True` also tries special variants of the arguments: zeros, ties, equal, tiny, large and infinite entries. The
    one argument may be text, such as "f32[b,s,h] f32[h] i32[b]<10": normal floats and integers below the bound are
    drawn from `seed`, and with `sweep` other sizes of the named dimensions are tried. Each failure prints the call that
    repeats it; there `sweep` is the name of one variant.
    `order=1` leaves second order out; `properties` names those to run, of `PROPERTIES` (all of them by default);
    `draws` cotangents are drawn from `seed`.

    Raises ValueError for an unknown property, order or number of draws, TypeError where nothing can be differentiated
    (no floating argument; or neither a rule nor a reverse mode), and whatever `f(*args)` itself raises.
    """
    names = _names(properties, order, draws)
    settings = {"order": order, "reference": reference, "reference_vjp": reference_vjp, "seed": seed, "draws": draws}
    if len(args) == 1 and is_text(args[0]):
        return _described(f, args[0], sweep, {**settings, "properties": properties})
    subject = Subject.of(f, args)
    case = Case(subject, **settings)
    with jax.default_matmul_precision(PRECISION):
        rows = [] if isinstance(sweep, str) else _rows(case, names)
        broken = bool(rows) and not rows[0].argument
        facts = {} if broken else _facts(case)
        if sweep and not broken:
            swept = at_variants(case, sweep if isinstance(sweep, str) else "")
            rows, facts["sweep"] = [*rows, *swept.rows], swept.fact
        where = _where(case, rows) if any(row.failed for row in rows) else ()
    return Report(subject.title, tuple(rows), facts, where, _replays(f, "*args", rows, settings))


def _described(f: Callable, text: str, sweep: bool | str, settings: dict[str, Any]) -> Report:
    """`check` at arguments that are drawn, and with `sweep=True` at other sizes of them."""
    seed, names = settings["seed"], dimensions(text)
    with types(text):
        given = sizes.base(f, text, seed)
        base = sized(text, given)
        report = check(f, *values(arguments(base), seed), sweep=sweep, **settings)
        rows, facts = [*report.rows], {**report.facts}
        if sweep is True and names:
            more, facts["sizes"] = _at_sizes(f, text, given, settings)
            rows += more
    where = report.where or tuple(dict.fromkeys(row.where for row in rows if row.where))
    return Report(report.subject, tuple(rows), facts, where, _replays(f, repr(base), rows, settings))


def _at_sizes(f: Callable, text: str, given: Sizes, settings: dict[str, Any]) -> tuple[list[Row], str]:
    """The rows that fail at other sizes, and one line on all of them."""
    rows: list[Row] = []
    tried, refused = 0, {}
    for other in sizes.others(dimensions(text), given):
        variant = sized(text, other)
        if why := sizes.refusal(f, variant, settings["seed"]):
            refused.setdefault(why, []).append(sizes.shown(other))
            continue
        report = check(f, *values(arguments(variant), settings["seed"]), **{**settings, **SIZED})
        where = report.where[0] if report.where else ""
        rows += [dataclasses.replace(row, variant=variant, where=row.where or where) for row in report.failures]
        tried += 1
    failed = len({row.variant for row in rows})
    facts = [f"{sizes.shown(given)}, and {tried} others " + (f"of which {failed} fail" if failed else "hold")]
    facts += [f"the function refuses {'; '.join(those)}: {why}" for why, those in refused.items()]
    return rows, "; ".join(facts)


def _replays(f: Callable, given: str, rows: Sequence[Row], settings: dict[str, Any]) -> tuple[str, ...]:
    """The calls that repeat the failures of variants and sizes."""
    named = {name: settings[name] for name in ("reference", "reference_vjp") if settings[name] is not None}
    more = [f"{name}={name_of(value)}" for name, value in named.items()]
    more += [f"seed={settings['seed']}"] if settings["seed"] else []
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows if row.variant):
        own = [repr(variant)] if is_text(variant) else [given, f"sweep={variant!r}"]
        lines.append(f"check({', '.join((name_of(f), *own, *more))})")
    return tuple(lines)


def assert_ok(f: Callable, *args: Any, **settings: Any) -> None:
    """`check(f, *args, **settings)` for a test.

    Raises AssertionError with the rows that failed and the file and line of the backward rule. Where the rule is right
    and XLA's compiled program is not, it warns.
    """
    report = check(f, *args, **settings)
    if not report.ok:
        raise AssertionError(report.summary())
    if wrong := [row for row in report.rows if row.verdict == COMPILER]:
        names = sorted({f"{row.property} of {row.argument}" for row in wrong})
        warnings.warn(
            f"{report.subject}: the rule is right, XLA's compiled program is not ({', '.join(names)})", stacklevel=2
        )


def _names(properties: Sequence[str] | None, order: int, draws: int) -> list[str]:
    """The properties to run, in the table's order."""
    if order not in (1, 2):
        raise ValueError(f"order is {order!r}, but 1 leaves second order out and 2 checks it")
    if draws < 1:
        raise ValueError(f"draws is {draws}, but at least 1 cotangent must be drawn")
    for name in properties or ():
        if name not in PROPERTIES:
            raise ValueError(f"{name!r} is no property: choose from {', '.join(PROPERTIES)}")
    return [name for name in PROPERTIES if properties is None or name in properties]


def _rows(case: Case, names: Sequence[str]) -> list[Row]:
    """The rows of the properties, or the one that says why the rule cannot be run."""
    try:
        refused = broken(case)
        if any(row.failed for row in refused):
            return refused
        names = [name for name in names if name in METHODS] if refused else names
        return [*refused, *(row for name in names for row in PROPERTIES[name](case))]
    except jax.errors.UnexpectedTracerError as error:  # a rule that stores a tracer fails when it is next traced
        if not case.rules:
            raise
        return [Row("structure", "", FAIL, note=explain(error))]


def _facts(case: Case) -> dict[str, str]:
    """Under what conditions the rows hold."""
    device = default_device()
    facts = {
        **_truth(case, device),
        "matmul precision": f"{PRECISION}, in the rule and in truth",
        "allowance": f"{C:g}·ε·√n of each argument's dtype",
        "draws": f"{case.draws} cotangents, seed {case.seed}",
        "device": f"{device.device_kind} × {jax.device_count()}",
    }
    if case.limits:
        facts["limits"] = "; ".join(case.limits)
    if not case.rules:
        facts["rules"] = "none inside: what is checked is autodiff itself"
    return facts


def _truth(case: Case, device: Any) -> dict[str, str]:
    """What the truth is, and why it is not exact arithmetic."""
    exact, oracle = case.own.exact, case.own.oracle
    if exact.whole:
        kind = "the reference" if case.referred else "the plain forward"
        rest = f"; {len(left)} entries by float64 autodiff" if (left := case.points.open) else ""
        return {"truth": f"exact arithmetic on {kind}, {exact.spent:.1e} of {BUDGET:.0e} scalar operations{rest}"}
    facts = {"truth": f"{oracle.kind}, in float64", "truth computed on": truth_device(oracle, device)}
    if case.meant is None:
        facts["exact arithmetic"] = f"{exact.why}; {case.points.confirmed} entries confirmed"
    return facts


def _where(case: Case, rows: Sequence[Row]) -> tuple[str, ...]:
    """`file:line (name)` of the method or backward of each rule at fault; of all where no single one can be blamed."""
    if methods := tuple(dict.fromkeys(row.where for row in rows if row.failed and row.where)):
        return methods
    everywhere = tuple(dict.fromkeys(rule.location for rule in case.rules if rule.location))
    if len(everywhere) > 1:
        with contextlib.suppress(Exception):  # whatever keeps the calls from being judged one by one
            guilty = blame(case.subject.f, *case.subject.args).guilty
            return tuple(dict.fromkeys(verdict.backward for verdict in guilty)) or everywhere
    return everywhere
