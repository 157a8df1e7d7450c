"""GPT-2: one model, whatever the rules, the loop and the head; its gradients, its causality, its bad input."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from refgrad import verify
from refgrad.models import composition, gpt2
from refgrad.report.text import standard_library_ids
from tests.lanes import fast_if
from tests.ops.cases import relative_error

CONFIG = gpt2.Config(n_layer=2, n_head=3, n_embd=12, n_positions=8, vocab_size=256)
ONE_LAYER = dataclasses.replace(CONFIG, n_layer=1)
TOKENS, TARGETS = standard_library_ids(4, 6)


def params(config=CONFIG, dtype=jnp.float64):
    """Parameters with noise on the zeros and ones, so that no gradient is simple by accident."""
    noise = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) + jnp.asarray(0.1 * noise.standard_normal(leaf.shape), dtype),
        gpt2.init(jax.random.key(0), config),
    )


def gradient(p, config=CONFIG, **how):
    return jax.jit(jax.value_and_grad(partial(gpt2.loss, tokens=TOKENS, targets=TARGETS, config=config, **how)))(p)


def assert_close(got, want, bound):
    chex.assert_trees_all_equal_shapes_and_dtypes(got, want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert relative_error(one, other) <= bound


FORMS = [
    {"rules": "derived", "scan": True, "remat": True},
    {"rules": "fused"},
]
MORE_FORMS = [
    {"rules": "derived"},
    {"rules": "fused", "scan": True},
    {"rules": "derived", "scan": True},
    {"rules": "derived", "remat": True},
    {"rules": "autodiff", "scan": True, "remat": True},
    {"rules": "fused", "remat": True},
    {"rules": "fused", "scan": True, "remat": True},
]


@pytest.mark.parametrize("forms", [FORMS, pytest.param(MORE_FORMS, marks=pytest.mark.slow)], ids=["forms", "more"])
def test_every_form_gives_the_same_values_and_gradients(forms, x64):
    p = params()
    want = gradient(p, rules="autodiff")
    for form in forms:
        assert_close(gradient(p, **form), want, 1e-11)


def test_an_untied_head_and_stacked_layers(x64):
    config = dataclasses.replace(CONFIG, tie_word_embeddings=False)
    p = params(config)
    want = gradient(p, config, rules="autodiff")
    assert_close(gradient(p, config, rules="fused"), want, 1e-11)
    stacked = gradient(gpt2.stack(p), config, scan=True)
    assert_close((stacked[0], gpt2.unstack(stacked[1])), want, 1e-11)


@pytest.mark.parametrize(
    ("dtype", "bound"),
    fast_if(lambda dtype, _: dtype == jnp.float64, [(jnp.float64, 1e-11), (jnp.float32, 1e-5)]),
    ids=["float64", "float32"],
)
def test_every_leaf_against_autodiff_without_rules(dtype, bound, x64):
    loss = partial(gpt2.loss, tokens=TOKENS, targets=TARGETS, config=CONFIG)
    p = params(dtype=dtype)
    assert_close(jax.jit(jax.grad(loss))(p), jax.jit(jax.grad(verify.without_rules(loss)))(p), bound)


@pytest.mark.parametrize("rules", fast_if(lambda rules: rules == "derived", ["derived", "fused"]))
def test_loss_is_float32_and_finite_in_half_precision(rules):
    loss, grads = gradient(params(dtype=jnp.bfloat16), rules=rules)
    assert loss.dtype == jnp.float32
    chex.assert_tree_all_finite(grads)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_the_fused_head_makes_logits_some_columns_at_a_time_in_half_precision(monkeypatch):
    monkeypatch.setattr(composition, "COLUMNS_OF_LOGITS", 100)
    assert [composition.columns_of_logits(256, dtype) for dtype in ("bfloat16", "float16", "float32")] == [
        100,
        100,
        256,
    ]
    p = params(ONE_LAYER, jnp.bfloat16)
    parts = gradient(p, ONE_LAYER, rules="fused")
    monkeypatch.setattr(composition, "COLUMNS_OF_LOGITS", 256)
    whole = gradient(p, ONE_LAYER, rules="fused")
    assert_close(parts, whole, 0.01)


def test_no_gradient_flows_from_the_future(x64):
    p = params()

    def embedded_loss(noise, t):
        """The loss at position t, as a function of what each position's embedding is shifted by."""
        o = {**p, "wpe": {"weight": p["wpe"]["weight"].at[:6].add(noise)}}
        out = gpt2.logits(o, TOKENS[:1], CONFIG)
        return jax.nn.logsumexp(out[0, t])

    slope = jax.jit(jax.grad(embedded_loss))
    for t in range(6):
        g = slope(jnp.zeros((6, CONFIG.n_embd), jnp.float64), t)
        assert jnp.all(g[t + 1 :] == 0)
        assert jnp.all(jnp.any(g[: t + 1] != 0, axis=-1))


def both(f, *args):
    """f by the rules and by autodiff, in one program."""
    return jax.jit(lambda *args: [f(*args, rules) for rules in ("derived", "autodiff")])(*args)


@pytest.mark.slow
def test_vmap_and_scan(x64):
    batches = (jnp.asarray(TOKENS).reshape(2, 2, 6), jnp.asarray(TARGETS).reshape(2, 2, 6))

    def summed(p, rules):
        loss = partial(gpt2.loss, config=ONE_LAYER, rules=rules)
        each = jax.vmap(lambda t, y: loss(p, t, y))(*batches)
        carried, _ = jax.lax.scan(lambda c, batch: (c + loss(p, *batch), None), jnp.zeros_like(each[0]), batches)
        return each.sum() + carried

    assert_close(*both(jax.grad(summed), params(ONE_LAYER)), 1e-11)


