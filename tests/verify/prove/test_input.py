"""Bad input: one clear line."""

import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.verify import prove
from tests.verify.prove.rules import RIGHT, ruled, values


def test_nan():
    with pytest.raises(ValueError, match="x holds NaN"):
        prove(RIGHT["a norm"][0], np.array([1.0, np.nan]))


def test_nothing_to_differentiate():
    with pytest.raises(TypeError, match="no argument to differentiate"):
        prove(RIGHT["a norm"][0], jnp.arange(3))


def test_no_rule_inside():
    with pytest.raises(TypeError, match="no backward rule inside"):
        prove(lambda x: jnp.sum(x * x), values(3))


def test_complex_arguments():
    with pytest.raises(TypeError, match="x is complex"):
        prove(RIGHT["a norm"][0], values(3) + 1j)


def test_a_tie_at_the_given_arguments_is_not_decided():
    f = ruled(jnp.abs, lambda kept, g: (g * jnp.sign(kept[0]),))
    proof = prove(f, np.array([0.0, 1.0]))
    assert not proof.ok and proof.branches[0].why == "a tie"
    assert all(b.verdict.brief == "proven" for b in proof.branches[1:])
