"""Whole models, by shapes alone: GPT-2 from 124M to 1.5B, and an attention kernel for an absent TPU."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.pallas.ops.tpu.flash_attention import flash_attention

from refgrad.cost import count, count_backward
from refgrad.models import gpt2
from tests.cost.lax_samples import spec
from tests.lanes import fast_if
from tests.work import calls

SEQUENCE = 1024


def program(config, sequence=SEQUENCE, **options):
    """(loss, abstract parameters, tokens, targets) of a GPT-2 at batch 1."""
    params = jax.eval_shape(lambda key: gpt2.init(key, config), jax.eval_shape(lambda: jax.random.key(0)))
    ids = spec(1, sequence, dtype=jnp.int32)
    return lambda p, t, u: gpt2.loss(p, t, u, config, **options), params, ids, ids


def derived_matmul(c, s):
    """(forward, backward) FLOPs of dots at batch 1: 24bsh² and 4bs²h a layer, 2bshV for the head; twice backward."""
    forward = c.n_layer * (24 * s * c.n_embd**2 + 4 * s * s * c.n_embd) + 2 * s * c.n_embd * c.vocab_size
    return forward, 2 * forward


def test_124m_forward_and_backward_in_dots():
    f, *args = program(gpt2.SIZES["124M"])
    forward, backward = count(f, *args), count_backward(f, *args)
    assert forward.matmul + backward.matmul == 874_944_921_600
    assert (forward.matmul, backward.matmul) == derived_matmul(gpt2.SIZES["124M"], SEQUENCE)
    heads = forward.by_scope
    assert sum(part.flops for part in heads.values()) == forward.flops
    assert forward.within("h.3").flops == forward.within("h.11").flops > 0


@pytest.mark.parametrize("rules", fast_if(lambda rules: rules == "derived", ("derived", "autodiff")))
def test_scan_costs_what_the_loop_costs(rules):
    config = gpt2.SIZES["124M"]
    for backward in (count, count_backward):
        loop, scan = (backward(*program(config, rules=rules, scan=scan)) for scan in (False, True))
        assert (loop.matmul, loop.transcendental) == (scan.matmul, scan.transcendental)
        assert loop.flops == scan.flops
        assert scan.once.matmul < loop.matmul


@pytest.mark.parametrize("scan", fast_if(bool, (False, True)))
def test_remat_is_plain_and_the_recomputation(scan):
    """The blocks' forward pass is recomputed, but for the part that only their outputs need: each last product."""
    c = gpt2.SIZES["124M"]
    plain, remat = (count_backward(*program(c, scan=scan, remat=remat)) for remat in (False, True))
    assert remat.flops == plain.flops + remat.recomputed.flops
    assert remat.transcendental == plain.transcendental + remat.recomputed.transcendental
    whole_blocks = c.n_layer * (24 * SEQUENCE * c.n_embd**2 + 4 * SEQUENCE**2 * c.n_embd)
    assert remat.recomputed.matmul == whole_blocks - c.n_layer * 8 * SEQUENCE * c.n_embd**2
    assert not plain.recomputed.sites


@pytest.mark.parametrize("name", gpt2.SIZES)
def test_every_size_by_shapes_alone(name):
    forward, backward = derived_matmul(gpt2.SIZES[name], SEQUENCE)
    f, *args = program(gpt2.SIZES[name], scan=True)
    assert (count(f, *args).matmul, count_backward(f, *args).matmul) == (forward, backward)


@pytest.mark.slow
def test_work_is_linear_unrolled_and_flat_scanned():
    """At the width of 1.5B."""

    def work(layers, **options):
        f, *args = program(gpt2.Config(layers, 25, 1600, SEQUENCE, 50257), **options)
        return calls(lambda: count_backward(f, *args))

    work(1)  # what JAX caches at the first trace
    assert work(48) < 6 * work(12)
    assert work(48, scan=True) < 3 * work(12, scan=True)  # parameters are stacked layer by layer


def test_an_attention_kernel_for_tpu_counts_without_one():
    """Forward two products of s × s × d a head; backward, with two recomputed, seven (dq and dk dv are two kernels)."""
    heads, s, d = 2, 512, 64
    q = spec(1, heads, s, d)
    product = 2 * heads * s * s * d
    attention = lambda q, k, v: flash_attention(q, k, v, causal=True)  # noqa: E731
    forward, backward = count(attention, q, q, q), count_backward(attention, q, q, q)
    below_diagonal = product * 10 // 16  # of 4 × 4 blocks
    assert (forward.matmul, backward.matmul) == (2 * below_diagonal, 7 * below_diagonal)
    assert forward.transcendental >= heads * s * s
    assert set(forward.by_primitive) >= {"dot_general", "exp", "pallas_call"}
