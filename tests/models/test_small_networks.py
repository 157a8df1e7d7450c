"""The documents' small networks: gradients by rule, by autodiff and by hand; costs from the rows to XLA."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad import cost, ops, verify
from refgrad.models import binary_classifier, linear_classifier, mlp, one_hidden_layer
from refgrad.models._activations import ACTIVATIONS
from refgrad.symbols import evaluate
from tests.lanes import fast_if
from tests.ops.cases import relative_error
from tests.ops.test_planted import planted

KEY = jax.random.key(0)
SIZES = {"B": 6, "D": 5, "h": 4, "C": 3}


class Network(NamedTuple):
    """A network at its sizes: its loss of (params, x, targets), an example of them, and its costs from the rows."""

    loss: Callable[..., Any]
    params: dict[str, Any]
    x: Any
    targets: Any
    exact: Callable[..., Mapping[str, Any]]


def of_mlp(sizes, activation, bias):
    return Network(
        partial(mlp.loss, activation=activation),
        mlp.init(KEY, sizes, bias),
        *floats((6, sizes[0]), (6, sizes[-1])),
        partial(mlp.exact, sizes, activation, bias),
    )


def floats(*shapes):
    return [jax.random.normal(jax.random.key(7 + k), shape, jnp.float32) for k, shape in enumerate(shapes)]


def of_classifier(bias):
    params = linear_classifier.init(KEY, 5, 3)
    loss = partial(linear_classifier.loss, strength=0.1)
    ids = jnp.array([0, 2, 1, 1, 0, 2], jnp.int32)
    params = params if bias else {"W": params["W"]}
    return Network(loss, params, *floats((6, 5)), ids, partial(linear_classifier.exact, bias))


NETWORKS = {
    "D1.1": Network(
        one_hidden_layer.loss, one_hidden_layer.init(KEY, 5, 4, 3), *floats((6, 5), (6, 3)), one_hidden_layer.exact
    ),
    "D3.1, one layer": of_mlp((5, 3), "relu", False),
    "D3.1, two layers": of_mlp((5, 4, 3), "relu", False),
    "D3.1, three layers": of_mlp((5, 4, 6, 3), "relu", False),
    "D3.4": of_mlp((3, 4, 4, 1), "sigmoid", True),
    "D3.5": of_mlp((9, 7, 3), "sigmoid", False),
    "D3.16": of_classifier(True),
    "D3.15": of_classifier(False),
    "D4.1": Network(
        binary_classifier.loss,
        binary_classifier.init(KEY, 5, 4),
        *floats((6, 5)),
        jnp.array([0, 1, 1, 0, 1, 0], jnp.int32),
        binary_classifier.exact,
    ),
}


def in_float64(tree):
    """The floating leaves in float64, a bias of zeros as one of 0.25."""
    wide = [np.asarray(leaf, np.float64 if jnp.issubdtype(leaf.dtype, jnp.floating) else None) for leaf in tree]
    return [jnp.asarray(leaf if leaf.any() else leaf + 0.25) for leaf in wide]


def params_of(network, *names):
    return [network.params[name] for name in names]


def gradients(network, rules):
    """Gradients of every parameter and of x, in float64."""
    leaves, tree = jax.tree.flatten((network.params, network.x, network.targets))
    args = jax.tree.unflatten(tree, in_float64(leaves))
    return jax.jit(jax.grad(partial(network.loss, rules=rules), (0, 1)))(*args)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rules_equal_autodiff(name, x64):
    found, wanted = (gradients(NETWORKS[name], rules) for rules in ("derived", "autodiff"))
    errors = jax.tree.map(relative_error, found, wanted)
    assert max(jax.tree.leaves(errors)) <= 1e-12, errors
    assert all(np.any(leaf) for leaf in jax.tree.leaves(wanted))


@pytest.mark.parametrize("part", ["sigmoid", "matmul", "relu", "linear", "binary_cross_entropy"])
def test_a_fault_planted_in_a_part_is_found(part, x64):
    wanted = gradients(NETWORKS["D4.1"], "autodiff")
    with planted(part, {ops.TABLE[part].differentiable[0]: "factor"}):
        found = gradients(NETWORKS["D4.1"], "derived")
    assert max(jax.tree.leaves(jax.tree.map(relative_error, found, wanted))) > 1e-4


@pytest.mark.parametrize("name", fast_if(lambda name: name == "D1.1", ["D1.1", "D3.16"]))
def test_verify_says_so_too(name):
    network = NETWORKS[name]
    report = verify.check(network.loss, *network[1:4], properties=("structure", "accuracy"))
    assert report.ok, report


@pytest.mark.parametrize("input_gradient", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_rows_add_up_to_the_count_and_to_xla(name, input_gradient):
    network = NETWORKS[name]
    params, x, targets = network[1:4]
    given = (targets,) if targets.dtype == jnp.int32 else ()  # ids are arguments, since they get no gradient anyway
    loss, args = (lambda params, x, *ids: network.loss(params, x, *(ids or (targets,)))), (params, x, *given)
    if not input_gradient:
        loss, args = (lambda params, *ids: network.loss(params, x, *(ids or (targets,)))), (params, *given)
    exact = network.exact(input_gradient=input_gradient)
    for direction, backward in (("forward", False), ("backward", True)):
        derived = tuple(evaluate(part, SIZES) for part in exact[direction])
        counted = (cost.count_backward if backward else cost.count)(loss, *args)
        assert (counted.flops, counted.transcendental) == derived
        if name in ("D1.1", "D3.5", "D3.16"):
            assert cost.reconcile(loss, *args, derived=derived, backward=backward).ok


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_has_its_price(activation):
    network = of_mlp((5, 4, 3), activation, True)
    counted = cost.count_backward(lambda p, x: network.loss(p, x, network.targets), network.params, network.x)
    exact = network.exact()["backward"]
    assert (counted.flops, counted.transcendental) == tuple(evaluate(part, SIZES) for part in exact)


def test_d3s_twenty_lines_have_the_gradients_of_the_rules(x64):
    """D3.5's four gradients in NumPy: of y, of w₂, of h and of w₁, with its own h (1 − h)."""
    network = NETWORKS["D3.5"]
    found = gradients(network, "derived")[0]
    x, t, w1, w2 = (np.asarray(v, np.float64) for v in (network.x, network.targets, *params_of(network, "W1", "W2")))
    h = 1 / (1 + np.exp(-x @ w1))
    dy = 2 * (h @ w2 - t)
    np.testing.assert_allclose(found["W2"], h.T @ dy, rtol=1e-12)
    np.testing.assert_allclose(found["W1"], x.T @ (dy @ w2.T * h * (1 - h)), rtol=1e-12)


