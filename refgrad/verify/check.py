"""One line that checks a backward rule in every way that matters, on any JAX function.

>>> report = check(my_op, x, w)      # prints as a table, `.ok`, `.json()`
>>> assert_ok(my_op, x, w)           # the same in a test: raises with the failures and the rule's file and line
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from refgrad.verify.allowance import C, known_tolerance
from refgrad.verify.arguments import is_text
from refgrad.verify.blame import blame
from refgrad.verify.case import PRECISION, FunctionCase
from refgrad.verify.causes import explained
from refgrad.verify.clock import OutOfTime, TimeBudget
from refgrad.verify.empty import nothing, undefined, unsteady
from refgrad.verify.exact_oracle import BUDGET
from refgrad.verify.intents import Intent
from refgrad.verify.meaning import Meaning
from refgrad.verify.oracle import default_device, truth_device
from refgrad.verify.properties import EAGERLY, PROPERTIES
from refgrad.verify.properties.methods import METHODS
from refgrad.verify.properties.structure import broken, explain
from refgrad.verify.report import COMPILER, FAIL, Report, Row
from refgrad.verify.sizes import at_sizes, replays
from refgrad.verify.subject import Subject
from refgrad.verify.sweep import at_variants


def check(
    f: Callable,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    reference: Callable | None = None,
    reference_vjp: Callable | None = None,
    intent: Intent | None = None,
    tolerance: float | None = None,
    sweep: bool | str = False,
    order: int = 2,
    seconds: float | None = None,
    properties: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 8,
    within: Sequence[tuple[float, float] | None] | None = None,
) -> Report:
    """Check the custom rules inside `f` at `args`: against the truth, and under JAX's transformations.

    `f` is a `custom_vjp` or `custom_jvp` function, a HiPrim, or any function with such rules inside. Truth is found,
    not supplied: the derivative of `f` without its rules in exact arithmetic, or by float64 autodiff where that takes
    more than 10⁸ scalar operations, single entries confirmed. Above 5·10⁵ exact arithmetic judges the first draw, and
    of the others those that float64 autodiff does not settle.

    Args:
      f: the function under check, called as `f(*args, **kwargs)`.
      *args: pytrees; every floating or complex array among their leaves is differentiated. Or one text, such as
        "f32[b,s,h] f32[h]>0 i32[b]<10": normal floats, or floats in a range, and integers below the bound, are drawn
        from `seed`.
      kwargs: keyword arguments, differentiated likewise.
      argnums: the positions of `args` to differentiate, as for `jax.grad`; everything else is held constant.
      reference: a function with the meant gradient, for a rule that is meant to differ from its forward's.
      reference_vjp: the meant cotangents as `reference_vjp(cotangent, *args)`: one per argument, None for zero.
      intent: one of `refgrad.verify.intents`, for rules that differ in a way that has a name.
      tolerance: relative error up to which the rule is meant to be right, such as that of a solver. It is allowed in
        every comparison; the rounding of a dtype is allowed in any case.
      sweep: also try special variants of the arguments: zeros, ties, equal, tiny, large and infinite entries. Other
        sizes of dimensions that a text names are tried, too. The report has the call that repeats each failure; in it,
        `sweep` is the name of the one variant to try.
      order: 1 leaves second order out.
      seconds: budget of wall time. The most telling properties run first, and a program once started is finished; what
        the budget did not reach is named, and the report is then neither `ok` nor wrong but "partial".
      properties: names of those to run, of `PROPERTIES`; all of them by default.
      seed: seed of the random cotangents.
      draws: the number of cotangents drawn.
      within: for each leaf of `args`, the open range that `sweep` takes values from; None for all values. The
        ranges of a text, such as f32[h]>0, are taken from it.

    Returns:
      A `Report`: it prints as a table, and has `.ok`, `.status`, `.causes`, `.rows` and `.json()`.

    Raises:
      ValueError: for an unknown property, or a number out of its bounds.
      TypeError: where nothing can be differentiated (no floating argument; or neither a rule nor a reverse mode).
      Exception: everything that `f(*args)` itself raises.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import check
      >>> check(jax.nn.relu, jnp.array([-1.0, 2.0]), tolerance=1e-5).ok
      True
    """
    names = _names(properties, order, draws)
    known_tolerance(tolerance)
    if seconds is not None and not seconds > 0:
        raise ValueError(
            f"seconds is {seconds!r}, but must be above 0: the wall time that the check may take, such as 10"
        )
    clock = TimeBudget(seconds)
    meant = {"reference": reference, "reference_vjp": reference_vjp, "intent": intent}
    if len(args) == 1 and is_text(args[0]):
        settings = {"kwargs": kwargs, "argnums": argnums, **meant, "tolerance": tolerance, "sweep": sweep}
        settings |= {"order": order, "properties": properties, "draws": draws}
        return at_sizes(check, f, args[0], settings, seed, clock)
    subject = Subject.of(f, args, kwargs, argnums)
    case = FunctionCase(
        subject,
        draws=draws,
        seed=seed,
        order=order,
        meaning=Meaning.of(subject, **meant),
        tolerance=tolerance or 0.0,
        clock=clock,
        within=within or (),
    )
    with jax.default_matmul_precision(PRECISION), clock.reporting(subject.title):
        rows, left_out = ([], []) if isinstance(sweep, str) else _rows(case, names)
        broken = bool(rows) and not rows[0].argument
        facts = {} if broken else _facts(case)
        if sweep and not any(row.failed for row in rows):
            swept = at_variants(case, sweep if isinstance(sweep, str) else "")
            rows, left_out, facts["sweep"] = rows + swept.rows, left_out + swept.left_out, swept.fact
        failed, empty = any(row.failed for row in rows), ""
        if failed and not broken and (why := unsteady(case)):
            rows = [Row("structure", "", FAIL, note=why)]
        elif not failed and "accuracy" in names and not isinstance(sweep, str) and not clock.over:
            empty = nothing(case, rows)
        where = _where(case, rows) if failed else ()
    rows = [] if empty else rows
    calls = replays(f, rows, "*args", {"kwargs": kwargs, "argnums": argnums, **meant, "tolerance": tolerance}, seed)
    return Report(subject.title, tuple(rows), facts, where, tuple(left_out), calls, empty)


def assert_ok(f: Callable, *args: Any, **settings: Any) -> None:
    """Raise AssertionError unless `check(f, *args, **settings)` is ok; for use in a test.

    Where the rule is right and XLA's compiled program is not, it only warns.

    Args:
      f: the function under check.
      *args: its arguments, as for `check`.
      **settings: the keyword arguments of `check`.

    Raises:
      AssertionError: with the rows that failed and the file and line of the backward rule, or with what the budget of
        seconds left out.
      Exception: everything that `check` raises.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import assert_ok
      >>> assert_ok(jax.nn.relu, jnp.array([-1.0, 2.0]))
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
            raise ValueError(f"{name!r} is not a property: choose from {', '.join(PROPERTIES)}")
    return [name for name in PROPERTIES if properties is None or name in properties]


