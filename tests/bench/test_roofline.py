"""The roofline's products are those of the derived cost: forward and backward, masked blocks skipped, none twice."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from refgrad import cost
from refgrad.bench import roofline
from refgrad.models import gpt2

CONFIGS = [gpt2.Config(), gpt2.Config(n_layer=3, n_head=2, n_embd=6, n_positions=40, vocab_size=11)]


def counted(config, batch, sequence):
    """Matmul FLOPs of the document's step, forward and backward, by refgrad.cost."""
    ids = jax.ShapeDtypeStruct((batch, sequence), jnp.int32)
    of = (partial(gpt2.loss, config=config), gpt2.shapes(config), ids, ids)
    return cost.count(*of).matmul + cost.count_backward(*of).matmul


@pytest.mark.parametrize("config", CONFIGS, ids=("tiny", "odd"))
def test_one_block_is_the_documents_step(config):
    listed = roofline.products(config, 2, 24, block=24)
    assert sum(product.flops for product in listed) == counted(config, 2, 24)


def test_blocks_leave_out_what_the_mask_hides():
    config, b, s, block = CONFIGS[1], 2, 39, 8
    listed = sum(product.flops for product in roofline.products(config, b, s, block))
    seen = sum(min(block, s - start) * min(start + block, s) for start in range(0, s, block))
    scores = 6 * 2 * b * config.n_embd * config.n_layer  # FLOPs of a score's six products, over all heads
    assert counted(config, b, s) - listed == scores * (s * s - seen)


@pytest.mark.slow
def test_runs_every_product():
    config, dtype = CONFIGS[1], jnp.dtype(jnp.bfloat16)
    runner = roofline.RooflineRunner(config, 2, 24, dtype)
    assert len(runner._products) == len(roofline.products(config, 2, 24))
    for (_, product, operands), listed in zip(runner._products, roofline.products(config, 2, 24), strict=True):
        out = product(*operands)
        assert out.shape[-2:] == (listed.m, listed.n)
        assert out.dtype == dtype
    assert runner.step() is None
