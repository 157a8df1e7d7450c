"""Reconciliation of a document's FLOPs with XLA's: document → derived → counted → lowered (→ compiled).

Every step is an equation in integers: after = before + Σ named causes. The causes between document and derivation are
the caller's to name; those between the count of the jaxpr and XLA's are found in the two programs. A remainder is an
error, `Unexplained`, that carries the whole reconciliation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from refgrad._renamed import renamed
from refgrad._text import Table
from refgrad.cost.arguments import Argnums, arrays_of
from refgrad.cost.causes import Cause, compiling_causes, lowering_causes
from refgrad.cost.count import Unknown, count
from refgrad.cost.scopes import first_divergence
from refgrad.cost.types import Count
from refgrad.cost.xla import XlaCost, backward_program, xla


class Step(NamedTuple):
    """One step on the way down, for one figure ("flops" or "transcendentals")."""

    figure: str
    start: str
    end: str
    before: int
    after: int
    causes: dict[str, int]
    asserted: bool = True

    @property
    def unexplained(self) -> int:
        """after − before − Σ causes."""
        return self.after - self.before - sum(self.causes.values())


@dataclass(frozen=True)
class Reconciliation:
    """The steps from a document's figures to XLA's, each with its causes; prints as a table.

    Attributes:
      steps: each step, for FLOPs and for transcendentals.
      count: the count of the jaxpr.
      lowered: XLA's answer for the lowered program.
      compiled: XLA's answer for the compiled program, where it was asked for.
      first_divergence: the first HLO instruction that was counted differently, or "".

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> reconciled = cost.reconcile(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)), derived=(60, 0))
      >>> [step.unexplained for step in reconciled.steps if step.asserted]
      [0, 0, 0, 0]
    """

    steps: tuple[Step, ...]
    count: Count
    lowered: XlaCost
    compiled: XlaCost | None = None
    first_divergence: str = ""

    def __getattr__(self, name: str) -> Any:
        return renamed(self, {"parting": "first_divergence"}, name)

    @property
    def ok(self) -> bool:
        """True if every asserted step is explained to the last FLOP."""
        return all(step.unexplained == 0 for step in self.steps if step.asserted)

    def json(self) -> dict[str, Any]:
        """Steps and traps as plain data."""
        steps = [{**step._asdict(), "unexplained": step.unexplained} for step in self.steps]
        traps = [trap._asdict() for trap in self.lowered.traps]
        return {"ok": self.ok, "steps": steps, "traps": traps, "parting": self.first_divergence}

    def table(self) -> Table:
        """Each step's start, its causes one by one, its remainder, and its end."""
        rows = []
        for step in self.steps:
            rows.append([step.figure, step.start, f"{step.before:,}"])
            rows += [["", f"  {name}", f"{n:+,}"] for name, n in step.causes.items()]
            if step.unexplained:
                rows.append(["", "  UNEXPLAINED" if step.asserted else "  not followed", f"{step.unexplained:+,}"])
            rows.append(["", f"  = {step.end}", f"{step.after:,}"])
        return Table(["figure", "step", "count"], rows)

    def __str__(self) -> str:
        text = str(self.table())
        return f"{text}\nfirst divergence: {self.first_divergence}" if self.first_divergence else text


class Unexplained(AssertionError):
    """A step of a reconciliation has a remainder; the message prints all steps.

    Attributes:
      reconciliation: all steps.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> try:
      ...     cost.reconcile(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)), derived=(59, 0))
      ... except cost.Unexplained as error:
      ...     print(error.reconciliation.ok)
      False
    """

    def __init__(self, reconciliation: Reconciliation):
        self.reconciliation = reconciliation
        remainders = [
            f"{step.unexplained:+,} {step.figure} from {step.start} to {step.end}"
            for step in reconciliation.steps
            if step.asserted and step.unexplained
        ]
        super().__init__(f"unexplained: {'; '.join(remainders)}\n{reconciliation}")


