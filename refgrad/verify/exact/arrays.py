"""Arrays of scalars, and the few operations that all rules are made of, each with its way back for cotangents.

A rule never says how it is differentiated: it is written with `elementwise`, `move`, `add_up`, `matmul` and `pick`,
which run on balls and on germs alike and, on balls, remember how a cotangent returns. Where a derivative does not exist
or may not, an `Undecided` cotangent returns, to those entries alone that it concerns. Where arguments have tangents, so
has every array: its cotangents return second derivatives.
"""

import functools
import heapq
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb

from refgrad.verify.exact.scalars.arithmetic import ADD, DIV, MUL, NEG, SUB, power_of
from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.germ import ABSENT, TIE, ZERO, Undecided
from refgrad.verify.exact.scalars.matrices import full, product

_made = itertools.count()
_is_zero = operator.methodcaller("is_zero")
Pull = Callable[[np.ndarray], Sequence[np.ndarray | None]]


class NotDecided(Exception):
    """The program's next step is not decided; `why` says what would help."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Unknown(Exception):
    """The entries of an array that is known by its shape alone."""


class Array:
    """An object array of scalars or truth values; `pull` takes the cotangent back to `parents`, None in a constant.

    `tangent` is the derivative along a direction, an array whose cotangents return too; None where nothing moves.
    """

    __slots__ = ("data", "number", "parents", "pull", "tangent", "tied")

    def __init__(self, data: np.ndarray, parents: Sequence["Array"] = (), pull: Pull | None = None) -> None:
        self.data, self.number = data, next(_made)
        self.tangent: Array | None = None
        self.tied: bool | None = None  # of truth values: `reaches_a_tie`, once it is known
        moving = any(x.pull is not None for x in parents)
        self.parents, self.pull = (parents, pull) if moving else ((), None)

    @classmethod
    def leaf(cls, data: np.ndarray) -> "Array":
        """Return an array whose cotangent is wanted."""
        x = cls(data)
        x.pull = lambda ct: ()
        return x

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.data.shape

    def still(self) -> "Array":
        """Return a tangent where nothing moves."""
        return Array(full(self.shape, ABSENT))

    def plain(self) -> "Array":
        """Return the same without a tangent."""
        return Array(self.data, (self,), lambda ct: [ct]) if self.tangent is not None else self

    def __add__(self, other: Any) -> "Array":
        return elementwise(ADD, self, _operand(other))

    def __sub__(self, other: Any) -> "Array":
        return elementwise(SUB, self, _operand(other))

    def __mul__(self, other: Any) -> "Array":
        return elementwise(MUL, self, _operand(other))

    def __truediv__(self, other: Any) -> "Array":
        return elementwise(DIV, self, _operand(other))

    def __neg__(self) -> "Array":
        return elementwise(NEG, self)

    def __pow__(self, n: int) -> "Array":
        return elementwise(power_of(Fraction(n)), self)

    def __getitem__(self, at: Any) -> "Array":
        return move(lambda d: d[at], self)

    def __matmul__(self, other: "Array") -> "Array":
        return matmul(self[None], other[None])[0]

    @property
    def T(self) -> "Array":
        """The transposed array."""
        return move(np.transpose, self)


class Deferred(Array):
    """An array that is known by its shape alone; what is made of it is recorded in a graph."""

    __slots__ = ("_shape", "graph")

    def __init__(self, graph: Any, shape: tuple[int, ...]) -> None:
        self.graph, self._shape = graph, shape
        self.parents, self.pull, self.tangent = (), lambda ct: (), None

    @property
    def data(self) -> np.ndarray:
        """Raise Unknown."""
        raise Unknown

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self._shape


def _graph(xs: Sequence[Any]) -> Any:
    """Return the graph in which what is made of some arrays is recorded; None where all are known."""
    return next((x.graph for x in xs if isinstance(x, Deferred)), None)


def _operand(x: Any) -> Array:
    return x if isinstance(x, Array) else Array(full((), arb(x)))


def elementwise(f: Function, *xs: Array) -> Array:
    """Return f of each entry; axes of length 1 are broadcast."""
    if (graph := _graph(xs)) is not None:
        return graph.elementwise(f, *xs)
    datas = [x.data for x in xs]
    y = f.each(*datas)

    def pull(ct: np.ndarray) -> list[np.ndarray | None]:
        return [None if x.pull is None else _narrowed(f.pull(i, ct, y, *datas), x.shape) for i, x in enumerate(xs)]

    out = Array(y, xs, pull)
    tangents = [x.tangent for x in xs]
    if any(t is not None for t in tangents):
        moved = f.tangent(elementwise, tangents, out.plain(), *(x.plain() for x in xs))
        rests = [absent(t.data) for t in tangents if t is not None]
        out.tangent = _resting(moved, functools.reduce(np.logical_and, rests))
    return out


def absent(x: np.ndarray) -> np.ndarray:
    """Return True where nothing flows, at any slopes on the way."""
    return np.array([c is ABSENT for c in x.ravel()], bool).reshape(x.shape)


def _resting(tangent: Array | None, rests: np.ndarray) -> Array | None:
    """Return a tangent that is absent where it rests, at any slopes there."""
    if tangent is None or not rests.any():
        return tangent
    rests = np.broadcast_to(rests, tangent.shape)

    def masked(x: np.ndarray) -> np.ndarray:
        out = x.copy()
        out[rests] = ABSENT
        return out

    return Array(masked(tangent.data), (tangent,), lambda ct: [masked(ct)])


def _tangents(xs: Sequence[Array]) -> list[Array] | None:
    """Return the tangent of each array, at rest where it has none; None where none has one."""
    moving = any(x.tangent is not None for x in xs)
    return [x.still() if x.tangent is None else x.tangent for x in xs] if moving else None


def _narrowed(ct: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a cotangent summed over the axes along which its operand was broadcast."""
    if ct.shape == shape:
        return ct
    ct = np.sum(ct, axis=tuple(range(ct.ndim - len(shape))))
    wide = tuple(d for d, n in enumerate(shape) if n != np.shape(ct)[d])
    return np.asarray(np.sum(ct, axis=wide, keepdims=True) if wide else ct, object)


