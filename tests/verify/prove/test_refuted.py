"""Wrong rules are refuted, with an argument and both values: also those that are wrong by little, or on one branch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.ops import TABLE
from refgrad.verify import equivalent, mutants, prove
from refgrad.verify.prove import ProofVerdict, slight_mutants
from tests.verify.prove.rules import RIGHT, A, gelu_backward, guarded, norm, ruled, tanh_gelu, values

DIMS = {"b": 2, "s": 2, "h": 3, "n_h": 2, "d": 2, "V": 3, "i": 2, "o": 3, "H": 3, "W": 3, "k": 2, "l": 2}


def refuted(f, *args):
    proof = prove(f, *args)
    assert proof.verdict is ProofVerdict.REFUTED and not proof.ok, str(proof)
    assert proof.counterexample is not None
    return proof


def test_a_maximum_with_swapped_cotangents():
    def swapped(kept, g):
        x, y = kept
        return jnp.where(x > y, 0.0, g), jnp.where(x > y, g, 0.0)

    f = ruled(jnp.maximum, swapped)
    refuted(f, values(4), values(4, seed=1))
    refuted(f, np.array([1.0, 2.0]), np.array([2.0, 1.0]))  # a symmetric pattern of branches


@pytest.mark.parametrize("name", RIGHT)
def test_a_factor_of_one_and_two_to_the_minus_forty(name):
    f, args = RIGHT[name]

    def backward(kept, g):
        first, *rest = f.bwd(kept, g)
        return first * (1 + 2.0**-40), *rest

    refuted(ruled(f.fun, backward), *args)


@pytest.mark.parametrize("a", [0.797884560802, 0.7978845608128654, A * (1 + 2.0**-40)])
def test_a_constant_wrong_in_its_twelfth_digit(a):
    proof = refuted(ruled(tanh_gelu, gelu_backward(a)), values(2))
    found = proof.counterexample
    assert found.got[:6] == found.truth[:6] and found.got != found.truth


def test_right_on_one_branch_and_wrong_on_another():
    f = ruled(guarded, lambda kept, g: (jnp.where(kept[0] > 0, g / kept[0], 0.5 * g),))
    proof = refuted(f, np.array([1.0, 2.0, 0.5]))
    assert proof.branches[0].verdict is ProofVerdict.PROVEN and proof.branches[-1].verdict is ProofVerdict.REFUTED
    assert min(proof.counterexample.arguments["x"]) < 0


@pytest.mark.parametrize("forward", [lambda x: jnp.sqrt(x * x), lambda x: jnp.exp(jnp.log(x * x) / 2)])
def test_right_for_one_sign_without_a_comparison(forward):
    """Nothing in the program says that x > 0, which holds at the given arguments."""
    proof = prove(ruled(forward, lambda kept, g: (g,)), np.array([1.0, 2.0]))
    assert proof.verdict is not ProofVerdict.PROVEN


def test_wrong_far_from_the_given_arguments():
    """A comparison of the rule's own, which the forward does not make."""
    f = ruled(lambda x: x * x, lambda kept, g: (jnp.where(kept[0] > 3, 0.0, 2 * g * kept[0]),))
    assert max(refuted(f, np.array([0.5, 1.0])).counterexample.arguments["x"]) > 3


@pytest.mark.parametrize("name", ["gelu", "leaky_relu", "attention_scaling"])
def test_slight_mutants(name):
    row = TABLE[name]
    with jax.enable_x64(True):
        args = (*row.sample(0, DIMS, jnp.float64), *row.static_values(DIMS))
        found = slight_mutants(row.op, *args)
        assert any("twelfth" in mutant.name for mutant in found) and any("2^-40" in m.name for m in found)
        for mutant in found:
            refuted(mutant.function, *args)


def test_two_runs_share_nothing():
    """A cache keyed by the arguments' names would take the second function for the first."""
    right = ruled(lambda x: jnp.exp(x), lambda kept, g: (g * jnp.exp(kept[0]),))
    wrong = ruled(lambda x: jnp.exp(2 * x), lambda kept, g: (g * jnp.exp(kept[0]),))
    assert prove(right, values(2)).ok
    refuted(wrong, values(2))
    assert prove(right, values(2)).ok
    refuted(ruled(lambda x: jnp.exp(x), lambda kept, g: (g * jnp.exp(kept[0] * kept[0] / kept[0] * 1.5),)), values(2))


def test_the_counterexample_shows_both_values():
    f = ruled(lambda x: x * x, lambda kept, g: (3 * g * kept[0],))
    x = np.array([2.0])
    found = refuted(f, x).counterexample
    assert found.leaf == "cotangent of x" and found.index == (0,) and found.arguments == {"x": [2.0]}
    (ct,) = found.cotangents[0]
    assert float(found.got) == pytest.approx(6 * ct) and float(found.truth) == pytest.approx(4 * ct)
    assert "cotangent of x[0] is" in str(refuted(f, x))


def test_a_wrong_value_of_the_forward_in_the_rule():
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(lambda x: (jnp.sin(x) + 1e-30 * x, x), lambda x, g: (g * jnp.cos(x),))
    assert refuted(f, values(2)).counterexample.leaf == "output"


def test_a_rule_that_is_wrong_at_one_entry_of_many():
    def backward(kept, g):
        dx, dgamma = jax.vjp(norm, *kept)[1](g)
        return dx.at[1, 2].add(1e-25), dgamma

    assert refuted(ruled(norm, backward), values(2, 3), values(3, seed=1)).counterexample.index == (1, 2)


@pytest.mark.parametrize("name", ["maximum", "softmax", "dense", "layer_norm", "leaky_relu", "fused.linear"])
def test_every_mutant_of_an_operation(name):
    row = TABLE[name]
    with jax.enable_x64(True):
        args = (*row.sample(0, DIMS, jnp.float64), *row.static_values(DIMS))
        for mutant in mutants(row.op, *args):
            proof = prove(mutant.function, *args)
            assert proof.verdict is ProofVerdict.REFUTED or equivalent(mutant, row.op, *args), mutant.name
