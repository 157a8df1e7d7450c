"""Verdicts on the calls of a recording."""

import dataclasses
import functools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from refgrad._text import clipped, columns, counted, short_path, table
from refgrad.verify.check import check
from refgrad.verify.record.call import RecordedRule
from refgrad.verify.report import NOTHING, OK, PARTIAL, WRONG

UNCHECKED = "not checked"  # no values arrived, or the rule does not run outside its caller
EXCLUDED = "excluded"  # on request, with a reason
STATUSES = (OK, WRONG, PARTIAL, NOTHING, UNCHECKED, EXCLUDED)
LONGEST = 30.0  # seconds of one check, where there is a budget


@dataclasses.dataclass(frozen=True)
class RuleVerdict:
    """The outcome for one rule at one signature, in plain values that go from process to process.

    Attributes:
      key: as in `RecordedRule`.
      rule: the name of the user's function.
      where: file:line of the user's function.
      signature: types of the arrays, static values.
      calls: the number of calls.
      status: "ok", "wrong", "not checked", or in between.
      note: the reason why it was not checked in full.
      text: the report, where the rule is wrong.
      seconds: the time that the check took.
      report: the report as plain data.

    Example:
      >>> import jax
      >>> from refgrad.verify import record
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> with record() as seen:
      ...     _ = jax.grad(square)(3.0)
      >>> [verdict.status for verdict in seen.check(properties=["accuracy"]).verdicts]
      ['ok']
    """

    key: str
    rule: str
    where: str
    signature: str
    calls: int
    status: str
    note: str = ""
    text: str = ""
    seconds: float = 0.0
    report: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """`name(types of the arguments)`."""
        return f"{self.rule}({self.signature})"


@dataclasses.dataclass(frozen=True)
class RecordOutcome:
    """Verdicts on every call. Prints as a table with a row per rule; `ok` is False as soon as one is wrong.

    Attributes:
      verdicts: a verdict for each rule at each signature.

    Example:
      >>> from refgrad.verify.record import RecordOutcome
      >>> print(RecordOutcome(()))
      0 rules at 0 signatures: none called
    """

    verdicts: tuple[RuleVerdict, ...]

    @property
    def ok(self) -> bool:
        """True where no rule is wrong; those not checked, or partly, are counted apart."""
        return all(v.status != WRONG for v in self.verdicts)

    @property
    def headline(self) -> str:
        """`7 rules at 12 signatures: 10 ok, 1 wrong, 1 not checked`."""
        count = Counter(v.status for v in self.verdicts)
        rules = len({(v.rule, v.where) for v in self.verdicts})
        found = ", ".join(f"{count[s]} {s}" for s in STATUSES if count[s])
        return f"{counted(rules, 'rule')} at {counted(len(self.verdicts), 'signature')}: {found or 'none called'}"

    def __str__(self) -> str:
        return "\n".join([self.overview(), *(f"\n{v.text}" for v in self.verdicts if v.status == WRONG)])

    def overview(self) -> str:
        """Return the table, and a line for each call that was not checked in full."""
        return "\n".join([self.headline, *self._table(), *self._notes()])

    def data(self) -> dict[str, Any]:
        """The verdicts as plain dicts, lists, strings and numbers."""
        return {"ok": self.ok, "verdicts": [dataclasses.asdict(v) for v in self.verdicts]}

    def json(self) -> str:
        """`data()` as JSON text."""
        return json.dumps(self.data(), ensure_ascii=False, indent=1)

    def _table(self) -> Iterator[str]:
        rules: dict[tuple[str, str], list[RuleVerdict]] = {}
        for v in self.verdicts:
            rules.setdefault((v.rule, v.where), []).append(v)
        shown = [s for s in STATUSES if any(v.status == s for v in self.verdicts)]
        rows = []
        for (rule, where), group in rules.items():
            count = Counter(v.status for v in group)
            rows.append(
                [
                    _end(rule, 24),
                    _end(short_path(where), 24),
                    sum(v.calls for v in group),
                    *(count[s] or "" for s in shown),
                ]
            )
        if rows:
            yield table(["rule", "where", "calls", *shown], rows)

    def _notes(self) -> Iterator[str]:
        """Yield a line per rule and reason for the calls that were not checked in full."""
        groups: dict[tuple[str, str, str], list[RuleVerdict]] = {}
        for v in self.verdicts:
            if v.note and v.status != WRONG:
                groups.setdefault((v.status, v.rule, v.note), []).append(v)
        for (status, rule, note), group in groups.items():
            what = clipped(group[0].title, 40) if len(group) == 1 else f"{rule} at {len(group)} signatures"
            yield clipped(f"{status}: {what}: {note}", columns())


