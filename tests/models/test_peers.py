"""The same GPT-2 as everybody's: logits, loss and every gradient against transformers', from its own random weights."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.models import gpt2
from refgrad.report.text import standard_library_ids
from tests.ops.cases import relative_error

pytestmark = pytest.mark.peers
CONFIGS = {
    "tied": gpt2.Config(n_layer=2, n_head=3, n_embd=12, n_positions=9, vocab_size=256),
    "untied": gpt2.Config(n_layer=1, n_head=5, n_embd=20, n_positions=7, vocab_size=256, tie_word_embeddings=False),
    "another epsilon": gpt2.Config(n_layer=3, n_head=1, n_embd=8, n_positions=7, layer_norm_epsilon=1e-3),
}


def theirs(config, dtype):
    """transformers' model of this config, with noise on every parameter so that no zero or one stays."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            **dataclasses.asdict(config), attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, attn_implementation="eager"
        )
    )
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.to(getattr(torch, dtype)).train()


def by_name(model, of):
    """Parameter name without the prefix → what `of` takes from it."""
    return {name.removeprefix("transformer."): of(p).detach().numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-11), ("float32", 2e-5)])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_gradients_are_transformers(name, dtype, bound, x64):
    torch = pytest.importorskip("torch")
    config = CONFIGS[name]
    model = theirs(config, dtype)
    tokens, targets = standard_library_ids(3, 6)
    logits = model(torch.tensor(tokens, dtype=torch.long)).logits
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 256), torch.tensor(targets, dtype=torch.long).reshape(-1)
    )
    loss.backward()
    weights = by_name(model, lambda p: p)
    template = jax.eval_shape(partial(gpt2.init, config=config), jax.random.key(0))
    paths, tree = jax.tree.flatten_with_path(template)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    assert set(names) == set(weights)
    params = jax.tree.unflatten(tree, [jnp.asarray(weights[n]) for n in names])
    assert relative_error(gpt2.logits(params, tokens, config), logits.detach().numpy()) <= bound
    value, grads = jax.jit(jax.value_and_grad(partial(gpt2.loss, tokens=tokens, targets=targets, config=config)))(
        params
    )
    assert relative_error(value, np.asarray(loss.item())) <= bound
    expected = by_name(model, lambda p: p.grad)
    for n, got in zip(names, jax.tree.leaves(grads), strict=True):
        assert relative_error(got, expected[n]) <= bound, n
