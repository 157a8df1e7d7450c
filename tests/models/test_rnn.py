"""D1.21's network: backpropagation through time, derived, against autodiff of a scan, differences, bytes and bounds."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from refgrad import cost, verify
from refgrad.models import rnn
from refgrad.ops import TABLE
from refgrad.ops.rnn import through_time
from refgrad.symbols import evaluate
from tests.lanes import fast_if

SIZES = ({"b": 2, "s": 5, "i": 3, "h": 4, "o": 2}, {"b": 3, "s": 9, "i": 2, "h": 7, "o": 4})


def example(sizes, dtype=jnp.float32, radius=0.9):
    params = rnn.init(jax.random.key(0), sizes["i"], sizes["h"], sizes["o"], radius)
    keys = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(keys[0], (sizes["b"], sizes["s"], sizes["i"]), jnp.float32)
    targets = jax.random.normal(keys[1], (sizes["b"], sizes["o"]), jnp.float32)
    params["b_h"] = 0.1 * jax.random.normal(keys[2], (sizes["h"],), jnp.float32)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x, targets))


def plain(params, x, targets):
    """The same network as anybody writes it: a scan over time, differentiated by JAX."""

    def step(h, x_t):
        h = jnp.tanh(x_t @ params["W_x"] + h @ params["W_h"] + params["b_h"][None])
        return h, None

    h_s, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], params["W_h"].shape[0]), x.dtype), jnp.swapaxes(x, 0, 1))
    return jnp.mean(jnp.square(h_s @ params["W_y"] + params["b_y"][None] - targets))


@pytest.mark.parametrize(
    ("sizes", "rules"),
    fast_if(
        lambda sizes, rules: (sizes, rules) == (SIZES[0], "derived"),
        [(SIZES[0], "derived"), (SIZES[1], "derived"), (SIZES[0], "autodiff")],
    ),
)
def test_equals_autodiff_of_the_scan(sizes, rules, x64):
    args = example(sizes, jnp.float64)
    got = jax.jit(jax.value_and_grad(partial(rnn.loss, rules=rules), (0, 1, 2)))(*args)
    want = jax.jit(jax.value_and_grad(plain, (0, 1, 2)))(*args)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.max(np.abs(one - other)) <= 1e-12 * np.max(np.abs(other))


@pytest.mark.slow
def test_equals_finite_differences(x64):
    check_grads(rnn.loss, example(SIZES[0], jnp.float64), order=1, modes=["rev"], rtol=1e-7)


@pytest.mark.slow
def test_every_property_holds():
    args = example(SIZES[0])
    verify.assert_ok(rnn.loss, *args)
    assert verify.blame(rnn.loss, *args).ok


@pytest.mark.slow
def test_a_fault_in_one_sum_over_time_is_blamed_on_the_rnn_and_its_w_h():
    args = example(SIZES[0])
    op = TABLE["rnn"].op
    bwd = op.bwd

    def one_time_less(kept, dh):  # in the sum over time that is dW_h
        delta, _ = through_time(kept.z, kept.w_h, dh)
        dx, dh_0, dw_x, dw_h, dbias = bwd(kept, dh)
        return dx, dh_0, dw_x, dw_h - jnp.einsum("bh,bk->hk", kept.h[:, -2], delta[:, -1]), dbias

    op.defvjp(op.fwd, one_time_less)
    try:
        guilty = [(call.rule, call.leaf) for call in verify.blame(rnn.loss, *args).guilty]
    finally:
        op.defvjp(op.fwd, bwd)
    assert guilty == [("rnn", "argument 3")]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda dtype: jnp.dtype(dtype).name)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_residual_bytes_are_the_derived_ones(sizes, dtype):
    measured = cost.residuals(rnn.loss, *example(sizes, dtype))
    item = jnp.dtype(dtype).itemsize
    assert measured.bytes + measured.argument_bytes == evaluate(rnn.KEPT, {**sizes, "item": item, "a": 4})


@pytest.mark.parametrize("input_gradient", [True, False])
def test_flops_are_the_sum_of_the_rows(input_gradient):
    params, x, targets = example(SIZES[1])
    exact = rnn.exact(input_gradient)
    loss, args = (lambda params, x: rnn.loss(params, x, targets)), (params, x)
    if not input_gradient:
        loss, args = (lambda params: rnn.loss(params, x, targets)), (params,)
    for direction in ("forward", "backward"):
        derived = tuple(evaluate(part, {**SIZES[1], "B": SIZES[1]["b"]}) for part in exact[direction])
        assert cost.reconcile(loss, *args, derived=derived, backward=direction == "backward").ok


@pytest.mark.slow
def test_gradient_norms_are_those_of_the_sequence_cut_at_t(x64):
    """L as a function of h_t: the states after t alone, from h_t on."""
    params, x, targets = example(SIZES[1], jnp.float64)
    h, norms = rnn.states(params, x), rnn.gradient_norms(params, x, targets)

    def rest(h_t, t):
        later = TABLE["rnn"].op(x[:, t + 1 :], h_t, params["W_x"], params["W_h"], params["b_h"])
        return jnp.mean(jnp.square(later[:, -1] @ params["W_y"] + params["b_y"][None] - targets))

    for t in (1, 6):
        np.testing.assert_allclose(norms[t], jnp.linalg.norm(jax.grad(rest)(h[:, t], t)), rtol=1e-12)


@pytest.mark.parametrize("radius", fast_if(lambda radius: radius > 1, [0.5, 1.5]))
def test_the_spectral_radius_bounds_each_step(radius, x64):
    params, x, targets = example({**SIZES[1], "s": 20}, jnp.float64, radius)
    assert np.max(np.abs(np.linalg.eigvals(params["W_h"]))) == pytest.approx(radius, rel=1e-6)
    norms = np.asarray(rnn.gradient_norms(params, x, targets))
    slope = 1 - np.square(rnn.states(params, x))[:, 1:]
    step = norms[:-1] / norms[1:]
    assert np.all(step <= radius * np.max(slope, (0, 2)) * (1 + 1e-6))
    assert np.all(step >= radius * np.min(slope, (0, 2)) * (1 - 1e-6))


def test_a_batch_over_an_explicit_mesh():
    params, x, targets = example({**SIZES[0], "b": 4})
    want = jax.grad(rnn.loss)(params, x, targets)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x, targets = jax.device_put((x, targets), NamedSharding(mesh, P("data")))
        got = jax.jit(jax.grad(rnn.loss))(jax.device_put(params, NamedSharding(mesh, P())), x, targets)
    chex.assert_trees_all_close(jax.device_get(got), want, rtol=1e-5, atol=1e-7)


def test_bad_input_is_named():
    params, x, targets = example(SIZES[0])
    with pytest.raises(ValueError, match="hidden is 0, but must be at least 1"):
        rnn.init(jax.random.key(0), 3, 0, 2, 1.0)
    with pytest.raises(ValueError, match="radius is nan, but must be at least 0 and finite"):
        rnn.init(jax.random.key(0), 3, 4, 2, float("nan"))
    with pytest.raises(ValueError, match=r"x has shape \(2, 0, 3\), but needs a time axis with a step"):
        rnn.loss(params, x[:, :0], targets)
    with pytest.raises(ValueError, match=r"rnn: x has shape \(2, 5, 2\), where i is 2, but i = 3"):
        rnn.apply(params, x[..., :2])
    with pytest.raises(ValueError, match="squared_error_mean: t has shape"):
        rnn.loss(params, x, targets[:1])
