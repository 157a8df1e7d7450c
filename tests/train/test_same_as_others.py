"""Ten steps of AdamW from the same weights and batches: losses and every gradient, by the derived rules, by autodiff,
and by PyTorch. It is the test that llm.c makes of its own training (test_gpt2.c).

Bound: gradients and losses differ by rounding, which AdamW's division by √v carries into the next step. In ten steps at
a rate of 1e-3 in float32 a loss may differ by `LOSS` of itself, a gradient by `GRADIENT` of its leaf's largest entry.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.models import gpt2
from refgrad.models.inputs import path_name
from refgrad.report.text import standard_library_ids
from refgrad.train.optimiser import adamw, decay_mask, init_state
from refgrad.train.settings import Train
from refgrad.train.step import make_step
from tests.ops.cases import relative_error

CONFIG = gpt2.Config(n_layer=2, n_head=3, n_embd=24, n_positions=16, vocab_size=256)
TRAIN = Train(steps=20, warmup=5, learning_rate=1e-3, weight_decay=0.1, clip_norm=0.5)
STEPS, LOSS, GRADIENT = 10, 2e-6, 2e-3
IDS = [rows.reshape(STEPS, 4, 16) for rows in standard_library_ids(4 * STEPS, 16)]


def trained(rules, memory="plain", parts=1):
    """(losses, gradients before each step by name) of ten steps."""
    tx, _ = adamw(TRAIN)
    how = {"rules": rules, "memory": memory, "accumulate": parts, "clip_norm": TRAIN.clip_norm}
    step = make_step(CONFIG, tx, measured=True, **how)
    grads = jax.jit(jax.grad(partial(gpt2.loss, config=CONFIG, rules=rules)))
    state, losses, found = init_state(gpt2.init(jax.random.key(3), CONFIG), tx), [], []
    for tokens, targets in zip(*IDS, strict=True):
        now = grads(state.params, tokens, targets)
        found.append({path_name(p): np.asarray(g) for p, g in jax.tree_util.tree_leaves_with_path(now)})
        state, measures = step(state, tokens, targets)
        losses.append(float(measures.loss))
    return losses, found


@pytest.fixture(scope="module")
def autodiff():
    return trained("autodiff")


def compare(got, want):
    np.testing.assert_allclose(got[0], want[0], rtol=LOSS)
    for n, (mine, theirs) in enumerate(zip(got[1], want[1], strict=True)):
        assert mine.keys() == theirs.keys()
        for name, gradient in mine.items():
            assert relative_error(jnp.asarray(gradient), theirs[name]) <= GRADIENT, (n, name)


HOW = [("derived", "plain", 1), ("fused", "small", 1), ("fused", "plain", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_ten_steps_are_autodiffs(how, autodiff):
    compare(trained(*how), autodiff)


@pytest.mark.peers
def test_ten_steps_are_pytorchs(autodiff):
    compare(trained("derived"), torchs())
    compare(autodiff, torchs())


def torchs():
    """The same by transformers' GPT-2 and torch.optim.AdamW, decay of the same parameters."""
    import torch
    import transformers

    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            **dataclasses.asdict(CONFIG), attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, attn_implementation="eager"
        )
    ).train()
    params = gpt2.init(jax.random.key(3), CONFIG)
    weights = {path_name(p): np.array(leaf) for p, leaf in jax.tree_util.tree_leaves_with_path(params)}
    decays = {path_name(p): mask for p, mask in jax.tree_util.tree_leaves_with_path(decay_mask(params))}
    named = {name.removeprefix("transformer."): p for name, p in model.named_parameters()}
    assert named.keys() == weights.keys()
    for name, parameter in named.items():
        parameter.data = torch.from_numpy(weights[name])
    groups = [
        {"params": [p for n, p in named.items() if decays[n] == mask], "weight_decay": TRAIN.weight_decay * mask}
        for mask in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, betas=(TRAIN.beta1, TRAIN.beta2), eps=TRAIN.epsilon)
    _, schedule = adamw(TRAIN)
    losses, found = [], []
    for n, (tokens, targets) in enumerate(zip(*IDS, strict=True)):
        logits = model(torch.from_numpy(np.array(tokens)).long()).logits
        wanted = torch.from_numpy(np.array(targets)).long()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 256), wanted.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        found.append({name: p.grad.numpy().copy() for name, p in named.items()})
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in named.values()))
        for p in named.values():
            p.grad *= min(1.0, TRAIN.clip_norm / float(norm))  # clip_grad_norm_ adds 1e-6 to the norm
        with jax.numpy_dtype_promotion("standard"):
            rate = float(schedule(n))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    return losses, found
