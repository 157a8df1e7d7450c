"""Arguments as text: `f32[b,s,h] f32[h] i32[b]<100 True`, for the shell and for `check` alike.

A dimension is a number or a name. A name has one size wherever it stands, and may also bound integer entries.
"""

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = {
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "bf16": "bfloat16",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "c64": "complex64",
    "c128": "complex128",
    "bool": "bool",
}
SYNTAX = 'arrays such as f32[4,8], f32[] or i32[3]<100 (ids below 100), and Python literals such as 3, True or "text"'
_ARRAY = re.compile(r"(?:(?P<name>[A-Za-z_]\w*):)?(?P<dtype>[A-Za-z]\w*)\[(?P<shape>[^\]]*)\](?:<(?P<below>.*))?")
_SIZE = r"\d+|[A-Za-z_]\w*"


class Spec(jax.ShapeDtypeStruct):
    """An array that an argument stands for: its type, its name ("" where it has none), and the bound of its ids."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, name: str = "", below: int = 2):
        super().__init__(shape, dtype)
        self.name, self.below = name, below


def arguments(text: str) -> tuple[Any, ...]:
    """Positional arguments as text, separated by blanks: a `Spec` for each array, a plain value for each literal.

    `f32[4,8] x:f32[8] i32[3]<100 True` is a matrix, a vector named x, three ids from 0 to 99, and a static value.
    Raises ValueError for a piece that is neither, naming it and the syntax, and for a dimension that is a name.
    """
    if names := dimensions(text):
        raise ValueError(f"{text!r} names dimensions without a size: {', '.join(names)}")
    return tuple(map(_argument, pieces(text)))


def dimensions(text: str) -> tuple[str, ...]:
    """Return the names of the dimensions, in order of appearance. Raises ValueError as `arguments` does."""
    names = dict.fromkeys(
        size for piece in pieces(text) for size in _sizes(piece, _ARRAY.fullmatch(piece)) if not size.isdigit()
    )
    return tuple(names)


def sized(text: str, sizes: Mapping[str, int]) -> str:
    """Return the text with the named dimensions replaced by their sizes."""
    return " ".join(_sized(piece, _ARRAY.fullmatch(piece), sizes) for piece in pieces(text))


def is_text(value: Any) -> bool:
    """Return True for text that describes at least one array."""
    if not isinstance(value, str):
        return False
    try:
        return any(map(_ARRAY.fullmatch, pieces(value)))
    except ValueError:
        return False


def values(specs: Sequence[Any], seed: int) -> tuple[Any, ...]:
    """An array for each `Spec`: floats from a standard normal, integers uniform from 0 to below its bound.

    Literals stay as they are. Deterministic in `seed`.
    """
    rng = np.random.default_rng(seed)
    return tuple(_draw(spec, rng) if isinstance(spec, Spec) else spec for spec in specs)


def types(text: str) -> contextlib.AbstractContextManager:
    """The setting of 64-bit types under which arrays have the types that the text names."""
    wide = needs_x64(arguments(sized(text, dict.fromkeys(dimensions(text), 1))))
    return jax.enable_x64(True) if wide else contextlib.nullcontext()


def needs_x64(given: Sequence[Any]) -> bool:
    """Whether one of the arrays is of a 64-bit type, which JAX has only with `jax.enable_x64`."""
    wide = {"float64", "int64", "uint64", "complex128"}
    return any(str(getattr(value, "dtype", "")) in wide for value in given)


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


def _sizes(piece: str, match: re.Match | None) -> list[str]:
    """Return the dimensions of an array, and the bound of its ids last; nothing for a literal."""
    if match is None:
        return []
    shape, below = match["shape"], match["below"]
    lengths = [length.strip() for length in shape.split(",")] if shape.strip() else []
    if not all(re.fullmatch(_SIZE, length) for length in lengths):
        raise ValueError(f"{piece!r} has shape [{shape}], but lengths are integers of at least 0 or names: {SYNTAX}")
    integer = match["dtype"][0] in "iu"
    if below is not None and not (integer and re.fullmatch(_SIZE, below) and (not below.isdigit() or int(below))):
        raise ValueError(f"{piece!r}: a bound is a positive integer or a name, for an integer array: {SYNTAX}")
    return lengths if below is None else [*lengths, below]


def _sized(piece: str, match: re.Match | None, sizes: Mapping[str, int]) -> str:
    if match is None:
        return piece
    found = [str(sizes.get(size, size)) for size in _sizes(piece, match)]
    below = "" if match["below"] is None else f"<{found.pop()}"
    return f"{match['name'] + ':' if match['name'] else ''}{match['dtype']}[{','.join(found)}]{below}"


def _argument(piece: str) -> Any:
    match = _ARRAY.fullmatch(piece)
    if match is None:
        try:
            return ast.literal_eval(piece)
        except (ValueError, SyntaxError):
            raise ValueError(f"{piece!r} is no argument: write {SYNTAX}") from None
    if match["dtype"] not in DTYPES:
        raise ValueError(f"{piece!r} has dtype {match['dtype']!r}, but known are {', '.join(DTYPES)}")
    sizes = list(map(int, _sizes(piece, match)))
    below = 2 if match["below"] is None else sizes.pop()
    return Spec(tuple(sizes), jnp.dtype(DTYPES[match["dtype"]]), match["name"] or "", below)


def _draw(spec: Spec, rng: np.random.Generator) -> jax.Array:
    if jnp.issubdtype(spec.dtype, jnp.complexfloating):
        parts = rng.standard_normal((2, *spec.shape))
        return jnp.asarray(parts[0] + 1j * parts[1], spec.dtype)
    if jnp.issubdtype(spec.dtype, jnp.floating):
        return jnp.asarray(rng.standard_normal(spec.shape), spec.dtype)
    return jnp.asarray(rng.integers(0, spec.below, spec.shape), spec.dtype)
