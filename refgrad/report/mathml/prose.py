"""A derivation's docstring as HTML: formulas on lines of their own, formulas inside sentences, the rest as text."""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup, escape

from refgrad.report.mathml import display, inline
from refgrad.report.mathml.tokens import CLOSING, OPENING, NotMathematics, is_script, word_set
from refgrad.report.mathml.words import FUNCTIONS

LABEL = re.compile(r"(?:(?<=^)|(?<=\. )|(?<=\n))(Forward|Derivation|Backward)\. |(?<!\w)(Kept|Cost|Source|Contract): ")
CONDITION = re.compile(r"(for|where|if|else|elsewhere|which|when|with|and|or|over|at|of|so|in)\b|[=≤≥<>≈]")
EMPHASIS = re.compile(r"(?<!\S)\*(\w+)\*")
CODE = re.compile(r"`([^`]+)`")
SIGNS = set("=≈≠≤≥<>∈→−+·×√∂Σ∏∞½^⊙ᵀ/|‖∇")
OPERATORS = set("=≈≠≤≥<>∈→+·×⊙/−")
FAMILIAR = FUNCTIONS - word_set("round keep sum mask conv flip sign floor ceil rank clip diag")
QUANTITY = re.compile(
    r"(?:[\d.]+|(?:d?[^\W\d]|[^\W\d]{2}|d?bias)_\S+|dbias|d[A-Za-z]|\d*b?[bs][shV]{1,2}|[BCDN]{2,3}|\d+[A-Za-z])$"
    r"|\w+[′']?\(|[A-Za-z]\[|.*[α-ωΓ-Ω]"
)
NAMED = frozenset(("rstd", "bias"))  # quantities of more than one letter
ENDING = ".,;:?"


class Block(NamedTuple):
    """A piece of a derivation: `kind` is "text", "formula", or "plain" for a line that the parser rejects."""

    kind: str
    html: Markup
    label: str = ""


def blocks(docstring: str) -> list[Block]:
    """The docstring in order: paragraphs of text, begun anew at each label such as "Kept:", and displayed formulas."""
    found: list[Block] = []
    lines: list[str] = []
    for line in [*docstring.splitlines(), ""]:
        indented = line.startswith("    ")
        if line.strip() and not indented:
            lines.append(line.strip())
            continue
        found += _paragraphs(" ".join(lines))
        lines = []
        if indented:
            found += [_displayed(part) for part in _parts(line)]
    return found


def sentence(text: str) -> Markup:
    """Text with its formulas set as mathematics and its `code` as code."""
    return _coded(text, _words)


def plain(text: str) -> Markup:
    """Text as it stands, with its `code` as code: for sentences that are not in the derivations' notation."""
    return _coded(text, escape)


def _coded(text: str, outside: Callable[[str], Markup]) -> Markup:
    pieces = CODE.split(text)  # text and code by turns
    return Markup("").join(
        outside(piece) if n % 2 == 0 else Markup("<code>{}</code>").format(piece) for n, piece in enumerate(pieces)
    )


def _paragraphs(text: str) -> list[Block]:
    found, label, start = [], "", 0
    for match in [*LABEL.finditer(text), None]:
        piece = text[start : match.start() if match else len(text)].strip()
        if piece:
            found.append(Block("text", sentence(piece), label))
        if match:
            label, start = match[1] or match[2], match.end()
    return found


def _parts(line: str) -> list[str]:
    """The formulas of a line, which wide spaces part; a condition such as "for j ≠ i" stays with its formula."""
    parts: list[str] = []
    for part in re.split(r"\s{3,}", line.strip()):
        if parts and CONDITION.match(part):
            parts[-1] += "  " + part
        else:
            parts.append(part)
    return parts


def _displayed(text: str) -> Block:
    try:
        return Block("formula", Markup(display(text)))
    except NotMathematics:
        return Block("text", sentence(text)) if text.endswith(":") else Block("plain", escape(text))


def _words(text: str) -> Markup:
    """Runs of words that read as mathematics become formulas; all others stay."""
    words = re.split(r"(\s+)", text)  # words and white space by turns
    out, at = Markup(""), 0
    while at < len(words):
        end = _run(words, at) if at % 2 == 0 else at
        while end > at:
            if (formula := _formula("".join(words[at:end]))) is not None:
                out += formula
                break
            end -= 2
        if end <= at:
            out, end = out + _plain(words[at]), at + 1
        at = end
    return out


def _run(words: list[str], start: int) -> int:
    """Return the end of the run of mathematical words from `start`; `start` itself for an empty run."""
    depth, end = 0, start
    for at in range(start, len(words), 2):
        word = words[at]
        if not _mathematical(words, at) and not (depth and word.rstrip(ENDING + CLOSING).isalnum()):
            break
        end = at + 1
        depth += sum(word.count(c) for c in OPENING) - sum(word.count(c) for c in CLOSING)
        if word[-1:] in ENDING and word != "=:" and depth <= 0:
            break
    return end


def _mathematical(words: list[str], at: int) -> bool:
    """Return True for a word that can stand in a formula: letter, number, sign, or a function before one of these."""
    core = words[at].strip('()[]{}"' + ENDING).removesuffix("'s")
    if core in ("a", "A", "I"):
        return any(_operator(words, at + step) for step in (-2, 2))
    if len(core) == 1:
        return True
    if core in FAMILIAR:
        return at + 2 < len(words) and _mathematical(words, at + 2)
    if core in NAMED:
        return any(_operator(words, at + step) for step in (-2, 2)) or (at >= 2 and words[at - 2].endswith(")"))
    signs = any(c in SIGNS or is_script(c, "sub") or is_script(c, "super") or unicodedata.combining(c) for c in core)
    return bool(core) and (signs or bool(QUANTITY.match(core))) and core != "do"


def _plain(word: str) -> Markup:
    """A word as it stands, *emphasis* as such."""
    return Markup(EMPHASIS.sub(r"<em>\1</em>", str(escape(word))))


def _operator(words: list[str], at: int) -> bool:
    """Return True for a word that is an operator or relation alone."""
    return 0 <= at < len(words) and bool(words[at]) and set(words[at]) <= OPERATORS


def _formula(text: str) -> Markup | None:
    """The run as a formula, what stands around it as text; None where it is not mathematics from end to end."""
    core = text.strip()
    before = after = ""
    if core.endswith(("'s", "’s")):
        core, after = core[:-2], core[-2:]
    while core and (core[-1] in ENDING + '"' or _unmatched(core, core[-1])):
        core, after = core[:-1], core[-1] + after
    while core and (core[0] == '"' or _unmatched(core, core[0])):
        core, before = core[1:], before + core[0]
    plain = core.replace(" ", "")
    if not plain or plain[-1] in OPERATORS or (plain[0] in OPERATORS and (core[1:2] in ("", " ") or plain[0] != "−")):
        return None
    if re.fullmatch(r"[\d.,() ]+", plain) or core.rpartition(" ")[2] in FAMILIAR:
        return None
    try:
        head, joint, last = inline(core).rpartition("<wbr>")
    except NotMathematics:
        return None
    last = f'<span class="glued">{last}{escape(after)}</span>' if after else last
    return escape(before) + Markup(head + joint + last)


def _unmatched(text: str, bracket: str) -> bool:
    """Return True if `bracket`, at one end of the text, lacks its partner in it."""
    if bracket in CLOSING:
        return sum(text.count(c) for c in CLOSING) > sum(text.count(c) for c in OPENING)
    return bracket in OPENING and sum(text.count(c) for c in OPENING) > sum(text.count(c) for c in CLOSING)
