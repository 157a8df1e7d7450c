"""Arguments as text: `f32[b,s,h] {"w": f32[h]>0} i32[b]<100 True`, for the shell and for `check` alike.

A dimension is a number or a name. A name has one size wherever it stands, and may also bound integer entries.
"""

import ast
import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad._text import one_line

DTYPES = {
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "bf16": "bfloat16",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"{sign[0]}{bits}": f"{sign}{bits}" for sign in ("int", "uint") for bits in (2, 4)},
    **{f"f8{kind}": f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3", "e3m4", "e8m0fnu")},
    **{f"f8{kind}": f"float8_{kind}" for kind in ("e4m3fnuz", "e5m2fnuz", "e4m3b11fnuz")},
    "f4e2m1fn": "float4_e2m1fn",
    "c64": "complex64",
    "c128": "complex128",
    "bool": "bool",
}
SYNTAX = (
    "arrays such as f32[4,8], f32[], f32[3]>0 or i32[3]<100 (ids below 100), trees of them such as "
    '{"w": f32[3,4]} or (f32[2], 1), and Python literals such as 3, True or "text"'
)
_TYPE = r"(?P<dtype>[A-Za-z]\w*)\[(?P<shape>[^\]]*)\]"
_ARRAY = re.compile(rf"(?:(?P<name>[A-Za-z_]\w*):)?{_TYPE}(?:>(?P<above>[^<>]*))?(?:<(?P<below>.*))?")
_BOUND = r"[^\s<>,\])}]*"
_LEAF = re.compile(rf"\"[^\"]*\"|'[^']*'|{_TYPE}(?:>(?P<above>{_BOUND}))?(?:<(?P<below>{_BOUND}))?")  # or a text
_PLACE = "\1"  # starts the text that stands for an array while a tree is read
_SIZE = r"[0-9]+|[A-Za-z_]\w*"
LARGEST = 2**63  # entries of an array, and no integer is as large


