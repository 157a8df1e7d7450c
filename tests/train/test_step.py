"""The step: the same parameters with the update inside the backward pass as with all gradients first, and bad input."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from refgrad.models import gpt2
from refgrad.report.text import standard_library_ids
from refgrad.train.optimiser import decay_mask, init_state, update
from refgrad.train.step import make_step
from refgrad.train.update_in_backward import unrolled
from refgrad.train.update_in_backward.layers import opaque_call, runtime_one
from tests.ops.cases import stand_in_for_cudnn
from tests.optimised import AS_USERS_COMPILE

CONFIG = gpt2.Config(n_layer=2, n_head=2, n_embd=16, n_positions=16, vocab_size=256)
IDS = standard_library_ids(2, 16)
STEPS = 3


def slow(values, when=True):
    """One case of a test, in the slow lane."""
    return pytest.param(*(values if isinstance(values, tuple) else [values]), marks=[pytest.mark.slow] * when)


def start(tx, scan=False, config=CONFIG):
    params = gpt2.init(jax.random.key(0), config)
    return init_state(gpt2.stack(params) if scan else params, tx)


def gradients_as_state():
    """A transformation that changes no parameter and whose state is the last gradients."""

    def update(grads, state, params=None):
        return jax.tree.map(jnp.zeros_like, grads), grads

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def run(step, state, steps=STEPS):
    losses = []
    for _ in range(steps):
        before = jax.tree.leaves(state.params)
        state, loss = step(state, *IDS)
        assert all(leaf.is_deleted() for leaf in before)  # donated
        losses.append(float(loss))
    return state, losses


def as_users_compile(program, *args):
    """Compile with LLVM's optimisation, so that two programs have the same bits."""
    return program.lower(*args).compile(compiler_options=AS_USERS_COMPILE)


def as_one_program(tx, scan=False, **how):
    state = start(tx, scan)
    return run(as_users_compile(make_step(CONFIG, tx, scan=scan, **how), state, *IDS), state)[0]


def as_two_programs(tx, scan=False, **how):
    """The same gradients, then the same update, each compiled alone."""
    state, keep = start(tx, scan), gradients_as_state()
    grads = as_users_compile(make_step(CONFIG, keep, scan=scan, **how), init_state(state.params, keep), *IDS)
    apply = as_users_compile(jax.jit(lambda grads, state: update(tx, grads, state)), state.params, state)
    for _ in range(STEPS):
        copied = jax.tree.map(jnp.array, state.params)
        state = apply(grads(init_state(copied, keep), *IDS)[0].opt_state, state)
    return state


def adamw():
    schedule = optax.warmup_cosine_decay_schedule(1e-4, 1e-3, 2, 10)
    return optax.adamw(schedule, weight_decay=0.1, mask=decay_mask)


def multi():
    def labels(params):
        return jax.tree.map(lambda decays: "matrix" if decays else "rest", decay_mask(params))

    return optax.multi_transform({"matrix": optax.adamw(1e-3), "rest": optax.sgd(1e-2, momentum=0.9)}, labels)


TRANSFORMATIONS = {
    "adamw": adamw,
    "lion": lambda: optax.lion(1e-3),
    "sgd": lambda: optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(1e-3), 2),
    "multi_transform": multi,
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adamw)(optax.linear_schedule(1e-3, 0.0, 9)),
    "adafactor": lambda: optax.adafactor(1e-3),
    "lamb": lambda: optax.lamb(1e-3),
}
ACROSS_LAYERS = ("adafactor", "lamb")


@pytest.mark.parametrize(
    ("memory", "scan", "rules"),
    [("fast", False, "fused"), ("fast", True, "derived"), ("small", True, "fused")],
)
@pytest.mark.slow
def test_bit_for_bit_the_same_as_two_programs(memory, scan, rules):
    how = {"memory": memory, "scan": scan, "rules": rules}
    chex.assert_trees_all_equal(as_one_program(adamw(), **how), as_two_programs(adamw(), **how))


@pytest.mark.parametrize("name", [name for name in TRANSFORMATIONS if name != "adamw"])
@pytest.mark.slow
def test_every_transformation_that_keeps_leaves_apart(name):
    tx = TRANSFORMATIONS[name]()
    chex.assert_trees_all_equal(as_one_program(tx, memory="fast"), as_two_programs(tx, memory="fast"))


