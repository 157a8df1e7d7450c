"""Arguments that the instruments of cost accept, and the messages for the rest."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from refgrad.cost import count, count_backward, memory, mfu, reconcile, residuals, xla, xla_backward
from refgrad.cost.conventions import Dimensions, compare
from refgrad.cost.peaks import peak
from tests.cost.lax_samples import X, spec

INSTRUMENTS = [count, count_backward, xla, xla_backward, reconcile, residuals, memory]


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_what_is_no_array_is_held_fixed(instrument):
    """Strings, functions, None and a model's own parts, as in a closure."""

    def f(x, how, options):
        return getattr(jnp, how)(options["g"](x))

    given, closed = (X, "sum", {"g": jnp.tanh, "n": None, "o": object()}), lambda x: jnp.sum(jnp.tanh(x))
    another = lambda x: jnp.sin(jnp.sin(jnp.sin(jnp.sin(x))))  # noqa: E731
    assert _figures(instrument(f, *given)) == _figures(instrument(closed, X)) != _figures(instrument(another, X))


def test_a_model_of_equinox_as_it_is():
    model = eqx.nn.MLP(5, 3, 8, 2, key=jax.random.key(0))
    loss = lambda m, x: (jax.vmap(m)(x) ** 2).sum()  # noqa: E731
    step = count(eqx.filter_value_and_grad(loss), model, spec(4, 5))
    assert step.matmul == 2 * 4 * (3 * (5 * 8 + 8 * 8 + 8 * 3) - 5 * 8)  # the first layer's input gets no gradient
    assert count_backward(loss, model, spec(4, 5)).matmul == 2 * 4 * 2 * (5 * 8 + 8 * 8 + 8 * 3)


def _figures(result):
    for figures in (
        lambda r: (r.flops, r.transcendental),
        lambda r: (r.flops, r.transcendentals),
        lambda r: [step[1:6] for step in r.steps],
        lambda r: (r.bytes, r.argument_bytes),
        lambda r: (r.arguments, r.outputs, r.temporaries),
    ):
        try:
            return figures(result)
        except AttributeError:
            continue
    raise AssertionError(f"{result!r} has no figures")


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_no_function_is_named(instrument):
    with pytest.raises(TypeError, match="f=3 is not a function: give the function first"):
        instrument(3, X)


NEEDS_VALUES = {
    "a size": (lambda x, n: x.reshape(n, -1), 5),
    "a flag": (lambda x, flag: x if flag else -x, True),
    "a static argument": (jax.jit(lambda x, n: x**n, static_argnums=1), 3),
}


@pytest.mark.parametrize("instrument", [count, count_backward, xla, reconcile, residuals])
@pytest.mark.parametrize("name", NEEDS_VALUES)
def test_a_number_that_should_be_a_value_is_explained(instrument, name):
    f, value = NEEDS_VALUES[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        instrument(f, X, value)
    assert "functools.partial" in "".join(caught.value.__notes__)
    instrument(lambda x: f(x, value), X)


def test_what_f_raises_comes_through():
    def f(x, n):
        raise TypeError("mine: bad shape")

    with pytest.raises(TypeError, match="mine: bad shape") as caught:
        count(f, X, 3)
    assert "functools.partial" not in "".join(getattr(caught.value, "__notes__", []))
    with pytest.raises(TypeError, match="keyword-only argument: 'k'"):
        count(lambda x, *, k: x * k, X)
    assert count(functools.partial(lambda x, *, k: x * k, k=3.0), X).flops == 35


SIZES = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 9, "seq_len": 4}
BAD = {
    "peak by name": (
        lambda: mfu(1.0, 2.0, "A100"),
        TypeError,
        r"peak is 'A100': give a number .*peak\(device, dtype\)",
    ),
    "a count": (lambda: mfu(1.0, count(jnp.sin, X), 1e12), TypeError, r"flops is a Count: .*\.matmul"),
    "no seconds": (lambda: mfu(0.0, 1.0, 1.0), ValueError, "seconds=0.0 must be positive"),
    "infinite": (lambda: mfu(1.0, float("inf"), 1.0), ValueError, "flops=inf must be positive and finite"),
    "no device": (lambda: peak("Z9"), ValueError, "no peak known for 'Z9'.*give FLOP/s"),
    "a flag as size": (lambda: Dimensions(**{**SIZES, "n_layer": True}), ValueError, "n_layer=True: a size is"),
    "no dimensions": (lambda: compare({"n_layer": 2}), TypeError, "give Dimensions"),  # pyright: ignore
    "one figure": (lambda: reconcile(jnp.sin, X, derived=35), ValueError, r"derived=35: give two integers"),
    "text": (lambda: reconcile(jnp.sin, X, document="35"), ValueError, "document='35': give an integer"),
    "a list": (
        lambda: reconcile(jnp.sin, X, document=0, causes=["bias"]),
        ValueError,
        r"causes=\['bias'\]: give a map",
    ),
    "a sum": (lambda: count(jnp.sin, X) + 3, TypeError, "unsupported operand"),
    "unknown": (
        lambda: count(jnp.sin, X, unknown="skip"),
        ValueError,
        "unknown must be 'raise' or 'count', not 'skip'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_figures_are_named(name):
    call, error, says = BAD[name]
    with pytest.raises(error, match=says):
        call()


def _layer(x, w, *, train, b, rngs=None):
    y = x @ w + b[None]
    return jnp.where(jax.random.bernoulli(rngs["dropout"], 0.9, y.shape), y, 0) if train else y


W, B = spec(7, 3), spec(3)
RNGS = {"dropout": jax.random.key(0)}


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_keywords_as_in_a_closure(instrument):
    """Flags among them are values, arrays are traced and differentiated."""
    closed = lambda x, w, b: _layer(x, w, train=False, b=b)  # noqa: E731
    given = _figures(instrument(_layer, X, W, kwargs={"train": False, "b": B}))
    assert given == _figures(instrument(closed, X, W, B))
    assert given != _figures(instrument(_layer, X, W, kwargs={"train": True, "b": B, "rngs": RNGS}))


def test_frozen_weights_cost_no_product():
    f = lambda x, frozen, w: jnp.tanh(x @ frozen) @ w  # noqa: E731
    frozen, w = spec(7, 11), spec(11, 3)
    product = 2 * 5 * 11 * 3
    assert count_backward(f, X, frozen, w, argnums=2).matmul == product
    assert count_backward(f, X, frozen, w, argnums=(0, -1)).matmul == 2 * product + 2 * 5 * 7 * 11
    assert residuals(f, X, frozen, w, argnums=2).bytes == 4 * 5 * 11
    assert reconcile(f, X, frozen, w, argnums=0, backward=True).ok


@pytest.mark.parametrize("instrument", [count_backward, xla_backward, residuals, memory, reconcile])
def test_a_position_that_does_not_exist(instrument):
    given = {"backward": True} if instrument is reconcile else {}
    with pytest.raises(ValueError, match="argnums holds 2, but there are 2 positional arguments: choose from -2 to 1"):
        instrument(jnp.dot, X, W, argnums=(0, 2), **given)
    with pytest.raises(TypeError, match=r"none of the 1 argument leaves that argnums=1 chooses is floating"):
        instrument(lambda x, i: x[i], X, spec(2, dtype="int32"), argnums=1, **given)
    with pytest.raises(TypeError, match="kwargs=3: give a mapping"):
        instrument(jnp.dot, X, W, kwargs=3, **given)