class Seen(Sequence[RecordedRule]):
    """The calls of a recording, one per rule × signature, in the order in which they were first met.

    Attributes:
      errors: exceptions of the recorder itself: calls that it could not record.

    Example:
      >>> from refgrad.verify import record
      >>> with record() as seen:
      ...     pass
      >>> len(seen), seen.errors
      (0, [])
    """

    def __init__(self, calls: Mapping[str, RecordedRule]) -> None:
        self._calls = calls
        self.errors: list[Exception] = []

    def __len__(self) -> int:
        return len(self._calls)

    def __getitem__(self, index: Any) -> Any:
        return list(self._calls.values())[index]

    def check(self, *, seconds: float | None = None, **settings: Any) -> RecordOutcome:
        """Run `check(rule, *args, **settings)` on every call.

        `seconds` limits all checks together: every rule is checked at one signature before any is at a second one, and
        what is left over is "not checked".
        """
        end = None if seconds is None else time.monotonic() + seconds
        return RecordOutcome(tuple(judge(call, end, **settings) for call in by_rule(self)))


def by_rule(calls: Iterable[RecordedRule]) -> list[RecordedRule]:
    """Return the calls with the first signature of every rule before any second one."""
    earlier: Counter = Counter()
    ranked = []
    for call in calls:
        rule = call.identity[:4]
        ranked.append((earlier[rule], call))
        earlier[rule] += 1
    return [call for _, call in sorted(ranked, key=lambda pair: pair[0])]


def judge(call: RecordedRule, end: float | None = None, **settings: Any) -> RuleVerdict:
    """Check one call, before the time `end` of `time.monotonic`."""
    start = time.monotonic()

    def verdict(status: str, note: str = "", text: str = "", report: Mapping | None = None) -> RuleVerdict:
        facts = (call.key, call.name, call.where, call.signature, call.calls)
        return RuleVerdict(*facts, status, note, text, round(time.monotonic() - start, 3), report)

    if call.obstacle or call.leaves is None:
        return verdict(UNCHECKED, call.obstacle or "no values arrived: it was traced, and never run")
    if end is not None and start >= end:
        return verdict(UNCHECKED, "the budget was used up")
    assert call.rule is not None and call.args is not None
    settings = {"argnums": call.identity.argnum} | settings
    if end is not None:
        settings = {"seconds": min(LONGEST, end - start)} | settings
    try:
        # an infinity that is meant must not raise
        with jax.enable_x64(call.x64), jax.debug_nans(False), jax.debug_infs(False):
            report = check(_inside(call.rule), *call.args, **settings)
    except Exception as error:  # whatever the rule raises outside its caller, as for the name of a mesh axis
        return verdict(UNCHECKED, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    note = f"{', '.join(report.left_out)} left out" if report.status == PARTIAL else report.nothing
    return verdict(report.status, note, "" if report.ok else report.summary(), report.data())


def _inside(rule: Any) -> Any:
    """Return a rule as it stands inside a function: one with symbolic zeros may count on how that calls it."""
    return functools.partial(rule) if isinstance(rule, jax.custom_jvp) else rule


def excluded(call: RecordedRule, reason: str) -> RuleVerdict:
    """Return the verdict on a call that is left out on request."""
    return RuleVerdict(call.key, call.name, call.where, call.signature, call.calls, EXCLUDED, reason)


def _end(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]
