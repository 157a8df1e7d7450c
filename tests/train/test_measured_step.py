"""A step that measures its gradients: their size, what a step that is not finite leaves alone, batches in parts."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from refgrad.models import gpt2
from refgrad.report.text import standard_library_ids
from refgrad.train.optimiser import adamw, init_state
from refgrad.train.run.watch import backward_order, concerned
from refgrad.train.settings import Train
from refgrad.train.step import make_step
from refgrad.train.update_in_backward.measures import squares_by_leaf

CONFIG = gpt2.Config(n_layer=2, n_head=2, n_embd=16, n_positions=16, vocab_size=256)
IDS = standard_library_ids(4, 16)


def slow(value, when=True):
    """One case of a test, in the slow lane."""
    return pytest.param(value, marks=[pytest.mark.slow] * when)


FORMS = {
    "plain": {},
    "scanned": {"scan": True},
    "fast": {"memory": "fast", "rules": "fused"},
    "small, scanned": {"memory": "small", "scan": True, "rules": "fused"},
    "fast, clipped": {"memory": "fast", "clip_norm": 0.5},
}


def start(tx, scan=False):
    params = gpt2.init(jax.random.key(0), CONFIG)
    return init_state(gpt2.stack(params) if scan else params, tx)


def gradients(scan=False):
    params = gpt2.init(jax.random.key(0), CONFIG)
    params = gpt2.stack(params) if scan else params
    return jax.jit(jax.value_and_grad(lambda p: gpt2.loss(p, *IDS, CONFIG, rules="autodiff", scan=scan)))(params)


@pytest.mark.parametrize("name", [slow(name, name != "plain") for name in FORMS])
def test_measures_are_the_gradients_and_the_update_is_the_same(name):
    how, tx = FORMS[name], optax.sgd(0.1)
    scan = how.get("scan", False)
    state, found = make_step(CONFIG, tx, measured=True, **how)(start(tx, scan), *IDS)
    loss, grads = gradients(scan)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-6)
    chex.assert_trees_all_close(found.squares, squares_by_leaf(grads), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.norm, optax.tree.norm(grads), rtol=1e-5)
    plain, _ = make_step(CONFIG, tx, **how)(start(tx, scan), *IDS)
    chex.assert_trees_all_close(state.params, plain.params, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", slow("fast"), slow("small, scanned")])
def test_a_step_that_is_not_finite_changes_nothing_and_the_parameter_is_named(name):
    how, (tx, _) = FORMS[name], adamw(Train(warmup=0))
    scan = how.get("scan", False)
    broken = start(tx, scan)
    layer = broken.params["h"] if scan else broken.params["h"][1]
    weight = layer["mlp"]["c_fc"]["weight"]
    layer["mlp"]["c_fc"]["weight"] = weight.at[..., 3, 5].set(jnp.nan)
    before = jax.tree.map(np.asarray, broken)
    state, found = make_step(CONFIG, tx, measured=True, **how)(broken, *IDS)
    assert np.isnan(found.loss)
    chex.assert_trees_all_equal(state, before)
    assert "mlp.c_fc.weight holds" in concerned(state, found)


def test_a_gradient_that_is_not_finite_is_named_where_the_loss_is(monkeypatch):
    def squared(squares):
        squares["h"][1]["attn"]["c_attn"]["weight"] = jnp.array(jnp.inf)
        squares["h"][0] = jax.tree.map(lambda s: s * jnp.nan, squares["h"][0])
        return squares

    tx = optax.sgd(0.1)
    state, found = make_step(CONFIG, tx, measured=True)(start(tx), *IDS)
    found = found._replace(squares=squared(found.squares), norm=jnp.array(jnp.nan))
    text = concerned(state, found)
    assert "13 gradients are not finite" in text and text.endswith("that of h.1.attn.c_attn.weight")


@pytest.mark.parametrize("scan", [False, True])
def test_the_order_of_the_backward_pass(scan):
    params = gpt2.shapes(CONFIG)
    squares = jax.eval_shape(squares_by_leaf, jax.eval_shape(gpt2.stack, params) if scan else params)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), squares)
    names = [name for name, _ in backward_order(ones)]
    layers = [int(name.split("layer ")[1]) if scan else int(name.split(".")[1]) for name in names if name[:2] == "h."]
    assert names[0].startswith("ln_f") and names[-1].split(".")[0] in ("wte", "wpe")
    assert layers == sorted(layers, reverse=True) and set(layers) == {0, 1}


@pytest.mark.parametrize("parts", [slow(2), slow(4)])
def test_a_batch_in_parts_is_the_batch(parts):
    tx = optax.sgd(0.5)
    want, whole = make_step(CONFIG, tx, measured=True)(start(tx), *IDS)
    got, found = make_step(CONFIG, tx, measured=True, accumulate=parts)(start(tx), *IDS)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-6)
    chex.assert_trees_all_close(found.squares, whole.squares, rtol=1e-4, atol=1e-9)
    chex.assert_trees_all_close(got.params, want.params, rtol=0, atol=1e-6)  # the gradients, times a half


def test_what_cannot_be_in_parts():
    with pytest.raises(ValueError, match="accumulate is 2, but memory is 'fast'"):
        make_step(CONFIG, optax.sgd(0.1), accumulate=2, memory="fast")
    with pytest.raises(ValueError, match="tokens has 4 rows, which accumulate = 3 does not divide"):
        make_step(CONFIG, optax.sgd(0.1), accumulate=3)(start(optax.sgd(0.1)), *IDS)


def test_the_schedule():
    train = Train(steps=100, warmup=10, learning_rate=0.5, final_rate=0.1)
    _, schedule = adamw(train)
    with jax.numpy_dtype_promotion("standard"):
        rates = jax.jit(jax.vmap(schedule))(jnp.arange(101)).tolist()
    assert rates[0] == pytest.approx(0.05) and rates[10] == pytest.approx(0.5) and rates[100] == pytest.approx(0.05)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    n = 37
    cosine = 0.5 * (0.1 + 0.9 * (1 + np.cos(np.pi * (n - 10) / 90)) / 2)
    assert rates[n] == pytest.approx(cosine, rel=1e-5)
    assert rates[4] == pytest.approx(0.5 * (1 + 4 * 9 / 10) / 10, rel=1e-5)


def test_decay_is_of_matrices_alone():
    tx, _ = adamw(dataclasses.replace(Train(warmup=0), weight_decay=0.5, learning_rate=0.1))
    state = start(tx)
    with jax.numpy_dtype_promotion("standard"):
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        updates, _ = jax.jit(tx.update)(zeros, state.opt_state, state.params)
    moved = {
        jax.tree_util.keystr(path): bool(jnp.any(u != 0)) for path, u in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert all(moves == ("weight" in name and "ln_" not in name) for name, moves in moved.items())
