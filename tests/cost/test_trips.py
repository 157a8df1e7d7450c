"""Trips of a `while`: what the program tells is what runs, in the jaxpr and in HLO; the rest stays unknown."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.cost import count, reconcile, xla
from refgrad.cost.constants import Known, _fits
from tests.cost.lax_samples import X

N = 35  # elements of X
FOUR, TEN, EIGHT_BITS = jnp.int32(4), np.int32(10), jnp.int8


def loop(test, step, start):
    """update, x → x updated in each trip of a loop over one counter."""
    return lambda update, x: lax.while_loop(lambda c: test(c[0]), lambda c: (step(c[0]), update(c[1])), (start, x))[1]


def inner_bound(update, x):
    """A loop in a scan, up to a number that a call hands to both."""
    four = lambda n: lambda c, _: (loop(lambda i: i < n, lambda i: i + 1, 0)(update, c), None)  # noqa: E731
    return jax.jit(lambda x, n: lax.scan(four(n), x, None, length=3)[0])(x, 4)


def in_a_while(update, x):
    inner = loop(lambda i: i < FOUR, lambda i: i + 1, 0)
    return loop(lambda i: i < 3, lambda i: i + 1, 0)(lambda c: inner(update, c), x)


def meet(update, x):
    step = lambda c: (c[0] + 1, c[1] - 1, update(c[2]))  # noqa: E731
    return lax.while_loop(lambda c: c[0] < c[1], step, (0, 9, x))[2]


def bounded(update, x):
    """Two calls of one function, each with a number of its own."""
    times = jax.jit(lambda x, n: lax.fori_loop(0, n, lambda _, z: update(z), x))
    return times(times(x, 3), 5)


KNOWN = {
    "a closed-over array": loop(lambda i: i < FOUR, lambda i: i + 1, 0),
    "a closed-over number of NumPy": loop(lambda i: i < TEN, lambda i: i + 1, 0),
    "computed of constants": loop(lambda i: i < 2 * FOUR + 1, lambda i: i + 1, 0),
    "the bound on the left": loop(lambda i: i <= 11, lambda i: 2 + i, FOUR),
    "until met": loop(lambda i: i != 12, lambda i: i + 3, 0),
    "down": loop(lambda i: i > 3, lambda i: i - 2, TEN),
    "a narrow counter": loop(lambda i: i.astype(jnp.int32) < TEN, lambda i: i + EIGHT_BITS(1), EIGHT_BITS(0)),
    "unsigned": loop(lambda i: i < np.uint32(9), lambda i: i + np.uint32(2), np.uint32(0)),
    "never": loop(lambda i: jnp.bool_(False), lambda i: i + 1, 0),
    "two counters": meet,
    "handed on by calls": bounded,
    "in a scan": inner_bound,
    "in a while": in_a_while,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_trips_are_those_that_run(name):
    ran = int(KNOWN[name](lambda z: z + 1.0, jnp.float32(0)))
    f = lambda x: KNOWN[name](jnp.sin, x)  # noqa: E731
    cost = count(f, X)
    assert cost.transcendental == ran * N and not cost.notes
    trips = [found.trips for found in xla(f, X).hlo.loops]
    assert None not in trips and bool(trips) == bool(ran)  # XLA drops the loop that never runs
    assert reconcile(f, X).ok


UNKNOWN = {
    "wraps around": loop(lambda i: i > np.uint32(0), lambda i: i - np.uint32(3), np.uint32(10)),
    "past the largest": loop(lambda i: i <= EIGHT_BITS(127), lambda i: i + EIGHT_BITS(1), EIGHT_BITS(0)),
    "narrowed": loop(lambda i: i.astype(EIGHT_BITS) < EIGHT_BITS(10), lambda i: i + 1, 0),
    "never met": loop(lambda i: i != 11, lambda i: i + 3, 0),
    "a float": loop(lambda i: i < 3.0, lambda i: i + 1.0, 0.0),
    "doubled": loop(lambda i: i < 9, lambda i: i + i, 1),
    "two conditions": loop(lambda i: (i < 9) & (i != 5), lambda i: i + 1, 1),
    "from outside": lambda update, x: loop(lambda i: i < 9, lambda i: i + 1, x.sum().astype(jnp.int32))(update, x),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_trips_stay_unknown(name):
    f = lambda x: UNKNOWN[name](jnp.sin, x)  # noqa: E731
    cost = count(f, X)
    assert cost.transcendental == N and "ONE trip" in cost.notes[0]
    assert [found.trips for found in xla(f, X).hlo.loops] == [None]
    assert reconcile(f, X).ok


def test_an_argument_tells_no_trips():
    """Also a Python number: the program is the same for every value."""
    f = lambda x, n: lax.fori_loop(0, n, lambda _, z: jnp.sin(z), x)  # noqa: E731
    assert count(f, X, 10).transcendental == N and count(f, X, 10).per_trip
    assert count(lambda x: f(x, 10), X).transcendental == 10 * N


def test_a_number_that_an_integer_type_wraps_is_not_known():
    int8, float32 = (SimpleNamespace(dtype=np.dtype(name)) for name in ("int8", "float32"))
    assert _fits(Known(127), int8) and _fits(Known(2.5), float32) and _fits(Known(), int8)
    assert not _fits(Known(128), int8) and not _fits(Known(2.5), int8)
