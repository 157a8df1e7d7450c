"""The search for the worst arguments: unstable rules found and called worse, right ones not; the seed replays."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.ops import TABLE
from refgrad.verify import worst
from refgrad.verify.worst.candidates import step
from tests.ops.cases import DIMS
from tests.verify.specimens import normal


def ruled(forward, backward):
    """`forward` with a rule that keeps its arguments."""
    f = jax.custom_vjp(forward)
    f.defvjp(lambda *args: (forward(*args), args), backward)
    return f


def logistic(x):
    return jnp.where(x < 0, jnp.exp(-jnp.abs(x)), 1.0) / (1.0 + jnp.exp(-jnp.abs(x)))


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def softmax_back(kept, g):
    z = jnp.exp(kept[0]) / jnp.sum(jnp.exp(kept[0]), axis=-1, keepdims=True)
    return (z * (g - jnp.sum(g * z, axis=-1, keepdims=True)),)


def norm(x):
    centred = x - jnp.mean(x)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2) + 1e-5)


def norm_back(kept, g):
    (x,) = kept
    rstd = jax.lax.rsqrt(jnp.mean(x**2) - jnp.mean(x) ** 2 + 1e-5)
    x_hat = (x - jnp.mean(x)) * rstd
    return (rstd * (g - jnp.mean(g) - x_hat * jnp.mean(g * x_hat)),)


def log_cosh(x):
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2.0 * jnp.abs(x)))


UNSTABLE = {
    "softmax that overflows": (softmax, softmax_back),
    "sigmoid by an exponential that overflows": (
        logistic,
        lambda kept, g: (g * jnp.exp(kept[0]) / (1.0 + jnp.exp(kept[0])) ** 2,),
    ),
    "variance as a difference": (norm, norm_back),
    "tanh as a quotient that cancels": (
        lambda x: log_cosh(x),
        lambda kept, g: (g * (jnp.exp(kept[0]) - jnp.exp(-kept[0])) / (jnp.exp(kept[0]) + jnp.exp(-kept[0])),),
    ),
    "log of 1 + x": (
        lambda x: x * jnp.log1p(x * x),
        lambda kept, g: (g * (jnp.log(1.0 + kept[0] ** 2) + 2.0 * kept[0] ** 2 / (1.0 + kept[0] ** 2)),),
    ),
    "NaN at one point": (
        lambda x: x * x,
        lambda kept, g: (jnp.where(kept[0] == 1.0, jnp.nan, g * 2.0 * kept[0]),),
    ),
    "1/(x + 1) by way of a difference": (
        lambda x: jnp.log(jnp.abs(x) + 1.0),
        lambda kept, g: (g * jnp.sign(kept[0]) * (1.0 - jnp.abs(kept[0]) / (jnp.abs(kept[0]) + 1.0)),),
    ),
}


@pytest.mark.parametrize("name", UNSTABLE)
def test_an_unstable_rule_is_found_and_called_worse(name):
    found = worst(ruled(*UNSTABLE[name]), normal(4), budget=300)
    assert not found.ok, str(found)
    assert "WORSE than autodiff" in str(found) and "worse" in str(found)


RIGHT = {
    "softmax": (softmax, lambda kept, g: (jax.vjp(softmax, *kept)[1](g)[0],)),
    "sine": (jnp.sin, lambda kept, g: (g * jnp.cos(kept[0]),)),
    "norm": (norm, lambda kept, g: (jax.vjp(norm, *kept)[1](g)[0],)),
    "a kink with a slope between": (jnp.abs, lambda kept, g: (g * jnp.sign(kept[0]),)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_rule_is_no_worse(name):
    found = worst(ruled(*RIGHT[name]), normal(4), budget=200)
    assert found.ok, str(found)


def test_infinitely_wrong_where_only_the_rule_is_not_finite():
    (row,) = worst(ruled(*UNSTABLE["NaN at one point"]), normal(4), budget=300).rows
    assert row.rule.ulps == np.inf and np.isnan(row.rule.got) and row.autodiff.ulps < 2


def test_autodiff_that_fails_everywhere_else_does_not_hide_the_rule():
    """log(eˣ + 1) has no gradient by autodiff where eˣ overflows, while the rule errs elsewhere."""

    def softplus(x):
        return jnp.where(x > 80.0, x, jnp.log(1.0 + jnp.exp(x)))

    found = worst(ruled(softplus, lambda kept, g: (g * 1.001 * jax.nn.sigmoid(kept[0]),)), normal(4), budget=200)
    (row,) = found.rows
    assert row.autodiff.ulps == np.inf and not found.ok
    assert "where autodiff is finite" in str(found)


def test_the_seed_replays_every_byte():
    f = ruled(*UNSTABLE["variance as a difference"])
    one, two, other = (worst(f, normal(4), seed=seed, budget=60) for seed in (3, 3, 4))
    assert one.json() == two.json() and str(one) == str(two) and one.digest == two.digest
    assert one.arguments[0].tobytes() == two.arguments[0].tobytes()
    assert other.digest != one.digest
    assert f"seed=3, budget=60).arguments, {one.digest}" in str(one)


def test_the_arguments_give_the_worst_error():
    f = ruled(*UNSTABLE["1/(x + 1) by way of a difference"])
    found = worst(f, normal(4), budget=200)
    (x,), (ct,), (row,) = found.arguments, found.cotangents, found.rows
    assert jax.jit(lambda x, g: jax.vjp(f, x)[1](g)[0])(x, ct)[row.rule.index] == row.rule.got
    assert json.loads(found.json())["rows"][0]["rule"]["ulps"] == row.rule.ulps


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16, jnp.float16, jnp.complex64])
def test_other_dtypes(dtype, x64):
    f = ruled(lambda x: x * x, lambda kept, g: (2 * kept[0] * g,))
    found = worst(f, normal(3, dtype=dtype), budget=40)
    assert found.ok and found.rows[0].rule.ulps <= 4, str(found)


def test_a_truth_that_the_dtype_cannot_hold_is_not_held_against_anyone():
    f = ruled(lambda x, y: x * y, lambda kept, g: (g * kept[1], g * kept[0]))
    found = worst(f, normal(4, dtype=jnp.float16), normal(4, dtype=jnp.float16), budget=300)
    assert found.ok and np.isfinite(found.rows[0].rule.ulps), str(found)


def test_a_report_fits_its_page():
    row = TABLE["layer_norm"]
    found = worst(row.bound(DIMS[0]), *row.sample(0, DIMS[0], jnp.float32), budget=20)
    assert [r.argument for r in found.rows] == ["x", "gamma", "beta"]
    assert max(map(len, str(found).splitlines())) <= 100


def test_steps_of_one_ulp_cross_zero():
    x = np.array([0.0, 1.0, -1.0], np.float32)
    assert step(x, 1).tolist() == np.nextafter(x, np.float32(np.inf)).tolist()
    assert step(step(x, -3), 3).tolist() == x.tolist()


@pytest.mark.parametrize(
    ("f", "args", "budget", "error", "message"),
    [
        (ruled(*RIGHT["sine"]), (np.float32([1, np.nan]),), 10, ValueError, "x holds NaN"),
        (jnp.sin, (np.float32([1]),), 10, ValueError, "holds no rule"),
        (ruled(*RIGHT["sine"]), (np.float32([1]),), 0, ValueError, "budget is 0"),
        (ruled(*RIGHT["sine"]), (np.int32([1]),), 10, TypeError, "no argument to differentiate"),
        (ruled(lambda x: x / 0.0, lambda kept, g: (g,)), (np.float32([1]),), 10, ValueError, "holds at none of 10"),
    ],
)
def test_bad_input(f, args, budget, error, message):
    with pytest.raises(error, match=message) as raised:
        worst(f, *args, budget=budget)
    assert "\n" not in str(raised.value)


CHANCE = 3  # between extremes of so few points: of programs that are equally right they were up to 1.8 apart


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_no_float32_rule_is_worse_than_autodiff(name, as_users_compile):
    row, dims = TABLE[name], {**DIMS[0], "V": 5, "h": 4, "d": 2, "i": 3, "o": 4}
    found = worst(row.bound(dims), *row.sample(0, dims, jnp.float32), budget=400)
    for argument in found.rows:
        rule, autodiff = argument.compared
        assert rule <= CHANCE * autodiff + 1, str(found)
