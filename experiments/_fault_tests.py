"""The plugin of `planted_faults.py` for pytest: which tests execute given lines, and given tests in a given order."""

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

monitoring: Any = getattr(sys, "monitoring", None)  # of Python 3.12


def pytest_addoption(parser) -> None:
    """Add the plugin's two options."""
    parser.addoption("--watch", type=Path, help="JSON: the lines to watch by file; what is seen is written over it")
    parser.addoption("--order", type=Path, help="JSON: the tests to run, in order")


def pytest_configure(config) -> None:
    """Start watching."""
    if path := config.getoption("--watch"):
        config.pluginmanager.register(Watch(path))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items) -> None:
    """Keep the listed tests, in their order."""
    if path := config.getoption("--order"):
        by_id = {item.nodeid: item for item in items}
        items[:] = [by_id[name] for name in json.loads(path.read_text()) if name in by_id]


class Watch:
    """The lines that each test executes of those in the file at `path`, its seconds, and the tests that fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = {file: frozenset(lines) for file, lines in json.loads(path.read_text()).items()}
        self.imported: set[tuple[str, int]] = set()
        self.now = self.imported
        self.seen: dict[str, list[tuple[str, int]]] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []
        self.tool, self.events = monitoring.COVERAGE_ID, monitoring.events
        monitoring.use_tool_id(self.tool, "planted faults")
        monitoring.register_callback(self.tool, self.events.PY_START, self._start)
        monitoring.register_callback(self.tool, self.events.LINE, self._line)
        monitoring.set_events(self.tool, self.events.PY_START)

    def _start(self, code, _offset):
        """Watch the lines of a watched file's functions; a test that enters one has seen line 0 of the file."""
        if code.co_filename not in self.lines:
            return monitoring.DISABLE
        self.now.add((code.co_filename, 0))
        if not self.lines[code.co_filename].isdisjoint(line for _, _, line in code.co_lines()):
            monitoring.set_local_events(self.tool, code, self.events.LINE)
        return None

    def _line(self, code, line):
        if line in self.lines[code.co_filename]:
            self.now.add((code.co_filename, line))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        """Watch one test."""
        self.now, start = set(), time.perf_counter()
        result = yield
        self.seen[item.nodeid] = sorted(self.now)
        self.seconds[item.nodeid] = time.perf_counter() - start
        self.now = self.imported
        return result

    def pytest_runtest_logreport(self, report) -> None:
        """Keep the names of failing tests."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was seen."""
        found = {"imported": sorted(self.imported), "seen": self.seen, "seconds": self.seconds, "failed": self.failed}
        self.path.write_text(json.dumps(found))
