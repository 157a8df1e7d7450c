"""Can every backward rule be proven for all real arguments, and does a proof refute every wrong one?

Each rule is compared with the derivative of its forward, both as elements of one field of functions: on the branch of
the arguments and on branches that drawn points find. A block and the tiny GPT-2 are tested at points, in exact
arithmetic. Mutants are those of `verify.mutants` in float64, and slight ones: a cotangent times 1 + 2⁻⁴⁰, a constant
wrong in its twelfth digit. One that is not refuted must be equivalent to the right rule. Cells: generated/refuted.

    python experiments/proofs.py
    python experiments/proofs.py --set 'subjects=["layer_norm"]'
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, track

from refgrad import verify
from refgrad._text import nearest
from refgrad.ops import TABLE
from refgrad.report import proofs
from refgrad.report.figures import BLUE, ORANGE, VERMILLION
from refgrad.verify.prove import ProofVerdict, slight_mutants

COLORS = {
    ProofVerdict.PROVEN: BLUE,
    ProofVerdict.TESTED: ORANGE,
    ProofVerdict.UNDECIDED: VERMILLION,
    ProofVerdict.REFUTED: VERMILLION,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The subjects (or "all"), and True to try their mutants."""

    subjects: list[str]
    mutants: bool

    def __post_init__(self) -> None:
        for name in self.subjects:
            if name not in ("all", *proofs.subjects()):
                raise ValueError(f"subjects: {name!r} is unknown: {nearest(name, proofs.subjects())}")

    @property
    def names(self) -> list[str]:
        """The subjects."""
        return list(proofs.subjects()) if "all" in self.subjects else self.subjects


@dataclasses.dataclass
class Mutants:
    """The wrong versions of one rule: how many there are, how many are refuted, and the others by name."""

    generated: int = 0
    refuted: int = 0
    equivalent: list[str] = dataclasses.field(default_factory=list)
    survived: list[str] = dataclasses.field(default_factory=list)


def mutants_of(name: str) -> Mutants:
    """Put every mutant of an operation before the proof."""
    found = Mutants()
    row, dims = TABLE[name], proofs.dimensions(name)
    with jax.enable_x64(True):
        args = (*row.sample(0, dims, jnp.float64), *row.static_values(dims))
        for mutant in (*verify.mutants(row.op, *args), *slight_mutants(row.op, *args)):
            found.generated += 1
            if verify.prove(mutant.function, *args).verdict is ProofVerdict.REFUTED:
                found.refuted += 1
            elif verify.equivalent(mutant, row.op, *args):
                found.equivalent.append(mutant.name)
            else:
                found.survived.append(mutant.name)
    return found


def run(settings: Settings) -> Result:
    """Prove every subject, then its mutants."""
    results = [proofs.prove(name) for name in track(settings.names, "proofs")]
    operations = [name for name in settings.names if name in TABLE] if settings.mutants else []
    return result(results, {name: mutants_of(name) for name in track(operations, "mutants")})


def result(results: list[proofs.ProofResult], mutants: dict[str, Mutants]) -> Result:
    """The verdicts as a table, their sums, and the failures."""
    rows = []
    for found in results:
        own = mutants.get(found.name)
        cells = f"{own.generated}/{own.refuted}" if own else None
        branches = len(found.proof.branches)
        rows.append([found.name, found.proof.verdict.brief, branches, found.seconds, cells, found.note or None])
    generated, refuted, equivalent = (
        sum(count(m) for m in mutants.values())
        for count in (lambda m: m.generated, lambda m: m.refuted, lambda m: len(m.equivalent))
    )
    answer = [f"{proofs.counts(results)}."]
    answer += [
        f"{r.name}: {r.proof.verdict.brief}, {r.note}" for r in results if r.proof.verdict is not ProofVerdict.PROVEN
    ]
    if mutants:
        answer.append(f"{generated} mutants: {refuted} refuted, {equivalent} equivalent.")
    answer += [f"equivalent: {name} {text}" for name, m in mutants.items() for text in m.equivalent]
    failures = [f"{name} {text} is not refuted" for name, m in mutants.items() for text in m.survived]
    failures += [f"{r.name} is {r.proof.verdict.brief}: {r.note}" for r in results if not r.proof.ok]
    table = Table(["rules of", "verdict", "branches", "s", "mutants", "note"], rows)
    return Result(answer, table, [figure(results)], failures=failures)


def figure(results: list[proofs.ProofResult]) -> Figure:
    """A bar of seconds for each subject, by verdict."""

    def paint(axes) -> None:
        for verdict in ProofVerdict:
            own = [r for r in results if r.proof.verdict is verdict]
            if own:
                seconds = [r.seconds for r in own]
                axes.barh([r.name for r in own], seconds, color=COLORS[verdict], label=verdict.brief)
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="seconds", ylabel="rules of")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

    slowest = max(results, key=lambda r: r.seconds)
    alt = f"A bar for each of {len(results)} subjects: {proofs.counts(results)}; {slowest.name} takes longest."
    return Figure("Time of a proof", alt, paint, options={"size": (7, 1.6 + 0.22 * len(results))})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
