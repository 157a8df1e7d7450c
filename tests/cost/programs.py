"""Programs that are not ours, as data: name → (function, abstract arguments). XLA's own count is the oracle."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


X, V, M = shape(6, 10), shape(7), shape(8, 8)
IMAGE, KERNEL = shape(2, 9, 9, 3), shape(3, 3, 3, 4)
INDEX = shape(4, dtype=jnp.int32)


def conv(**how):
    how = {"window_strides": (1, 1), "padding": "SAME", **how}
    return lambda a, b: lax.conv_general_dilated(a, b, dimension_numbers=("NHWC", "HWIO", "NHWC"), **how)


def grad(f, argnums=0):
    return jax.grad(lambda *a: f(*a).sum(), argnums)


def pool(how, start, window, strides, padding):
    return lambda a: lax.reduce_window(a, start, how, window, strides, padding)


def scanned(a):
    return lax.scan(lambda c, t: (jnp.tanh(c + t), c * t), a[0], a)


def nested(a):
    return lax.scan(lambda c, t: (lax.fori_loop(0, 5, lambda i, z: z * t, c), c * t), a[0], a)


def equinox_mlp():
    """Loss of an equinox MLP and its gradient, with the parameters as arguments."""
    model = eqx.nn.MLP(5, 3, 8, 2, key=jax.random.key(0))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, x, y):
        return ((jax.vmap(eqx.combine(arrays, static))(x) - y) ** 2).mean()

    abstract = jax.eval_shape(lambda: arrays)
    return {
        "equinox MLP": (loss, (abstract, shape(4, 5), shape(4, 3))),
        "equinox MLP, grad": (jax.value_and_grad(loss), (abstract, shape(4, 5), shape(4, 3))),
    }


def equinox_attention():
    layer = eqx.nn.MultiheadAttention(2, 8, key=jax.random.key(1))
    arrays, static = eqx.partition(layer, eqx.is_inexact_array)

    def loss(arrays, x):
        return eqx.combine(arrays, static)(x, x, x).sum()

    return {"equinox attention, grad": (jax.grad(loss), (jax.eval_shape(lambda: arrays), shape(5, 8)))}


def optax_update(name, transform):
    params = {"w": shape(6, 4), "b": shape(4)}
    state = jax.eval_shape(transform.init, params)
    return {f"optax {name}": (transform.update, (params, state, params))}


NN = """
    relu relu6 sigmoid softplus sparse_plus sparse_sigmoid soft_sign silu swish mish log_sigmoid leaky_relu
    hard_sigmoid hard_swish hard_tanh tanh elu celu selu gelu glu squareplus log_softmax softmax logsumexp
    log1mexp standardize
