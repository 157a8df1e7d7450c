"""Formulas as the derivations write them, in Unicode text, turned into MathML."""

import re
import unicodedata

from refgrad.report.mathml.parse import Parser
from refgrad.report.mathml.tokens import NotMathematics, tokens

__all__ = ["NotMathematics", "display", "inline", "polynomial"]


def inline(text: str) -> str:
    """A formula that stands in a sentence, as `<math>` elements between which a line may end.

    Raises NotMathematics where a word is in it.
    """
    return f"<math>{_row(text, words=False)}</math>"


def display(text: str) -> str:
    """A formula on a line of its own, words such as "for j ≠ i" included, as a `<math>` element.

    Raises NotMathematics where it does not parse to its end, or is words for the most part.
    """
    return f'<math display="block">{_row(text, words=True)}</math>'


def polynomial(expression: object) -> str:
    """A polynomial as sympy prints it, such as `8*b*s*h + 2*h**2`, as a `<math>` element; Kronecker's δ has indices."""
    text = re.sub(r"KroneckerDelta\((\w), (\w)\)", r"δ_\1\2", str(expression))
    return inline(text.replace("**", "^").replace("*", " "))


def _row(text: str, words: bool) -> str:
    found = tokens("".join(unicodedata.normalize("NFD", c) if c.isalpha() else c for c in text.strip().rstrip(".")))
    parser = Parser(found, words)
    row = parser.row()
    if not found or 2 * parser.text_words > len(found):
        raise NotMathematics(f"{text!r} is words for the most part")
    return f"<mrow>{row}</mrow>"
