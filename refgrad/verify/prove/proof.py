"""The outcome of a proof: a verdict on every branch, which a person reads as a table and a program as JSON."""

import dataclasses
import enum
import json
from collections.abc import Sequence
from typing import Any

from refgrad._text import table, wrapped


class ProofVerdict(enum.Enum):
    """The outcome, the strongest first.

    Attributes:
      PROVEN: rule and truth are equal for all real arguments on this branch, at these shapes.
      TESTED: they are equal at these points, in exact arithmetic.
      UNDECIDED: neither was found.
      REFUTED: they differ at a point, in exact arithmetic.

    Example:
      >>> from refgrad.verify.prove import ProofVerdict
      >>> ProofVerdict.TESTED.brief
      'tested'
    """

    PROVEN = "proven: all real arguments on this branch, at these shapes"
    TESTED = "tested: equal at these points, in exact arithmetic"
    UNDECIDED = "not decided"
    REFUTED = "refuted"

    @property
    def brief(self) -> str:
        """The first words."""
        return self.value.partition(":")[0]


LARGE = "equal here, too large for a proof"
WORSE = list(ProofVerdict)


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """An entry at which the rule and the truth differ, both in exact arithmetic, and the arguments there."""

    leaf: str
    index: tuple[int, ...]
    got: str
    truth: str
    arguments: dict[str, Any]
    cotangents: list[Any]

    def __str__(self) -> str:
        at = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return f"{self.leaf}{at} is {self.got}, in truth {self.truth}"


@dataclasses.dataclass(frozen=True)
class Branch:
    """One pattern of comparisons: the point that it was found at, and the verdict on it."""

    point: str
    comparisons: int
    true: int
    """The comparisons that hold."""
    entries: int
    """The entries of outputs and cotangents that were compared."""
    verdict: ProofVerdict
    why: str = ""
    seconds: float = 0.0
    counterexample: Counterexample | None = None

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        pattern = f"{self.true} of {self.comparisons}" if self.comparisons else "none"
        verdict = self.verdict.brief + (f": {self.why}" if self.why else "")
        return (self.point, pattern, str(self.entries), f"{self.seconds:.2f}", verdict)


HEADER = ("point", "comparisons that hold", "entries", "s", "verdict")


@dataclasses.dataclass(frozen=True)
class Proof:
    """The outcome of `prove`. Prints as a table; `ok` is False where the rule is refuted or not decided.

    Attributes:
      subject: the function, with its types and its place in the source.
      branches: every pattern of comparisons that was found, with the verdict on it.
      constants: the constants that were identified with others, up to the rounding of their dtype.
      facts: the conditions under which the verdict holds.
      where: `file:line` of each backward rule concerned.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import prove
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (3 * x * dy,))
      >>> proof = prove(square, jnp.ones(1))
      >>> proof.verdict.name, proof.counterexample.leaf
      ('REFUTED', 'cotangent of x')
    """

    subject: str
    branches: tuple[Branch, ...]
    constants: tuple[str, ...] = ()
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    where: tuple[str, ...] = ()

    @property
    def verdict(self) -> ProofVerdict:
        """The weakest of the branches' verdicts."""
        return max((b.verdict for b in self.branches), key=WORSE.index, default=ProofVerdict.UNDECIDED)

    @property
    def ok(self) -> bool:
        """True where every branch is proven, or tested where it is too large for a proof."""
        return self.verdict in (ProofVerdict.PROVEN, ProofVerdict.TESTED)

    @property
    def why(self) -> str:
        """The reason of the verdict, empty where it needs none."""
        return next((b.why for b in self.branches if b.verdict is self.verdict), "")

    @property
    def counterexample(self) -> Counterexample | None:
        """The first entry at which rule and truth differ."""
        return next((b.counterexample for b in self.branches if b.counterexample is not None), None)

    @property
    def seconds(self) -> float:
        """The time that all branches took."""
        return sum(b.seconds for b in self.branches)

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self.verdict.value}", *(f"{k}: {v}" for k, v in self.facts.items())]
        lines += [f"identified: {c}" for c in self.constants]
        if (found := self.counterexample) is not None:
            lines += [f"refuted: {found}"]
            lines += [f"  at {name} = {_short(x)}" for name, x in found.arguments.items()]
            lines += [f"rule: {where}" for where in self.where]
        return "\n".join([*map(wrapped, lines), table(HEADER, [b.cells() for b in self.branches])])

    def data(self) -> dict[str, Any]:
        """The outcome as plain dicts, lists, strings and numbers."""
        branches = [dataclasses.asdict(b) | {"verdict": b.verdict.brief} for b in self.branches]
        return {
            "subject": self.subject,
            "ok": self.ok,
            "verdict": self.verdict.value,
            "why": self.why,
            "constants": list(self.constants),
            "facts": dict(self.facts),
            "where": list(self.where),
            "branches": branches,
        }

    def json(self) -> str:
        """`data()` as JSON text."""
        return json.dumps(self.data(), ensure_ascii=False, indent=1)


def _short(x: Sequence[Any] | float) -> str:
    text = str(x)
    return text if len(text) <= 72 else f"{text[:71]}…"
