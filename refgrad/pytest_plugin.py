"""`pytest --refgrad`: every rule that a test suite calls, checked at the end of the run.

Without the option nothing is imported here, neither JAX nor the rest of refgrad. With it, calls are recorded while the
tests run (`refgrad.verify.record`), and each rule is checked once per signature. A wrong one is a failed test: in the
terminal, in JUnit's file and in the exit code. Under xdist every worker records; a rule is checked by the first worker
that claims it, and the controller adds up what they found.
"""

import contextlib
import dataclasses
import fnmatch
import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MARKER = (
    "refgrad(pattern, exclude=reason | intent=…, tolerance=…): of the rules that match `pattern` (a name, or "
    "path/of/file.py:name, with wildcards): leave them out of `pytest --refgrad`, or check them with these settings"
)
SECONDS = 600.0
OUTPUT = "refgrad"  # key of what a worker sends to the controller
CLAIMS = "refgrad_claims"  # key of the folder that the controller makes for its workers


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `--refgrad`."""
    group = parser.getgroup("refgrad", "check of the custom derivative rules that the tests call")
    group.addoption("--refgrad", action="store_true", help="record the rules that run, and check them at the end")
    group.addoption(
        "--refgrad-only", metavar="PATTERN", help="only rules of this name, or path/of/file.py:name, with wildcards"
    )
    group.addoption(
        "--refgrad-seconds",
        type=float,
        metavar="SECONDS",
        help=f"limit of all checks together ({SECONDS:g}); what is left over is counted as not checked",
    )
    group.addoption("--refgrad-json", metavar="FILE", help="write the verdicts and reports to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the session's part where `--refgrad` is given."""
    config.addinivalue_line("markers", MARKER)
    only, seconds, path = (config.getoption(f"--refgrad-{name}") for name in ("only", "seconds", "json"))
    if not config.getoption("--refgrad"):
        for name, value in (("only", only), ("seconds", seconds), ("json", path)):
            if value is not None:
                raise pytest.UsageError(f"--refgrad-{name} does nothing without --refgrad")
        return
    if seconds is not None and not seconds > 0:
        raise pytest.UsageError(f"--refgrad-seconds is {seconds:g}, but must be above 0")
    if path is not None:
        _check_writable(Path(path))
    config.pluginmanager.register(RuleChecks(config, only, SECONDS if seconds is None else seconds, path), "rules")