"""
UNARY = "arccosh arcsinh arctan cbrt exp2 expm1 i0 log10 log1p sinc sinh tan frexp signbit"
AXES = "sum prod max var argmax argmin cumsum cumprod sort argsort any ptp"

PROGRAMS = {
    **{f"nn.{n}": (getattr(jax.nn, n), (X,)) for n in NN.split()},
    **{f"jnp.{n}": (getattr(jnp, n), (X,)) for n in UNARY.split()},
    **{f"jnp.{n} over an axis": (partial(getattr(jnp, n), axis=0), (X,)) for n in AXES.split()},
    **equinox_mlp(),
    **equinox_attention(),
    **optax_update("adamw", optax.adamw(1e-3)),
    **optax_update("lamb", optax.lamb(1e-3)),
    **optax_update("adafactor", optax.adafactor(1e-3)),
    **optax_update("lion, clipped", optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-3))),
    "sum over two of three axes": (lambda a: a.sum((0, 2)), (shape(3, 4, 5),)),
    "variadic reduce": (
        lambda a: lax.reduce((a, a), (0.0, 1.0), lambda p, q: (p[0] + q[0], p[1] * q[1]), (0,)),
        (X,),
    ),
    "digamma": (lax.digamma, (X,)),
    "igamma": (lax.igamma, (X, X)),
    "erf_inv": (lax.erf_inv, (X,)),
    "exact gelu, grad": (grad(lambda a: jax.nn.gelu(a, approximate=False)), (X,)),
    "bessel_i1e": (lax.bessel_i1e, (X,)),
    "integers": (lambda a: (((a // 3) % 5) + (a << 2)) ^ lax.population_count(a), (shape(9, dtype=jnp.int32),)),
    "complex": (lambda a: jnp.abs(a * a + 1j) + jnp.angle(a), (shape(9, dtype=jnp.complex64),)),
    "cholesky": (jnp.linalg.cholesky, (M,)),
    "qr": (jnp.linalg.qr, (M,)),
    "svd": (jnp.linalg.svd, (M,)),
    "eigh": (jnp.linalg.eigh, (M,)),
    "slogdet": (jnp.linalg.slogdet, (M,)),
    "solve": (jnp.linalg.solve, (M, M)),
    "triangular solve": (lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True), (M, M)),
    "matrix exponential": (jax.scipy.linalg.expm, (M,)),
    "rfft": (jnp.fft.rfft, (X,)),
    "fft2": (jnp.fft.fft2, (X,)),
    "irfft": (jnp.fft.irfft, (X,)),
    "convolution": (conv(), (IMAGE, KERNEL)),
    "convolution, strided, grad": (
        grad(conv(window_strides=(2, 2), padding="VALID"), (0, 1)),
        (IMAGE, KERNEL),
    ),
    "convolution, dilated both ways": (
        conv(window_strides=(1, 2), padding=((1, 2), (0, 3)), lhs_dilation=(2, 3), rhs_dilation=(1, 2)),
        (IMAGE, KERNEL),
    ),
    "convolution, feature groups, grad": (grad(conv(feature_group_count=3), (0, 1)), (IMAGE, shape(3, 3, 1, 6))),
    "convolution, batch groups": (conv(batch_group_count=2), (IMAGE, KERNEL)),
    "convolution, one dimension": (jnp.convolve, (shape(20), shape(5))),
    "max pool, grad": (grad(pool(lax.max, -jnp.inf, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")), (IMAGE,)),
    "average pool, grad": (grad(pool(lax.add, 0.0, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")), (IMAGE,)),
    "cumsum reversed": (lambda a: lax.cumsum(a, 1, reverse=True), (X,)),
    "cumlogsumexp": (lambda a: lax.cumlogsumexp(a, 0), (X,)),
    "associative scan": (lambda a: lax.associative_scan(jnp.multiply, a), (X,)),
    "top_k": (lambda a: lax.top_k(a, 3), (X,)),
    "sort by key": (lambda a, b: lax.sort((a, b), num_keys=1), (X, X)),
    "gather": (lambda a, i: a[i], (X, INDEX)),
    "take": (lambda a, i: jnp.take(a, i, axis=0), (X, INDEX)),
    "scatter-add": (lambda a, i, u: a.at[i].add(u), (X, INDEX, shape(4, 10))),
    "scatter-max": (lambda a, i, u: a.at[i].max(u), (X, INDEX, shape(4, 10))),
    "segment_sum": (lambda a, i: jax.ops.segment_sum(a, i, 3), (X, shape(6, dtype=jnp.int32))),
    "scan": (scanned, (X,)),
    "scan, reversed": (lambda a: lax.scan(lambda c, t: (c + t, c), a[0], a, reverse=True), (X,)),
    "scan, grad": (grad(lambda a: scanned(a)[0]), (X,)),
    "scan in scan": (nested, (X,)),
    "while": (
        lambda a: lax.while_loop(lambda s: s[0].sum() < 9, lambda s: (s[0] * 2, s[1] + 1), (a, 0)),
        (X,),
    ),
    "fori_loop": (lambda a: lax.fori_loop(3, 17, lambda i, z: z * 2 + i.astype(jnp.float32), a), (X,)),
    "fori_loop, dynamic": (lambda a, n: lax.fori_loop(0, n, lambda i, z: z * 2, a), (X, shape(dtype=jnp.int32))),
    "map": (lambda a: lax.map(lambda r: jnp.sin(r) @ r, a), (X,)),
    "cond": (lambda a, p: lax.cond(p, jnp.exp, lambda a: a * a + a, a), (X, shape(dtype=jnp.bool_))),
    "switch": (
        lambda a, p: lax.switch(p, [jnp.exp, lambda a: a * a + a, lambda a: a @ a.T @ a], a),
        (X, shape(dtype=jnp.int32)),
    ),
    "remat, grad": (grad(jax.checkpoint(lambda z: jnp.sin(jnp.sin(z @ z)))), (M,)),
    "hessian": (jax.hessian(lambda a: jnp.sum(jnp.tanh(a) ** 2)), (V,)),
    "batched product": (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (shape(3, 4, 5), shape(3, 5, 6))),
    "einsum of three": (
        lambda a, b, c: jnp.einsum("bij,bjk,kl->bl", a, b, c),
        (shape(3, 4, 5), shape(3, 5, 6), shape(6, 7)),
    ),
    "bf16 product": (lambda a, b: a @ b, (shape(8, 8, dtype=jnp.bfloat16), shape(8, 8, dtype=jnp.bfloat16))),
    "bf16 softmax, grad": (grad(lambda a: jax.nn.softmax(a) ** 2), (shape(8, 8, dtype=jnp.bfloat16),)),
    "f16 tanh, grad": (grad(lambda a: jnp.tanh(a @ a)), (shape(8, 8, dtype=jnp.float16),)),
    "attention, grad": (
        grad(lambda q: jax.nn.dot_product_attention(q, q, q, is_causal=True)),
        (shape(2, 6, 2, 8),),
    ),
    "normal": (lambda: jax.random.normal(jax.random.key(0), (8, 9)), ()),
    "uniform, rbg": (lambda: jax.random.uniform(jax.random.key(0, impl="rbg"), (8, 9)), ()),
    "gamma": (lambda: jax.random.gamma(jax.random.key(0), 2.0, (8,)), ()),
    "permutation": (lambda: jax.random.permutation(jax.random.key(0), 50), ()),
    "callback": (lambda a: jax.pure_callback(lambda z: z, X, a), (X,)),
    "quantile": (lambda a: jnp.quantile(a, 0.3), (X,)),
    "histogram": (lambda a: jnp.histogram(a, 4), (V,)),
    "unique": (lambda a: jnp.unique(a, size=4), (V,)),
    "resize": (lambda a: jax.image.resize(a, (2, 5, 5, 3), "bilinear"), (IMAGE,)),
    "large constant": (lambda a: a + np.arange(6000.0, dtype=np.float32).reshape(6, 1000)[:, :10], (X,)),
    "past 2^24": (lambda a: a + 1.0, (shape(4097, 4097),)),
    "past 2^24, mixed": (
        lambda a: jnp.tanh(a @ a) + a.sum(0) * jnp.exp(a).max(),
        (shape(4097, 4097),),
    ),
}