@pytest.mark.parametrize("name", [slow(name, name not in ACROSS_LAYERS) for name in TRANSFORMATIONS])
def test_scanned_where_layers_are_kept_apart_too(name):
    tx = TRANSFORMATIONS[name]()
    step = make_step(CONFIG, tx, memory="fast", scan=True)
    if name in ACROSS_LAYERS:
        with pytest.raises(ValueError, match=r"the new params\.h\.\S+ across the layers.*memory='plain'"):
            step.trace(start(tx, scan=True), *IDS)
    else:
        got, _ = run(step, start(tx, scan=True), 2)
        want, _ = run(make_step(CONFIG, tx, scan=True), start(tx, scan=True), 2)
        chex.assert_trees_all_close(got.params, want.params, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("tied", "dtype"),
    [(True, jnp.bfloat16), slow((False, None)), slow((True, None)), slow((False, jnp.bfloat16))],
    ids=["tied-bfloat16", "untied-float32", "tied-float32", "untied-bfloat16"],
)
def test_near_the_ordinary_step(tied, dtype):
    config = dataclasses.replace(CONFIG, tie_word_embeddings=tied)
    tx = optax.sgd(0.2)
    want, losses = run(make_step(config, tx, rules="fused", compute_dtype=dtype), start(tx, config=config))
    assert losses[-1] < losses[0] - 0.1
    for memory in ("fast", "small"):
        step = make_step(config, tx, rules="fused", memory=memory, compute_dtype=dtype)
        got, _ = run(step, start(tx, config=config))
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
        chex.assert_trees_all_close(got.params, want.params, rtol=0, atol=1e-6 if dtype is None else 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["fast", "plain", "small"])
def test_by_the_librarys_attention(memory, monkeypatch):
    tx = optax.sgd(0.2)
    want, losses = run(make_step(CONFIG, tx, rules="fused", memory=memory, compute_dtype=jnp.bfloat16), start(tx))
    stand_in_for_cudnn(monkeypatch)
    with jax.numpy_dtype_promotion("standard"):
        step = make_step(CONFIG, tx, rules="fused-cudnn", memory=memory, compute_dtype=jnp.bfloat16)
        got, found = run(step, start(tx))
    assert losses != found  # rounded otherwise: it was another attention
    chex.assert_trees_all_close(got.params, want.params, rtol=0, atol=2e-3)


def test_what_is_carried_apart_may_be_empty():
    """A kernel's residuals hold empty arrays for the arguments that it was not given."""
    x, empty = jnp.arange(3.0), jnp.zeros((2, 0))
    program = jax.jit(
        lambda x, ids: opaque_call(runtime_one(ids), lambda given, y: y + given[0], (x, empty), x, (x, empty))
    )
    carry, after = program(x, jnp.zeros((1, 1), jnp.int32))
    chex.assert_trees_all_equal(carry, 2 * x)
    chex.assert_trees_all_equal(after, (x, empty))


@pytest.mark.slow
def test_a_layer_updated_by_stale_gradients_is_seen(monkeypatch):
    tx = optax.sgd(0.1)
    want = as_two_programs(tx, memory="fast")
    right, seen = unrolled.StateLeaves.consume, []

    def stale(self, group, grads, after):
        seen.append(grads)
        late = seen[-2] if len(seen) > 2 and "attn" in grads else grads
        return right(self, group, late if jax.tree.structure(late) == jax.tree.structure(grads) else grads, after)

    monkeypatch.setattr(unrolled.StateLeaves, "consume", stale)
    got = as_one_program(tx, memory="fast")
    assert not np.array_equal(got.params["h"][0]["mlp"]["c_fc"]["weight"], want.params["h"][0]["mlp"]["c_fc"]["weight"])


@pytest.mark.slow
def test_state_that_no_gradient_changes_is_read_layer_by_layer():
    """madgrad keeps the first parameters: a copy, since they are donated, of which a layer's update reads a slice."""
    tx = optax.contrib.madgrad(1e-2)
    got, _ = run(make_step(CONFIG, tx, memory="fast", scan=True), start(tx, scan=True), 2)
    want, _ = run(make_step(CONFIG, tx, scan=True), start(tx, scan=True), 2)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


