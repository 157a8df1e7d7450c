"""The share of a text's lines that Python's own tokenizer accepts, a measure of how well a model writes Python.

A line is accepted if `tokenize.generate_tokens` reads it to its end, alone and without the white space around it:
without TokenError, IndentationError or another SyntaxError, and without ERRORTOKEN. Since Python 3.12, `$`, `?` and
letters that do not belong in identifiers pass for operators or names; they count as errors here too.

Indentation is not judged, since it depends on the lines before. For the same reason the share does not measure
correctness: a line that opens a bracket or a docstring is refused, and most prose is accepted. The text that a model
was trained on therefore has a share below 1, which is the one to compare with. Blank lines do not count, nor does the
last line, which the end of a sample cuts. Versions of Python differ a little.
"""

import io
import platform
import re
import tokenize
from token import EXACT_TOKEN_TYPES
from typing import NamedTuple


class Accepted(NamedTuple):
    """Lines that count, and those of them that are accepted."""

    lines: int
    accepted: int
    python: str
    """The version of the tokenizer."""

    @property
    def share(self) -> float:
        """The accepted lines over all lines; 0 without lines."""
        return self.accepted / max(self.lines, 1)

    def __str__(self) -> str:
        return f"{self.share:.1%} of {self.lines:,} lines accepted by the tokenizer of Python {self.python}"


def accepted(*texts: str) -> Accepted:
    """Count the texts' lines, which end with a newline or a document (NUL), and those that are accepted."""
    lines = [line.strip() for text in texts for line in re.split("[\n\0]", text)[:-1]]
    lines = [line for line in lines if line]
    return Accepted(len(lines), sum(map(accepts, lines)), platform.python_version())


def accepts(line: str) -> bool:
    """Return True if Python's tokenizer reads the line alone to its end."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip() + "\n").readline))
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):  # the last in Python 3.13, after a lone "\r"
        return False
    return all(map(_is_token, tokens))


def _is_token(token: tokenize.TokenInfo) -> bool:
    if token.type == tokenize.NAME:
        return token.string.isidentifier()
    if token.type == tokenize.OP:
        return token.string in EXACT_TOKEN_TYPES
    return token.type != tokenize.ERRORTOKEN