def reconcile(
    f: Callable,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: Argnums = None,
    derived: tuple[int, int] | None = None,
    document: int | None = None,
    causes: Mapping[str, int] | None = None,
    backward: bool = False,
    compiled: bool = False,
    topology: str | None = None,
    unknown: Unknown = "raise",
) -> Reconciliation:
    """Walk from what a document says `f(*args, **kwargs)` costs to what XLA says, naming every difference.

    Args:
      f: the function.
      *args: its arguments, concrete or abstract.
      kwargs: its keyword arguments, as for `count`.
      argnums: the positions that the backward pass differentiates, as for `count_backward`.
      derived: (flops, transcendentals) of a closed form, in XLA's convention.
      document: FLOPs by the document, with `causes` naming the parts of (derived − document).
      causes: those parts, by name.
      backward: count f's backward pass instead of f.
      compiled: go on to XLA's compiled count, which is explained by opcode but never asserted.
      topology: that of XLA:TPU, ahead of time, as in `xla`.
      unknown: "count" lets primitives of unknown cost (callbacks) count 0, as in `count`.

    Returns:
      A `Reconciliation`.

    Raises:
      Unexplained: where an asserted step leaves a remainder.
      ValueError: for a figure that is not an integer, and for causes or argnums without effect.
      UnknownCost, TypeError: as `count` and `count_backward` do.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.reconcile(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)), derived=(60, 0)).ok
      True
    """
    _check_given(derived, document, causes or {})
    if argnums is not None and not backward:
        raise ValueError(f"argnums={argnums!r} chooses what a backward pass differentiates: give backward=True too")
    if backward:
        program, abstract = backward_program(f, *args, kwargs=kwargs, argnums=argnums)
    else:
        program, abstract = arrays_of(f, args, kwargs)
    counted = count(program, *abstract, unknown=unknown)
    jaxpr = jax.make_jaxpr(program)(*abstract)
    lowered = xla(program, *abstract, platform=None if topology is None else "tpu")
    steps = _given_steps(derived, document, dict(causes or {}), counted)
    found = lowering_causes(jaxpr, counted, lowered)
    steps += _steps("counted", "lowered", _pair(counted), _answer(lowered), found)
    optimised = None
    if compiled or topology is not None:
        optimised = xla(program, *abstract, stage="compiled", topology=topology)
    if optimised is not None:
        found = compiling_causes(lowered, optimised)
        steps += _steps("lowered", "compiled", _answer(lowered), _answer(optimised), found, asserted=False)
    parted = any(step.unexplained for step in steps if step.end == "lowered")
    first = first_divergence(counted, lowered.hlo) if parted else ""
    result = Reconciliation(tuple(steps), counted, lowered, optimised, first)
    if not result.ok:
        raise Unexplained(result)
    return result


def _check_given(derived: Any, document: Any, causes: Any) -> None:
    if derived is not None and not (isinstance(derived, tuple) and len(derived) == 2 and all(map(_is_int, derived))):
        raise ValueError(f"derived={derived!r}: give two integers, (flops, transcendentals)")
    if document is not None and not _is_int(document):
        raise ValueError(f"document={document!r}: give an integer, FLOPs")
    if not isinstance(causes, Mapping) or not all(map(_is_int, causes.values())):
        raise ValueError(f"causes={causes!r}: give a mapping from a cause's name to its FLOPs, an integer")
    if causes and document is None:
        raise ValueError("causes explain (derived − document): give document=… too, or leave causes out")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _given_steps(
    derived: tuple[int, int] | None, document: int | None, causes: dict[str, int], counted: Count
) -> list[Step]:
    steps = []
    if document is not None:
        end, after = ("counted", counted.flops) if derived is None else ("derived", derived[0])
        steps.append(Step("flops", "document", end, document, after, causes))
    if derived is not None:
        steps += _steps("derived", "counted", derived, _pair(counted), [])
    return steps


def _steps(
    start: str, end: str, before: tuple[int, int], after: tuple[int, int], causes: list[Cause], asserted: bool = True
) -> list[Step]:
    flops = {c.name: c.flops for c in causes if c.flops}
    transcendentals = {c.name: c.transcendentals for c in causes if c.transcendentals}
    return [
        Step("flops", start, end, before[0], after[0], flops, asserted),
        Step("transcendentals", start, end, before[1], after[1], transcendentals, asserted),
    ]


def _pair(counted: Count) -> tuple[int, int]:
    return counted.flops, counted.transcendental


def _answer(answer: XlaCost) -> tuple[int, int]:
    """XLA's figures; the walk's own replay where the backend gives none."""
    flops, transcendentals = map(round, answer.hlo.replayed)
    flops = flops if answer.flops is None else answer.flops
    transcendentals = transcendentals if answer.transcendentals is None else answer.transcendentals
    return flops, transcendentals
