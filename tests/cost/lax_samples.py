"""A sample call of every public function of `jax.lax` and `jax.lax.linalg` that takes arrays.

Operands are all different, and no scalar is 0 or 1, so that XLA folds nothing while lowering.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from refgrad.jaxpr.versions import at_least


def spec(*shape, dtype=jnp.float32):
    """An abstract array."""
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


X = spec(5, 7)
I = spec(5, 7, dtype=jnp.int32)
U = spec(5, 7, dtype=jnp.uint32)
C = spec(5, 7, dtype=jnp.complex64)
B = spec(5, 7, dtype=jnp.bool_)
INDEX = spec(dtype=jnp.int32)
SQUARE = spec(6, 6)
IMAGE, KERNEL = spec(2, 3, 7, 9), spec(4, 3, 3, 2)
KEY = jax.eval_shape(lambda: jax.random.key(0))


def names(text):
    """Names separated by blanks."""
    return text.split()


def since(version, rows):
    """Samples of functions that this version of JAX has added, or none of them."""
    return rows if at_least(version) else type(rows)()


def then(name, *after):
    """The function of that name, with these arguments after the arrays."""
    return lambda *arrays: getattr(lax, name)(*arrays, *after)


UNARY = names(
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf erf_inv erfc "
    "exp exp2 expm1 floor is_finite lgamma log log1p logistic neg reciprocal round rsqrt sign sin sinh sqrt "
    "square tan tanh stop_gradient conj"
)
UNARY += since((0, 11, 2), names("log2 one_minus_square"))
BINARY = names(
    "add atan2 complex div eq ge gt igamma igamma_grad_a igammac le lt max min mul ne nextafter polygamma pow "
    "random_gamma_grad rem sub zeta"
)
INTEGER_BINARY = names("bitwise_and bitwise_or bitwise_xor shift_left shift_right_arithmetic shift_right_logical")

ELEMENTWISE = {
    **{name: (getattr(lax, name), X) for name in UNARY},
    **{name: (getattr(lax, name), X, X) for name in BINARY},
    **{name: (getattr(lax, name), I, I) for name in INTEGER_BINARY},
    **{name: (getattr(lax, name), C) for name in ("real", "imag")},
    **{name: (getattr(lax, name), I) for name in ("bitwise_not", "clz", "population_count")},
    "mulhi": (lax.mulhi, U, U),
    "betainc": (lax.betainc, X, X, X),
    "clamp": (lax.clamp, X, X, X),
    "integer_pow": (lambda x: lax.integer_pow(x, 5), X),
    "convert_element_type": (lambda x: lax.convert_element_type(x, jnp.int32), X),
    "bitcast_convert_type": (lambda x: lax.bitcast_convert_type(x, jnp.int32), X),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 5, 10), X),
    "select": (lax.select, B, X, X),
    "select_n": (lax.select_n, I, X, X, X),
    **since((0, 12), {"polynomial": (lambda x, *a: lax.polynomial(x, a), X, X, spec(), X)}),
}

REDUCTIONS = {
    **{name: (then(name, (1,)), X) for name in ("reduce_max", "reduce_min", "reduce_sum", "reduce_prod")},
    **{name: (then(name, (0,)), B) for name in ("reduce_and", "reduce_or")},
    "reduce_xor": (lambda x: lax.reduce_xor(x, (0,)), I),
    "reduce": (lambda x: lax.reduce(x, 2.0, lambda a, b: jnp.sin(a) * b, (0,)), X),
    "reduce_window": (lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 3), (1, 2), "SAME"), X),
    **{name: (then(name, 1), X) for name in ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")},
    **{name: (then(name, 1, jnp.int32), X) for name in ("argmax", "argmin")},
    "sort": (lax.sort, X),
    "sort_key_val": (lax.sort_key_val, X, I),
    "top_k": (lambda x: lax.top_k(x, 3), X),
    "approx_max_k": (lambda x: lax.approx_max_k(x, 3), X),
    "approx_min_k": (lambda x: lax.approx_min_k(x, 3), X),
    "associative_scan": (lambda x: lax.associative_scan(lax.mul, x), X),
}

DOTS = {
    "dot": (lax.dot, X, spec(7, 4)),
    "batch_matmul": (lax.batch_matmul, spec(3, 5, 7), spec(3, 7, 4)),
    "dot_general": (
        lambda a, b: lax.dot_general(a, b, (((1, 3), (2, 1)), ((0,), (0,)))),
        spec(3, 5, 4, 7),
        spec(3, 7, 5, 6),
    ),
    "ragged_dot": (lax.ragged_dot, X, spec(3, 7, 4), spec(3, dtype=jnp.int32)),
    "ragged_dot_general": (
        lambda a, b, g: lax.ragged_dot_general(
            a, b, g, lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
        ),
        X,
        spec(5, 4),
        spec(3, dtype=jnp.int32),
    ),
    "scaled_dot": (
        lambda a, b, s, t: lax.scaled_dot(a, b, lhs_scale=s, rhs_scale=t, dimension_numbers=(((1,), (0,)), ((), ()))),
        spec(64, 64, dtype=jnp.float8_e4m3fn),
        spec(64, 64, dtype=jnp.float8_e4m3fn),
        spec(64, 2, dtype=jnp.float8_e8m0fnu),
        spec(2, 64, dtype=jnp.float8_e8m0fnu),
    ),
    "conv": (lambda x, k: lax.conv(x, k, (1, 2), "SAME"), IMAGE, KERNEL),
    "conv_general_dilated": (
        lambda x, k: lax.conv_general_dilated(x, k, (2, 1), ((2, 1), (0, 3)), (2, 3), (1, 2)),
        IMAGE,
        KERNEL,
    ),
    "conv_with_general_padding": (
        lambda x, k: lax.conv_with_general_padding(x, k, (1, 1), ((1, 1), (2, 0)), None, (2, 1)),
        IMAGE,
        KERNEL,
    ),
    "conv_transpose": (
        lambda x, k: lax.conv_transpose(x, k, (2, 3), "SAME"),
        spec(2, 7, 9, 3),
        spec(3, 2, 3, 4),
    ),
    "conv_general_dilated_patches": (
        lambda x: lax.conv_general_dilated_patches(x, (3, 2), (1, 1), "SAME"),
        IMAGE,
    ),
    "conv_general_dilated_local": (
        lambda x, k: lax.conv_general_dilated_local(x, k, (1, 1), "VALID", (3, 2)),
        IMAGE,
        spec(4, 18, 5, 8),
    ),
    "fft": (lambda x: lax.fft(x, "FFT", (7,)), C),
}

MOVEMENT = {
    "broadcast": (lambda x: lax.broadcast(x, (3,)), X),
    "broadcast_in_dim": (lambda x: lax.broadcast_in_dim(x, (5, 3, 7), (0, 2)), X),
    "broadcast_like": (lambda x, y: lax.broadcast_like(x, y), spec(7), X),
    "broadcast_to_rank": (lambda x: lax.broadcast_to_rank(x, 3), X),
    "broadcasted_iota": (lambda: lax.broadcasted_iota(jnp.int32, (5, 7), 1),),
    "iota": (lambda: lax.iota(jnp.int32, 7),),
    "full": (lambda: lax.full((5, 7), 2.0),),
    "full_like": (lambda x: lax.full_like(x, 2.0), X),
    "empty": (lambda: lax.empty((5, 7), jnp.float32),),
    "collapse": (lambda x: lax.collapse(x, 0, 2), X),
    "concatenate": (lambda x, y: lax.concatenate((x, y), 1), X, X),
    "expand_dims": (lambda x: lax.expand_dims(x, (1,)), X),
    "reshape": (lambda x: lax.reshape(x, (7, 5)), X),
    "squeeze": (lambda x: lax.squeeze(x, (0,)), spec(1, 7)),
    "transpose": (lambda x: lax.transpose(x, (1, 0)), X),
    "rev": (lambda x: lax.rev(x, (1,)), X),
    "pad": (lambda x, v: lax.pad(x, v, ((1, 2, 1), (0, -1, 0))), X, spec()),
    "tile": (lambda x: lax.tile(x, (2, 3)), X),
    "stack": (lambda x, y: lax.stack((x, y)), X, X),
    "unstack": (lax.unstack, X),
    "split": (lambda x: lax.split(x, (2, 3)), X),
    "slice": (lambda x: lax.slice(x, (1, 2), (4, 7), (1, 2)), X),
    "slice_in_dim": (lambda x: lax.slice_in_dim(x, 1, 4), X),
    "index_in_dim": (lambda x: lax.index_in_dim(x, 2), X),
    "dynamic_slice": (lambda x, i, j: lax.dynamic_slice(x, (i, j), (2, 3)), X, INDEX, INDEX),
    "dynamic_slice_in_dim": (lambda x, i: lax.dynamic_slice_in_dim(x, i, 3), X, INDEX),
    "dynamic_index_in_dim": (lambda x, i: lax.dynamic_index_in_dim(x, i), X, INDEX),
    "dynamic_update_slice": (
        lambda x, y, i, j: lax.dynamic_update_slice(x, y, (i, j)),
        X,
        spec(2, 3),
        INDEX,
        INDEX,
    ),
    "dynamic_update_slice_in_dim": (
        lambda x, y, i: lax.dynamic_update_slice_in_dim(x, y, i, 0),
        X,
        spec(2, 7),
        INDEX,
    ),
    "dynamic_update_index_in_dim": (
        lambda x, y, i: lax.dynamic_update_index_in_dim(x, y, i, 0),
        X,
        spec(7),
        INDEX,
    ),
    "optimization_barrier": (lambda x: lax.optimization_barrier(x) * x, X),
    "dce_sink": (lambda x: (lax.dce_sink(x), x * x)[1], X),
    "create_token": (lambda x: (lax.create_token(), x * x)[1], X),
    "after_all": (lambda x: (lax.after_all(lax.create_token()), x * x)[1], X),
}

_POINTS = spec(4, 1, dtype=jnp.int32)
_SCATTER = lax.ScatterDimensionNumbers((1,), (0,), (0,))
INDEXING = {
    "gather": (
        lambda x, i: lax.gather(x, i, lax.GatherDimensionNumbers((1,), (0,), (0,)), (1, 7)),
        X,
        _POINTS,
    ),
    "index_take": (lambda x, i: lax.index_take(x, (i,), (0,)), X, spec(4, dtype=jnp.int32)),
    **{
        name: (then(name, _SCATTER), X, _POINTS, spec(4, 7))
        for name in names("scatter scatter_add scatter_sub scatter_mul scatter_max scatter_min")
    },
    "scatter_apply": (
        lambda x, i: lax.scatter_apply(x, i, jnp.sin, _SCATTER, update_shape=(4, 7)),
        X,
        _POINTS,
    ),
}

RANDOM = {
    "rng_bit_generator": (lambda k: lax.rng_bit_generator(k, (5, 7)), spec(4, dtype=jnp.uint32)),
    "rng_uniform": (lambda a, b: lax.rng_uniform(a, b, (5, 7)), spec(), spec()),
}

CONTROL = {
    "cond": (lambda p, x: lax.cond(p, jnp.sin, lambda x: jnp.sin(x) * x, x), spec(dtype=jnp.bool_), X),
    "switch": (lambda i, x: lax.switch(i, (jnp.sin, lambda x: jnp.sin(x) * x, jnp.sin), x), INDEX, X),
    "scan": (lambda x: lax.scan(lambda c, y: (c * y, jnp.sin(c)), x[0], x), X),
    "map": (lambda x: lax.map(jnp.sin, x), X),
    "fori_loop": (lambda x: lax.fori_loop(0, 3, lambda i, x: x * x, x), X),
    "while_loop": (lambda x: lax.while_loop(lambda x: x.sum() > 3.0, lambda x: x * x, x), X),
    "composite": (lambda x: lax.composite(lambda x: x * x, name="refgrad.square")(x), X),
    "platform_dependent": (lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos), X),
    "custom_linear_solve": (
        lambda a, b: lax.custom_linear_solve(lambda v: a @ v, b, lambda f, b: b / a[0]),
        SQUARE,
        spec(6),
    ),
    "custom_root": (
        lambda x: lax.custom_root(lambda y: y * y - x, x, lambda f, g: f(g), lambda f, b: b / f(b)),
        X,
    ),
}

MESH = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def sharded(f, out=None):
    """f on the shards of four devices."""
    out = P("i") if out is None else out
    return jax.shard_map(f, mesh=MESH, in_specs=P("i"), out_specs=out, check_vma=False)


_SHARDS = spec(8, 12)
_RING = [(i, (i + 1) % 4) for i in range(4)]
COLLECTIVES = {
    **{name: (sharded(then(name, "i"), P()), _SHARDS) for name in ("psum", "pmax", "pmin", "pmean")},
    "psum_scatter": (
        sharded(lambda x: lax.psum_scatter(x, "i", scatter_dimension=1, tiled=True)),
        _SHARDS,
    ),
    **since(
        (0, 12),
        {
            "psum_scatter_start": (
                sharded(lambda x: lax.psum_scatter_start(x, "i", scatter_dimension=1, tiled=True).done()),
                _SHARDS,
            )
        },
    ),
    "all_gather": (sharded(lambda x: lax.all_gather(x, "i")), _SHARDS),
    "all_to_all": (sharded(lambda x: lax.all_to_all(x, "i", 1, 1, tiled=True)), _SHARDS),
    "ppermute": (sharded(lambda x: lax.ppermute(x, "i", _RING)), _SHARDS),
    "pshuffle": (sharded(lambda x: lax.pshuffle(x, "i", [1, 2, 3, 0])), _SHARDS),
    "pswapaxes": (sharded(lambda x: lax.pswapaxes(x, "i", 0)), spec(16, 12)),
    "pbroadcast": (sharded(lambda x: lax.pbroadcast(x, "i", 0)), _SHARDS),
    "pcast": (
        jax.shard_map(lambda x: lax.pcast(x, "i", to="varying") * x, mesh=MESH, in_specs=P(), out_specs=P("i")),
        _SHARDS,
    ),
    "axis_index": (sharded(lambda x: x * lax.axis_index("i").astype(x.dtype)), _SHARDS),
    "axis_size": (sharded(lambda x: x * float(lax.axis_size("i"))), _SHARDS),
    "ragged_all_to_all": (
        sharded(lambda x: lax.ragged_all_to_all(x, x, *_ragged_sizes(), axis_name="i")),
        _SHARDS,
    ),
    "with_sharding_constraint": (
        lambda x: lax.with_sharding_constraint(x * x, jax.NamedSharding(MESH, P("i"))),
        _SHARDS,
    ),
}


def _ragged_sizes():
    zeros, ones = jnp.zeros(4, jnp.int32), jnp.ones(4, jnp.int32)
    return zeros, ones, zeros, ones


LINALG = {
    "cholesky": (lax.linalg.cholesky, SQUARE),
    "cholesky_update": (lax.linalg.cholesky_update, SQUARE, spec(6)),
    "lu": (lax.linalg.lu, spec(7, 6)),
    "lu_pivots_to_permutation": (
        lambda p: lax.linalg.lu_pivots_to_permutation(p, 7),
        spec(6, dtype=jnp.int32),
    ),
    "qr": (lambda a: lax.linalg.qr(a, full_matrices=False), spec(7, 6)),
    "qdwh": (lax.linalg.qdwh, SQUARE),
    "svd": (lambda a: lax.linalg.svd(a, full_matrices=False), spec(7, 6)),
    "eig": (lax.linalg.eig, SQUARE),
    "eigh": (lax.linalg.eigh, SQUARE),
    "schur": (lax.linalg.schur, SQUARE),
    "hessenberg": (lax.linalg.hessenberg, SQUARE),
    "tridiagonal": (lax.linalg.tridiagonal, SQUARE),
    "householder_product": (lax.linalg.householder_product, spec(7, 6), spec(6)),
    "ormqr": (lax.linalg.ormqr, spec(7, 6), spec(6), spec(7, 4)),
    "triangular_solve": (
        lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True),
        SQUARE,
        spec(6, 4),
    ),
    "tridiagonal_solve": (lax.linalg.tridiagonal_solve, spec(6), spec(6), spec(6), spec(6, 4)),
    "symmetric_product": (
        lambda a, c: lax.linalg.symmetric_product(a, c, alpha=2.0, beta=3.0),
        spec(6, 4),
        SQUARE,
    ),
}

FAMILIES = {
    "elementwise": ELEMENTWISE,
    "reductions": REDUCTIONS,
    "dots": DOTS,
    "movement": MOVEMENT,
    "indexing": INDEXING,
    "random": RANDOM,
    "control": CONTROL,
    "collectives": COLLECTIVES,
    "linalg": LINALG,
}
