"""Large arguments: a cost that grows with size and no faster, up to four million entries."""

import time

import jax
import jax.numpy as jnp
import pytest

from refgrad.verify import check, mutation_score
from tests.verify.specimens import normal, rule

EPS = 1e-5


def statistics(x):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    r = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + EPS)
    return centred * r, r


def forward(x, gamma, beta):
    return statistics(x)[0] * gamma[None] + beta[None]


def fwd(x, gamma, beta):
    y, r = statistics(x)
    return y * gamma[None] + beta[None], (y, r, gamma)


def bwd(kept, g):
    y, r, gamma = kept
    d = g * gamma[None]
    dx = r * (d - jnp.mean(d, axis=-1, keepdims=True) - y * jnp.mean(d * y, axis=-1, keepdims=True))
    return dx, jnp.sum(g * y, axis=0), jnp.sum(g, axis=0)


layer_norm = rule(forward, fwd, bwd)


def arguments(rows, dtype=jnp.float32):
    return normal(rows, 1000, dtype=dtype), normal(1000, dtype=dtype), normal(1000, dtype=dtype, seed=1)


@pytest.mark.slow
def test_cost_grows_with_size_and_no_faster():
    def seconds(rows):
        start = time.process_time()
        assert check(layer_norm, *arguments(rows)).ok
        return time.process_time() - start

    seconds(1)
    base, double, fourfold = (seconds(rows) for rows in (1000, 2000, 4000))
    print(f"1e6: {base:.1f} s, 2e6: {double:.1f} s, 4e6: {fourfold:.1f} s of processor time")
    assert fourfold < 1.5 * 4 * base


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_mutant_is_caught_at_a_million(dtype):
    verdicts = mutation_score(layer_norm, *arguments(1000, dtype))
    assert set(verdicts.values()) == {"caught"}, verdicts
