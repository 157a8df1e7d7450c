"""Reductions, cumulative operations, windows, sorts: sums of positions, folds, and entries that comparisons pick."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.avals import dtype_of, shape_of
from refgrad.verify.exact.arrays import (
    Array,
    NotDecided,
    add_up,
    choose,
    elementwise,
    full,
    move,
    pick,
    take,
    total,
)
from refgrad.verify.exact.primitives.elementwise import as_array
from refgrad.verify.exact.scalars.germ import INFINITY, ONE, TIE, ZERO, Undecided, compare
from refgrad.verify.exact.scalars.special_functions import ANALYTIC
from refgrad.verify.exact.scalars.table import SCALARS

STARTS = {"max": -INFINITY, "min": INFINITY, "mul": ONE, "add": ZERO}
Combine = Callable[[Array, Array], Array]


def _rows(x: Any, axes: Sequence[int]) -> Any:
    """Return x as (what is kept, what is reduced)."""
    kept = [d for d in range(len(x.shape)) if d not in axes]
    lengths = int(np.prod([x.shape[d] for d in kept], dtype=int))
    return move(lambda d: d.transpose(*kept, *axes).reshape(lengths, -1 if d.size else 0), x)


def reduce_sum(eqn: JaxprEqn, x: Any) -> Any:
    """The sum over some axes."""
    axes = eqn.params["axes"]
    return total(x, axes) if isinstance(x, Array) else np.sum(x, axis=axes, dtype=x.dtype)


def _folded(name: str, integers: Callable[..., Any]) -> Callable[..., Any]:
    def rule(eqn: JaxprEqn, x: Any) -> Any:
        axes = eqn.params["axes"]
        if not isinstance(x, Array):
            return integers(x, axis=axes)
        rows = _rows(x, axes)
        start = Array(full((rows.shape[0],), STARTS.get(name, name == "and")))
        return move(lambda d: d.reshape(shape_of(eqn.outvars[0])), fold(_combine(name), rows, start))

    return rule


def _combine(name: str) -> Combine:
    return functools.partial(elementwise, SCALARS[name])


def fold(combine: Combine, rows: Array, start: Array) -> Array:
    """Return each row of `rows` (r, n) folded into `start` (r,): pairwise, so that no chain is longer than log n."""
    while rows.shape[1] > 1:
        n = rows.shape[1] // 2
        paired = combine(rows[:, : 2 * n : 2], rows[:, 1 : 2 * n : 2])
        rows = move(lambda a, b: np.concatenate([a, b], axis=1), paired, rows[:, 2 * n :])
    return combine(start, rows[:, 0]) if rows.shape[1] else start


def _row_order(keys: Sequence[np.ndarray], largest: bool) -> tuple[np.ndarray, bool]:
    """Return the stable order of a row by several keys, NaN last, and True where two of its entries are equal.

    Raises NotDecided where a comparison is not decided.
    """
    tied = False

    def order(i: int, j: int) -> int:
        nonlocal tied
        for key in keys:
            a: Any = key[i]
            b: Any = key[j]
            whole = isinstance(a, np.generic)
            s = int(a > b) - int(a < b) if whole else compare(a, b)
            if isinstance(s, Undecided):
                raise NotDecided(s.why)
            if s != s:
                return int(a.is_nan()) - int(b.is_nan())
            if s:
                return -s if largest else s
            tied = tied or not (whole or a is b)
        return i - j

    return np.array(sorted(range(len(keys[0])), key=functools.cmp_to_key(order)), int), tied


def _extreme(row: np.ndarray, largest: bool) -> tuple[int, bool]:
    """Return the index of the first largest (smallest) entry of a row, and True where another is equal to it."""
    best, tied = 0, False
    for i in range(1, len(row)):
        s = compare(row[i], row[best])
        if isinstance(s, Undecided):
            raise NotDecided(s.why)
        if s != s:
            best = i if row[i].is_nan() else best
        elif s:
            best, tied = (i, False) if (s > 0) is largest else (best, tied)
        else:
            tied = tied or row[i] is not row[best]
    return best, tied


def _extremes(rows: np.ndarray, largest: bool) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    ids, ties, lost = [], [], {}
    for r, row in enumerate(rows):
        try:
            best, tied = _extreme(row, largest)
        except NotDecided as trouble:
            best, tied, lost[r] = 0, True, trouble.why
        ids.append([best])
        ties.append(tied)
    return np.array(ids, int).reshape(-1, 1), np.array(ties, bool), lost


def _extreme_places(rows: Array, moves: bool, largest: bool) -> np.ndarray:
    """Return the places of the extremes, where they do not move. Raises NotDecided."""
    ids, ties, lost = _extremes(rows.data, largest)
    if lost or (ties.any() and moves):
        raise NotDecided(next(iter(lost.values()), TIE))
    return ids


def extreme(largest: bool) -> Callable[..., Any]:
    """The rule of a maximum or minimum over some axes."""

    def rule(eqn: JaxprEqn, x: Any) -> Any:
        axes = eqn.params["axes"]
        if not isinstance(x, Array):
            return (np.max if largest else np.min)(x, axis=axes)
        rows, shape = _rows(x, axes), shape_of(eqn.outvars[0])
        if rows.shape[1] == 0:
            return Array(full(shape, STARTS["max" if largest else "min"]))
        (out,) = choose(functools.partial(_extremes, largest=largest), 1, [rows], [rows])
        return move(lambda d: d.reshape(shape), out)

    return rule


def argument(largest: bool) -> Callable[..., Any]:
    """The rule of the position of a maximum or minimum."""

    def rule(eqn: JaxprEqn, x: Any) -> Any:
        (axis,) = eqn.params["axes"]
        if not isinstance(x, Array):
            return (np.argmax if largest else np.argmin)(x, axis=axis).astype(eqn.params["index_dtype"])
        ids = _extreme_places(_rows(x, (axis,)), x.pull is not None, largest)
        return ids.reshape(shape_of(eqn.outvars[0])).astype(eqn.params["index_dtype"])

    return rule


def sort(eqn: JaxprEqn, *xs: Any) -> list:
    """All operands in the order of the first `num_keys` along one axis."""
    axis, keys = eqn.params["dimension"], eqn.params["num_keys"]
    rows = [_rows(x, (axis,)) for x in xs]
    if all(isinstance(r, Array) for r in rows):
        made = choose(_orders, xs[0].shape[axis], rows[:keys], rows)
        return [move(lambda d, x=x: _back(d, x.shape, axis), r) for r, x in zip(made, xs, strict=True)]
    datas = [r.data if isinstance(r, Array) else r for r in rows[:keys]]
    found = [_row_order([d[i] for d in datas], largest=False) for i in range(len(datas[0]))]
    return [_picked(r, found, x.shape, axis, rows[:keys]) for r, x in zip(rows, xs, strict=True)]


def _orders(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    found = [_row_order([d[i] for d in keys], largest=False) for i in range(len(keys[0]))]
    ids = np.array([ids for ids, _ in found], int).reshape(keys[0].shape)
    return ids, np.array([tied for _, tied in found], bool), {}


def top_k(largest: bool) -> Callable[..., Any]:
    """The rule of the k largest (smallest) entries of an axis, and their positions."""

    def rule(eqn: JaxprEqn, x: Any) -> list:
        p = eqn.params
        axis = p.get("axis", p.get("reduction_dimension", -1)) % len(x.shape)
        rows = _rows(x, (axis,))
        data = rows.data if isinstance(rows, Array) else rows
        found = [_row_order([row], largest) for row in data]
        found = [(ids[: p["k"]], tied) for ids, tied in found]
        shape = tuple(p["k"] if d == axis else n for d, n in enumerate(x.shape))
        where = _back(np.array([ids for ids, _ in found], np.int32).reshape(len(found), p["k"]), shape, axis)
        return [_picked(rows, found, shape, axis, [rows]), where]

    return rule


def _picked(rows: Any, found: list, shape: tuple, axis: int, keys: list) -> Any:
    ids = np.array([ids for ids, _ in found], int).reshape(len(found), -1)
    ties = np.array([tied for _, tied in found], bool)
    if not isinstance(rows, Array):
        if ties.any() and any(isinstance(k, Array) and k.pull is not None for k in keys):
            raise NotDecided(TIE)
        return _back(np.take_along_axis(rows, ids, 1), shape, axis)
    return move(lambda d: _back(d, shape, axis), pick(rows, ids, ties))


def _back(rows: np.ndarray, shape: tuple, axis: int) -> np.ndarray:
    others = [n for d, n in enumerate(shape) if d != axis]
    return np.moveaxis(rows.reshape((*others, shape[axis])), -1, axis)


def cumulative(name: str, integers: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a running fold along an axis, from its end where `reverse`."""

    def rule(eqn: JaxprEqn, x: Any) -> Any:
        axis, back = eqn.params["axis"], eqn.params["reverse"]
        if not isinstance(x, Array):
            flipped = np.flip(x, axis) if back else x
            out = integers(flipped, axis=axis, dtype=x.dtype)
            return np.flip(out, axis) if back else out
        n = x.shape[axis]
        parts: list = [
            move(lambda d, i=i: np.take(d, [i], axis), x) for i in (reversed(range(n)) if back else range(n))
        ]
        for i in range(1, n):
            parts[i] = COMBINERS[name](parts[i - 1], parts[i])
        if not parts:
            return x
        return move(lambda *ds: np.concatenate(ds, axis), *(parts[::-1] if back else parts))

    return rule