def positions(*xs: Array) -> list[np.ndarray]:
    """Return for each array the numbers of its entries, counted through all of them."""
    starts = np.cumsum([0, *(x.data.size for x in xs)])
    return [np.arange(s, s + x.data.size).reshape(x.shape) for s, x in zip(starts, xs, strict=False)]


def move(f: Callable[..., np.ndarray], *xs: Any) -> Any:
    """Return what a NumPy function that only moves, drops and repeats entries makes of arrays."""
    if not any(isinstance(x, Array) for x in xs):
        return f(*xs)
    if (graph := _graph(xs)) is not None:
        return graph.move(f, *xs)
    xs = tuple(x if isinstance(x, Array) else Array(np.asarray(x).astype(object)) for x in xs)

    def pull(ct: np.ndarray) -> list[np.ndarray | None]:
        total = full((sum(x.data.size for x in xs),), ABSENT)
        _accumulate(total, f(*positions(*xs)).ravel(), ct.ravel())
        ends = np.cumsum([x.data.size for x in xs])[:-1]
        return [part.reshape(x.shape) for part, x in zip(np.split(total, ends), xs, strict=True)]

    out = Array(np.asarray(f(*(x.data for x in xs)), object), xs, pull)
    if (tangents := _tangents(xs)) is not None:
        out.tangent = move(f, *tangents)
    return out


def _accumulate(total: np.ndarray, at: Any, ct: np.ndarray) -> None:
    """Add cotangents to places, some of them to the same one; where nothing flows, nothing is added."""
    flows = ~absent(ct)
    at = tuple(np.broadcast_to(i, ct.shape)[flows] for i in at) if isinstance(at, tuple) else at[flows]
    np.add.at(total, at, ct[flows])


def take(x: Array, ids: np.ndarray, fill: Any = ZERO) -> Array:
    """Return the entries of x at flat positions; `fill` where a position is −1."""
    extra = Array(full((1,), fill))
    return move(lambda a, b: np.concatenate([a.ravel(), b])[ids], x, extra)


def add_up(x: Array, ids: np.ndarray, shape: tuple[int, ...]) -> Array:
    """Return an array of sums: each entry of x is added at its flat position, and dropped where that is −1."""
    if (graph := _graph([x])) is not None:
        return graph.add_up(x, ids, shape)
    flat = ids.ravel()
    kept = flat >= 0
    data = full((int(np.prod(shape)),))
    np.add.at(data, flat[kept], x.data.ravel()[kept])

    def pull(ct: np.ndarray) -> list[np.ndarray]:
        back = full(x.shape)
        back.ravel()[:] = np.concatenate([ct.ravel(), full((1,), ABSENT)])[flat]
        return [back]

    out = Array(data.reshape(shape), (x,), pull)
    if x.tangent is not None:
        moves = np.zeros(data.size, bool)
        moves[flat[kept & ~absent(x.tangent.data).ravel()]] = True
        out.tangent = _resting(add_up(x.tangent, ids, shape), ~moves.reshape(shape))
    return out


