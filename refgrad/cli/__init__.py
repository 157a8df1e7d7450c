"""The `refgrad` command: one thin file per sub-command, imported when it is called."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from refgrad._exit_codes import BY_SIGNAL, INTERRUPTED
from refgrad._machine import cores, versions
from refgrad._text import nearest, one_line
from refgrad._workers import REPORT, forked
from refgrad.cli import options, terminal

COMMANDS = {
    "verify": "verify every derived rule, or the rules inside a function of yours",
    "cost": "price GPT-2, or a function of yours: FLOPs, bytes, memory, to the last unit",
    "claims": "run the documents' claims and print each one's verdict",
    "bench": "measure a training step beside autodiff, other libraries and the roofline",
    "report": "build one HTML page with everything, from this machine",
    "train": "train a GPT-2: text in, model out",
    "sample": "generate text with a model",
    "export": "write a run of refgrad train as a GPT-2 folder",
}
PIPE_CLOSED = BY_SIGNAL + 13  # SIGPIPE, which Windows does not have

__all__ = ["COMMANDS", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
      argv: The words after `refgrad`; those of the process by default.

    Returns:
      The exit code: 0 only if everything that it checks holds, 1 where something does not, 2 for bad input or none, 130
      where it was interrupted, 141 where nobody reads its output any more.

    Example:
      >>> from refgrad.cli import main
      >>> main(["claims", "no such row"])
      2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words and words[0] in COMMANDS else ""
    try:
        with terminal.output(verdicts=name != "sample"):
            return _command(name, words[1:]) if name else _about(words)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED
        print(f"{_title(name)}: {one_line(_words(error))}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        cause = _machine(error)
        if not cause:
            raise
        print(f"{_title(name)}: {cause}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{_title(name)}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _command(name: str, words: Sequence[str]) -> int:
    """Parse the options, and import what runs only then."""
    what = COMMANDS[name]
    about = f"{what[0].upper()}{what[1:]}. Exit code 0 only if everything that it checks holds."
    parser = options.Parser(prog=_title(name), description=about)
    getattr(options, name)(parser)
    try:
        given = parser.parse(words)
    except SystemExit:  # help is printed
        return 0
    started = "jax" in sys.modules  # by whoever calls this, its devices perhaps too
    run = importlib.import_module(f"refgrad.cli.{name}").run
    with forked(0 if started else _workers(name, given)):
        return run(given)


def _workers(name: str, given: argparse.Namespace) -> int:
    """Return the number of workers that a command computes with, 0 for a short one."""
    if name == "report":
        return REPORT
    long = name == "verify" and not (given.target or given.op or given.prove or given.device)
    return cores() or 1 if long or (name == "claims" and not given.ids) else 0


def _about(words: Sequence[str]) -> int:
    """Print help or versions. Raises ValueError for a command that does not exist."""
    first = words[0] if words else "--help"
    if first in ("--version", "-V"):
        print(", ".join(f"{package} {version}" for package, version in versions().items()))
        return 0
    if first not in ("--help", "-h"):
        if ".py" in first:
            raise ValueError(f"{first} is not a command: refgrad verify {first}, or refgrad cost {first}")
        raise ValueError(f"{first} is not a command: {nearest(first, COMMANDS)}")
    print("usage: refgrad COMMAND [OPTION …]\n\nHand-derived gradients in JAX: verified and priced.\n")
    print("\n".join(f"  {name.ljust(8)}{what}" for name, what in COMMANDS.items()))
    print("\nrefgrad COMMAND --help lists its options; refgrad --version tells versions.")
    return 0 if words else 2


def _machine(error: Exception) -> str:
    """Return the sentence for an error that this machine causes, with the way out; empty for any other."""
    text = one_line(str(error))
    if "nable to initialize backend" in text:
        return f"JAX_PLATFORMS or --device: {text}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"out of memory: take a smaller batch, sequence or model: {text}"
    return ""


def _words(error: Exception) -> str:
    """Return an error's message; for one of the operating system, the file first and without its number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _title(name: str) -> str:
    return f"refgrad {name}".strip()