@pytest.mark.slow
def test_gradient_of_a_gradient_and_hessian(x64):
    def norm(p, rules):
        g = jax.grad(partial(gpt2.loss, tokens=TOKENS, targets=TARGETS, config=ONE_LAYER, rules=rules))(p)
        return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(g))

    p = params(ONE_LAYER)
    assert_close(*both(jax.grad(norm), p), 1e-11)

    def by_first_bias(bias, rules):
        layer = {**p["h"][0], "ln_1": {**p["h"][0]["ln_1"], "bias": bias}}
        return gpt2.loss({**p, "h": [layer]}, TOKENS, TARGETS, ONE_LAYER, rules=rules)

    assert_close(*both(jax.hessian(by_first_bias), p["h"][0]["ln_1"]["bias"]), 1e-11)


@pytest.mark.slow
def test_explicit_mesh_and_shard_map(x64):
    p = params()
    want = gradient(p, rules="autodiff")[1]
    loss = partial(gpt2.loss, config=CONFIG)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        ids = [jax.device_put(x, NamedSharding(mesh, P("data", None))) for x in (TOKENS, TARGETS)]
        whole = jax.device_put(p, NamedSharding(mesh, P()))
        for scan in (False, True):
            got = jax.jit(jax.grad(partial(loss, scan=scan)))(whole, *ids)
            assert_close(jax.device_get(got), jax.device_get(want), 1e-11)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def local(p, tokens, targets):
        return jax.grad(lambda p: jax.lax.pmean(loss(p, tokens, targets), "data"))(p)

    specs = (P(), P("data"), P("data"))
    got = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True))(p, TOKENS, TARGETS)
    assert_close(jax.device_get(got), jax.device_get(want), 1e-11)


def test_lowers_for_cuda_and_tpu():
    p = jax.eval_shape(partial(gpt2.init, config=CONFIG), jax.random.key(0))
    ids = jax.ShapeDtypeStruct((2, 6), jnp.int32)
    step = jax.jit(jax.value_and_grad(partial(gpt2.loss, config=CONFIG)))
    exported = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(p, ids, ids)
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_an_id_known_only_under_jit_gives_nan():
    p = params(dtype=jnp.float32)
    loss = jax.jit(partial(gpt2.loss, config=CONFIG))
    assert jnp.isfinite(loss(p, TOKENS, TARGETS))
    for bad in (-1, 256, 70000):
        wrong = TOKENS.copy()
        wrong[2, 3] = bad
        assert jnp.isnan(loss(p, wrong, TARGETS))
        assert jnp.isnan(loss(p, TOKENS, wrong))


OUT = TOKENS.copy()
OUT[1, 2] = 300
BAD = {
    "token": (lambda p: gpt2.loss(p, OUT, TARGETS, CONFIG), r"tokens\[1, 2\] is 300, but ids lie between 0 and 255"),
    "target": (lambda p: gpt2.loss(p, TOKENS, -OUT, CONFIG), r"targets\[1, 2\] is -300"),
    "length": (
        lambda p: gpt2.loss(p, *standard_library_ids(1, 9), CONFIG),
        "targets has 9 positions, but n_positions = 8",
    ),
    "dtype": (lambda p: gpt2.logits(p, TOKENS.astype(np.float32), CONFIG), "tokens is float32, but ids are integers"),
    "scalar": (lambda p: gpt2.logits(p, np.int32(3), CONFIG), "tokens is a scalar"),
    "targets' shape": (lambda p: gpt2.loss(p, TOKENS, TARGETS[:2], CONFIG), r"targets has shape \(2, 6\), but tokens"),
    "rules": (lambda p: gpt2.logits(p, TOKENS, CONFIG, rules="none"), "rules is 'none'"),
    "no leaf": (lambda p: gpt2.logits(p | {"ln_f": {}}, TOKENS, CONFIG), r"params has no ln_f\.(weight|bias)"),
    "extra leaf": (lambda p: gpt2.logits(p | {"lm_head": p["wte"]}, TOKENS, CONFIG), "lm_head.weight of shape"),
    "shape": (lambda p: gpt2.logits(p | {"wte": p["wpe"]}, TOKENS, CONFIG), r"wte.weight has shape \(8, 12\)"),
    "two dtypes": (
        lambda p: gpt2.logits(p | {"ln_f": jax.tree.map(lambda x: x.astype(jnp.bfloat16), p["ln_f"])}, TOKENS, CONFIG),
        r"ln_f.bias is bfloat16 but h.0.attn.c_attn.bias is float32",
    ),
    "no tree": (lambda p: gpt2.logits(p["h"], TOKENS, CONFIG), "params is a list"),
    "heads": (lambda p: gpt2.Config(n_embd=32, n_head=5), "n_embd is 32, which n_head = 5 does not divide"),
    "no layer": (lambda p: gpt2.Config(n_layer=0), "n_layer is 0, but must be at least 1"),
    "type": (lambda p: gpt2.Config(n_layer=2.5), "n_layer is 2.5, but must be an integer"),
    "key": (lambda p: gpt2.Config.from_mapping({"n_layers": 3}), "n_layers = 3 is not a key .* did you mean n_layer"),
    "epsilon": (lambda p: gpt2.Config(layer_norm_epsilon=0), "layer_norm_epsilon is 0"),
    "text": (lambda p: standard_library_ids(10**6, 10), "argparse.py has"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named(what):
    call, message = BAD[what]
    with pytest.raises((ValueError, TypeError), match=message):
        call(params(dtype=jnp.float32))
