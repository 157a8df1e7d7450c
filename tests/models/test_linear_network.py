"""D0's linear network: what it prints of gradients and FLOPs, against autodiff, the traced program and XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy

from refgrad import cost, verify
from refgrad.models import linear_network
from refgrad.models.linear_network import PRINTED
from refgrad.symbols import B, C, D, evaluate

SIZES = ({"B": 4, "D": 6, "C": 3}, {"B": 7, "D": 5, "C": 2}, {"B": 2, "D": 9, "C": 8})


def example(sizes, dtype=jnp.float32):
    params = linear_network.init(jax.random.key(0), sizes["D"], sizes["C"])
    x = jax.random.normal(jax.random.key(1), (sizes["B"], sizes["D"]), jnp.float32)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params), x.astype(dtype)


def chain(params, x):
    """D0's gradients in its own order, with NumPy: of H₂, W₂, H₁ and X; and of W₁ as it should be printed."""
    w1, w2, x = (np.asarray(v, np.float64) for v in (params["W1"], params["W2"], x))
    h1 = x @ w1
    h2 = h1 @ w2
    dh2 = 2 / h2.size * h2
    dh1 = dh2 @ w2.T
    return {"H1": dh1, "W2": h1.T @ dh2, "W1": x.T @ dh1, "X": dh1 @ w1.T}


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rules", ["derived", "autodiff"])
def test_the_gradients(sizes, rules):
    params, x = example(sizes)
    with jax.default_matmul_precision("highest"):
        dparams, dx = jax.grad(partial(linear_network.loss, rules=rules), (0, 1))(params, x)
    expected = chain(params, x)
    for got, name in ((dparams["W1"], "W1"), (dparams["W2"], "W2"), (dx, "X")):
        np.testing.assert_allclose(got, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_rules_hold():
    verify.assert_ok(linear_network.loss, *example(SIZES[0]))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_what_d0_prints_for_w1_is_transposed(sizes):
    """D0.6 prints (dloss/dH₁)ᵀ X: of the right shape, since W₁ is square, and the transpose of the gradient."""
    params, x = example(sizes)
    dw1 = np.asarray(jax.grad(linear_network.loss)(params, x)["W1"])
    printed = chain(params, x)["H1"].T @ np.asarray(x)
    assert printed.shape == dw1.shape
    assert np.max(np.abs(printed - dw1)) > 1e-2 * np.max(np.abs(dw1))
    np.testing.assert_allclose(printed.T, dw1, rtol=1e-4, atol=1e-6)


def test_what_d0_prints_for_w1_sums_over_the_wrong_index():
    """The Σ_k runs to D where k is an example: with B > D it leaves examples out, with B < D there are too few."""
    params, x = example(SIZES[1])
    dw1, dh1 = (chain(params, x)[name] for name in ("W1", "H1"))
    to_d = np.asarray(x)[: SIZES[1]["D"]].T @ dh1[: SIZES[1]["D"]]
    assert np.max(np.abs(to_d - dw1)) > 1e-2 * np.max(np.abs(dw1))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("input_gradient", [True, False])
def test_closed_forms_equal_xla(sizes, input_gradient):
    params, x = example(sizes)
    f, args = linear_network.loss, (params, x)
    if not input_gradient:  # the ids pass through as integers, which have no gradient
        f, args = lambda params: linear_network.loss(params, x), (params,)
    exact = linear_network.exact(input_gradient)
    for name, backward in (("forward", False), ("backward", True)):
        derived = (evaluate(exact[name].flops, sizes), 0)
        if name == "backward" or input_gradient:
            assert cost.reconcile(f, *args, derived=derived, backward=backward).ok


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_d0s_running_totals_are_the_products_of_the_trace(sizes):
    """After dW₂, dH₁, dW₁ and dX: the products of the backward pass when only these gradients are asked for."""
    params, x = example(sizes)
    w1, w2 = params["W1"], params["W2"]
    h1 = x @ w1

    def second(h1, w2):
        return linear_network.operations("derived").mean_square(jnp.matmul(h1, w2))

    products = {
        "dW2": cost.count_backward(lambda w2: second(h1, w2), w2).matmul,
        "dH1": cost.count_backward(second, h1, w2).matmul,
        "dW1": cost.count_backward(lambda params: linear_network.loss(params, x), params).matmul,
        "dX": cost.count_backward(linear_network.loss, params, x).matmul,
        "forward": cost.count(linear_network.loss, params, x).matmul,
    }
    assert products == {name: evaluate(PRINTED[name], sizes) for name in products}


def test_exactly_twice_the_forward_and_how_much_without_the_inputs_gradient():
    """D0.7: 2 for the products, whatever the sizes; without dX, which training does not need, 2 − D/(D + C)."""
    assert sympy.simplify(PRINTED["dX"] / PRINTED["forward"]) == 2
    assert sympy.simplify(PRINTED["dW1"] / PRINTED["forward"] - (2 - D / (D + C))) == 0
    everything = linear_network.exact(True)
    left_out = sympy.expand(everything["backward"].flops - PRINTED["dX"])
    assert left_out == B * C + 1  # the loss's own gradient, dH₂, which D0 does not count
    assert sympy.expand(everything["forward"].flops - PRINTED["forward"]) == 2 * B * C


def test_the_slip_in_h2s_derivation():
    """D0.8: with dh_ij for h_ij the gradient would be linear in itself; with h_ij it is 2/(BC) H₂."""
    params, x = example(SIZES[0])
    h2 = linear_network.apply(params, x)
    got = jax.grad(linear_network.operations("derived").mean_square)(h2)
    np.testing.assert_allclose(got, 2 / h2.size * h2, rtol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="classes is 0, but must be at least 1"):
        linear_network.init(jax.random.key(0), 3, 0)
    with pytest.raises(ValueError, match=r"matmul: w has shape \(6, 6\), where i is 6, but i = 5"):
        linear_network.loss(example(SIZES[0])[0], jnp.zeros((2, 5)))
