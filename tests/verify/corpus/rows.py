"""Reductions and normalisations along an axis."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.corpus.family import ALL, WIDE, Family, normal, positive

EPS = 2.0**-10


def total(x, axis=-1):
    return jnp.sum(x, axis=axis, keepdims=True)


def norm(x):
    return jnp.sqrt(jnp.sum(x * x, axis=-1))


def norm_slope(args, g):
    (x,) = args
    size = norm(x)[:, None]
    return g[:, None] * jnp.where(size == 0, 0, x / jnp.where(size == 0, 1, size))


def norm_with_a_floor(x):
    """A value under differentiation that is not that of the function: zeros are replaced by ones first."""
    empty = total(x * x) == 0
    return norm(jnp.where(empty, 1, x)), (x,)


def normalised(x):
    """Vectors of length one, shorter ones than ¼ in proportion."""
    square = total(x * x)
    return x / jnp.maximum(jnp.sqrt(jnp.where(square == 0, 1, square)), 0.25) * jnp.where(square == 0, 4, 1)


def normalised_slope(guard):
    def bwd(args, g):
        (x,) = args
        size = jnp.sqrt(total(x * x))
        y = x / (jnp.where(size == 0, 1, size) if guard else size)
        return (
            jnp.where(size > 0.25, g - y * total(g * y), g) / jnp.maximum(size, 0.25)
            if guard
            else (g - jnp.minimum(jnp.floor(4 * size), 1) * y * total(g * y)) / jnp.maximum(size, 0.25)
        )

    return bwd


def soft(x):
    return jax.nn.softmax(x, axis=-1)


def soft_slope(axis=-1):
    def bwd(args, g):
        y = soft(args[0])
        return y * (g - total(g * y, axis))

    return bwd


def soft_naive(args, g):
    y = jnp.exp(args[0]) / total(jnp.exp(args[0]))
    return y * (g - total(g * y))


def log_sum_exp(x):
    return jax.nn.logsumexp(x, axis=-1)


def log_sum_exp_zero(x):
    found = log_sum_exp(x)
    return jnp.where(jnp.isfinite(found), found, 0), (x,)


def largest(x):
    return jnp.max(x, axis=-1)


def split_ties(args, g):
    (x,) = args
    hit = (x == largest(x)[:, None]).astype(x.dtype)
    return g[:, None] * hit / total(hit)


def first_tie(args, g):
    (x,) = args
    hit = jax.nn.one_hot(jnp.argmax(x, axis=-1), x.shape[-1], dtype=x.dtype)
    return g[:, None] * hit


def every_tie(args, g):
    (x,) = args
    return g[:, None] * (x == largest(x)[:, None]).astype(x.dtype)


def standardised(x, axis=-1):
    mean = jnp.mean(x, axis=axis, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(jnp.mean((x - mean) ** 2, axis=axis, keepdims=True) + EPS)


def standardised_slope(axis, eps=EPS, mean_term=True, variance_term=True):
    def bwd(args, g):
        (x,) = args
        average = lambda v: jnp.mean(v, axis=axis, keepdims=True)  # noqa: E731
        centred = x - average(x)
        r = jax.lax.rsqrt(average(centred * centred) + eps)
        dx = g
        if mean_term:
            dx = dx - average(g)
        if variance_term:
            dx = dx - centred * r * r * average(g * centred)
        return dx * r

    return bwd


def deviation(x):
    square = jnp.mean((x - jnp.mean(x, axis=-1, keepdims=True)) ** 2, axis=-1)
    return jnp.sqrt(square)


def deviation_slope(guard):
    def bwd(args, g):
        (x,) = args
        size = deviation(x)[:, None]
        size = jnp.where(size == 0, jnp.inf, size) if guard else size
        return g[:, None] * (x - jnp.mean(x, axis=-1, keepdims=True)) / size / x.shape[-1]

    return bwd


def product(x):
    return jnp.prod(x, axis=-1)


def product_slope(args, g):
    (x,) = args
    n = x.shape[-1]
    others = jnp.where(jnp.eye(n, dtype=bool)[None], 1, jnp.broadcast_to(x[:, None, :], (x.shape[0], n, n)))
    return g[:, None] * jnp.prod(others, axis=-1)


def distance(x, y):
    return norm(x - y)


def distance_slope(guard):
    def bwd(args, g):
        x, y = args
        size = norm(x - y)[:, None]
        size = jnp.where(size == 0, 1, size) if guard else size
        dx = g[:, None] * (x - y) / size
        return dx, -dx

    return bwd


def cosine(x, y):
    return jnp.sum(x * y, axis=-1) / jnp.sqrt(jnp.sum(x * x, axis=-1) * jnp.sum(y * y, axis=-1) + EPS)


def cosine_slope(eps):
    def bwd(args, g):
        x, y = args
        xx, yy, xy = total(x * x), total(y * y), total(x * y)
        size = jnp.sqrt(xx * yy + eps)
        cube = xy / (size * size * size)
        return g[:, None] * (y / size - cube * yy * x), g[:, None] * (x / size - cube * xx * y)

    return bwd


def divergence(p, q):
    safe = jnp.where(p > 0, p, 1)
    return jnp.sum(jnp.where(p > 0, p * jnp.log(safe / q), 0), axis=-1)


def entropy(p):
    safe = jnp.where(p > 0, p, 1)
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(safe), 0), axis=-1)


def running_sum(x):
    return jnp.cumsum(x, axis=-1)


def running_product(x):
    return jnp.cumprod(x, axis=-1)


def running_product_slope(args, g):
    return jax.vjp(lambda x: jnp.stack([jnp.prod(x[:, : k + 1], axis=-1) for k in range(x.shape[-1])], -1), *args)[1](g)


X = normal(3, 4)
SQUARE = normal(3, 3)

FAMILIES = [
    Family(
        "norm",
        norm,
        (X,),
        right={"0 at zeros": norm_slope},
        wrong={
            "0/0 at a row of zeros": lambda args, g: g[:, None] * args[0] / norm(args[0])[:, None],
            "another value under differentiation": (norm_with_a_floor, norm_slope),
            "2 at zeros": lambda args, g: jnp.where(args[0] == 0, 2 * g[:, None], norm_slope(args, g)),
        },
        dtypes=WIDE,
    ),
    Family(
        "unit vectors",
        normalised,
        (X,),
        right={"guarded": normalised_slope(True)},
        wrong={"0/0 at a row of zeros": normalised_slope(False)},
        dtypes=WIDE,
    ),
    Family(
        "softmax",
        soft,
        (SQUARE,),
        right={"from the value": soft_slope()},
        wrong={"summed over the other axis": soft_slope(0), "no shift: overflow": soft_naive},
        dtypes=ALL,
    ),
    Family(
        "log sum exp",
        log_sum_exp,
        (X,),
        right={"softmax": lambda args, g: g[:, None] * soft(args[0])},
        wrong={
            "no shift: overflow": lambda args, g: g[:, None] * jnp.exp(args[0]) / total(jnp.exp(args[0])),
            "a value of 0 for rows of −∞": (log_sum_exp_zero, lambda args, g: g[:, None] * soft(args[0])),
            "0 at −∞": lambda args, g: (
                g[:, None] * jnp.exp(args[0] - log_sum_exp(args[0])[:, None]) * args[0] / args[0]
            ),
        },
        dtypes=ALL,
    ),
    Family(
        "max",
        largest,
        (X,),
        right={"ties split": split_ties, "the first of a tie": first_tie},
        wrong={
            "all of g to every tie": every_tie,
            "0 to a tie": lambda args, g: jnp.where(
                total((every_tie(args, g) != 0).astype(g.dtype)) == 1, every_tie(args, g), 0
            ),
        },
        dtypes=ALL,
    ),
    Family(
        "layer norm",
        standardised,
        (X,),
        right={"three terms": standardised_slope(-1)},
        wrong={
            "no mean term": standardised_slope(-1, mean_term=False),
            "no ε: 0/0 for equal entries": standardised_slope(-1, eps=0.0),
        },
        dtypes=WIDE,
    ),
    Family(
        "batch norm",
        lambda x: standardised(x, 0),
        (normal(4, 3),),
        right={"three terms": standardised_slope(0)},
        wrong={
            "no variance term": standardised_slope(0, variance_term=False),
            "the other axis": standardised_slope(-1),
        },
        dtypes=WIDE,
    ),
    Family(
        "standard deviation",
        deviation,
        (X,),
        right={"0 for equal entries": deviation_slope(True)},
        wrong={"0/0 for equal entries": deviation_slope(False)},
        dtypes=WIDE,
    ),
    Family(
        "product",
        product,
        (X,),
        right={"of the others": product_slope},
        wrong={"value / x: 0/0": lambda args, g: g[:, None] * product(args[0])[:, None] / args[0]},
        dtypes=WIDE,
    ),
    Family(
        "running product",
        running_product,
        (X,),
        right={"of the others": running_product_slope},
        wrong={
            "value / x: 0/0": lambda args, g: jnp.cumsum((g * running_product(args[0]))[:, ::-1], -1)[:, ::-1] / args[0]
        },
    ),
    Family(
        "running sum",
        running_sum,
        (X,),
        right={"reversed": lambda args, g: jnp.cumsum(g[:, ::-1], axis=-1)[:, ::-1]},
        wrong={"not reversed": lambda args, g: jnp.cumsum(g, axis=-1)},
        dtypes=ALL,
    ),
    Family(
        "distance",
        distance,
        (X, normal(3, 4, seed=1)),
        right={"0 at equal points": distance_slope(True)},
        wrong={"0/0 at equal points": distance_slope(False)},
        dtypes=WIDE,
    ),
    Family(
        "cosine",
        cosine,
        (X, normal(3, 4, seed=1)),
        right={"with ε": cosine_slope(EPS)},
        wrong={"no ε: 0/0": cosine_slope(0.0)},
        dtypes=WIDE,
    ),
    Family(
        "KL divergence",
        divergence,
        (positive(2, 3), positive(2, 3, seed=1)),
        right={
            "guarded": lambda args, g: (
                g[:, None] * jnp.where(args[0] > 0, jnp.log(jnp.where(args[0] > 0, args[0], 1) / args[1]) + 1, 0),
                -g[:, None] * jnp.where(args[0] > 0, args[0] / jnp.where(args[0] > 0, args[1], 1), 0),
            )
        },
        wrong={
            "0/0 at p = q = 0": lambda args, g: (
                g[:, None] * jnp.where(args[0] > 0, jnp.log(jnp.where(args[0] > 0, args[0], 1) / args[1]) + 1, 0),
                -g[:, None] * jnp.where(args[0] > 0, args[0], 0) / args[1],
            ),
            "no + 1": lambda args, g: (g[:, None] * jnp.log(args[0] / args[1]), -g[:, None] * args[0] / args[1]),
            "−p/q for p < 0, too": lambda args, g: (
                g[:, None] * jnp.where(args[0] > 0, jnp.log(jnp.where(args[0] > 0, args[0], 1) / args[1]) + 1, 0),
                -g[:, None] * args[0] / args[1],
            ),
        },
        dtypes=WIDE,
    ),
    Family(
        "entropy",
        entropy,
        (positive(2, 3),),
        right={
            "∞ at the end of the domain": lambda args, g: (
                -g[:, None] * jnp.where(args[0] >= 0, jnp.log(jnp.maximum(args[0], 0)) + 1, 0)
            )
        },
        wrong={"a mask times −∞": lambda args, g: -g[:, None] * (args[0] > 0).astype(g.dtype) * (jnp.log(args[0]) + 1)},
    ),
    Family(
        "mean",
        lambda x: jnp.mean(x, axis=-1),
        (X,),
        right={"1/n": lambda args, g: jnp.broadcast_to(g[:, None] / args[0].shape[-1], args[0].shape)},
        wrong={"sum": lambda args, g: jnp.broadcast_to(g[:, None], args[0].shape)},
        dtypes=ALL,
    ),
    Family(
        "RMS norm with a weight",
        lambda x, w: x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPS) * w[None],
        (X, np.ones(4)),
        right={
            "summed over rows": lambda args, g: jax.vjp(
                lambda x, w: x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPS) * w[None], *args
            )[1](g)
        },
        wrong={
            "the weight forgotten": lambda args, g: (
                jax.vjp(lambda x: x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPS), args[0])[1](g)[0],
                jnp.sum(g * args[0] * jax.lax.rsqrt(jnp.mean(args[0] ** 2, axis=-1, keepdims=True) + EPS), axis=0),
            )
        },
        dtypes=WIDE,
    ),
]
