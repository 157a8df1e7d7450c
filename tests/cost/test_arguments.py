"""What may be given to the instruments of cost, and what is said of the rest."""

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
