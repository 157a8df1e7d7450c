"""Programs of the kinds that people report as miscounted: every FLOP of both passes has a cause."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from refgrad.cost import count, reconcile
from tests.cost.lax_samples import spec

X, EMPTY = spec(4, 5), spec(0, 5)
SCALED = lambda c, r: (c * r, jnp.sin(c + r))  # noqa: E731

NO_ELEMENTS = {
    "associative scan": (lambda x: lax.associative_scan(jnp.multiply, x), X),
    "associative scan of matrices": (lambda x: lax.associative_scan(jnp.matmul, x), spec(3, 2, 2)),
    "sum": (lambda x: x + jnp.sum(x[:0], axis=0), X),
    "maximum": (lambda x: jnp.maximum(x, jnp.max(x[:0], axis=0, initial=2.0)), X),
    "product": (lambda x: x * jnp.prod(x[:, :0], axis=1, keepdims=True), X),
    "all": (lambda x: jnp.where(jnp.all(x[:0] > 0), x, x * 2), X),
    "padded": (lambda x: x + jnp.pad(x[:, :0], ((0, 0), (0, 5))), X),
    "dot": (lambda x: x[:, :0] @ x[:0] + x @ x, spec(5, 5)),
    "joined": (lambda x: 3 * jnp.concatenate([x[:0], x * 2, x[4:]]), X),
    "split": (lambda x: jnp.split(x, [0, 2])[1] * jnp.split(x, [0, 2])[0].sum(), X),
    "indexed": (lambda x: x.at[jnp.zeros(0, int)].add(x[:0]) + x[jnp.zeros(0, int)].sum(), X),
    "argument": (lambda x, e: (jnp.concatenate([x, e]) ** 2).mean() + jax.nn.softmax(e).sum(), X, EMPTY),
    "no trips": (lambda x: lax.scan(SCALED, x[0] * 2, x[:0])[0] * 2, X),
    "results of no trips": (lambda x: x + lax.scan(SCALED, x[0], x[:0])[1].sum(0), X),
}


@pytest.mark.parametrize("name", NO_ELEMENTS)
def test_no_elements(name):
    f, *args = NO_ELEMENTS[name]
    with jax.numpy_rank_promotion("allow"):
        assert reconcile(f, *args).ok and reconcile(f, *args, backward=True).ok


def test_what_is_made_of_no_elements_counts():
    """The program says x + 0, so the count has it; only what has no elements costs nothing."""
    assert count(lambda x: x + jnp.sum(x[:0]), X).flops == 20
    assert count(lambda x, e: e * 2 + e @ jnp.ones((5, 5)), X, EMPTY).flops == 0
