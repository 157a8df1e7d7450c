"""Standard output as people meet it: verdicts in colour on a terminal, any encoding, a reader that goes away."""

import codecs
import contextlib
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

RED, GREEN, YELLOW = 31, 32, 33
VERDICTS = {
    **dict.fromkeys(("FAIL", "WRONG", "UNEXPLAINED", "is wrong", "refuted", "fail", "NOT everything holds"), RED),
    **dict.fromkeys(("ok", "holds", "proven", "Everything holds"), GREEN),
    **dict.fromkeys(("partial", "kink", "not decided", "undecided", "holds when", "not run", "less accurate"), YELLOW),
}
_WORDS = "|".join(sorted(map(re.escape, VERDICTS), key=len, reverse=True))
VERDICT = re.compile(rf"(?:^|(?<=[\d ] )|(?<=: ))({_WORDS})(?=  |[:.,;]|$)", re.MULTILINE)
PLAIN = {
    **{"×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "─": "-", "…": "...", "→": "->", "⇄": "<->", "≤": "<="},
    **{"≥": ">=", "≠": "!=", "√": "sqrt", "∞": "inf", "ε": "eps", "Σ": "sum", "∂": "d", "“": '"', "”": '"', "’": "'"},
}
ERRORS = "refgrad.plain"


def output(verdicts: bool) -> contextlib.AbstractContextManager:
    """Return the context in which a command prints; with `verdicts`, they are coloured on a terminal.

    A closed pipe raises BrokenPipeError inside it, once. `NO_COLOR` and `TERM=dumb` are obeyed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
    return _output(verdicts and coloured(sys.stdout))


def coloured(stream: TextIO) -> bool:
    """Return True where colours are wanted: on a terminal, unless the environment says otherwise."""
    return bool(stream) and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str) -> str:
    """The text with its verdicts in colour."""
    return VERDICT.sub(lambda found: f"\x1b[{VERDICTS[found[0]]}m{found[0]}\x1b[0m", text)


class _Painted(io.TextIOBase):
    """A terminal on which verdicts are coloured."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return that of the terminal."""
        return self.stream.encoding

    def isatty(self) -> bool:
        """Return True: rich asks."""
        return True

    def fileno(self) -> int:
        """Return the terminal's."""
        return self.stream.fileno()

    def write(self, text: str) -> int:
        """Write `text`, coloured."""
        self.stream.write(painted(text))
        return len(text)

    def flush(self) -> None:
        """Flush the terminal."""
        self.stream.flush()


@contextlib.contextmanager
def _output(paint: bool) -> Iterator[None]:
    stream = sys.stdout
    try:
        with contextlib.redirect_stdout(_Painted(stream)) if paint else contextlib.nullcontext():
            yield
        if stream:  # it is None where it was closed before the start
            stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes once more as it ends
        raise


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks by the nearest that it has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = []
    for letter in error.object[error.start : error.end]:
        near = PLAIN.get(letter) or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        found.append(near or "?" * (not unicodedata.combining(letter)))
    return "".join(found), error.end


codecs.register_error(ERRORS, _plain)
