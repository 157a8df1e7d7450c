"""On a mesh: loss, gradients and steps are those of one device, and the bytes that move those of the formulas.

The bound on a gradient is the project's, 4 ε √n of its largest entry, n = b·s·h the terms of its longest sum.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.cost import collectives as compiled
from refgrad.models import gpt2
from refgrad.report.mesh import moved
from refgrad.train.mesh import collectives, devices, model, sharding
from refgrad.train.optimiser import adamw, init_state
from refgrad.train.settings import Train
from refgrad.train.step import make_step
from tests.lanes import fast_if

CONFIG = gpt2.Config(n_layer=2, n_head=4, n_embd=16, n_positions=12, vocab_size=23)
BATCH, SEQUENCE = 8, 8
MESHES = {"data": {"data": 4}, "fsdp": {"fsdp": 4}, "model": {"data": 2, "model": 2}}
QUICK = {"xla_backend_optimization_level": 0}
EPS = float(jnp.finfo(jnp.float32).eps)


def ids(seed, batch=BATCH):
    drawn = np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (batch, SEQUENCE + 1)).astype(np.int32)
    return drawn[:, :-1], drawn[:, 1:]


def parameters(config=CONFIG, scan=False):
    """Biases and gains with values of their own, so that each takes part."""
    params = gpt2.init(jax.random.key(0), config)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    return gpt2.stack(params) if scan else params


ALLOWED = 4 * EPS * math.sqrt(BATCH * SEQUENCE * CONFIG.n_embd)


def bound(value):
    return ALLOWED * float(jnp.max(jnp.abs(value)))


def check(sizes, axes="auto", rules="derived", scan=False, remat=False, config=CONFIG):
    mesh = devices.make(sizes, axes)
    params = parameters(config, scan)
    split = sharding.shardings(params, mesh)
    batch = [devices.batch_array(mesh, x) for x in ids(1)]
    both = model.value_and_grad(config, mesh, rules=rules, remat=remat)
    loss, grads = jax.jit(both, compiler_options=QUICK)(jax.device_put(params, split), *batch)
    want = jax.jit(jax.value_and_grad(gpt2.loss), static_argnums=(3, 4, 5), compiler_options=QUICK)(
        params, *ids(1), config, "derived", scan
    )
    assert abs(float(loss - want[0])) <= bound(want[0])
    for got, expected, where in zip(*map(jax.tree.leaves, (grads, want[1], split)), strict=True):
        assert got.sharding.is_equivalent_to(where, got.ndim)
        assert float(np.max(np.abs(np.asarray(got) - np.asarray(expected)))) <= bound(expected)


@pytest.mark.parametrize("name", fast_if(lambda name: name == "model", MESHES))
def test_loss_and_gradients_are_those_of_one_device(name):
    check(MESHES[name], "explicit" if name == "model" else "auto", "fused" if name == "fsdp" else "derived")


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["auto", "explicit"])
@pytest.mark.parametrize("rules", ["derived", "fused", "autodiff"])
@pytest.mark.parametrize("sizes", [{"fsdp": 2, "model": 2}], ids=["fsdp2model2"])
def test_every_rule_under_both_kinds_of_axes(sizes, rules, axes):
    check(sizes, axes, rules, scan=axes == "auto", remat=rules == "fused")


@pytest.mark.slow
def test_an_untied_head_and_all_devices_along_model():
    config = gpt2.Config(**{**vars(CONFIG), "tie_word_embeddings": False})
    check({"model": 4}, config=config)
    check({"fsdp": 4}, config=config, remat=True)


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["derived", "fused"])
@pytest.mark.parametrize("name", MESHES)
def test_xlas_partitioner_alone_finds_the_same(name, rules):
    """The rules under GSPMD: parameters and batch placed by the table, nothing else written."""
    mesh = devices.make(MESHES[name])
    params = parameters()
    loss = jax.jit(jax.value_and_grad(gpt2.loss), static_argnums=(3, 4), compiler_options=QUICK)
    want = loss(params, *ids(1), CONFIG, rules)
    placed = jax.device_put(params, sharding.shardings(params, mesh))
    got = loss(placed, *(devices.batch_array(mesh, x) for x in ids(1)), CONFIG, rules)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert float(np.max(np.abs(np.asarray(one) - np.asarray(other)))) <= bound(other)


def run(sizes, axes="auto", scan=False, accumulate=1, steps=3):
    """Losses, norms and parameters of some steps of AdamW, and the compiled step."""
    mesh = devices.make(sizes, axes) if sizes else None
    tx, _ = adamw(Train(warmup=1, steps=8, learning_rate=1e-3, epsilon=1e-4))

    def make(key):
        return init_state(parameters(scan=scan), tx)

    state = devices.make_state(mesh, make, jax.random.key(0)) if mesh else make(None)
    step = make_step(
        CONFIG, tx, rules="fused", scan=scan, accumulate=accumulate, clip_norm=0.5, measured=True, mesh=mesh
    )
    found, text = [], ""
    for n in range(steps):
        batch = [devices.batch_array(mesh, x) if mesh else jnp.asarray(x) for x in ids(n, 16)]
        if not text:
            text = step.lower(state, *batch).compile(QUICK).as_text()
        state, measures = step(state, *batch)
        found.append((float(measures.loss), float(measures.norm)))
    return np.array(found), state, text


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "scan", "accumulate"), [("auto", False, 1), ("explicit", True, 2)])
def test_steps_are_those_of_one_device(axes, scan, accumulate):
    """AdamW's update has slope 1/epsilon at most: parameters are within steps · rate/epsilon of a gradient's bound."""
    want, alone, _ = run({}, scan=scan)
    for sizes in MESHES.values():
        got, state, _ = run(sizes, axes, scan, accumulate)
        np.testing.assert_allclose(got, want, rtol=4 * EPS * math.sqrt(2 * BATCH * SEQUENCE * CONFIG.n_embd))
        for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(alone.params), strict=True):
            assert float(np.max(np.abs(np.asarray(one) - np.asarray(other)))) <= 3 * 1e-3 / 1e-4 * bound(0.5)


@pytest.mark.slow
def test_the_whole_step_moves_the_squares_beside_what_the_formulas_say():
    """Σ g² of a leaf is one number from every device that has a share of it, once to be measured and once to clip;
    the update itself moves nothing."""
    for name in ("fsdp", "model"):
        sizes = MESHES[name]
        _, state, text = run(sizes, steps=1)
        mesh = devices.make(sizes).shape
        found = compiled.totals(compiled.collectives(text, mesh))
        values = collectives.dims(CONFIG, mesh, 16, SEQUENCE)
        want = compiled.totals(collectives.derived(collectives.terms(True), mesh, values))
        axis = name
        divided = sum(axis in str(leaf.sharding.spec) for leaf in jax.tree.leaves(state.params))
        want["all-reduce", (axis,)] += 2 * 4 * divided
        assert found == want


@pytest.mark.parametrize("name", fast_if(lambda name: name != "data", MESHES))
def test_bytes_derived_are_those_compiled(name):
    result = moved(CONFIG, MESHES[name], BATCH, SEQUENCE)
    assert result.unexplained == 0
    assert sum(before for before, _ in result.payloads.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [*MESHES.values(), {"fsdp": 2, "model": 2}], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_bytes_of_other_sizes(sizes, tied):
    config = gpt2.Config(3, 2, 24, 40, 101, tie_word_embeddings=tied)
    assert moved(config, sizes, 4, 32, "fused").unexplained == 0


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES.values(), ids=MESHES)
def test_bytes_of_unrolled_and_recomputed_layers(sizes):
    mesh = devices.make(sizes)
    params, split = gpt2.shapes(CONFIG), sharding.batch_sharding(mesh)
    batch = jax.ShapeDtypeStruct((BATCH, SEQUENCE), jnp.int32)
    both = model.value_and_grad(CONFIG, mesh, remat=True)
    step = jax.jit(both, in_shardings=(sharding.shardings(params, mesh), split, split), compiler_options=QUICK)
    found = compiled.collectives(step.lower(params, batch, batch).compile().as_text(), mesh.shape)
    values = collectives.dims(CONFIG, mesh.shape, BATCH, SEQUENCE)
    derived = collectives.derived(collectives.terms(True, remat=True), mesh.shape, values)
    assert compiled.totals(found) == compiled.totals(derived)


@pytest.mark.slow
def test_a_term_too_many_or_a_gather_too_many_is_unexplained(monkeypatch):
    terms = collectives.terms
    monkeypatch.setattr(collectives, "terms", lambda *a: (*terms(*a), terms(*a)[-1]))
    assert moved(CONFIG, {"data": 2}, 2, 8).unexplained == 4
    monkeypatch.setattr(collectives, "terms", terms)
    whole = model.DeviceModel.gathered

    def twice(self, name, share):
        return whole(self, name, share) + 0 * jnp.sum(self.own(jax.lax.psum(self.own(share, "data"), "data"), "data"))

    monkeypatch.setattr(model.DeviceModel, "gathered", twice)
    assert moved(CONFIG, {"data": 2}, 2, 8).unexplained > 0


@pytest.mark.slow
def test_a_bias_that_is_left_out_is_found(monkeypatch):
    monkeypatch.setattr(model.DeviceModel, "_in_place", lambda self, part: jnp.zeros_like(part, shape=(16,)))
    with pytest.raises(AssertionError):
        check(MESHES["model"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "fast"}, "on a mesh take memory = 'plain'"),
        ({"memory": "small"}, "on a mesh take memory = 'plain'"),
    ],
)
def test_what_a_mesh_does_not_have_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_step(CONFIG, adamw(Train())[0], mesh=devices.make({"data": 2}), **changes)


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_compiled():
    mesh = devices.make({"data": 4})
    both = model.value_and_grad(CONFIG, mesh)
    with pytest.raises(ValueError, match="the batch is 6"):
        jax.eval_shape(both, gpt2.shapes(CONFIG), *[jax.ShapeDtypeStruct((6, 8), jnp.int32)] * 2)
