"""A formula in the derivations' Unicode notation → presentation MathML Core, which browsers set without any script.

How the notation reads: a factor follows a factor (`2 y_k`), white space decides how far a `/` reaches (`∂y/∂x` takes
what is glued to it, `e_i / Σ_j e_j` the whole product on each side), a leading d marks a gradient (`dx`), and letters
after `_` are indices side by side (`y_id` is y with i and d).
"""

from html import escape
from typing import NamedTuple

from refgrad.report.mathml.tokens import BIG, CLOSING, NotMathematics, Token, letters, tokens
from refgrad.report.mathml.words import FUNCTIONS, INDEX_WORDS, NAMES, is_gradient, is_name, is_product, letter

THIN = '<mspace width="0.17em"/>'
SLASH = '<mo lspace="0" rspace="0">/</mo>'
BREAK = "</mrow></math><wbr><math><mrow>"  # in a sentence, a line may end before an operator outside brackets
SYMBOLS = {"½": ("1", "2"), "⅓": ("1", "3"), "¼": ("1", "4")}


class Item(NamedTuple):
    """One piece of a row. `bare` is its content without brackets, for a fraction that draws a bar instead."""

    xml: str
    kind: str
    spaced: bool = False
    bare: str = ""


class Parser:
    """Recursive descent over the tokens of one formula. `words` allows text such as "for j ≠ i" inside it."""

    def __init__(self, found: list[Token], words: bool, script: bool = False):
        self.tokens, self.words, self.script = found, words, script
        self.at = 0
        self.text_words = 0
        self.depth = int(script)

    def peek(self, ahead: int = 0) -> Token:
        """The next token, or one of kind "end"."""
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else Token("end", "", True)

    def row(self, stop: str = "") -> str:
        """Items up to the end or to a token of `stop`, which is left standing."""
        items: list[Item] = []
        while (token := self.peek()).kind != "end" and not (stop and token.text in stop and token.kind != "sub"):
            if token.kind == "/":
                self.fraction(items)
            else:
                items.append(self.item(items))
        if stop and self.peek().kind == "end":
            raise NotMathematics(f"a bracket is not closed: {stop[0]} is missing")
        return _joined(items)

    def item(self, before: list[Item]) -> Item:
        """An operator, a text, or an atom with its scripts."""
        token = self.peek()
        if token.kind in ("relation", "binary", "punctuation"):
            self.at += 1
            return self._operator(token, before)
        if token.kind == "bar" and token.spaced and self.peek(1).spaced:
            self.at += 1
            return Item(f"<mo>{'∣' if token.text == '|' else '∥'}</mo>", "operator", True)
        return self.atom()

    def _operator(self, token: Token, before: list[Item]) -> Item:
        sign = {"-": "−", "·": "⋅", "*": "⋅"}.get(token.text, token.text)
        binary = bool(before) and before[-1].kind in ("atom", "text")
        joint = token.kind == "relation" or sign in "+−"
        inside = self.words or self.depth > 0  # of a displayed formula or of brackets
        mark = BREAK if joint and binary and not inside else ""
        form = ' form="infix"' if mark else ' form="prefix"' if sign in "+−±" and not binary else ""
        space = '<mspace width="0.3em"/>' if sign in ",;" and not self.depth else ""
        return Item(f"{mark}<mo{form}>{escape(sign)}</mo>{space}", "operator", token.spaced)

    def fraction(self, items: list[Item]) -> None:
        """Replace the last factors by their fraction over the next ones."""
        slash = self.peek()
        self.at += 1
        wide = slash.spaced and self.peek().spaced
        above = _pop_factors(items, wide)
        below: list[Item] = []
        while self._is_factor() and (not below or wide or self._glued(below)):
            below.append(self.atom())
        if not above or not below:
            raise NotMathematics("a / lacks its numerator or its denominator")
        if self.script:
            return items.append(Item(_joined(above) + SLASH + _joined(below), "atom", above[0].spaced))
        parts = [run[0].bare if len(run) == 1 and run[0].bare else _joined(run) for run in (above, below)]
        fraction = "".join(f"<mrow>{part}</mrow>" for part in parts)
        return items.append(Item(f"<mfrac>{fraction}</mfrac>", "atom", above[0].spaced))

    def _is_factor(self) -> bool:
        token = self.peek()
        named = token.kind == "word" and (is_name(token.text) or not self.words)
        return named or token.kind in ("number", "symbol", "big", "open", "√") or self._called()

    def _glued(self, below: list[Item]) -> bool:
        """Return True if the next factor belongs to a denominator without spaces: not in 1/2(x − y)."""
        token = self.peek()
        return not token.spaced and not (token.kind == "open" and below[-1].xml.startswith("<mn>"))

    def _called(self) -> bool:
        """Return True if an opening bracket is glued to the next word, perhaps after the word's subscript."""
        if self.peek().kind not in ("word", "code"):
            return False
        ahead = 2 if self.peek(1).kind == "sub" and not self.peek(1).spaced else 1
        return self.peek(ahead).kind == "open" and not self.peek(ahead).spaced

    def atom(self) -> Item:
        """A base with its subscripts, superscripts and primes; or text."""
        token, start = self.peek(), self.at
        if token.kind in ("word", "code") and (text := self._text()):
            return text
        big = token.kind == "big"
        xml, bare = self.base()
        sub, sup = "", ""
        while (mark := self.peek()).kind in ("sub", "super", "prime", "^") and not mark.spaced:
            self.at += 1
            if mark.kind == "sub":
                sub += _inner(mark.text)
            else:
                sup += "<mo>′</mo>" if mark.kind == "prime" else self._raised(mark)
            bare = ""
        if (
            not self._applied(start)
            and bare.startswith("<mfrac>")
            and bare.endswith("</mfrac>")
            and bare.count("<mfrac>") == 1
        ):
            xml, bare = bare, ""  # (1/n) Σ needs no brackets once the fraction has its bar
        return Item(_scripted(xml, sub, sup, big), "big" if big else "atom", token.spaced, bare)

    def _applied(self, start: int) -> bool:
        """Return True if the bracket at `start` holds the argument of the item glued before it."""
        glued = start > 0 and not self.tokens[start].spaced
        return glued and self.tokens[start - 1].kind in ("word", "code", "sub", "super", "close")

    def base(self) -> tuple[str, str]:
        """The base of scripts, and its content without brackets."""
        token = self.peek()
        self.at += 1
        match token.kind:
            case "word":
                return self._word(token), ""
            case "code":
                return f"<mi>{escape(token.text)}</mi>", ""
            case "number":
                return f"<mn>{token.text}</mn>", ""
            case "symbol" if token.text in SYMBOLS:
                top, bottom = SYMBOLS[token.text]
                return f"<mfrac><mn>{top}</mn><mn>{bottom}</mn></mfrac>", ""
            case "symbol":
                return f"<mi>{token.text}</mi>", ""
            case "big":
                return f"<mo>{BIG[token.text]}</mo>", ""
            case "√":
                item = self.atom()
                return f"<msqrt><mrow>{item.bare or item.xml}</mrow></msqrt>", ""
            case "open":
                self.depth += 1
                inner = self.row(CLOSING)
                self.depth -= 1
                close = self.peek().text
                self.at += 1
                xml = f'<mrow><mo form="prefix">{escape(token.text)}</mo>{inner}<mo form="postfix">{close}</mo></mrow>'
                return xml, inner if token.text == "(" else ""
            case "bar":
                self.depth += 1
                inner = self.row(token.text)
                self.depth -= 1
                self.at += 1
                fences = (f'<mo form="{form}" stretchy="false">{token.text}</mo>' for form in ("prefix", "postfix"))
                return f"<mrow>{next(fences)}{inner}{next(fences)}</mrow>", ""
        raise NotMathematics(f"{token.text or 'the end'} stands in the place of a factor")

    def _text(self) -> Item | None:
        """Words that name nothing: allowed between formulas, one item for a run of them."""
        spaced, run = self.peek().spaced, []
        while (token := self.peek()).kind in ("word", "code") and not self.script:
            if self._called() or (token.kind == "word" and is_name(token.text)):
                break
            self.at += 1
            run.append(token.text)
        if not run:
            return None
        if not self.words:
            raise NotMathematics(f"{run[0]} is a word")
        self.text_words += len(run)
        return Item(f"<mtext>{escape(' '.join(run))}</mtext>", "text", spaced)

    def _word(self, token: Token) -> str:
        parts = letters(token.text)
        after_number = self.at > 1 and not token.spaced and self.tokens[self.at - 2].kind == "number"
        if len(parts) == 1:
            return letter(parts[0])
        if (self.script and token.text in INDEX_WORDS) or token.text in FUNCTIONS | NAMES:
            return f"<mi>{escape(token.text)}</mi>"
        if is_product(parts) or (self.script and len(parts) <= 3) or (after_number and len(parts) <= 4):
            return f"<mrow>{''.join(map(letter, parts))}</mrow>"
        if is_gradient(parts):
            name = "".join(parts[1:])
            what = letter(name) if len(parts) == 2 else f"<mi>{escape(name)}</mi>"
            return f'<mrow><mi mathvariant="normal">d</mi>{what}</mrow>'
        return f"<mi>{escape(token.text)}</mi>"

    def _raised(self, mark: Token) -> str:
        if mark.kind == "super":
            return _inner(mark.text)
        sign = ""
        if self.peek().kind == "binary":
            sign = f'<mo form="prefix">{self.peek().text.replace("-", "−")}</mo>'
            self.at += 1
        outer, self.script = self.script, True
        item = self.atom()
        self.script = outer
        return sign + (item.bare or item.xml)


