"""Indices, orders and masks."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.corpus.family import ALL, WIDE, Family, normal


def pick(table, ids):
    return table[ids]


def along(x, ids):
    return jnp.take_along_axis(x, ids, axis=-1)


def along_added(args, g):
    x, ids = args
    rows = jnp.arange(x.shape[0])[:, None]
    return jnp.zeros_like(x).at[rows, ids].add(g), None


def along_set(args, g):
    x, ids = args
    rows = jnp.arange(x.shape[0])[:, None]
    return jnp.zeros_like(x).at[rows, ids].set(g), None


def spread(x, ids):
    """Sums of the entries of `x` with the same id."""
    return jnp.zeros(4, x.dtype).at[ids].add(x)


def ordered(x):
    return jnp.sort(x)


def median(x):
    return jnp.sort(x)[x.shape[0] // 2]


def median_of_all(args, g):
    (x,) = args
    return g * (x == median(x)).astype(x.dtype)


def median_of_one(args, g):
    (x,) = args
    return jnp.zeros_like(x).at[jnp.argsort(x)[x.shape[0] // 2]].set(g)


def cross_entropy(z, target):
    return jax.nn.logsumexp(z, axis=-1) - jnp.take_along_axis(z, target[:, None], axis=-1)[:, 0]


def cross_entropy_slope(scale=1, row=False):
    def bwd(args, g):
        z, target = args
        hit = jax.nn.one_hot(target[::-1] if row else target, z.shape[-1], dtype=z.dtype)
        return g[:, None] * (jax.nn.softmax(z, axis=-1) - scale * hit), None

    return bwd


def padded(table, ids):
    return table[ids]


def masked_mean(x, mask):
    kept = mask.astype(x.dtype)
    return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(jnp.sum(kept), 1)


def masked_mean_slope(guard, use=True):
    def bwd(args, g):
        x, mask = args
        count = jnp.sum(mask.astype(x.dtype))
        count = jnp.maximum(count, 1) if guard else count
        return (g * mask.astype(x.dtype) / count if use else jnp.full_like(x, g / x.size)), None

    return bwd


def attention(q, k, mask):
    scores = jnp.where(mask, q @ k.T, -jnp.inf)
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0))
    size = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(size == 0, 1, size)


def attention_slope(weights_of, masked=True):
    def bwd(args, g):
        q, k, mask = args
        w = weights_of(q, k, mask if masked else jnp.ones_like(mask))
        s = w * (g - jnp.sum(g * w, axis=-1, keepdims=True))
        return s @ k, s.T @ q, None

    return bwd


def unguarded(q, k, mask):
    return jax.nn.softmax(jnp.where(mask, q @ k.T, -jnp.inf), axis=-1)


def biased(x, bias):
    return jax.nn.softmax(x + bias, axis=-1)


def biased_slope(of_bias):
    def bwd(args, g):
        y = biased(*args)
        dx = y * (g - jnp.sum(g * y, axis=-1, keepdims=True))
        return dx, of_bias(dx, args[1])

    return bwd


def dropout(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)


def dropout_slope(same, scale):
    def bwd(args, g):
        key, x = args
        key = key if same else jax.random.split(key)[0]
        return None, jnp.where(jax.random.bernoulli(key, 0.5, x.shape), scale * g, 0)

    return bwd


IDS = np.array([3, 0, 2], np.int32)
MASK = np.array([[True, False, True], [True, True, True]])

FAMILIES = [
    Family(
        "embedding",
        pick,
        (normal(4, 2), IDS),
        right={"added": lambda args, g: (jnp.zeros_like(args[0]).at[args[1]].add(g), None)},
        wrong={
            "set: duplicates lose": lambda args, g: (jnp.zeros_like(args[0]).at[args[1]].set(g), None),
            "row 0 taken for padding": lambda args, g: (jnp.zeros_like(args[0]).at[args[1]].add(g).at[0].set(0), None),
        },
        dtypes=ALL,
    ),
    Family(
        "take along an axis",
        along,
        (normal(2, 4), np.array([[1, 3], [0, 2]], np.int32)),
        right={"added": along_added},
        wrong={"set: duplicates lose": along_set},
        dtypes=WIDE,
    ),
    Family(
        "sum by id",
        spread,
        (normal(3), IDS),
        right={"picked": lambda args, g: (g[args[1]], None)},
        wrong={
            "divided by the count": lambda args, g: (
                (g / jnp.maximum(jnp.zeros_like(g).at[args[1]].add(jnp.ones_like(args[0])), 1))[args[1]],
                None,
            )
        },
        dtypes=WIDE,
    ),
    Family(
        "sort",
        ordered,
        (normal(5),),
        right={"put back": lambda args, g: jnp.zeros_like(g).at[jnp.argsort(args[0])].set(g)},
        wrong={"picked by the order itself": lambda args, g: g[jnp.argsort(args[0])]},
        dtypes=ALL,
    ),
    Family(
        "median",
        median,
        (normal(5),),
        right={"one entry": median_of_one},
        wrong={"all of g to every tie": median_of_all},
        dtypes=WIDE,
    ),
    Family(
        "cross-entropy",
        cross_entropy,
        (normal(3, 4), np.array([1, 1, 1], np.int32)),
        right={"p − 1": cross_entropy_slope()},
        wrong={"p": cross_entropy_slope(0), "p − ½": cross_entropy_slope(0.5)},
        dtypes=ALL,
    ),
    Family(
        "masked mean",
        masked_mean,
        (normal(2, 3), np.ones((2, 3), bool)),
        right={"guarded": masked_mean_slope(True)},
        wrong={
            "0/0 where all is masked": masked_mean_slope(False),
            "the mask forgotten": masked_mean_slope(True, use=False),
        },
        dtypes=WIDE,
    ),
    Family(
        "attention weights",
        attention,
        (normal(2, 2, seed=2), normal(3, 2, seed=3), MASK),
        right={"from the value": attention_slope(attention)},
        wrong={
            "NaN for a masked row": attention_slope(unguarded),
            "no mask": attention_slope(attention, masked=False),
        },
        dtypes=WIDE,
    ),
    Family(
        "biased softmax",
        biased,
        (normal(3, 3), normal(3, 3, seed=1)),
        right={"both": biased_slope(lambda dx, bias: dx)},
        wrong={
            "0 for the bias": biased_slope(lambda dx, bias: jnp.zeros_like(bias)),
            "∞ times 0": biased_slope(lambda dx, bias: dx * bias / bias),
        },
        dtypes=WIDE,
    ),
    Family(
        "dropout",
        dropout,
        (jax.random.key(0), normal(8)),
        right={"the same mask": dropout_slope(True, 2)},
        wrong={"another mask": dropout_slope(False, 2), "no scale": dropout_slope(True, 1)},
    ),
]
