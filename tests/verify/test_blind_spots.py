"""Wrong rules that other tools let through, beside the verdicts of `assert_ok`.

`chex.assert_numerical_grads` multiplies its tolerance by the size of the first argument and in reverse mode compares
one number, a projection that grows like √size only: from some size on any rule passes. `jax.test_util.check_grads`
cannot run its default modes on a rule that has no forward mode, and in float32 lets errors of 1e-3 through.
"""

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.test_util import check_grads

from refgrad.verify import assert_ok
from tests.lanes import fast_if
from tests.verify.specimens import normal, rule


def sum_of_squares(x):
    return jnp.sum(x * x)


def mean_of_squares(x):
    return jnp.mean(x * x)


def off_by(factor, f=sum_of_squares):
    """`f` with its gradient off by a factor."""
    return rule(f, lambda x: (f(x), x), lambda x, g: (factor * g * jax.grad(f)(x),))


def fails(f, *args):
    with pytest.raises(AssertionError, match="accuracy") as caught:
        assert_ok(f, *args, properties=["accuracy"])
    return "test_blind_spots.py" in str(caught.value)


CASES = [(0.0, 300, 0), (-1.0, 300, 0), (2.0, 300, 0), (-1.0, 10_000, 1)]


@pytest.mark.parametrize(("factor", "size", "seed"), fast_if(lambda *case: case[1] == 300, CASES))
def test_chex_passes_a_grossly_wrong_gradient(factor, size, seed):
    """A loss that is a mean: its gradient is small, and the tolerance, 0.01 × size, is not."""
    f, x = off_by(factor, mean_of_squares), normal(size, seed=seed)
    chex.assert_numerical_grads(f, (x,), order=1, modes="rev")
    assert fails(f, x)


@pytest.mark.slow
def test_chex_passes_a_negated_gradient_of_a_sum_at_a_million():
    f, x = off_by(-1.0), normal(1_000_000)
    chex.assert_numerical_grads(f, (x,), order=1, modes="rev")
    assert fails(f, x)


def test_chex_sees_the_same_rule_at_a_small_size():
    with pytest.raises(AssertionError):
        chex.assert_numerical_grads(off_by(-1.0), (normal(100),), order=1, modes="rev")


def test_check_grads_raises_on_a_right_rule_in_its_default_modes():
    with pytest.raises(TypeError, match="can't apply forward-mode"):
        check_grads(off_by(1.0), (normal(4),), order=1)
    assert_ok(off_by(1.0), normal(4))


@pytest.mark.parametrize("factor", [0.999, 1.001])
@pytest.mark.parametrize("size", [4, 100])
def test_check_grads_passes_an_error_of_a_thousandth(factor, size):
    x = normal(size)
    check_grads(off_by(factor), (x,), order=1, modes="rev")
    assert fails(off_by(factor), x)


def test_both_pass_a_wrong_entry_among_many():
    """One entry of 1000 negated: a random projection hardly moves."""
    one = lambda x, g: ((2 * x * g).at[0].mul(-1),)  # noqa: E731
    f = rule(sum_of_squares, lambda x: (sum_of_squares(x), x), one)
    x = normal(1000).at[0].set(1e-3)
    check_grads(f, (x,), order=1, modes="rev", rtol=2e-2, atol=2e-2)
    chex.assert_numerical_grads(f, (x,), order=1, modes="rev")
    assert fails(f, x)