def _inner(text: str) -> str:
    """A script's content."""
    return Parser(tokens(text), words=False, script=True).row()


def _scripted(xml: str, sub: str, sup: str, big: bool) -> str:
    scripts = "".join(f"<mrow>{script}</mrow>" for script in (sub, sup) if script)
    names = ("munder", "mover", "munderover") if big else ("msub", "msup", "msubsup")
    name = names[2] if sub and sup else names[0] if sub else names[1]
    return f"<{name}>{xml}{scripts}</{name}>" if scripts else xml


def _pop_factors(items: list[Item], wide: bool) -> list[Item]:
    """Take the factors before a /: all of the product with spaces around it, else what is glued together."""
    run: list[Item] = []
    while items and items[-1].kind in ("atom", "big") and (wide or not run or not run[0].spaced):
        run.insert(0, items.pop())
    return run


def _joined(items: list[Item]) -> str:
    """Items side by side, a thin space between factors that the text sets apart."""
    parts = []
    for before, item in zip([None, *items], items, strict=False):
        if before and item.spaced and before.kind == item.kind == "atom":
            parts.append(THIN)
        if item.kind == "text":
            parts.append(f'<mspace width="{"0.4em" if before else "0"}"/>{item.xml}<mspace width="0.4em"/>')
        else:
            parts.append(item.xml)
    return "".join(parts)
