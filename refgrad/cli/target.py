"""A user's own function and its arguments, as the command line names them: `path/to/module.py:function`, `f32[4,8]`."""

import ast
import difflib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
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


class Spec(jax.ShapeDtypeStruct):
    """An array that an argument stands for: its type, its name ("" where it has none), and the bound of its ids."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, name: str = "", below: int = 2):
        super().__init__(shape, dtype)
        self.name, self.below = name, below


def load(target: str) -> Callable[..., Any]:
    """The function that `path/to/module.py:function` names (or `:Class.method`); imports look beside the file too.

    Raises ValueError where there is no such name, it is no function, or the file itself raises; FileNotFoundError
    where there is no such file.
    """
    file, colon, name = target.rpartition(":")
    if not (colon and file and name):
        raise ValueError(f"{target}: write path/to/module.py:function")
    found: Any = _module(Path(file))
    for done, attribute in enumerate(name.split(".")):
        if not hasattr(found, attribute):
            where = ".".join([file, *name.split(".")[:done]])
            raise ValueError(f"{where} has no {attribute!r}: {_hint(attribute, found)}")
        found = getattr(found, attribute)
    if not callable(found):
        raise ValueError(f"{target} is {type(found).__name__} {found!r:.60}, but must be a function")
    return found


def _module(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (a target is path/to/module.py:function)")
    spec = importlib.util.spec_from_file_location(f"_target_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines or ["?"])[-1]
        raise ValueError(f"{path}, line {line}, raises {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _hint(name: str, found: Any) -> str:
    callables = [other for other in vars(found) if not other.startswith("_") and callable(getattr(found, other, None))]
    near = difflib.get_close_matches(name, callables, 3)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(callables) or 'no function at all'}"


def arguments(text: str) -> tuple[Any, ...]:
    """Positional arguments as text, separated by blanks: a `Spec` for each array, a plain value for each literal.

    `f32[4,8] x:f32[8] i32[3]<100 True` is a matrix, a vector named x, three ids from 0 to 99, and a static value.
    Raises ValueError for a piece that is neither, naming it and the syntax.
    """
    return tuple(map(_argument, _pieces(text)))


def _pieces(text: str) -> Iterator[str]:
    """Split at blanks outside brackets and quotes."""
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
        raise ValueError(f"--args: {text[start:].strip()!r} is not closed: {SYNTAX}")


def _argument(piece: str) -> Any:
    match = _ARRAY.fullmatch(piece)
    if match is None:
        try:
            return ast.literal_eval(piece)
        except (ValueError, SyntaxError):
            raise ValueError(f"--args: {piece!r} is no argument: write {SYNTAX}") from None
    short, shape, below = match["dtype"], match["shape"], match["below"]
    if short not in DTYPES:
        raise ValueError(f"--args: {piece!r} has dtype {short!r}, but known are {', '.join(DTYPES)}")
    lengths = [length.strip() for length in shape.split(",")] if shape.strip() else []
    if not all(length.isdigit() for length in lengths):
        raise ValueError(f"--args: {piece!r} has shape [{shape}], but lengths are integers of at least 0: {SYNTAX}")
    if below is not None and not (short[0] in "iu" and below.isdigit() and int(below) > 0):
        raise ValueError(f"--args: {piece!r}: a bound is a positive integer, for an integer array: {SYNTAX}")
    return Spec(tuple(map(int, lengths)), jnp.dtype(DTYPES[short]), match["name"] or "", int(below or 2))


def values(specs: Sequence[Any], seed: int) -> tuple[Any, ...]:
    """An array for each `Spec`: floats from a standard normal, integers uniform from 0 to below its bound.

    Literals stay as they are. Deterministic in `seed`.
    """
    rng = np.random.default_rng(seed)
    return tuple(_draw(spec, rng) if isinstance(spec, Spec) else spec for spec in specs)


def _draw(spec: Spec, rng: np.random.Generator) -> jax.Array:
    if jnp.issubdtype(spec.dtype, jnp.complexfloating):
        parts = rng.standard_normal((2, *spec.shape))
        return jnp.asarray(parts[0] + 1j * parts[1], spec.dtype)
    if jnp.issubdtype(spec.dtype, jnp.floating):
        return jnp.asarray(rng.standard_normal(spec.shape), spec.dtype)
    return jnp.asarray(rng.integers(0, spec.below, spec.shape), spec.dtype)


def bind(function: Callable[..., Any], given: Sequence[Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """(a function of the arrays alone, the arrays): literals among `given` are held fixed.

    Without literals the function itself comes back, so that its rule stays visible.
    """
    arrays = [n for n, value in enumerate(given) if hasattr(value, "dtype")]
    if len(arrays) == len(given):
        return function, tuple(given)

    def bound(*moving: Any) -> Any:
        every = list(given)
        for n, value in zip(arrays, moving, strict=True):
            every[n] = value
        return function(*every)

    bound.__name__ = bound.__qualname__ = getattr(function, "__name__", "function")
    return bound, tuple(given[n] for n in arrays)


def needs_x64(given: Sequence[Any]) -> bool:
    """Whether one of the arrays is of a 64-bit type, which JAX has only with `jax.enable_x64`."""
    wide = {"float64", "int64", "uint64", "complex128"}
    return any(str(getattr(value, "dtype", "")) in wide for value in given)
