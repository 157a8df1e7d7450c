"""The table of rules: every parameter has one, an optimiser's state follows it, and what it cannot cut is named."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from refgrad.models import gpt2
from refgrad.models.inputs import path_name
from refgrad.train.mesh import devices, sharding
from refgrad.train.optimiser import init_state

CONFIG = gpt2.Config(n_layer=2, n_head=4, n_embd=16, n_positions=12, vocab_size=23, tie_word_embeddings=False)
MESH = {"data": 1, "fsdp": 2, "model": 2}


def test_every_parameter_has_a_rule_of_its_dimensions():
    for path, leaf in jax.tree_util.tree_leaves_with_path(gpt2.shapes(CONFIG)):
        assert len(sharding.rule(path_name(path))) == len(leaf.shape)
    with pytest.raises(ValueError, match=r"h\.0\.attn\.extra has no rule"):
        sharding.rule("h.0.attn.extra")


@pytest.mark.parametrize("config", [CONFIG, *gpt2.SIZES.values()], ids=["tiny", *gpt2.SIZES])
def test_each_device_has_its_share_of_every_matrix(config):
    mesh = devices.make(MESH)
    params = gpt2.shapes(config)
    split = sharding.shardings(params, mesh)
    for (path, leaf), where in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(split), strict=True):
        share = 4 if leaf.ndim == 2 else 2 if path_name(path).endswith(("c_fc.bias", "c_proj.bias")) else 1
        assert share * jnp.prod(jnp.array(where.shard_shape(leaf.shape))) == leaf.size, path_name(path)


def test_an_optimisers_state_follows_the_parameters_as_a_list_or_stacked():
    mesh = devices.make(MESH)
    params = gpt2.shapes(CONFIG)
    for tree, leading in ((params, ()), (jax.eval_shape(gpt2.stack, params), (None,))):
        state = jax.eval_shape(lambda p: init_state(p, optax.adamw(1e-3)), tree)
        specs = {
            path_name(path): where.spec
            for path, where in jax.tree_util.tree_leaves_with_path(sharding.shardings(state, mesh))
        }
        layer = "h." if leading else "h.1."
        assert specs["opt_state.0.count"] == P()
        assert specs["params.wte.weight"] == specs["opt_state.0.mu.wte.weight"] == P(None, ("model", "fsdp"))
        for name in ("params", "opt_state.0.mu", "opt_state.0.nu"):
            assert specs[f"{name}.{layer}mlp.c_fc.weight"] == P(*leading, "fsdp", "model")
            assert specs[f"{name}.{layer}ln_1.bias"] == P()


def test_a_factored_moment_is_whole():
    mesh = devices.make(MESH)
    tx = optax.adafactor(1e-3, min_dim_size_to_factor=4)
    state = jax.eval_shape(lambda p: init_state(gpt2.stack(p), tx), gpt2.shapes(CONFIG))
    found = {path_name(p): w for p, w in jax.tree_util.tree_leaves_with_path(sharding.shardings(state, mesh))}
    factored = [where for name, where in found.items() if ".v_row." in name or ".v_col." in name]
    assert factored and all(where.spec == P() for where in factored)


@pytest.mark.parametrize(
    ("sizes", "batch", "sequence", "message"),
    [
        ({"fsdp": 3}, 3, 8, r"dimension 1 of wpe\.weight is 16, which mesh\.fsdp = 3|is 16, which mesh\.fsdp = 3"),
        ({"model": 8}, 4, 8, "model.n_head is 4, which mesh.model = 8 does not divide"),
        ({"fsdp": 4, "model": 8}, 4, 8, "which mesh.model = 8 × mesh.fsdp = 4 does not divide: take another mesh"),
        ({"data": 2, "fsdp": 2}, 6, 8, "the batch is 6, which mesh.data = 2 × mesh.fsdp = 2 does not divide: .* of 4"),
        ({"model": 2}, 1, 7, "the sequence is 7, which mesh.model = 2 does not divide"),
    ],
)
def test_what_an_axis_does_not_divide_is_named(sizes, batch, sequence, message):
    with pytest.raises(ValueError, match=message):
        sharding.check(CONFIG, sizes, batch, sequence)


def test_what_fits_passes():
    sharding.check(CONFIG, {"data": 2, "fsdp": 2, "model": 4}, 4, 8)
    sharding.check(CONFIG, {}, 1, 7)
