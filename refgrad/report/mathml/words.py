"""Words of a formula: a letter with its marks, a function, a gradient, factors side by side, or text."""

from html import escape

from refgrad.report.mathml.tokens import ACCENTS, NotMathematics, letters, word_set

FUNCTIONS = word_set(
    "log exp ln sin cos tan tanh sinh cosh erf sign sgn max min argmax argmin mean sum var std softmax relu elu "
    "silu gelu sigmoid diag det tr rank mod round floor ceil clip vec conv rot flip"
)
NAMES = word_set("rstd bias logits gamma beta eps keep mask scale rate loss pre out NaN ReLU GELU SiLU ELU")
INDEX_WORDS = word_set("in out max min up down qkv proj fc pos neg new old top keep dec enc acc ref bias")
DIMENSIONS = (frozenset("bshV"), frozenset("BCDNMHKTV"))  # letters that stand side by side as a product, as in bsh


def letter(part: str) -> str:
    """One letter as MathML, its marks above it. Raises NotMathematics for a mark of another notation."""
    base, marks = part[0], part[1:]
    xml = f"<mi>{escape(base)}</mi>"
    for mark in marks:
        if mark not in ACCENTS:
            raise NotMathematics(f"{part} has a mark that the notation does not have")
        xml = f'<mover accent="true">{xml}<mo stretchy="false">{ACCENTS[mark]}</mo></mover>'
    return xml


def is_name(word: str) -> bool:
    """Return True for a word that names a quantity or a function, and is not text."""
    parts = letters(word)
    return len(parts) == 1 or word in FUNCTIONS | NAMES or is_product(parts) or is_gradient(parts)


def is_product(parts: list[str]) -> bool:
    """Return True for letters that are factors side by side, as in bsh or αx."""
    foreign = not "".join(parts).isascii() and parts[0] != "d"
    return 2 <= len(parts) <= 4 and (foreign or any(set(parts) <= allowed for allowed in DIMENSIONS))


def is_gradient(parts: list[str]) -> bool:
    """Return True for a d followed by the quantity whose gradient it is, as in dx or dbias."""
    return parts[0] == "d" and (len(parts) == 2 or "".join(parts[1:]) in NAMES)
