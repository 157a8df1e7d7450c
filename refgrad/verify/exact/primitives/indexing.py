"""Gathers, scatters and dynamic slices: positions in NumPy, then entries taken from them or put there."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.lax import GatherScatterMode

from refgrad.jaxpr.avals import dtype_of
from refgrad.verify.exact.arrays import Array, add_up, elementwise, move, take
from refgrad.verify.exact.primitives.elementwise import as_array
from refgrad.verify.exact.scalars.germ import NAN
from refgrad.verify.exact.scalars.table import SCALARS

INTEGERS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def positions(
    shape: Sequence[int],
    indices: np.ndarray,
    sizes: Sequence[int],
    start_map: Sequence[int],
    dropped: Sequence[int],
    batching: Sequence[int],
    index_batching: Sequence[int],
    window_at: Sequence[int],
    mode: Any,
) -> np.ndarray:
    """Return the flat position in an operand of each entry of the windows that `indices` (..., k) point at.

    A window has `sizes` entries along the operand's axes; those in `dropped` and `batching` are left out, the others
    stand at `window_at` in the result. −1 marks what is out of bounds, unless the mode clips.
    """
    batch = indices.shape[:-1]
    starts = np.zeros((*batch, len(shape)), np.int64)
    starts[..., list(start_map)] = indices.astype(np.int64)
    for d, b in zip(batching, index_batching, strict=True):
        starts[..., d] = np.arange(batch[b]).reshape([-1 if i == b else 1 for i in range(len(batch))])
    last = np.array(shape) - np.array(sizes)
    inside = np.all((starts >= 0) & (starts <= last), axis=-1)
    if mode in (GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS):
        starts, inside = np.clip(starts, 0, last), np.ones_like(inside)
    kept = [d for d in range(len(shape)) if d not in (*dropped, *batching)]
    flat = np.zeros((*batch, *(1 for _ in kept)), np.int64)
    for d, stride in enumerate(np.cumprod([1, *shape[:0:-1]])[::-1] if shape else ()):
        along = starts[..., d].reshape((*batch, *(1 for _ in kept)))
        if d in kept:
            offsets = np.arange(sizes[d]).reshape([-1 if k == d else 1 for k in kept])
            along = along + offsets
        flat = flat + along * stride
    flat = np.where(inside.reshape((*batch, *(1 for _ in kept))), flat, -1)
    flat = np.broadcast_to(flat, (*batch, *(sizes[d] for d in kept)))
    order = iter(range(len(batch)))
    window = {at: len(batch) + i for i, at in enumerate(window_at)}
    return flat.transpose([window[i] if i in window else next(order) for i in range(flat.ndim)])


def gather(eqn: JaxprEqn, x: Any, indices: np.ndarray) -> Any:
    """Windows of the operand."""
    p, n = eqn.params, eqn.params["dimension_numbers"]
    ids = positions(
        x.shape,
        indices,
        p["slice_sizes"],
        n.start_index_map,
        n.collapsed_slice_dims,
        n.operand_batching_dims,
        n.start_indices_batching_dims,
        n.offset_dims,
        p["mode"],
    )
    fill = p["fill_value"]
    if isinstance(x, Array):
        boolean = dtype_of(eqn.invars[0]) == np.bool_
        value = NAN if fill is None and not boolean else bool(fill) if boolean else as_array(fill).data[()]
        return take(x, ids, value)
    if fill is None:
        kind = x.dtype
        fill = True if kind == np.bool_ else np.iinfo(kind).max if kind.kind == "u" else np.iinfo(kind).min
    return np.append(x.ravel(), np.asarray(fill, x.dtype))[ids]


def _targets(eqn: JaxprEqn, x: Any, indices: np.ndarray, updates: Any) -> np.ndarray:
    p, n = eqn.params, eqn.params["dimension_numbers"]
    left_out = (*n.inserted_window_dims, *n.operand_batching_dims)
    window = iter([updates.shape[d] for d in n.update_window_dims])
    sizes = [1 if d in left_out else next(window) for d in range(len(x.shape))]
    return positions(
        x.shape,
        indices,
        sizes,
        n.scatter_dims_to_operand_dims,
        n.inserted_window_dims,
        n.operand_batching_dims,
        n.scatter_indices_batching_dims,
        n.update_window_dims,
        p["mode"],
    )


def scatter(combine: str | None) -> Callable[..., Any]:
    """The rule that puts updates where indices point, combined with what is there, one after another."""

    def rule(eqn: JaxprEqn, x: Any, indices: np.ndarray, updates: Any) -> Any:
        ids = _targets(eqn, x, indices, updates).ravel()
        if not isinstance(x, Array) and not isinstance(updates, Array):
            return _scatter_integers(combine, x, ids, updates)
        if combine in ("add", "sub"):
            return elementwise(SCALARS[combine], x, add_up(updates, ids, x.shape))
        return _in_turn(None if combine is None else partial(elementwise, SCALARS[combine]), x, ids, updates)

    return rule


def _scatter_integers(combine: str | None, x: Any, ids: np.ndarray, updates: Any) -> np.ndarray:
    out, there = np.array(x), ids >= 0
    at, new = ids[there], np.ravel(updates)[there]
    if combine is None:
        out.ravel()[at] = new
    else:
        INTEGERS[combine].at(out.ravel(), at, new)
    return out


def scatter_by(run: Any, eqn: JaxprEqn, x: Any, indices: np.ndarray, updates: Any) -> Any:
    """Updates put where indices point, or what a program on scalars makes of each and of what is there."""
    program = eqn.params["update_jaxpr"]
    if program is None:
        return scatter(None)(eqn, x, indices, updates)
    if not isinstance(x, Array):
        raise NotImplementedError("a program on integers")
    apply = run.call(ClosedJaxpr(program, eqn.params["update_consts"]))
    return _in_turn(lambda a, b: apply(a, b)[0], x, _targets(eqn, x, indices, updates).ravel(), updates)


def _in_turn(f: Callable[[Array, Array], Array] | None, x: Array, ids: np.ndarray, updates: Array) -> Array:
    """Apply the first update of every position, then the second of those that have one, and so on."""
    waiting = np.flatnonzero(ids >= 0)
    while waiting.size:
        targets, first = np.unique(ids[waiting], return_index=True)
        now = waiting[first]
        new = take(updates, now)
        if f is not None:
            new = f(take(x, targets), new)
        x = move(lambda a, b, at=targets: _put(a, b, at), x, new)
        waiting = np.delete(waiting, first)
    return x


def _put(a: np.ndarray, b: np.ndarray, at: np.ndarray) -> np.ndarray:
    out = a.copy()
    out.ravel()[at] = b
    return out


def dynamic_slice(eqn: JaxprEqn, x: Any, *starts: Any) -> Any:
    """A window whose start is clamped into the operand."""
    at = _window(x.shape, eqn.params["slice_sizes"], starts)
    return move(lambda data: data[at], x)


def dynamic_update_slice(eqn: JaxprEqn, x: Any, update: Any, *starts: Any) -> Any:
    """The operand with a window replaced."""
    del eqn
    at = _window(x.shape, update.shape, starts)

    def put(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = a.copy()
        out[at] = b
        return out

    return move(put, x, update)


def _window(shape: Sequence[int], sizes: Sequence[int], starts: Sequence[Any]) -> tuple[slice, ...]:
    firsts = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(s, s + size) for s, size in zip(firsts, sizes, strict=True))


WITH_PROGRAMS: dict[str, Callable[..., Any]] = {"scatter": scatter_by}
RULES: dict[str, Callable[..., Any]] = {
    "gather": gather,
    **{f"scatter-{name}": scatter(name) for name in ("add", "sub", "mul", "min", "max")},
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
}
