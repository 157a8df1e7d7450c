"""The derivations' Unicode notation, cut into tokens: words with their marks, numbers, operators, brackets, scripts."""

import re
import unicodedata
from typing import NamedTuple

OPENING, CLOSING = "([{⟨⌊⌈", ")]}⟩⌋⌉"
BARS = "|‖"
RELATIONS = ("=:", ":=", "=", "≈", "≠", "≤", "≥", "≪", "≫", "<", ">", "∈", "→", "←", "↦", "⇒", "⇔", "∝", "∼", "≡")
BINARY = ("+", "−", "-", "±", "∓", "·", "*", "×", "⊙", "⋆", "⊗", "⊕", "∘", "∗", "@", "∪", "∩", "\\")
PUNCTUATION = (",", ";", ":")
BIG = {"Σ": "∑", "∑": "∑", "Π": "∏", "∏": "∏"}
PRIMES = "′'’"
ACCENTS = {"\u0302": "^", "\u0303": "~", "\u0304": "¯", "\u0305": "¯", "\u0307": "˙", "\u0308": "¨"}

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?(?:e-?\d+)?")
_CODE = re.compile(
    r"[a-z]{2,}(?:_[a-z]{4,})+(?:['’]s\b)?|[a-z]{3,}(?:_[a-z]{3,})+(?:['’]s\b)?"
)  # a name in the program
_POSSESSIVE = re.compile(r"['’]s\b")
_INDEX = r"[A-Za-z0-9α-ωΑ-Ω]+"
_TERM = rf"{_INDEX}['′]*(?:_{_INDEX}['′]*)?"
_SUM = rf"{_TERM}(?:[−+]{_TERM})*"
_INDICES = re.compile(rf"{_SUM}(?:,{_SUM})+|{_TERM}")  # sums among indices only where commas show that they belong


class NotMathematics(ValueError):
    """The text is not mathematics in this notation; the message says where it stops being so."""


class Token(NamedTuple):
    """One token; `kind` names its class, and `spaced` says whether white space stands before it."""

    kind: str
    text: str
    spaced: bool


def tokens(text: str) -> list[Token]:
    """Cut a formula into tokens. Raises NotMathematics at a character that the notation does not have."""
    found, at, spaced = [], 0, False
    while at < len(text):
        if text[at].isspace():
            at, spaced = at + 1, True
            continue
        kind, end, value = _next(text, at)
        found.append(Token(kind, value, spaced))
        at, spaced = end, False
    return found


def word_set(text: str) -> frozenset[str]:
    """The words of the text as a set."""
    return frozenset(text.split())


def letters(word: str) -> list[str]:
    """The word's letters, each with the marks that combine with it: `dx̂` gives d and x̂."""
    parts: list[str] = []
    for character in word:
        if unicodedata.combining(character) and parts:
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def is_script(character: str, kind: str) -> bool:
    """Return True for a small raised ("super") or lowered ("sub") form of another character, such as ᵀ or ₁."""
    return unicodedata.decomposition(character).startswith(f"<{kind}>")


def _next(text: str, at: int) -> tuple[str, int, str]:
    """Kind, end and value of the token that starts at `at`."""
    character = text[at]
    for kind in ("sub", "super"):
        if is_script(character, kind):
            end = at
            while end < len(text) and is_script(text[end], kind):
                end += 1
            return kind, end, unicodedata.normalize("NFKD", text[at:end])
    if number := _NUMBER.match(text, at):
        return "number", number.end(), number[0]
    if text[at] == "_":
        return _subscript(text, at + 1)
    for kind, operators in (("relation", RELATIONS), ("binary", BINARY), ("punctuation", PUNCTUATION)):
        for operator in operators:
            if text.startswith(operator, at):
                return kind, at + len(operator), operator
    for kind, characters in (("big", BIG), ("open", OPENING), ("close", CLOSING), ("bar", BARS), ("prime", PRIMES)):
        if character in characters:
            return kind, at + 1, character
    if character in "∂∇∞½⅓¼…⋯∅ℝℓ":
        return "symbol", at + 1, character
    if character in "^/√%!":
        return character, at + 1, character
    if code := _CODE.match(text, at):
        return "code", code.end(), code[0]
    if character.isalpha():
        return _word(text, at)
    raise NotMathematics(f"{text!r} has {character!r} at {at}, which is not a sign of the notation")


def _word(text: str, at: int) -> tuple[str, int, str]:
    """A run of letters with their marks; "'s" belongs to the word that it ends."""
    end = at
    while end < len(text) and _of_word(text[end]):
        end += 1
    if possessive := _POSSESSIVE.match(text, end):
        return "word", possessive.end(), text[at : possessive.end()]
    return "word", end, text[at:end]


def _of_word(character: str) -> bool:
    plain = character.isalpha() and not any(is_script(character, kind) for kind in ("sub", "super"))
    return (plain and character not in BIG) or bool(unicodedata.combining(character))


def _subscript(text: str, at: int) -> tuple[str, int, str]:
    """Read a subscript after its `_`: a group in braces, or letters and digits, with further indices after commas."""
    if text.startswith("{", at):
        end, depth = at, 0
        while end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
            if not depth:
                return "sub", end, text[at + 1 : end - 1]
        raise NotMathematics(f"{text!r} opens a brace at {at} and does not close it")
    if indices := _INDICES.match(text, at):
        return "sub", indices.end(), indices[0]
    raise NotMathematics(f"{text!r} has no index after the _ at {at - 1}")