def _rows(case: FunctionCase, names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of the properties, or the one that says why the rule cannot be run; and what time did not allow."""
    rows: list[Row] = []
    left_out: list[str] = []
    try:
        case.clock.doing = "compiling the rule"
        rows += broken(case)
        if any(row.failed for row in rows) and case.jitted:
            return rows, []
        if not case.jitted:
            names = [name for name in names if name in EAGERLY]
        elif rows:
            names = [name for name in names if name in METHODS]
        if any(name in METHODS for name in names) and not case.method_cases:
            names = [name for name in names if name not in METHODS]
        for name in names:
            case.clock.doing = name
            try:
                case.clock.check()
                rows.extend(PROPERTIES[name](case))
            except OutOfTime:
                left_out.append(name)
        if any(row.failed for row in rows):
            case.clock.doing = "looking for the cause"
            rows = explained(case, rows)
    except jax.errors.UnexpectedTracerError as error:  # a rule that stores a tracer fails when it is next traced
        if not case.rules:
            raise
        return [Row("structure", "", FAIL, note=explain(error))], []
    return rows, left_out


def _facts(case: FunctionCase) -> dict[str, str]:
    """Conditions under which the rows hold."""
    device = default_device()
    facts = {
        **_truth(case, device),
        "matmul precision": f"{PRECISION}, in the rule and in truth",
        "allowance": f"{C:g}·ε·√n of each argument's dtype",
        "draws": f"{case.draws} cotangents, seed {case.seed}",
        "device": f"{device.device_kind} × {jax.device_count()}"
        + ("" if jax.device_count() > 1 else ": shard_map is not looked at, which takes two"),
    }
    if case.held and not case.reference_name:
        facts["held constant"] = "what stop_gradient returns, as autodiff does"
    if case.tolerance:
        facts["tolerance"] = f"{case.tolerance:g} in every comparison"
    if case.jitted and case.limits:
        facts["limits"] = "; ".join(case.limits)
    if case.about:
        facts["rules"] = case.about
    if case.outputs and (why := undefined(case)):
        facts["value"] = why
    return facts


def _truth(case: FunctionCase, device: Any) -> dict[str, str]:
    """Describe the truth, and the reason where it is not exact arithmetic."""
    exact = case.own.exact
    if exact.whole:
        kind = case.reference_name or "the plain forward"
        rest = f"; {len(left)} entries by float64 autodiff" if (left := case.points.open) else ""
        rest += "; float64 autodiff, which it confirms, after the first draw" * exact.takes_long(case.draws)
        return {"truth": f"exact arithmetic on {kind}, {exact.spent:.1e} of {BUDGET:.0e} scalar operations{rest}"}
    oracle = case.own.oracle
    facts = {"truth": f"{oracle.kind}, in float64", "truth computed on": truth_device(oracle, device)}
    if case.reference_vjp is None:
        facts["exact arithmetic"] = f"{exact.why}; {case.points.confirmed} entries confirmed"
    return facts


def _where(case: FunctionCase, rows: Sequence[Row]) -> tuple[str, ...]:
    """`file:line (name)` of the method or backward of each rule at fault; of all where no single one can be blamed."""
    if methods := tuple(dict.fromkeys(row.where for row in rows if row.failed and row.where)):
        return methods
    everywhere = tuple(dict.fromkeys(rule.location for rule in case.rules if rule.location))
    if len(everywhere) > 1:
        with contextlib.suppress(Exception):  # whatever keeps the calls from being judged one by one
            guilty = blame(case.subject.f, *case.subject.args, tolerance=case.tolerance or None).guilty
            return tuple(dict.fromkeys(verdict.backward for verdict in guilty)) or everywhere
    return everywhere
