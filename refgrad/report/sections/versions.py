"""Versions, machine and commit behind the page."""

import os
import platform
import subprocess
from datetime import UTC, datetime

import jax

from refgrad import _machine
from refgrad._text import Table
from refgrad.report.cells import CHECKOUT
from refgrad.report.sections.section import Section, Shown

OTHERS = ("numpy", "sympy", "rich", "matplotlib", "jinja2", "optax")


def versions(quick: bool) -> Section:
    """Packages, machine, commit and date."""
    facts = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "compiled": "with little optimisation, experiments that time themselves excepted (--quick)" if quick else "",
        "device": jax.devices()[0].device_kind,
        **_machine.versions(*OTHERS),
    }
    rows = [[name, value] for name, value in facts.items() if value]
    shown = Shown("What this page was made with", Table(["what", "version"], rows), False)
    return Section("Versions", {"shown": [shown]})


def _commit() -> str:
    """The checkout's commit; "" outside of a checkout or without git."""
    try:
        words = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
