"""Which share of a text's lines Python's own tokenizer accepts: whether a model of Python's source writes Python.

A line is accepted if `tokenize.generate_tokens` reads it, alone and without the white space around it, to its end: no
TokenError, no IndentationError or other SyntaxError, no ERRORTOKEN; nor what is one until Python 3.11 and passes for an
operator or a name since: `$`, `?`, letters of no identifier. Its indentation is not judged, since that depends on the
lines before. For the same reason it is no measure of right and wrong: a line that opens a bracket or a docstring
is refused, and most prose is accepted; so the text that a model was trained on has a share below 1, the one to compare
with. Blank lines do not count, nor does the last, which the end of a sample cuts. Versions of Python differ a little.
"""

import io
import platform
import re
import tokenize
from token import EXACT_TOKEN_TYPES
from typing import NamedTuple


class Accepted(NamedTuple):
    """Lines that count, and those accepted."""

    lines: int
    accepted: int
    python: str
    """The version whose tokenizer it was."""

    @property
    def share(self) -> float:
        """Accepted lines over lines; 0 where there is none."""
        return self.accepted / max(self.lines, 1)

    def __str__(self) -> str:
        return f"{self.share:.1%} of {self.lines:,} lines accepted by the tokenizer of Python {self.python}"


def accepted(*texts: str) -> Accepted:
    """Count over the texts' lines, which end with a newline or with a document (NUL): one cut off does not count."""
    lines = [line.strip() for text in texts for line in re.split("[\n\0]", text)[:-1]]
    lines = [line for line in lines if line]
    return Accepted(len(lines), sum(map(accepts, lines)), platform.python_version())


def accepts(line: str) -> bool:
    """Whether Python's tokenizer reads the line alone to its end."""
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
