"""The same GPT-2 as everybody's: logits, loss and every gradient against transformers', through files both ways."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad import weights
from refgrad.models import gpt2
from refgrad.models.inputs import path_name
from refgrad.report.text import standard_library_ids
from tests.ops.cases import relative_error
from tests.weights.folders import parameters, same_bits

pytestmark = pytest.mark.peers
CONFIGS = {
    "tied": gpt2.Config(n_layer=2, n_head=3, n_embd=12, n_positions=9, vocab_size=256),
    "untied": gpt2.Config(n_layer=1, n_head=5, n_embd=20, n_positions=7, vocab_size=256, tie_word_embeddings=False),
    "another epsilon": gpt2.Config(n_layer=3, n_head=1, n_embd=8, n_positions=7, layer_norm_epsilon=1e-3),
    "heads of one column": gpt2.Config(n_layer=2, n_head=14, n_embd=14, n_positions=6, tie_word_embeddings=False),
}
BOUNDS = [("float64", 1e-11), ("float32", 2e-5)]


def peers():
    """torch and transformers, which only these tests need: not imported where they are collected and left out.

    A test that was asked for by its marker fails where they are missing: a lane of skipped tests would be green.
    """
    import torch
    import transformers

    return torch, transformers


def theirs(config, dtype):
    """transformers' model of this config, with noise on every parameter so that no zero or one stays."""
    torch, transformers = peers()
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            **dataclasses.asdict(config), attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, attn_implementation="eager"
        )
    )
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.to(getattr(torch, dtype))


def read_by_them(folder):
    """The folder as transformers reads it, without a word about tensors that are missing, left over or misshapen."""
    model, told = peers()[1].GPT2LMHeadModel.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", local_files_only=True
    )
    assert not any(told.values()), told
    return model


def named(tree):
    """Name → leaf."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same(params, config, model, bound):
    """Logits, loss and every gradient, within `bound` of each leaf's largest."""
    torch, _ = peers()
    tokens, targets = standard_library_ids(3, 6)
    model = model.train()
    logits = model(torch.tensor(tokens, dtype=torch.long)).logits
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, config.vocab_size), torch.tensor(targets, dtype=torch.long).reshape(-1)
    )
    loss.backward()
    assert relative_error(gpt2.logits(params, tokens, config), logits.detach().numpy()) <= bound
    value, grads = jax.jit(jax.value_and_grad(partial(gpt2.loss, tokens=tokens, targets=targets, config=config)))(
        params
    )
    assert relative_error(value, np.asarray(loss.item())) <= bound
    expected = {name.removeprefix("transformer."): p.grad.numpy() for name, p in model.named_parameters()}
    got = named(grads)
    assert set(got) == set(expected)
    for name, gradient in got.items():
        assert relative_error(gradient, expected[name]) <= bound, name


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_what_they_write_is_the_same_model_here(tmp_path, name, dtype, bound, x64):
    model = theirs(CONFIGS[name], dtype)
    model.save_pretrained(tmp_path)
    params, config = weights.load(tmp_path)
    assert config == CONFIGS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert_same(params, config, model, bound)


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_here_is_the_same_model_there(tmp_path, name, dtype, bound, x64):
    torch, _ = peers()
    config = CONFIGS[name]
    params = jax.tree.map(lambda leaf: leaf / 5, parameters(config, dtype))
    weights.save(tmp_path, params, config)
    model = read_by_them(tmp_path)
    assert model.dtype == getattr(torch, dtype)
    assert_same(params, config, model, bound)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_bit_for_bit_through_both(tmp_path, dtype, ours, sharded):
    """Written here and read there, or the other way round, whole or in shards: the same bits."""
    torch, _ = peers()
    config = CONFIGS["untied"]
    if ours:
        params = parameters(config, dtype)
        weights.save(tmp_path, params, config, **({"shard_bytes": 3000} if sharded else {}))
        model = read_by_them(tmp_path)
    else:
        model = theirs(config, dtype)
        model.save_pretrained(tmp_path, **({"max_shard_size": 3000} if sharded else {}))
        params, _ = weights.load(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists() == sharded
    bits = {"float32": (torch.int32, np.int32)}.get(dtype, (torch.int16, np.int16))
    expected = {name.removeprefix("transformer."): p.data for name, p in model.named_parameters()}
    for name, leaf in named(params).items():
        assert np.array_equal(np.asarray(leaf).view(bits[1]), expected[name].view(bits[0]).numpy()), name


def test_the_model_without_its_head_and_the_original_config(tmp_path):
    """`GPT2Model` writes names without prefix; the first GPT-2's config has keys that are no more, and masks stored."""
    config = CONFIGS["tied"]
    model = theirs(config, "float32")
    model.save_pretrained(tmp_path / "whole")
    model.transformer.save_pretrained(tmp_path / "body")
    path = tmp_path / "body" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_ctx": 9, "summary_type": "cls_index"}))
    whole, body = (weights.load(tmp_path / name) for name in ("whole", "body"))
    assert whole[1] == body[1] == config
    assert same_bits(whole[0], body[0])
