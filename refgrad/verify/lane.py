"""The truth about a function traced in one way: at the given dtypes, or at float64.

The two are not the same function. A Python scalar is a float32 constant in one and a float64 constant in the other,
and random floats are made of other bits. So a rule in its own dtype is compared with the truth of its own trace; and
the rule in float64 with the truth of the trace under which the two agree, since a rule that folds constants does so in
float64 alone, and one with float32 inside has the same constants only at its own dtypes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from refgrad.jaxpr.calls import has_unknown_trips
from refgrad.verify import oracle as oracles
from refgrad.verify.exact_oracle import ExactOracle
from refgrad.verify.intents import Pull
from refgrad.verify.numbers import generator
from refgrad.verify.oracle import CONVERGED, Leaves, Oracle
from refgrad.verify.subject import Flat, Subject


@dataclasses.dataclass
class Lane:
    """Truth by exact arithmetic where that is affordable, else by float64 autodiff or what comes nearest to it."""

    plain: Flat
    subject: Subject
    drawn: Callable[[int], Leaves]  # the cotangents of a draw
    draws: int
    seed: int
    own: bool  # traced at the given dtypes, else at float64
    reference_name: str = ""  # what `plain` is where it is a reference
    held: bool = False  # whether what `stop_gradient` returns is constant
    reference_vjp: Pull | None = None  # the cotangents that the user says are meant
    truths: dict[int, Leaves] = dataclasses.field(default_factory=dict)

    def at(self, subject: Subject, operations: float) -> "Lane | None":
        """The same at other arguments, within so many scalar operations; None where exact arithmetic fails there."""
        other = dataclasses.replace(self, subject=subject, truths={})
        other.exact, other.oracle = self.exact.at(subject.diff, subject.rest, operations), self.oracle
        return other if not self.exact.whole or other._try(other.exact) else None

    @functools.cached_property
    def exact(self) -> ExactOracle:
        """Exact arithmetic, tried at the given arguments."""
        if self.reference_vjp is not None:
            return ExactOracle.unavailable("the cotangents are given")
        given = self.subject.diff, self.subject.rest, self.subject.arguments
        exact = ExactOracle(self.plain, *given, sweeps=self.draws, stop_gradient=self.held, wide=not self.own)
        if exact.whole and self._try(exact):
            exact.afford(self.draws)  # how long its loops run is known now
            if not exact.whole:
                self.truths.clear()
        return exact

    def _try(self, exact: ExactOracle) -> bool:
        """Keep the truth of the first draw; return False if it could not be found."""
        truth = exact.gradient(self.subject.diff, self.drawn(0))
        if truth is not None:
            self.truths[0] = truth
        return truth is not None

    @functools.cached_property
    def oracle(self) -> Oracle:
        """Truth in float64; see `oracle.find`."""
        if self.reference_vjp is not None:
            return oracles.given(
                self.reference_name, self.reference_vjp, self.subject.diff, self.subject.rest, self.drawn(0)
            )
        rng = generator(self.seed, 2)
        found = oracles.find(self.plain, self.subject.diff, self.subject.rest, self.drawn(0), rng, own=self.own)
        if self.reference_name:
            found.kind = found.kind.replace("the plain forward", self.reference_name)
        return found

    @property
    def entries(self) -> bool:
        """True where every entry is compared, not products with directions."""
        return self.exact.whole or self.oracle.entries

    @functools.cached_property
    def converges(self) -> bool:
        """True where a loop may run until a value stands still, in the precision of the trace: its slope lags."""
        return self.exact.truth is not None and has_unknown_trips(self.exact.truth.program)

    @property
    def tolerance(self) -> float:
        """Relative error of the truth itself."""
        return CONVERGED * self.converges if self.exact.whole else self.oracle.tolerance

    @property
    def limits(self) -> Sequence[str]:
        """Places where truth could not be evaluated in float64."""
        return () if self.exact.whole else self.oracle.limits

    def measure(self, leaves: Leaves) -> Leaves:
        """The part of a rule's cotangents that can be compared with truth."""
        return leaves if self.exact.whole else self.oracle.measure(leaves)

    def truth(self, diff: Sequence, cts: Leaves) -> Leaves:
        """The true cotangents at other values of the differentiated leaves; NaN where they are not known."""
        if self.exact.whole and (found := self.exact.gradient(diff, cts)) is not None:
            return found
        return self.oracle.cotangents(diff, self.subject.rest, cts)

    def drawn_truth(self, draw: int, diff: Sequence) -> Leaves:
        """The same for a draw's arguments and cotangents."""
        if draw not in self.truths:
            self.truths[draw] = self.truth(diff, self.drawn(draw))
        return self.truths[draw]

    def settled(self, truth: Leaves, cts: Leaves) -> Leaves:
        """The true cotangents at the given arguments, each entry that a tie concerns decided by itself."""
        return self.exact.settled(truth, cts) if self.exact.whole else truth
