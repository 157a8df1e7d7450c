"""Every rule against autodiff of the plain forward, against truth in float32, and at special values.

`refgrad verify`, which CI runs on every Python, holds the rules to truth in every dtype.
"""

import chex
import jax
import jax.numpy as jnp
import pytest

from refgrad import verify
from refgrad.ops import TABLE
from tests.lanes import fast_if
from tests.ops.cases import DIMS, EDGES, LONG_CHECKS, NAMES, floats, relative_error, weights

SPECIAL = [(name, special) for name in NAMES for special in TABLE[name].special]
DTYPES = (jnp.float64, jnp.float32)
EACH_EDGE = [(name, "") for name in NAMES] + [
    (name, edge)
    for name in NAMES
    for edge, dims in EDGES.items()
    if TABLE[name].shapes({**DIMS[0], **dims}, jnp.float32) != TABLE[name].shapes(DIMS[0], jnp.float32)
]


def pulled_back(f, arrays):
    """f's cotangents of its floating arguments, for fixed weights as the cotangent."""
    y, pullback = jax.vjp(f, *arrays)
    return [ct for k, ct in enumerate(pullback(weights(y))) if k in floats(arrays)]


def plain(row, dims):
    """The forward alone, without its rule."""
    return lambda *arrays: row.op.fun(*arrays, *row.static_values(dims))


@pytest.mark.parametrize(("name", "edge"), fast_if(lambda name, edge: edge in ("", "a sequence of one"), EACH_EDGE))
def test_float64_equals_autodiff(name, edge, x64):
    row, dims = TABLE[name], {**DIMS[0], **EDGES.get(edge, {})}
    arrays = row.sample(0, dims, jnp.float64)
    both = (row.bound(dims), plain(row, dims))
    got, want = jax.jit(lambda *a: [pulled_back(f, a) for f in both])(*arrays)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, want, [arrays[k] for k in floats(arrays)])
    for one, other in zip(got, want, strict=True):
        assert relative_error(one, other) <= 1e-12


@pytest.mark.parametrize("name", fast_if(lambda name: name not in LONG_CHECKS, NAMES))
def test_within_the_allowance_and_no_worse_than_autodiff(name, x64):
    row, dims = TABLE[name], DIMS[1]
    verify.assert_ok(row.bound(dims), *row.sample(5, dims, jnp.float32), properties=("structure", "accuracy"))


@pytest.mark.parametrize(
    "dtype", fast_if(lambda dtype: dtype == jnp.float32, DTYPES), ids=lambda dtype: jnp.dtype(dtype).name
)
@pytest.mark.parametrize(("name", "special"), SPECIAL, ids=lambda value: value)
def test_special_values(name, special, dtype, x64):
    row = TABLE[name]
    dims = {**DIMS[0], **row.special[special].dims}
    arrays = row.sample(7, dims, dtype, special)
    both = (row.bound(dims), plain(row, dims))
    got, want = jax.jit(lambda *a: [pulled_back(f, a) for f in both])(*arrays)
    chex.assert_tree_all_finite(got)
    for one, other, k in zip(got, want, floats(arrays), strict=True):
        assert one.dtype == arrays[k].dtype
        assert relative_error(one, other) <= (1e-12 if dtype == jnp.float64 else 1e-5)


@pytest.mark.parametrize("name", ["softmax", "causal_softmax"])
def test_softmax_ignores_a_common_shift(name):
    row = TABLE[name]
    (x,) = row.sample(0, DIMS[0], jnp.float32)
    for one, other in zip(pulled_back(row.op, (x,)), pulled_back(row.op, (x + 8,)), strict=True):
        chex.assert_trees_all_close(one, other, atol=2e-6)


def test_an_id_outside_the_table_is_nan_and_never_another_row():
    E = jnp.arange(12.0, dtype=jnp.float32).reshape(4, 3)
    for bad in (-1, -5, 4, 2**31 - 1):
        rows = jax.jit(TABLE["token_embedding"].op)(E, jnp.array([0, bad, 3], jnp.int32))
        assert jnp.isnan(rows[1]).all()
        assert jnp.array_equal(rows[::2], E[jnp.array([0, 3])])
        for loss in ("nll", "cross_entropy", "softmax_cross_entropy"):
            assert jnp.isnan(jax.jit(TABLE[loss].op)(E, jnp.array([0, bad, 1, 2], jnp.int32)))
