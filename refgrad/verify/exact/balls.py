"""Arrays of balls as people and NumPy read them: midpoints with rigorous radii."""

from typing import Any

import numpy as np
from flint import acb, arb

from refgrad.verify.exact.scalars.germ import NAN, Undecided


class Balls:
    """An array of real or complex balls, with `Undecided` for an entry without one.

    Attributes:
      data: the balls, with every digit, an array of objects.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import exact
      >>> (y,) = exact(jnp.exp, jnp.array(1.0)).value
      >>> y.mid.item(), y.rad.item() < 1e-15
      (2.718281828459045, True)
    """

    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.data.shape

    @property
    def decided(self) -> np.ndarray:
        """True where there is a ball."""
        return np.array([not isinstance(x, Undecided) for x in self.data.ravel()], bool).reshape(self.shape)

    @property
    def mid(self) -> np.ndarray:
        """The midpoints, rounded to float64 or complex128; NaN for an entry without a ball."""
        found = [_float(x) for x in self.data.ravel()]
        return np.array(found, np.result_type(np.float64, *found)).reshape(self.shape)

    @property
    def rad(self) -> np.ndarray:
        """The largest distance of a truth from `mid`, its rounding included."""
        return self.error(self.mid)

    @property
    def width(self) -> np.ndarray:
        """The radii of the balls themselves, to a part in 2³⁰; NaN for an entry without one."""
        return np.array([float(width(x)) for x in self.data.ravel()], np.float64).reshape(self.shape)

    def error(self, got: Any) -> np.ndarray:
        """Return the largest possible |got − truth| of each entry; ∞ where that is not a number."""
        got = np.asarray(got)
        wide = got.astype(np.complex128 if np.iscomplexobj(got) else np.float64)
        found = [_gap(x, g) for x, g in zip(self.data.ravel(), wide.ravel(), strict=True)]
        return np.array(found, np.float64).reshape(self.shape)

    def __repr__(self) -> str:
        return f"Balls(mid={self.mid}, rad={self.rad})"


def _float(x: Any) -> float | complex:
    if isinstance(x, Undecided):
        return float("nan")
    return complex(x.mid()) if isinstance(x, acb) else float(x.mid())


def _gap(x: Any, got: Any) -> float:
    if isinstance(x, Undecided):
        return float("inf")
    point = acb(complex(got)) if isinstance(got, complex | np.complexfloating) else arb(float(got))
    if isinstance(x, arb) and isinstance(point, arb) and x == point:
        return 0.0  # equal infinities too
    upper = float(abs(x - point).upper()) if (x - point).is_finite() else float("inf")
    return float(np.nextafter(upper, np.inf)) if upper else 0.0


def width(x: Any) -> Any:
    """Return the radius of a scalar."""
    return x.rad() if isinstance(x, arb) else x.real.rad() + x.imag.rad() if isinstance(x, acb) else NAN