def _logaddexp(a: Array, b: Array) -> Array:
    """Return log(eᵃ + eᵇ) = m + log1p(exp(−|a − b|)); exact arithmetic needs no maximum, and exponents no bound."""
    exp, log, add = ANALYTIC["exp"], ANALYTIC["log"], SCALARS["add"]
    return elementwise(log, elementwise(add, elementwise(exp, a), elementwise(exp, b)))


COMBINERS: dict[str, Combine] = {
    **{name: _combine(name) for name in ("add", "mul", "max", "min")},
    "logaddexp": _logaddexp,
}


def window_ids(
    shape: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> np.ndarray:
    """Return flat positions (positions of the window…, entries of the window…) in an array; −1 in its padding."""
    nd = len(shape)
    base, dilation = base_dilation or (1,) * nd, window_dilation or (1,) * nd
    flat, inside = np.zeros((1,) * (2 * nd), int), np.ones((1,) * (2 * nd), bool)
    for d in range(nd):
        spread = base[d] * (shape[d] - 1) + 1 if shape[d] else 0
        reach = dilation[d] * (window[d] - 1) + 1
        count = max(0, (spread + sum(padding[d]) - reach) // strides[d] + 1)
        at = np.arange(count)[:, None] * strides[d] + np.arange(window[d])[None] * dilation[d] - padding[d][0]
        here = (at >= 0) & (at < spread) & (at % base[d] == 0)
        place = [1] * (2 * nd)
        place[d], place[nd + d] = at.shape
        inside = inside & here.reshape(place)
        flat = flat * shape[d] + (at // base[d]).reshape(place)
    return np.where(inside, flat, -1)


def _windows(eqn: JaxprEqn, shape: Sequence[int]) -> np.ndarray:
    p = eqn.params
    ids = window_ids(
        shape,
        p["window_dimensions"],
        p["window_strides"],
        p["padding"],
        p.get("base_dilation"),
        p.get("window_dilation"),
    )
    return ids.reshape((*ids.shape[: len(shape)], -1))


def window(name: str) -> Callable[..., Any]:
    """The rule of a sum, maximum or minimum over windows."""

    def rule(eqn: JaxprEqn, x: Any) -> Any:
        real = isinstance(x, Array)
        x = as_array(x)
        ids = _windows(eqn, x.shape)
        entries = take(x, ids.reshape(-1, ids.shape[-1]), STARTS[name])
        if name == "add":
            out = total(entries, (1,))
        else:
            (out,) = choose(functools.partial(_extremes, largest=name == "max"), 1, [entries], [entries])
        out = move(lambda d: d.reshape(ids.shape[:-1]), out)
        return out if real else out.data.astype(dtype_of(eqn.outvars[0]))

    return rule


def select_and_scatter_add(eqn: JaxprEqn, source: Array, x: Array) -> Array:
    """Each entry of `source` is added where its window of x has its largest (smallest) entry."""
    largest = eqn.params["select_prim"].name == "ge"
    ids = _windows(eqn, x.shape)
    entries = take(x, ids.reshape(-1, ids.shape[-1]), STARTS["max" if largest else "min"])
    places = _extreme_places(entries, x.pull is not None, largest)
    targets = np.take_along_axis(ids.reshape(-1, ids.shape[-1]), places, 1)
    return add_up(source, targets, x.shape)


def reduce_by(run: Any, eqn: JaxprEqn, *xs: Any) -> list:
    """A reduction of one or several operands by a program on scalars, which runs on whole columns at once."""
    p, k = eqn.params, len(eqn.outvars)
    rows = [_rows(x, p["dimensions"]) for x in xs[:k]]
    step = run.call(p["jaxpr"])
    state = [
        move(lambda d, r=r: np.broadcast_to(d, r.shape[:1]), as_array(s)) for s, r in zip(xs[k:], rows, strict=True)
    ]
    if any(not isinstance(x, Array) for x in xs):
        state = [
            np.broadcast_to(s, r.shape[:1]) if not isinstance(s, Array) else x
            for s, r, x in zip(xs[k:], rows, state, strict=True)
        ]
    for i in range(rows[0].shape[1]):
        state = step(*state, *(r[:, i] for r in rows))
    return [move(lambda d, v=v: d.reshape(shape_of(v)), s) for s, v in zip(state, eqn.outvars, strict=True)]


def reduce_window_by(run: Any, eqn: JaxprEqn, *xs: Any) -> list:
    """A reduction of windows by a program on scalars."""
    x, start = xs
    ids = _windows(eqn, x.shape)
    entries = take(x, ids, start.data.item())
    state = move(lambda d: np.broadcast_to(d, ids.shape[:-1]), start)
    for i in range(ids.shape[-1]):
        (state,) = run.call(eqn.params["jaxpr"])(state, entries[..., i])
    return [state]


WITH_PROGRAMS: dict[str, Callable[..., Any]] = {"reduce": reduce_by, "reduce_window": reduce_window_by}
RULES: dict[str, Callable[..., Any]] = {
    "reduce_sum": reduce_sum,
    "reduce_prod": _folded("mul", np.prod),
    "reduce_and": _folded("and", np.bitwise_and.reduce),
    "reduce_or": _folded("or", np.bitwise_or.reduce),
    "reduce_xor": _folded("xor", np.bitwise_xor.reduce),
    "reduce_max": extreme(largest=True),
    "reduce_min": extreme(largest=False),
    "argmax": argument(largest=True),
    "argmin": argument(largest=False),
    "sort": sort,
    "top_k": top_k(largest=True),
    "approx_top_k": lambda eqn, x: top_k(eqn.params["is_max_k"])(eqn, x),
    "cumsum": cumulative("add", np.cumsum),
    "cumprod": cumulative("mul", np.cumprod),
    "cummax": cumulative("max", np.maximum.accumulate),
    "cummin": cumulative("min", np.minimum.accumulate),
    "cumlogsumexp": cumulative("logaddexp", np.logaddexp.accumulate),
    "reduce_window_sum": window("add"),
    "reduce_window_max": window("max"),
    "reduce_window_min": window("min"),
    "select_and_scatter_add": select_and_scatter_add,
}
