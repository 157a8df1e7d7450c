"""Costs in tests: bounds that a function must keep, and snapshots that it must not leave."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refgrad._text import WIDTH, table
from refgrad.cost.arguments import Argnums
from refgrad.cost.comparison import allowances
from refgrad.cost.comparison.comparison import compare
from refgrad.cost.comparison.items import FIGURES, by
from refgrad.cost.comparison.program import Flags, Program, Stage, program
from refgrad.cost.comparison.snapshot import load
from refgrad.cost.residuals import residuals as residuals_of

UPDATE = "REFGRAD_UPDATE"  # set to 1 in the environment, it updates every snapshot
COSTLIEST = 10  # lines that a failure prints


def assert_cost(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: Argnums = None,
    stage: Stage = "counted",
    backward: bool = False,
    flops: int | None = None,
    transcendentals: int | None = None,
    bytes: int | None = None,
    residuals: int | None = None,
    collectives: int | None = None,
) -> None:
    """Assert that f at its arguments costs no more than the bounds given.

    Args:
      f: the function.
      *args: its arguments, as for `count`.
      kwargs, argnums, stage, backward: as for `program`.
      flops, transcendentals, bytes, residuals, collectives: the most that each figure may be. Residuals are those of
        f's backward pass, whether or not `backward` is set.

    Raises:
      AssertionError: where a figure exceeds its bound; it prints all figures and the costliest lines.
      ValueError: without a bound, and for a bound that is not an integer of at least 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.assert_cost(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)), flops=60)
    """
    bounds = dict(zip(FIGURES, (flops, transcendentals, bytes, residuals, collectives), strict=True))
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    _check(bounds)
    counted = program(f, *args, kwargs=kwargs, argnums=argnums, stage=stage, backward=backward)
    figures = counted.figures._asdict()
    if residuals is not None and not backward:
        figures["residuals"] = residuals_of(f, *args, kwargs=kwargs, argnums=argnums).bytes
    over = [name for name, bound in bounds.items() if figures[name] > bound]
    if over:
        raise AssertionError(_exceeded(counted, figures, bounds, over))


def assert_unchanged(
    f: Callable[..., Any],
    *args: Any,
    snapshot: str | Path,
    kwargs: Mapping[str, Any] | None = None,
    argnums: Argnums = None,
    stage: Stage = "counted",
    backward: bool = False,
    flags: Flags | None = None,
    allow: allowances.Given = None,
    update: bool = False,
) -> None:
    """Assert that every figure of f at its arguments is that of a snapshot.

    Args:
      f: the function.
      *args: its arguments, as for `count`.
      snapshot: the file, JSON, which belongs under version control.
      kwargs, argnums, stage, backward, flags: as for `program`.
      allow: how far a figure may be from the snapshot's, up or down, as for `compare`.
      update: write the snapshot instead; so does REFGRAD_UPDATE=1 in the environment.

    Raises:
      AssertionError: where a figure differs; it prints the comparison. Also where the snapshot does not exist.
      ValueError: for a snapshot of another format version, and for a damaged one.

    Example:
      >>> import jax.numpy as jnp
      >>> import tempfile
      >>> from refgrad import cost
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     cost.assert_unchanged(jnp.sin, jnp.ones(3), snapshot=f"{folder}/sin.json", update=True)
      ...     cost.assert_unchanged(jnp.sin, jnp.ones(3), snapshot=f"{folder}/sin.json")
    """
    allowed = allowances.parse(allow)
    update = update or os.environ.get(UPDATE, "") not in ("", "0")
    if not update and not Path(snapshot).is_file():
        raise AssertionError(f"{snapshot}: no snapshot yet: run this test once with {UPDATE}=1 and keep the file")
    earlier = None if update else load(snapshot)
    now = program(f, *args, kwargs=kwargs, argnums=argnums, stage=stage, backward=backward, flags=flags)
    if earlier is None:
        now.save(snapshot)
        return
    found = compare(earlier, now, allow)
    before, after = found.figures
    moved = {*found.exceeded, *allowances.exceeded(before, before.plus(before.minus(after)), allowed)}
    if moved:
        names = ", ".join(name for name in FIGURES if name in moved)
        raise AssertionError(f"{now.name}: not as in {snapshot}: {names}; {UPDATE}=1 updates it\n\n{found}")


def _check(bounds: Mapping[str, Any]) -> None:
    if not bounds:
        raise ValueError(f"assert_cost bounds nothing: give at least one of {', '.join(FIGURES)}")
    for name, bound in bounds.items():
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 0:
            raise ValueError(f"{name}={bound!r}: a bound is an integer of at least 0, the most that it may be")


def _exceeded(counted: Program, figures: Mapping[str, int], bounds: Mapping[str, int], over: list[str]) -> str:
    rows = [
        [name, f"{n:,}", f"{bounds[name]:,}" if name in bounds else "", "too much" * (name in over)]
        for name, n in figures.items()
        if n or name in bounds
    ]
    lines = by(counted.stages[counted.stage], "source")
    costliest = sorted(lines, key=lambda line: [getattr(lines[line], name) for name in over], reverse=True)[:COSTLIEST]
    shown = [[line or "(no line)", *(f"{getattr(lines[line], name):,}" for name in over)] for line in costliest]
    notes = [counted.lines.get(line, "") for line in costliest]
    return "\n\n".join(
        [
            f"{counted.name} costs more than allowed: {', '.join(over)}",
            table(["figure", "value", "at most", ""], rows),
            table(["costliest lines", *over], shown, most=WIDTH, notes=notes),
        ]
    )