def test_d4s_chain_has_the_gradients_of_the_rules(x64):
    """D4.1 to D4.4 in NumPy, with the cancelled chain p − y for ∂ℓ/∂z, and the bias's sum over examples."""
    network = NETWORKS["D4.1"]
    found, _ = gradients(network, "derived")
    x, y, w1, w2 = (np.asarray(v, np.float64) for v in (network.x, network.targets, *params_of(network, "w1", "w2")))
    hidden = np.maximum(0, x @ w1)
    p = 1 / (1 + np.exp(-(hidden @ w2 + 0.25)[:, 0]))
    dz = ((p - y) / len(y))[:, None]
    np.testing.assert_allclose(found["b"], dz.sum(0), rtol=1e-12)
    np.testing.assert_allclose(found["w2"], hidden.T @ dz, rtol=1e-12)
    np.testing.assert_allclose(found["w1"], x.T @ (dz @ w2.T * (hidden > 0)), rtol=1e-12)


def test_an_absorbed_bias_changes_nothing(x64):
    """D3.15: same scores, loss and gradients without a penalty; a penalty counts the absorbed bias in."""
    params, x, ids = of_classifier(True)[1:4]
    params, x = {"W": params["W"].astype(jnp.float64), "b": jnp.array([0.5, -1, 2])}, x.astype(jnp.float64)
    absorbed, ones = linear_classifier.absorb_bias(params), linear_classifier.append_one(x)
    pairs = ((params, x), (absorbed, ones))
    scores = [jax.jit(linear_classifier.apply)(*pair) for pair in pairs]
    np.testing.assert_allclose(*scores, rtol=1e-13)
    (one, (of, of_x)), (other, (of_absorbed, of_ones)) = (
        jax.jit(jax.value_and_grad(partial(linear_classifier.loss, strength=0.0), (0, 1)))(*pair, ids) for pair in pairs
    )
    assert relative_error(one, other) <= 1e-14
    np.testing.assert_allclose(of_absorbed["W"], jnp.concatenate([of["W"], of["b"][None]]), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(of_ones[:, :-1], of_x, rtol=1e-13, atol=1e-15)
    penalised = [jax.jit(partial(linear_classifier.loss, strength=0.1))(*pair, ids) for pair in pairs]
    np.testing.assert_allclose(penalised[1] - penalised[0], 0.1 * (0.25 + 1 + 4), rtol=1e-12)


def test_the_gradient_of_the_weight_is_the_sum_of_two_paths(x64):
    """D3.16: through the scores, and through the penalty, 2λW."""
    params, x, ids = of_classifier(False)[1:4]
    W, x = params["W"].astype(jnp.float64), x.astype(jnp.float64)
    losses = [partial(linear_classifier.loss, strength=strength) for strength in (0.1, 0.0)]
    both, data = (jax.jit(jax.grad(loss))({"W": W}, x, ids)["W"] for loss in losses)
    np.testing.assert_allclose(both, data + 0.2 * W, rtol=1e-13)


def test_confident_mistakes_are_infinite_by_probabilities_and_finite_by_logits():
    """D4.2: the loss by probabilities is infinite from z = −104 on in float32; on logits it is |z|."""
    params = {"w1": jnp.eye(2), "w2": jnp.array([[-150.0], [0.0]]), "b": jnp.zeros(1)}
    x, y = jnp.array([[1.0, 0.0]]), jnp.ones(1, jnp.int32)
    assert np.isinf(binary_classifier.loss(params, x, y))
    loss = ops.binary_cross_entropy_with_logits(binary_classifier.logits(params, x), y)
    assert loss == 150


BAD = {
    "width": (lambda: one_hidden_layer.init(KEY, 3, 0, 2), "hidden is 0, but must be at least 1"),
    "one size": (lambda: mlp.init(KEY, (3,)), r"sizes is \(3,\), but a layer has two"),
    "size": (lambda: mlp.init(KEY, (3, -1)), r"sizes\[1\] is -1, but must be at least 1"),
    "activation": (
        lambda: mlp.apply(mlp.init(KEY, (3, 4, 2)), jnp.zeros((2, 3)), "sigmod"),
        "activation is 'sigmod': did you mean sigmoid",
    ),
    "layer": (lambda: mlp.apply({"W2": jnp.zeros((3, 2))}, jnp.zeros((2, 3))), "params has W2, but no W1"),
    "x": (lambda: mlp.apply(mlp.init(KEY, (3, 2)), jnp.zeros((2, 4))), r"linear: w has shape \(3, 2\)"),
    "classes": (lambda: linear_classifier.init(KEY, 3, 0), "classes is 0, but must be at least 1"),
    "strength": (lambda: of_classifier(True).loss(*of_classifier(True)[1:4], strength=-1.0), "strength is -1.0"),
    "inputs": (lambda: binary_classifier.init(KEY, 0), "inputs is 0, but must be at least 1"),
    "labels": (
        lambda: binary_classifier.loss(binary_classifier.init(KEY), jnp.zeros((2, 2)), jnp.zeros(3, jnp.int32)),
        r"binary_cross_entropy: y has shape \(3,\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
