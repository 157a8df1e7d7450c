"""Special values for arguments: the ways in which one leaf, or all of them, are changed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.jaxpr.avals import is_float
from refgrad.verify.numbers import to_wide
from refgrad.verify.subject import Subject

SIMPLE = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0)
HALF = 16  # greatest exponent of float16: its special magnitudes are nearer to 1
MOST = 64  # variants of one function

Edit = Callable[[np.ndarray, int], np.ndarray]  # of (entries in float64, greatest exponent of their dtype)


class SpecialArguments(NamedTuple):
    """The arguments with a named change: `label` is `leaf: change`."""

    label: str
    diff: list[Any]
    rest: list[Any]


def _first(value: float) -> Edit:
    """Return the edit of everything at index 0 of the first axis."""

    def edit(x: np.ndarray, exponent: int) -> np.ndarray:
        x = x.copy()
        x[slice(1) if x.ndim else ...] = value
        return x

    return edit


def cycles(numbers: Sequence[float], size: int) -> list[Edit]:
    """Return edits that fill a leaf with the numbers in turn, as many of them as a leaf of that size needs."""
    return [cycle(numbers[k : k + size]) for k in range(0, len(numbers), size)]


def _entry(value: float) -> Edit:
    """Return the edit of the first entry."""

    def edit(x: np.ndarray, exponent: int) -> np.ndarray:
        x = x.copy()
        x.reshape(-1)[:1] = value
        return x

    return edit


def _pairs(x: np.ndarray, exponent: int) -> np.ndarray:
    """Return neighbours along the last axis made equal: ties of two."""
    if not x.ndim:
        return x
    return np.repeat(x[..., ::2], 2, axis=-1)[..., : x.shape[-1]]


def _equal(x: np.ndarray, exponent: int) -> np.ndarray:
    return np.broadcast_to(x.reshape(-1)[0], x.shape)


def cycle(numbers: Sequence[float]) -> Edit:
    """Return the edit that fills a leaf with the numbers in turn."""
    return lambda x, exponent: np.resize(np.asarray(numbers), x.shape)


def _scaled(wide: int, half: int) -> Edit:
    """Return the edit that multiplies by a power of 2, another one in float16."""
    return lambda x, exponent: np.ldexp(x, half if exponent <= HALF else wide)


FLOATS: dict[str, Edit] = {
    "zeros": lambda x, _: np.zeros_like(x),
    "first zero": _first(0.0),
    "equal": _equal,
    "ties": _pairs,
    "negative": lambda x, _: -np.abs(x),
    "positive": lambda x, _: np.abs(x),
    "ones": lambda x, _: np.ones_like(x),
    "whole": lambda x, _: np.round(x),
    "simple": cycle(SIMPLE),
    "tiny": _scaled(-20, -10),
    "large": _scaled(10, 7),
    "huge": _scaled(23, 11),
    "subnormal": lambda x, exponent: np.ldexp(x, 1 - exponent - 3),
    "one -inf": _entry(-np.inf),
    "one inf": _entry(np.inf),
    "first -inf": _first(-np.inf),
    "-inf": lambda x, _: np.full_like(x, -np.inf),
}
INTEGERS: dict[str, Edit] = {"equal": _equal, "zeros": FLOATS["zeros"]}
PERMUTATIONS: dict[str, Edit] = {
    "reversed": lambda x, _: x[..., ::-1],
    "rolled": lambda x, _: np.roll(x, 1, -1),
}
BOOLEANS: dict[str, Edit] = {"false": FLOATS["zeros"], "true": FLOATS["ones"], "first false": _first(0.0)}
TOGETHER = ("zeros", "ones", "equal", "simple", "negative", "tiny", "large")  # changes of all float leaves at once


def changes(leaf: Any) -> dict[str, Edit]:
    """Return the changes that suit an array, by name; none for keys."""
    if not np.prod(leaf.shape) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return {}
    if is_float(leaf):
        return FLOATS
    if leaf.dtype == jnp.bool_:
        return BOOLEANS
    if leaf.dtype == jnp.uint32:  # a key may be made of these
        return {}
    return PERMUTATIONS if _permutes(np.asarray(leaf)) else INTEGERS


def _permutes(x: np.ndarray) -> bool:
    """Return True for permutations along the last axis that are not in order, as ranges of tokens or labels are.

    A rule that inverts them is not meant for other integers.
    """
    if x.ndim == 0 or x.shape[-1] < 3:
        return False
    order = np.arange(x.shape[-1])
    return bool(np.all(np.sort(x, -1) == order) and np.any(x != order))


def changed(leaf: Any, edit: Edit) -> jax.Array:
    """Return the array with the edit applied to it, to real and imaginary parts each by itself."""
    x = to_wide(leaf)
    exponent = int(jnp.finfo(leaf.dtype).maxexp) if is_float(leaf) else 0
    with np.errstate(all="ignore"):
        if np.iscomplexobj(x):
            real, imaginary = edit(np.real(x), exponent), edit(np.imag(x), exponent)
            x = np.empty(x.shape, x.dtype)
            x.real, x.imag = real, imaginary  # in a product with 1j, infinity makes NaN
        else:
            x = edit(x, exponent)
        x = np.asarray(x).astype(leaf.dtype)
    spread = isinstance(leaf, jax.Array) and len(leaf.devices()) > 1
    return jax.device_put(x, leaf.sharding) if spread else jnp.asarray(x)


def variants(subject: Subject, constants: Sequence[float] = ()) -> Iterator[SpecialArguments]:
    """Yield every variant of the arguments that differs from them and from those before it.

    Change by change, so that an even sample of them holds all kinds; `constants` are those of the program.
    """
    seen = {_bytes(subject.diff, subject.rest)}
    for label, edits in _edits(subject, constants):
        leaves = [*subject.diff, *subject.rest]
        for k, edit in edits.items():
            leaves[k] = edit
        diff, rest = leaves[: len(subject.diff)], leaves[len(subject.diff) :]
        if (key := _bytes(diff, rest)) not in seen:
            seen.add(key)
            yield SpecialArguments(label, diff, rest)


def _edits(subject: Subject, constants: Sequence[float]) -> Iterator[tuple[str, dict[int, jax.Array]]]:
    """Yield a label and the new arrays, by their place among the differentiated leaves and the others."""
    leaves = [*subject.diff, *subject.rest]
    names = [subject.names[i] for i in (*subject.floats, *subject.others)]
    suited = [dict(changes(x)) for x in leaves]
    for found, x in zip(suited, subject.diff, strict=False):
        edits = cycles(constants, np.size(x)) if np.size(x) else []
        found.update({f"constants {k}" if k else "constants": edit for k, edit in enumerate(edits)})
    for change in dict.fromkeys(name for found in suited for name in found):
        if change in TOGETHER and len(subject.diff) > 1:
            yield (
                f"all: {change}",
                {i: changed(x, FLOATS[change]) for i, x in enumerate(subject.diff) if change in suited[i]},
            )
        for i, (name, x) in enumerate(zip(names, leaves, strict=True)):
            if change in suited[i]:
                yield f"{name}: {change}", {i: changed(x, suited[i][change])}
    for i, (a, b) in enumerate(zip(subject.diff[:-1], subject.diff[1:], strict=True)):
        if a.shape == b.shape and a.dtype == b.dtype:
            yield f"{names[i + 1]}: as {names[i]}", {i + 1: a}
            yield f"{names[i + 1]}: minus {names[i]}", {i + 1: -a}


def _bytes(diff: Sequence[Any], rest: Sequence[Any]) -> bytes:
    arrays = (x for x in (*diff, *rest) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))
    return b"".join(np.asarray(x).tobytes() for x in arrays)
