"""The value and the derivative of a function in exact arithmetic, from its forward alone.

>>> truth = exact(lambda x: jnp.sqrt(x * x), jnp.zeros(1))
>>> truth.value[0].mid
array([0.])
>>> [str(entry) for entry in truth.entries()]
['kink: slopes -1 and 1']
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flint import ctx

from refgrad.verify.exact.accuracy import accurate, largest, needs
from refgrad.verify.exact.arrays import Array, NotDecided, absent, full, pull_back
from refgrad.verify.exact.balls import Balls
from refgrad.verify.exact.entries import Entries
from refgrad.verify.exact.entry import NOT_FINITE, one_sided
from refgrad.verify.exact.evaluate import lift
from refgrad.verify.exact.forward import Limits
from refgrad.verify.exact.scalars.germ import ABSENT, PRECISION, TIE, Undecided
from refgrad.verify.subject import Subject


def exact(
    f: Callable,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    casts: Collection[str] = (),
    limits: Limits | None = None,
    stop_gradient: bool = False,
) -> "Truth":
    """Return the truth about `f` at `args`, found without autodiff, without a compiler and without a step size.

    The program is traced at the arguments' dtypes and evaluated in ℝ and ℂ, its constants at their exact values.

    Args:
      f: the function, from whose forward alone the truth follows.
      *args: pytrees; every float and complex array among their leaves is differentiated.
      kwargs: keyword arguments, held constant.
      argnums: the positions of `args` to differentiate, as for `jax.grad`; everything else is held constant.
      casts: dtypes, such as "bfloat16": casts to these round, all others do nothing.
      limits: the most that may be spent, as `refgrad.verify.exact.Limits`.
      stop_gradient: hold the result of `lax.stop_gradient` still; without it, `lax.stop_gradient` does nothing, as it
        does not change the function.

    Returns:
      A `Truth`, which evaluates on demand: `.value()`, `.gradient()`, `.entries()`, `.hessian()`.

    Raises:
      TypeError: where nothing can be differentiated.
      ValueError: where an argument is NaN.
      NoMeaning: from the methods of the result, where the program holds what has no meaning in exact arithmetic.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import exact
      >>> (slope,) = exact(lambda x: jnp.sqrt(x * x), jnp.array(-3.0)).gradient()
      >>> slope.mid.item()
      -1.0
    """
    names = [jnp.dtype(name).name for name in casts]
    f = functools.partial(f, **kwargs) if kwargs else f
    return Truth(Subject.of(f, args, argnums=argnums), names, limits or Limits(), stop_gradient)


class Truth(Entries):
    """A function at its arguments: its value and its derivatives, evaluated on demand.

    Attributes:
      limits: the most that may be spent.
      leaves: the leaves of the arguments that are differentiated.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import exact
      >>> truth = exact(lambda x: x * jnp.abs(x), jnp.array([-1.0, 2.0]))
      >>> truth.gradient([jnp.ones(2)])[0].mid.tolist()
      [2.0, 4.0]
    """

    @functools.cached_property
    def value(self) -> list[Balls]:
        """The value of each output."""
        size = self.size

        def compute() -> tuple[list[np.ndarray], set[str]]:
            made = self._value()
            return made, set().union(*(needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute)]

    def along(self, *directions: Sequence[Any], derivative: int = 1) -> list[list[Balls]]:
        """Return for each direction the one-sided derivative of every output: D(v) of f(x + εv) at ε → 0+.

        `derivative=2` gives the second derivative in ε. An entry is undecided where the function jumps.
        """
        return [self._along([np.asarray(v) for v in d], derivative) for d in directions]

    def _along(self, direction: list[np.ndarray], derivative: int) -> list[Balls]:
        size = self.size

        def compute() -> tuple[list[np.ndarray], set[str]]:
            values, germs = self._value(), self._germs([(1, direction)])
            made = []
            for v, g in zip(values, germs, strict=True):
                found = [
                    one_sided(*pair, self.limits.bits, derivative) for pair in zip(v.ravel(), g.ravel(), strict=True)
                ]
                data = full(v.shape)
                data.ravel()[:] = [Undecided(s) if isinstance(s, str) else s for s in found]
                made.append(data)
            return made, set().union(*(needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute)]

    def gradient(self, cotangents: Sequence[Any] | None = None) -> list[Balls]:
        """Return the cotangent of every argument, ⟨cotangents, J⟩, by one reverse sweep, as `jax.vjp` does.

        Entries that depend on a tie or a singular point are undecided: `entries` decides them.
        """
        cts = self._cotangents(cotangents)

        def compute() -> tuple[list[np.ndarray], set[str]]:
            try:
                xs, outputs = self._sweep()
            except NotDecided as trouble:
                return [full(x.shape, Undecided(trouble.why)) for x in self.leaves], {trouble.why}
            size = self._scale(cts)
            if ctx.prec < self.limits.precision[1] and not all(
                accurate(y.data, size, self.limits.bits) for y in outputs
            ):
                return self.leaves, {PRECISION}  # what the value lacks, its derivative lacks too
            reached = [_where_finite(c, y.data) for c, y in zip(cts, outputs, strict=True)]
            made = pull_back(outputs, reached, xs)
            return made, set().union(*(needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute, bits=self._forward[0] if self._forward else 0)]

    def _sweep(self) -> tuple[list[Array], list[Array]]:
        """Return arguments and outputs through which cotangents return; the last is kept for other cotangents."""
        if self._forward is None or self._forward[0] != ctx.prec:
            xs = [Array.leaf(x) for x in self.leaves]
            outputs = self._outputs(xs)
            self._values.setdefault(ctx.prec, [y.data for y in outputs])
            self._forward = ctx.prec, xs, outputs
        return self._forward[1:]

    def hessian(
        self, direction: Sequence[Any], cotangents: Sequence[Any] | None = None
    ) -> tuple[list[Balls], list[Balls]]:
        """Return the derivative along a direction of the gradient of each argument, and of each output.

        The latter is the derivative of the gradient in the cotangents. Entries that depend on a tie or a singular point
        are undecided: `curvatures` decides them.
        """
        cts = self._cotangents(cotangents)
        vs = [_moving(x, v) for x, v in zip(self.leaves, direction, strict=True)]

        def compute() -> tuple[Any, set[str]]:
            xs = [Array.leaf(x) for x in self.leaves]
            for x, v in zip(xs, vs, strict=True):
                x.tangent = Array(v) if not absent(v).all() else None
            try:
                outputs = self._outputs(xs)
            except NotDecided as trouble:
                lost = Undecided(trouble.why)
                shapes = [v.aval.shape for v in self.program.jaxpr.outvars[: self.count]]
                return ([full(x.shape, lost) for x in xs], [full(s, lost) for s in shapes]), {trouble.why}
            tangents = [y.still() if y.tangent is None else y.tangent for y in outputs]
            moved = [_known(y.data, t.data) for y, t in zip(outputs, tangents, strict=True)]
            blocked = [_where_finite(c, y.data, ABSENT) for c, y in zip(cts, outputs, strict=True)]
            made = pull_back([*tangents, *outputs], [*cts, *blocked], xs)
            size = max(map(largest, vs)) or 1.0
            wanting = [needs(x, size * self._scale(cts) / self.size, self.limits.bits) for x in made]
            wanting += [needs(t, size * self._scale(cts), self.limits.bits) for t in moved]
            return (made, moved), set().union(*wanting)

        made, moved = self._settled(compute)
        outputs = [Balls(x) for x in moved]
        if not all(x.decided.all() for x in outputs):
            backwards = [-np.asarray(v) for v in direction]
            outputs = [Balls(_both(*sides)) for sides in zip(*self.along(direction, backwards), strict=True)]
        return [Balls(x) for x in made], outputs


def _where_finite(ct: np.ndarray, y: np.ndarray, elsewhere: Any = None) -> np.ndarray:
    """Return cotangents (or `elsewhere`), undecided where they are not 0 and the output is not finite."""

    def one(c: Any, v: Any) -> Any:
        return Undecided(TIE) if not c.is_zero() and not v.is_finite() else c if elsewhere is None else elsewhere

    return np.asarray(np.frompyfunc(one, 2, 1)(ct, y), object)


def _moving(x: np.ndarray, direction: Any) -> np.ndarray:
    """Return a direction at exact values, absent where it is 0 or where the argument is not finite."""
    v = lift(np.broadcast_to(np.asarray(direction) * 1.0, x.shape)).data
    return np.asarray(np.frompyfunc(lambda a, b: ABSENT if b.is_zero() or not a.is_finite() else b, 2, 1)(x, v), object)


def _both(right: Balls, left: Balls) -> np.ndarray:
    """Return derivatives along a direction, undecided where the opposite direction has another."""

    def one(a: Any, b: Any) -> Any:
        lost = next((x for x in (a, b) if isinstance(x, Undecided)), None)
        return lost or (a if a.is_finite() and (a + b).contains(0) else Undecided(TIE))

    return np.asarray(np.frompyfunc(one, 2, 1)(right.data, left.data), object)


def _known(y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Return the derivatives of outputs, undecided where they or their outputs are not finite."""

    def one(value: Any, moved: Any) -> Any:
        if not value.is_finite() or isinstance(moved, Undecided):
            return moved if isinstance(moved, Undecided) else Undecided(NOT_FINITE)
        return moved if moved.is_finite() else Undecided(TIE)

    return np.asarray(np.frompyfunc(one, 2, 1)(y, tangent), object)
