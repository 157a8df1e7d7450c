"""A backward rule proven for all real arguments on a branch, by one symbolic run of it and of its forward.

>>> print(prove(my_rule, x, w).verdict.value)
proven: all real arguments on this branch, at these shapes
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flint import ctx

from refgrad.verify.exact.arrays import NotDecided
from refgrad.verify.exact.evaluate import NoMeaning
from refgrad.verify.prove.branches import SEED, points
from refgrad.verify.prove.constants import ClosedForm, identities, is_plain
from refgrad.verify.prove.elements import TooLarge
from refgrad.verify.prove.proof import LARGE, Branch, Proof, ProofVerdict
from refgrad.verify.prove.question import Question, Sides
from refgrad.verify.prove.testing import ROUNDED, largest_gap

BITS = 256  # of the balls
SCALARS = 60_000  # in both programs, above which a rule is tested
POINTS = 3  # of a test
PATIENCE = 6  # points without a new pattern, after which no more are drawn once all comparisons went both ways
FAINT, FOLDED = 2.0**-64, 2.0**-48  # the relative differences that can be a constant's rounding in float64
UNIDENTIFIED = "within {:.1g} of truth, as the rounding of a constant that is not identified"
EXTRA = 4  # times the patterns asked for: the points drawn at most


def prove(f: Callable, *args: Any, branches: int = 6) -> Proof:
    """Prove the backward rules inside `f` for all real arguments on the branch of `args`, and on several others.

    The forward alone gives the truth. Both are traced in float64 and run on symbols: `args` decide the comparisons,
    and each entry of rule and truth comes out as an element of a field of functions, where equality is decided by
    reduction. A program that is too large is tested at points.

    Args:
      f: a function with rules inside.
      *args: its arguments, which decide the first branch.
      branches: the number of patterns of comparisons to try; more are tried until every comparison that goes both ways
        at some point has done so on one of them.

    Returns:
      A `Proof`: it prints as a table, and has `.ok`, `.verdict` and `.counterexample`.

    Raises:
      TypeError: where nothing can be differentiated or no rule is inside.
      ValueError: where an argument is NaN.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import prove
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> prove(square, jnp.ones(2)).verdict.name
      'PROVEN'
    """
    question = Question.of(f, args)
    with ctx.workprec(BITS), np.errstate(all="ignore"):
        return _tested(question) if question.size > SCALARS else _Search(question, branches).proof()


def _folded(constants: Iterable[float]) -> bool:
    """Return True where one of the constants can be the rounding of another."""
    return any(np.isfinite(c) and not is_plain(c) for c in constants)


class _Search:
    """The branches of one question: that of the given arguments, then those that drawn points find."""

    def __init__(self, question: Question, most: int) -> None:
        self.question, self.most = question, most
        self.found: list[Branch] = []
        self.patterns: set[tuple[bool, ...]] = set()
        self.sides_seen: set[tuple[int, bool]] = set()
        """(number of a comparison, outcome), over the patterns."""
        self.constants: dict[float, ClosedForm] = {}
        self.misses = 0

    def proof(self) -> Proof:
        """Return the outcome, once no new pattern turns up, enough are tried, or one is refuted."""
        points_drawn = itertools.islice(points(self.question.given), EXTRA * self.most)
        for number, arguments in enumerate(itertools.chain([self.question.given], points_drawn)):
            start = time.perf_counter()
            try:
                sides = self.question.sides(arguments, {})
            except (NotDecided, NoMeaning, TooLarge) as reason:
                self.misses += 1
                if number == 0 or isinstance(reason, NoMeaning):
                    self.found.append(Branch("given", 0, 0, 0, ProofVerdict.UNDECIDED, str(reason) or LARGE))
                if isinstance(reason, NoMeaning):
                    break
                continue
            new = self._is_new(tuple(sides.run.decisions))
            self.misses = 0 if new else self.misses + 1
            branch, used = self._decide(sides, arguments, algebra=new and not self._swells)
            if new or branch.verdict is ProofVerdict.REFUTED:
                self.constants |= used
                name = "given" if number == 0 else f"drawn {number}"
                self.found.append(dataclasses.replace(branch, point=name, seconds=time.perf_counter() - start))
            if branch.verdict is ProofVerdict.REFUTED or self._enough:
                break
        comparisons = max((b.comparisons for b in self.found), default=0)
        facts = {"branches": f"patterns of comparisons: {len(self.patterns)}; seed {SEED}"}
        if comparisons:
            both = comparisons - len(self._one_way)
            facts["branches"] += f"; {both} of {comparisons} comparisons went both ways"
        texts = tuple(map(str, self.constants.values()))
        return Proof(self.question.subject.title, tuple(self.found), texts, facts, self.question.where)

    @property
    def _one_way(self) -> set[int]:
        """The comparisons that have gone one way alone."""
        return {n for n, way in self.sides_seen if (n, not way) not in self.sides_seen}

    @property
    def _enough(self) -> bool:
        """True where further points have stopped to find anything new."""
        return (self.misses >= PATIENCE and not self._one_way) or (self._swells and len(self.patterns) >= self.most)

    @property
    def _swells(self) -> bool:
        """True where a branch was too large: on the others the balls alone are compared."""
        return any(b.verdict is ProofVerdict.TESTED for b in self.found)

    def _is_new(self, pattern: tuple[bool, ...]) -> bool:
        """Return True for a pattern to be tried: one of the first, or one that takes a comparison the other way."""
        ways = set(enumerate(pattern))
        if pattern in self.patterns or (len(self.patterns) >= self.most and ways <= self.sides_seen):
            return False
        self.patterns.add(pattern)
        self.sides_seen |= ways
        return True

    def _decide(self, sides: Sides, arguments: list[np.ndarray], algebra: bool) -> tuple[Branch, dict]:
        """Return the verdict on the branch of one point, and the constants that had to be identified for it."""
        decisions = sides.run.decisions
        branch = Branch("", len(decisions), sum(decisions), sides.entries, ProofVerdict.TESTED, LARGE)
        used: dict[float, ClosedForm] = {}
        if (apart := next(sides.apart(), None)) is not None:
            used = identities(sides.constants)
            identified = self.question.sides(arguments, used) if used else sides
            if (gap := identified.largest_gap()) and FAINT <= gap <= FOLDED and _folded(sides.constants):
                return dataclasses.replace(branch, verdict=ProofVerdict.UNDECIDED, why=UNIDENTIFIED.format(gap)), {}
            if gap:
                example = self.question.counterexample(sides, apart, arguments)
                return dataclasses.replace(branch, verdict=ProofVerdict.REFUTED, why="", counterexample=example), {}
            sides = identified
        if algebra:
            verdict, why = sides.verdict()
            branch = dataclasses.replace(branch, verdict=verdict, why=why)
        return branch, used


def _tested(question: Question) -> Proof:
    """Return the test of a program that is too large for a proof: at the given arguments, and at drawn ones."""
    found = []
    drawn = itertools.chain([question.given], points(question.given))
    for number, arguments in enumerate(itertools.islice(drawn, POINTS)):
        start = time.perf_counter()
        branch = Branch("given" if number == 0 else f"drawn {number}", 0, 0, question.entries, ProofVerdict.UNDECIDED)
        cotangents = question.cotangents()
        try:
            gap = largest_gap(question.forward, question.backward, arguments, question.subject.rest, cotangents)
        except (NotDecided, NoMeaning) as reason:
            found.append(dataclasses.replace(branch, why=str(reason)))
            continue
        example = None
        if gap.relative > ROUNDED:
            example = question.example((gap.leaf, gap.index), gap.got, gap.truth, arguments, cotangents)
        verdict = ProofVerdict.TESTED if example is None else ProofVerdict.REFUTED
        why, seconds = f"within {gap.relative:.2g} of truth", time.perf_counter() - start
        found.append(dataclasses.replace(branch, verdict=verdict, why=why, seconds=seconds, counterexample=example))
    facts = {
        "tested": f"more than {SCALARS} scalars; in exact arithmetic at {POINTS} points, seed {SEED}",
        "bound": f"a difference above {ROUNDED:.2g} of the largest entry would refute it",
    }
    return Proof(question.subject.title, tuple(found), (), facts, question.where)
