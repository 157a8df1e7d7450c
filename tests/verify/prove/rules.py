"""Rules of a user's own, right ones, and ways to make them wrong."""

import jax
import jax.numpy as jnp
import numpy as np


def ruled(forward, backward):
    """`forward` with the rule `backward(args, cotangent)`."""
    op = jax.custom_vjp(forward)
    op.defvjp(lambda *args: (forward(*args), args), backward)
    return op


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


softplus = ruled(lambda x: jnp.logaddexp(x, 0.0), lambda kept, g: (g * jax.nn.sigmoid(kept[0]),))
stable_softplus = ruled(
    lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x))), lambda kept, g: (g * jax.nn.sigmoid(kept[0]),)
)


def bce(z, y):
    return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))


def bce_backward(kept, g):
    z, y = kept
    return g * (jax.nn.sigmoid(z) - y) / z.size, -g * z / z.size


def norm(x, gamma):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma[None]


def norm_backward(kept, g):
    x, gamma = kept
    centred = x - x.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    unit, v = centred * rstd, g * gamma[None]
    dx = rstd * (v - v.mean(-1, keepdims=True) - unit * (v * unit).mean(-1, keepdims=True))
    return dx, (g * unit).sum(0)


def logsumexp(x):
    m = jax.lax.stop_gradient(x.max(-1, keepdims=True))
    return jnp.log(jnp.exp(x - m).sum(-1)) + m[..., 0]


def logsumexp_backward(kept, g):
    e = jnp.exp(kept[0] - kept[0].max(-1, keepdims=True))
    return (g[..., None] * e / e.sum(-1, keepdims=True),)


def rnn(w, x):
    def step(h, x):
        h = jnp.tanh(w @ h + x)
        return h, h

    return jax.lax.scan(step, jnp.zeros(w.shape[0], w.dtype), x)[1]


def rnn_backward(kept, g):
    w, x = kept
    h = rnn(w, x)

    def step(carry, inputs):
        dh, dw = carry
        h, before, g = inputs
        dz = (dh + g) * (1 - h * h)
        return (w.T @ dz, dw + jnp.outer(dz, before)), dz

    start = jnp.zeros_like(w[0]), jnp.zeros_like(w)
    before = jnp.concatenate([start[0][None], h[:-1]])
    (_, dw), dx = jax.lax.scan(step, start, (h, before, g), reverse=True)
    return dw, dx


def guarded(x):
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), x)


def guarded_backward(kept, g):
    (x,) = kept
    return (jnp.where(x > 0, g / x, g),)


A = 0.7978845608028654


def tanh_gelu(x):
    return 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)))


def gelu_backward(a):
    def backward(kept, g):
        (x,) = kept
        t = jnp.tanh(a * (x + 0.044715 * x**3))
        return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (a + 3 * a * 0.044715 * x * x)),)

    return backward


RIGHT = {
    "softplus": (softplus, (values(3),)),
    "a stable softplus": (stable_softplus, (values(3),)),
    "BCE with logits": (ruled(bce, bce_backward), (values(3), np.array([0.0, 1.0, 0.25]))),
    "layer norm": (ruled(norm, norm_backward), (values(2, 3), values(3, seed=1))),
    "logsumexp": (ruled(logsumexp, logsumexp_backward), (values(2, 3),)),
    "a recurrent network in a scan": (ruled(rnn, rnn_backward), (values(2, 2), values(3, 2, seed=1))),
    "a logarithm guarded by where": (ruled(guarded, guarded_backward), (values(4),)),
    "gelu": (ruled(tanh_gelu, gelu_backward(A)), (values(2),)),
    "erf": (
        ruled(jax.lax.erf, lambda kept, g: (g * 1.1283791670955126 * jnp.exp(-kept[0] * kept[0]),)),
        (values(2),),
    ),
    "a norm": (
        ruled(lambda x: jnp.sqrt(jnp.sum(x * x)), lambda kept, g: (g * kept[0] / jnp.sqrt(jnp.sum(kept[0] ** 2)),)),
        (values(3),),
    ),
    "a rotation": (
        ruled(
            lambda x: jnp.sin(x) * jnp.cos(x),
            lambda kept, g: (g * (2 * jnp.cos(kept[0]) ** 2 - 1),),
        ),
        (values(2),),
    ),
    "a power": (
        ruled(lambda x: jnp.abs(x) ** 1.5, lambda k, g: (g * 1.5 * jnp.sign(k[0]) * jnp.sqrt(jnp.abs(k[0])),)),
        (values(3),),
    ),
    "a logarithm of a product": (
        ruled(lambda x, y: jnp.log(x * y), lambda kept, g: (g / kept[0], g / kept[1])),
        (np.abs(values(2)), np.abs(values(2, seed=1))),
    ),
    "a determinant of two by two": (
        ruled(
            lambda a: a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0],
            lambda kept, g: (
                g * jnp.linalg.inv(kept[0]).T * (kept[0][0, 0] * kept[0][1, 1] - kept[0][0, 1] * kept[0][1, 0]),
            ),
        ),
        (values(2, 2),),
    ),
}
