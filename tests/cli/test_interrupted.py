"""Ctrl-C in the first seconds: one line and exit code 130, wherever Python raises it."""

import gc
import importlib
import os
import random
import signal
import subprocess
import sys
import time
import types

import pytest

from refgrad import __main__
from refgrad.cli import INTERRUPTED


def starting(monkeypatch, main):
    """Make `refgrad.cli` a module whose `main` is made by `main()` when it is imported."""
    module = types.ModuleType("refgrad.cli")
    module.__getattr__ = lambda name: main()
    monkeypatch.setitem(sys.modules, "refgrad.cli", module)


def interrupted():
    raise KeyboardInterrupt


def test_while_modules_are_imported(monkeypatch, capsys):
    starting(monkeypatch, interrupted)
    assert __main__.run() == INTERRUPTED == __main__.INTERRUPTED
    assert capsys.readouterr().err == "refgrad: interrupted\n"


class Left(BaseException):
    """The stand-in for `os._exit` in a test."""


def test_inside_an_import_it_ends_at_once(monkeypatch, capfd, tmp_path):
    def leave(code):
        raise Left(code)

    (tmp_path / "half_imported.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "_exit", leave)
    starting(monkeypatch, lambda: importlib.import_module("half_imported"))
    with pytest.raises(Left, match="130"):
        __main__.run()
    assert capfd.readouterr().err == "refgrad: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Finalised:
    def __del__(self):
        interrupted()


def in_a_callback():
    once = iter([interrupted])
    gc.callbacks.append(lambda *_: next(once, lambda: None)())
    try:
        gc.collect()
    finally:
        gc.callbacks.pop()


def in_a_finaliser():
    Finalised()


@pytest.mark.parametrize("place", [in_a_callback, in_a_finaliser])
def test_where_python_cannot_pass_it_on(place, monkeypatch):
    def main():
        place()
        time.sleep(60)
        return 0

    told = sys.unraisablehook
    starting(monkeypatch, lambda: main)
    assert __main__.run() == INTERRUPTED
    assert sys.unraisablehook is told


STARTED = "import sys; from refgrad.__main__ import run; print('started', flush=True); sys.exit(run())"


@pytest.mark.slow
def test_at_random_moments():
    chance = random.Random(0)
    for _ in range(6):
        command = [sys.executable, "-c", STARTED, "cost"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "started\n"
            time.sleep(3 * chance.random())
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        assert (process.returncode, "Traceback" in said) == (INTERRUPTED, False), said
