"""Reports on arguments that are not arrays, which JAX refuses in words of its own."""

import functools

import jax
import jax.numpy as jnp
import pytest

from refgrad.verify import check

X = jnp.array([[0.5, 2.0, 3.0]])
THIRD = getattr(jax.config, "jax_custom_vjp3", False)
FAST = {"draws": 1, "order": 1, "properties": ["structure", "accuracy"]}


def by_vjp(fun, bwd, **settings):
    op = jax.custom_vjp(fun, **settings)
    op.defvjp(lambda *args: (fun(*args), args), bwd)
    return op


def by_jvp(fun, jvp):
    op = jax.custom_jvp(fun)
    op.defjvp(jvp)
    return op


def spread(x, shape):
    return jnp.broadcast_to(x, shape)


def total(x, axis):
    return jnp.sum(x, axis)


def apply(act, x):
    return act(x)


class Mode:
    """A setting."""


sizes = by_vjp(spread, lambda res, ct: (jnp.sum(ct, 0, keepdims=True), None))
GIVEN = {
    "sizes": (sizes, (X, (4, 3)), "`shape` = (4, 3) is not an array: write nondiff_argnums=(1,)"),
    "an axis": (by_vjp(total, lambda res, ct: (ct * res[0], None)), (X, 1), "`axis` = 1 is"),
    "a function": (
        by_vjp(apply, lambda res, ct: (None, ct)),
        (jnp.sin, X),
        "`act` = sin is not an array: write nondiff_argnums=(0,)",
    ),
    "a string": (by_vjp(lambda x, mode: 2 * x, lambda res, ct: (2 * ct, None)), (X, "mean"), "`mode` = 'mean' is"),
    "an object": (by_vjp(lambda x, mode: 2 * x, lambda res, ct: (2 * ct, None)), (X, Mode()), "`mode` = Mode is"),
    "sizes of a custom_jvp": (
        by_jvp(spread, lambda p, t: (spread(*p), spread(t[0], p[1]))),
        (X, (4, 3)),
        "`shape` = (4, 3)",
    ),
    "sizes inside": (lambda x: sizes(x, (4, 3)), (X,), "test_advice.py:"),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_an_argument_that_is_not_an_array(kind):
    if kind == "sizes inside" and THIRD:
        pytest.skip("there JAX tells of a jit")
    op, args, words = GIVEN[kind]
    with pytest.raises(TypeError) as raised:
        check(op, *args, **FAST)
    assert words in str(raised.value) and "functools.partial" in str(raised.value)


def test_the_advice_works():
    told = by_vjp(spread, lambda shape, res, ct: (jnp.sum(ct, 0, keepdims=True),), nondiff_argnums=(1,))
    assert check(told, X, (4, 3), **FAST).ok
    bound = by_vjp(functools.partial(spread, shape=(4, 3)), lambda res, ct: (jnp.sum(ct, 0, keepdims=True),))
    assert check(bound, X, **FAST).ok


@pytest.mark.parametrize(
    "kept", ["mode", jnp.cos, jnp.dtype("float32"), Mode()], ids=["text", "function", "dtype", "object"]
)
def test_a_residual_that_is_not_an_array(kept):
    op = jax.custom_vjp(lambda x: jnp.sin(x))
    op.defvjp(lambda x: (jnp.sin(x), (x, kept)), lambda res, ct: (ct * jnp.cos(res[0]),))
    (cause,) = check(op, X, **FAST).causes
    assert "among its residuals: close over it" in cause and "nondiff_argnums" in cause


def test_an_error_of_the_users_own_stays_as_it_is():
    def fails(x):
        raise RuntimeError("the user's own words")

    with pytest.raises(RuntimeError, match="own words"):
        check(fails, X)


def test_defaults_are_arguments_of_the_forward():
    def scaled(x, by=2.0):
        return by * x

    op = jax.custom_vjp(scaled)
    op.defvjp(lambda x: (scaled(x), None), lambda _, g: (2 * g, None))
    assert "_fwd takes the function's arguments, defaults too" in check(op, X, **FAST).causes[0]


def test_a_tree_of_cotangents():
    op = by_vjp(lambda x, y: x * y, lambda res, ct: ct)
    (cause,) = check(op, X, X, **FAST).causes
    assert "must return one cotangent per argument" in cause
    assert THIRD or "a tuple like (*, *), but returns *" in cause