def _check_writable(path: Path) -> None:
    """Raise UsageError unless a file can be written at `path`: before the tests, which may take an hour."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise pytest.UsageError(f"--refgrad-json: {path} cannot be written")


class RuleChecks:
    """The session's part: records, checks, and reports."""

    def __init__(self, config: pytest.Config, only: str | None, seconds: float, path: str | None) -> None:
        self.config, self.only, self.seconds, self.path = config, only, seconds, path
        self.is_worker = hasattr(config, "workerinput")
        self.claims: str | None = getattr(config, "workerinput", {}).get(CLAIMS)
        self.marks: list[tuple[str, dict[str, Any]]] = []
        self.misuse = ""  # of a marker
        self.recorder: Any = None
        self.outputs: list[dict[str, Any]] = []  # of the workers
        self.outcome: Any = None
        self.reported = False
        self.errors: list[str] = []  # calls that could not be recorded

    # --- the tests

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read the markers of the collected tests."""
        try:
            self._read_markers(items)
        except pytest.UsageError as error:
            if not self.is_worker:
                raise
            self.misuse = str(error)  # raised by the controller, since xdist takes it for a crash of the worker

    def _read_markers(self, items: list[pytest.Item]) -> None:
        """Collect the markers. They hold for the session: a rule is checked once, for all tests that call it."""
        from refgrad.verify import check

        known = inspect.signature(check).parameters
        for item in items:
            for mark in item.iter_markers("refgrad"):
                settings = dict(mark.kwargs)
                unknown = [name for name in settings if name != "exclude" and name not in known]
                if len(mark.args) != 1 or not isinstance(mark.args[0], str) or not settings:
                    raise pytest.UsageError(f"{item.nodeid}: the marker is {MARKER}")
                if unknown:
                    raise pytest.UsageError(f"{item.nodeid}: refgrad.verify.check has no setting {unknown[0]!r}")
                if (pair := (mark.args[0], settings)) not in self.marks:
                    self.marks.append(pair)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[Any]:
        """Record the rules that the tests call, then check and report them."""
        controls = self.config.pluginmanager.hasplugin("dsession")
        if self.config.option.collectonly or controls:
            result = yield
        else:
            from refgrad.verify.record.recorder import Recorder

            self.recorder = Recorder()
            try:
                with self.recorder.patched():
                    result = yield
            finally:
                self.recorder.close()
            self._judge()
        if not self.is_worker and not self.config.option.collectonly:
            self._report(self._merged() if controls else self.outcome)
        return result

    def pytest_runtest_logfinish(self) -> None:
        """Settle the calls that the test left pending."""
        if self.recorder is not None:
            self.recorder.settle()

    # --- the checks

    def _judge(self) -> None:
        from refgrad.verify.record.outcome import RecordOutcome, by_rule, excluded, judge

        end = time.monotonic() + self.seconds
        seen = [] if self.misuse else self.recorder.seen
        calls = [call for call in by_rule(seen) if self.only is None or _matches(call, self.only)]
        verdicts = []
        with self._progress() as progress:
            for i, call in enumerate(calls, 1):
                settings = {k: v for pattern, s in self.marks if _matches(call, pattern) for k, v in s.items()}
                if "exclude" in settings:
                    verdicts.append(excluded(call, settings["exclude"]))
                elif call.leaves is None or self._claim(call.key):
                    progress(f"refgrad: {i} of {len(calls)}, {call.name} ({call.where})")
                    verdicts.append(judge(call, end, **settings))
        self.outcome = RecordOutcome(tuple(verdicts))
        self.errors = [f"{type(e).__name__}: {e}" for e in self.recorder.seen.errors]
        if self.is_worker:
            seen = {call.key: (call.name, call.where, call.signature, call.calls) for call in calls}
            output = {
                "misuse": self.misuse,
                "verdicts": self.outcome.data()["verdicts"],
                "seen": seen,
                "errors": self.errors,
            }
            # JSON: xdist sends plain types alone
            self.config.workeroutput[OUTPUT] = json.dumps(output)  # pyright: ignore[reportAttributeAccessIssue]

    def _claim(self, key: str) -> bool:
        """Return True for the first worker that asks."""
        if self.claims is None:
            return True
        try:
            os.close(os.open(Path(self.claims, hashlib.sha256(key.encode()).hexdigest()), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        except OSError:  # a worker on another machine does not see the folder, and checks what it has seen
            return True
        return True

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Any]:
        """Yield a function that shows a line, on a terminal only."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if self.is_worker or reporter is None or not reporter.isatty:
            yield lambda line: None
            return
        reporter.write_line("")
        yield lambda line: reporter.rewrite(line[:100], erase=True)
        reporter.rewrite("", erase=True)

    # --- xdist's controller

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker the folder in which workers claim rules."""
        if self.claims is None:
            self.claims = tempfile.mkdtemp(prefix="refgrad-")
        node.workerinput[CLAIMS] = self.claims

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Collect the verdicts of a worker that ends."""
        if text := getattr(node, "workeroutput", {}).get(OUTPUT):
            self.outputs.append(json.loads(text))

    def _merged(self) -> Any:
        """Return one verdict per key: of the worker that checked it, with the calls of all workers."""
        from refgrad.verify.record.outcome import UNCHECKED, RecordOutcome, RuleVerdict

        if self.claims is not None:
            shutil.rmtree(self.claims, ignore_errors=True)
        verdicts: dict[str, RuleVerdict] = {}
        calls: dict[str, int] = {}
        for output in self.outputs:
            if output["misuse"]:
                raise pytest.UsageError(output["misuse"])
            for key, (rule, where, signature, count) in output["seen"].items():
                calls[key] = calls.get(key, 0) + count
                lost = RuleVerdict(key, rule, where, signature, 0, UNCHECKED, "the worker that was to check it ended")
                verdicts.setdefault(key, lost)
            self.errors += output["errors"]
        judged = [RuleVerdict(**fields) for output in self.outputs for fields in output["verdicts"]]
        for verdict in sorted(judged, key=lambda v: v.status != UNCHECKED):  # a check counts more than no values
            verdicts[verdict.key] = verdict
        return RecordOutcome(tuple(dataclasses.replace(v, calls=calls[key]) for key, v in verdicts.items()))

    # --- what people and CI see

    def _report(self, outcome: Any) -> None:
        """Pass the verdicts to pytest as the reports of tests, which counts failures and writes JUnit's file."""
        self.outcome = outcome
        for verdict in outcome.verdicts:
            for report in _as_tests(verdict):
                self.config.hook.pytest_runtest_logreport(report=report)
        self.reported = True
        if self.path is not None:
            Path(self.path).write_text(outcome.json() + "\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Name the status of a rule's check; None for a test's own report."""
        if not hasattr(report, "refgrad"):
            return None
        if not report.failed:
            return "", "", ""  # counted in the section, not as a test
        return "failed", "", "FAILED" if self.reported else ""  # a word for the summary, none for the progress line

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the section of verdicts."""
        if self.outcome is None:
            return
        terminalreporter.section("refgrad")
        if self.errors:
            terminalreporter.write_line(f"{len(self.errors)} calls could not be recorded, the first: {self.errors[0]}")
        terminalreporter.write_line(self.outcome.overview() if self.outcome.verdicts else "no rule was called")


class Failure(str):
    """The text of a failed check, with the first line where pytest looks for the message of an exception."""

    @property
    def reprcrash(self) -> Any:
        """The crash whose message pytest shows."""
        return SimpleNamespace(message=self.partition("\n")[0])


def _as_tests(verdict: Any) -> Iterator[pytest.TestReport]:
    """Yield the reports of one test: its call, and the end of it, for which JUnit's writer waits."""
    file, _, line = verdict.where.rpartition(":")
    outcome: Any = {"ok": "passed", "wrong": "failed"}.get(verdict.status, "skipped")
    longrepr: Any = None
    if outcome == "failed":
        longrepr = Failure(verdict.text)
    elif outcome == "skipped":
        longrepr = (file, int(line or 0), f"{verdict.status}: {verdict.note}")
    name = f"refgrad::{Path(file).name}:{line}::{verdict.rule}[{verdict.signature}]"
    location = (file, int(line or 0), verdict.title)
    for when, result, text in (("call", outcome, longrepr), ("teardown", "passed", None)):
        seconds = verdict.seconds if when == "call" else 0.0
        report = pytest.TestReport(name, location, {}, result, text, when, duration=seconds)  # pyright: ignore
        report.refgrad = True  # pyright: ignore[reportAttributeAccessIssue]
        yield report


def _matches(call: Any, pattern: str) -> bool:
    """Return True where the pattern matches the rule's name, or its file and name."""
    path = Path(call.where.rpartition(":")[0]).as_posix()
    return fnmatch.fnmatchcase(call.name, pattern) or fnmatch.fnmatchcase(f"{path}:{call.name}", pattern)
