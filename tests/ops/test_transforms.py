"""Every rule under every transformation: the same gradients as autodiff of the plain forward under the same one.

`verify` has properties for most of these. They are asked for again here in float64, against autodiff and without any of
`verify`'s code, so that a fault of the instrument cannot hide one of a rule. The fast lane has those that it lacks.
"""

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from refgrad.ops import TABLE
from tests.ops.cases import DIMS, EACH, dot, floats, gradients, relative_error, weighted, weights

DIMS = {**DIMS[0], "b": 4}  # a batch that four devices share


def pair(name):
    """The operation and its plain forward as functions of their arrays, and float64 arrays."""
    row = TABLE[name]
    op, arrays = row.bound(DIMS), row.sample(1, DIMS, jnp.float64)
    plain = jax.tree_util.Partial(lambda *a: row.op.fun(*a, *row.static_values(DIMS)))
    return op, plain, arrays


def is_key(array):
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def two(array, axis):
    """The array and its reverse along a new axis; of a key, two others."""
    return jax.random.split(array) if is_key(array) else jnp.stack([array, jnp.flip(array)], axis)


def close(got, want):
    chex.assert_trees_all_equal_shapes_and_dtypes(got, want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert relative_error(one, other) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_vmap_over_any_axis(name, x64):
    op, plain, arrays = pair(name)
    for axis in range(min(a.ndim for a in arrays if not is_key(a)) + 1):
        many = tuple(two(a, axis) for a in arrays)
        axes = tuple(0 if is_key(a) else axis for a in arrays)
        close(*(jax.jit(jax.vmap(lambda *a, f=f: gradients(f, a), axes))(*many) for f in (op, plain)))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_scan(name, x64):
    op, plain, arrays = pair(name)
    many = tuple(two(a, 0) for a in arrays)

    def total(f, *diff):
        whole = list(many)
        for k, x in zip(floats(arrays), diff, strict=True):
            whole[k] = x
        return jax.lax.scan(lambda c, a: (c + weighted(f)(*a), None), jnp.zeros((), jnp.float64), tuple(whole))[0]

    diff = tuple(many[k] for k in floats(arrays))
    by = tuple(range(len(diff)))
    close(*(jax.jit(jax.grad(lambda *d, f=f: total(f, *d), by))(*diff) for f in (op, plain)))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_checkpoint(name, x64):
    op, plain, arrays = pair(name)
    close(gradients(jax.checkpoint(op), arrays), gradients(plain, arrays))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_gradient_of_a_gradient(name, x64):
    op, plain, arrays = pair(name)

    def norm(f):
        def of(*a):
            return sum(jnp.vdot(g, g) for g in gradients(f, a))

        return jax.jit(jax.grad(of, floats(arrays)))(*arrays)

    close(norm(op), norm(plain))


def specs(row):
    """Activations by batch over "data", parameters whole."""
    return [P("data") if axes.startswith("b ") else P() for axes in row.arguments.values()]


@pytest.mark.parametrize("name", EACH)
def test_explicit_mesh(name, x64):
    op, plain, arrays = pair(name)
    want = gradients(plain, arrays)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = tuple(
            jax.device_put(a, NamedSharding(mesh, P(*spec, *[None] * (a.ndim - len(spec)))))
            for a, spec in zip(arrays, specs(TABLE[name]), strict=True)
        )

        def sharded(*a):
            y = op(*a)
            placed = jax.tree.map(lambda w, y: jax.sharding.reshard(w, jax.typeof(y).sharding), weights(y), y)
            return dot(y, placed)

        got = jax.jit(jax.grad(sharded, floats(arrays)))(*placed)
    for g, k in zip(got, floats(arrays), strict=True):
        assert g.sharding.is_equivalent_to(placed[k].sharding, g.ndim)
    close(jax.device_get(got), jax.device_get(want))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_shard_map(name, x64):
    """Against a loop over the shards, since JAX 0.12 cannot differentiate erfc inside a `shard_map`."""
    op, plain, arrays = pair(name)
    placed, by = specs(TABLE[name]), floats(arrays)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def local(*a):
        return jax.lax.psum(weighted(op)(*a), "data")

    def sharded(f, out):
        return jax.shard_map(f, mesh=mesh, in_specs=tuple(placed), out_specs=out, check_vma=True)

    def shard(k, a):
        return (jnp.split(x, 4)[k] if spec else x for x, spec in zip(a, placed, strict=True))

    def looped(*a):
        return sum(weighted(plain)(*shard(k, a)) for k in range(4))

    want = jax.jit(jax.grad(looped, by))(*arrays)
    inside = sharded(lambda *a: jax.grad(local, by)(*a), tuple(placed[k] for k in by))
    close(jax.jit(inside)(*arrays), want)
    close(jax.jit(jax.grad(sharded(local, P()), by))(*arrays), want)


@pytest.mark.parametrize("name", EACH)
def test_lowers_for_cuda_and_tpu(name):
    row = TABLE[name]
    op, shapes = row.bound(DIMS), row.shapes(DIMS, jnp.float32)
    exported = jax.export.export(jax.jit(lambda *a: gradients(op, a)), platforms=("cpu", "cuda", "tpu"))(*shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")