class Spec(jax.ShapeDtypeStruct):
    """An array that an argument stands for: its type, its name ("" where it has none), and the bounds of its entries.

    Integers go from 0, or from the one after `above`, to below `below`; floats may have either bound or none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        name: str = "",
        below: float | None = None,
        above: float | None = None,
    ):
        super().__init__(shape, dtype)
        self.name, self.below, self.above = name, below, above

    @property
    def range(self) -> tuple[float, float] | None:
        """The open range of its entries; None for integers, and for entries without a bound."""
        if not jnp.issubdtype(self.dtype, jnp.floating) or (self.below, self.above) == (None, None):
            return None
        return (-np.inf if self.above is None else self.above), (np.inf if self.below is None else self.below)


def arguments(text: str) -> tuple[Any, ...]:
    """Positional arguments as text, separated by blanks: a `Spec` for each array, a plain value for each literal.

    `f32[4,8] x:f32[8] i32[3]<100 True` is a matrix, a vector named x, three ids from 0 to 99, and a static value;
    `{"w": f32[3,4], "b": f32[4]}` is one argument, a dict of two arrays.
    Raises ValueError for a piece that is neither, naming it and the syntax, and for a dimension that is a name.
    """
    if names := dimensions(text):
        raise ValueError(f"{text!r} names dimensions without a size: {', '.join(names)}")
    return tuple(map(_argument, pieces(text)))


def dimensions(text: str) -> tuple[str, ...]:
    """Return the names of the dimensions, in order of appearance. Raises ValueError as `arguments` does."""
    names = dict.fromkeys(
        size for piece in pieces(text) for match in _matches(piece) for size in _sizes(match) if not size.isdigit()
    )
    return tuple(names)


def sized(text: str, sizes: Mapping[str, int]) -> str:
    """Return the text with the named dimensions replaced by their sizes."""
    return " ".join(_replaced(piece, lambda match: _sized(match, sizes)) for piece in pieces(text))


def is_text(value: Any) -> bool:
    """Return True for text that describes at least one array."""
    if not isinstance(value, str):
        return False
    try:
        return any(map(_matches, pieces(value)))
    except ValueError:
        return False


def types(text: str) -> contextlib.AbstractContextManager:
    """The setting of 64-bit types under which arrays have the types that the text names."""
    wide = needs_x64(arguments(sized(text, dict.fromkeys(dimensions(text), 1))))
    return jax.enable_x64(True) if wide else contextlib.nullcontext()


def needs_x64(given: Sequence[Any]) -> bool:
    """Return True if one of the arrays is of a 64-bit type, which JAX has only with `jax.enable_x64`."""
    wide = {"float64", "int64", "uint64", "complex128"}
    return any(str(getattr(value, "dtype", "")) in wide for value in jax.tree.leaves(given))


def pieces(text: str) -> Iterator[str]:
    """Split text at blanks outside brackets and quotes."""
    depth, quote, start = 0, "", 0
    for at, letter in enumerate(f"{text} "):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter.isspace() and depth <= 0:
            if text[start:at].strip():
                yield text[start:at].strip()
            start = at
        depth += 0 if quote else (letter in "([{") - (letter in ")]}")
    if quote or depth > 0:
        raise ValueError(f"{text[start:].strip()!r} is not closed: {SYNTAX}")


def _matches(piece: str) -> list[re.Match]:
    """Return the arrays of a piece: itself, or those in a tree."""
    if (match := _ARRAY.fullmatch(piece)) is not None:
        return [match]
    return [match for match in _LEAF.finditer(piece) if match["dtype"]] if piece[0] in "([{" else []


def _replaced(piece: str, text: Callable[[re.Match], str]) -> str:
    """Return a piece with another text in the place of each of its arrays."""
    end, parts = 0, []
    for match in _matches(piece):
        parts += [piece[end : match.start()], text(match)]
        end = match.end()
    return "".join([*parts, piece[end:]])


def _sizes(match: re.Match) -> list[str]:
    """Return the dimensions of an array, and the bound of its ids last."""
    shape, below = match["shape"], match["below"]
    lengths = [length.strip() for length in shape.split(",")] if shape.strip() else []
    if not all(re.fullmatch(_SIZE, length) for length in lengths):
        raise ValueError(f"{match[0]!r} has shape [{shape}], but lengths are integers of at least 0 or names: {SYNTAX}")
    if not _integer(match) or below is None:
        return lengths
    if not (re.fullmatch(_SIZE, below) and (not below.isdigit() or int(below))):
        raise ValueError(f"{match[0]!r}: the bound of an integer array is a positive integer or a name: {SYNTAX}")
    return [*lengths, below]


def _integer(match: re.Match) -> bool:
    return match["dtype"][0] in "iu"


def _sized(match: re.Match, sizes: Mapping[str, int]) -> str:
    found = [str(sizes.get(size, size)) for size in _sizes(match)]
    below = found.pop() if _integer(match) and match["below"] is not None else match["below"]
    bounds = (f"{sign}{bound}" for sign, bound in ((">", match["above"]), ("<", below)) if bound is not None)
    name = match.groupdict().get("name")
    return f"{name + ':' if name else ''}{match['dtype']}[{','.join(found)}]{''.join(bounds)}"


def _argument(piece: str) -> Any:
    specs = [_spec(match) for match in _matches(piece)]
    if specs and _ARRAY.fullmatch(piece):
        return specs[0]
    places = {f"{_PLACE}{n}": spec for n, spec in enumerate(specs)}
    given = iter(places)
    try:
        tree = ast.literal_eval(_replaced(piece, lambda _: repr(next(given))))
    except (ValueError, SyntaxError):
        raise ValueError(f"{piece!r} is not an argument: write {SYNTAX}") from None
    return jax.tree.map(lambda leaf: places.get(leaf, leaf) if isinstance(leaf, str) else leaf, tree)


def _spec(match: re.Match) -> Spec:
    if match["dtype"] not in DTYPES:
        raise ValueError(f"{match[0]!r} has dtype {match['dtype']!r}, but known are {', '.join(DTYPES)}")
    found = _sizes(match)
    if max(map(len, found), default=0) > len(str(LARGEST)) or math.prod(sizes := list(map(int, found))) >= LARGEST:
        raise ValueError(f"{one_line(match[0], 80)!r} has more entries than any array can have (2⁶³)")
    dtype = jnp.dtype(DTYPES[match["dtype"]])
    below = sizes.pop() if _integer(match) and match["below"] is not None else None
    return Spec(tuple(sizes), dtype, match.groupdict().get("name") or "", *_bounds(match, dtype, below))


def _bounds(match: re.Match, dtype: Any, below: float | None) -> tuple[float | None, float | None]:
    """The upper and lower bound of an array's entries; `below` is that of integers."""
    above: float | None = None
    try:
        if match["above"] is not None:
            above = (int if _integer(match) else float)(match["above"])
        if not _integer(match) and match["below"] is not None:
            below = float(match["below"])
        possible = (above, below) == (None, None) or _possible(dtype, above, below)
    except ValueError:  # not numbers
        possible = False
    if not possible:
        raise ValueError(f"{match[0]!r}: no {match['dtype']} lies within these bounds: {SYNTAX}")
    return below, above


def _possible(dtype: Any, above: float | None, below: float | None) -> bool:
    """True where the dtype has numbers within the bounds."""
    if jnp.issubdtype(dtype, jnp.integer):
        first, end = 0 if above is None else above + 1, 2 if below is None else below
        return int(jnp.iinfo(dtype).min) <= first < end <= int(jnp.iinfo(dtype).max) + 1
    low, high = -math.inf if above is None else above, math.inf if below is None else below
    return jnp.issubdtype(dtype, jnp.floating) and low < high