WHOLE = [
    slow((rules, memory, scan, dtype), (rules, memory, scan, dtype) != ("fused", "small", False, "bfloat16"))
    for rules in ("derived", "fused")
    for memory in ("plain", "fast", "small")
    for scan in (False, True)
    for dtype in (None, "bfloat16")
]


@pytest.mark.parametrize(("rules", "memory", "scan", "dtype"), WHOLE)
def test_the_whole_step_lowers_for_every_platform(rules, memory, scan, dtype):
    tx, platforms = optax.adamw(1e-3), ("cpu", "cuda", "tpu")
    state = jax.eval_shape(lambda: start(tx, scan))
    ids = jax.ShapeDtypeStruct((2, 16), jnp.int32)
    step = make_step(CONFIG, tx, rules=rules, memory=memory, scan=scan, compute_dtype=dtype)
    assert jax.export.export(step, platforms=platforms)(state, ids, ids).platforms == platforms


@pytest.mark.parametrize("memory", ["plain", "fast"])
def test_a_transformation_that_asks_for_more_is_refused(memory):
    tx = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    with pytest.raises(ValueError, match=r"tx asks for more than gradients, state and parameters .*'value'"):
        make_step(CONFIG, tx, memory=memory).trace(start(tx), *IDS)


def test_decays_by_name_stacked_or_not():
    params = gpt2.init(jax.random.key(0), CONFIG)
    for tree in (params, gpt2.stack(params)):
        mask = {jax.tree_util.keystr(path): m for path, m in jax.tree_util.tree_leaves_with_path(decay_mask(tree))}
        assert all(decays == ("weight" in path and "ln_" not in path) for path, decays in mask.items())


BAD = {
    "memory": (dict(memory="tiny"), ValueError, "memory is 'tiny', but must be one of 'plain', 'fast', 'small'"),
    "rules": (dict(rules="fast"), ValueError, "rules is 'fast'"),
    "remat": (dict(memory="fast", remat=True), ValueError, "remat is for memory = 'plain'"),
    "dtype": (dict(compute_dtype=jnp.int32), TypeError, "must be a floating dtype"),
    "clip": (dict(clip_norm=0.0), ValueError, "clip_norm is 0.0, but must be above 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_choices(name):
    how, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make_step(CONFIG, optax.sgd(0.1), **how)


def test_not_a_transformation():
    with pytest.raises(TypeError, match="must be an optax transformation"):
        make_step(CONFIG, lambda params: params)


@pytest.mark.parametrize("memory", ["plain", "fast"])
def test_states_and_batches_that_do_not_fit(memory):
    tx = optax.adam(1e-3)
    step = make_step(CONFIG, tx, memory=memory)
    state = start(tx)
    with pytest.raises(ValueError, match=r"tokens has shape \(0, 16\)"):
        step(state, IDS[0][:0], IDS[1][:0])
    with pytest.raises(ValueError, match="make it by init_state"):
        step(state._replace(opt_state=()), *IDS)
    with pytest.raises(ValueError, match=r"but this config means \(48,\)"):
        wider = dataclasses.replace(CONFIG, n_embd=32)
        step(start(tx, config=wider), *IDS)
    with pytest.raises(ValueError, match="targets has shape"):
        step(state, IDS[0], IDS[1][:1])


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "scan"), [("fast", False), ("small", True)])
def test_clipping_in_two_passes(memory, scan):
    tx = optax.sgd(0.5)
    plain = optax.chain(optax.clip_by_global_norm(0.5), tx)
    unclipped, _ = run(make_step(CONFIG, tx, scan=scan), start(tx, scan), 2)
    want, _ = run(make_step(CONFIG, plain, scan=scan), start(plain, scan), 2)
    got, _ = run(make_step(CONFIG, tx, memory=memory, scan=scan, clip_norm=0.5), start(tx, scan), 2)
    chex.assert_trees_all_close(got.params, want.params, rtol=0, atol=1e-6)
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), unclipped.params, want.params)
    assert max(jax.tree.leaves(apart)) > 1e-3  # it does clip