def choose(decide: Callable[..., tuple], count: int, keys: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    """Return `count` entries of each row of each array: what `pick` makes of `decide(rows of the keys)`."""
    if (graph := _graph((*keys, *xs))) is not None:
        return graph.choose(decide, count, keys, xs)
    found = decide(*(k.data for k in keys))
    return [pick(x, *found) for x in xs]


def pick(x: Array, ids: np.ndarray, tied: np.ndarray, lost: Mapping[int, str] | None = None) -> Array:
    """Return `ids` entries of each row of x, where a comparison of the row's entries chose them.

    A row that is `tied` has no derivative, unless what returns to it may be 0: whichever entries of the row share that,
    each gets no more than its bound. One that is `lost`, with a reason, has no value.
    """
    rows = np.arange(len(ids))[:, None]

    def pull(ct: np.ndarray) -> list[np.ndarray]:
        back = full(x.shape, ABSENT)
        _accumulate(back, (rows, ids), ct)
        for row in np.flatnonzero(tied):
            if not all(map(_is_zero, ct[row])):
                back[row] = _shared(ct[row])
        return [back]

    out = Array(x.data[rows, ids], (x,), pull)
    for row, why in (lost or {}).items():
        out.data[row] = Undecided(why)
    if x.tangent is not None:
        torn = np.logical_and(tied, np.any(~absent(x.tangent.data), axis=1))
        moved = pick(x.tangent, ids, torn, dict.fromkeys(np.flatnonzero(torn).tolist(), TIE) | dict(lost or {}))

        def pull_tangent(ct: np.ndarray) -> list[np.ndarray]:
            back = full(x.shape, ABSENT)
            back[np.logical_and(torn, np.any(~absent(ct), axis=1))] = Undecided(TIE)
            return [ct, back]

        out.tangent = Array(moved.data, (moved, x), pull_tangent)
    return out


def _shared(cts: np.ndarray) -> Any:
    """Return a ball that holds every share of cotangents that may be 0, undecided where one is not."""
    if not all(isinstance(c, arb) and c.is_finite() and c.contains(0) for c in cts):
        return Undecided(TIE)
    return arb(0, sum((abs(c).upper() for c in cts), arb(0)))


def total(x: Array, axes: Sequence[int]) -> Array:
    """Return the sum over some axes."""
    kept = tuple(n for d, n in enumerate(x.shape) if d not in axes)
    ids = np.expand_dims(np.arange(int(np.prod(kept))).reshape(kept), tuple(axes))
    return add_up(x, np.broadcast_to(ids, x.shape), kept)


def matmul(a: Array, b: Array) -> Array:
    """Return the products of stacks of matrices, (..., m, k) · (..., k, n) with the same leading axes."""
    if (graph := _graph((a, b))) is not None:
        return graph.matmul(a, b)

    def pull(ct: np.ndarray) -> list[np.ndarray | None]:
        return [
            None if a.pull is None else product(ct, np.swapaxes(b.data, -1, -2)),
            None if b.pull is None else product(np.swapaxes(a.data, -1, -2), ct),
        ]

    out = Array(product(a.data, b.data), (a, b), pull)
    if (tangents := _tangents((a, b))) is not None:
        rests_a, rests_b = (absent(t.data) for t in tangents)
        parts = [matmul(tangents[0], b.plain())] if a.tangent is not None else []
        parts += [matmul(a.plain(), tangents[1])] if b.tangent is not None else []
        moved = functools.reduce(operator.add, parts)
        out.tangent = _resting(moved, np.all(rests_a, axis=-1, keepdims=True) & np.all(rests_b, axis=-2, keepdims=True))
    return out


def pull_back(outputs: Sequence[Array], cotangents: Sequence[np.ndarray], leaves: Sequence[Array]) -> list[np.ndarray]:
    """Return the cotangents of the leaves, given those of the outputs."""
    cts: dict[int, tuple[Array, np.ndarray]] = {}
    waiting: list[int] = []

    def arrive(x: Array, ct: np.ndarray | None) -> None:
        if x.pull is None or ct is None or all(c is ABSENT for c in ct.ravel()):
            return
        if x.number in cts:
            ct = np.asarray(cts[x.number][1] + ct, object)
        else:
            heapq.heappush(waiting, -x.number)
        cts[x.number] = x, ct

    for x, ct in zip(outputs, cotangents, strict=True):
        arrive(x, ct)
    wanted = {x.number for x in leaves}
    found: dict[int, np.ndarray] = {}
    while waiting:
        x, ct = cts.pop(-heapq.heappop(waiting))
        if x.number in wanted:
            found[x.number] = ct
        assert x.pull is not None
        for parent, back in zip(x.parents, x.pull(ct), strict=False):
            arrive(parent, back)
    return [found.get(x.number, full(x.shape, ABSENT)) for x in leaves]


def concrete(x: "Array | np.ndarray") -> np.ndarray:
    """Return truth values as NumPy's, where what runs next depends on them.

    Raises NotDecided where one is not decided, or changes with the direction.
    """
    if not isinstance(x, Array):
        return x
    for value in x.data.ravel():
        if isinstance(value, Undecided):
            raise NotDecided(value.why)
    if x.pull is not None and reaches_a_tie(x):
        raise NotDecided(TIE)
    return x.data.astype(bool)


def reaches_a_tie(x: Array) -> bool:
    """Return True where a truth value changes with the arguments at once."""
    if x.tied is None:
        x.tied = _reaches_a_tie(x)
    return x.tied


def _reaches_a_tie(x: Array) -> bool:
    found = x.pull(full(x.shape, arb(1))) if x.pull is not None else ()
    for parent, ct in zip(x.parents, found, strict=False):
        if ct is None or parent.pull is None:
            continue
        if any(isinstance(c, Undecided) for c in ct.ravel()):
            return True
        if parent.data.size and isinstance(parent.data.flat[0], bool | Undecided) and reaches_a_tie(parent):
            return True
    return False
