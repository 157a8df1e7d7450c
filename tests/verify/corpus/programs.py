"""Products, layers, and rules that misuse JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.corpus.family import ALL, WIDE, Family, normal

_KEPT = []


def layer(x, w, b):
    return jnp.tanh(x @ w + b[None])


def layer_kept(x, w, b):
    y = layer(x, w, b)
    return y, (x, w, y)


def layer_slope(weights="xᵀs", bias="sum", slope="y"):
    def bwd(kept, g):
        x, w, y = kept
        s = g * (1 - y * y) if slope == "y" else g * (1 - x * x)
        db = {"sum": jnp.sum(s, axis=0), "mean": jnp.mean(s, axis=0), "one row": s[0]}[bias]
        dx = s @ w if weights == "w untransposed" else s @ w.T
        return dx, (s.T @ x if weights == "transposed" else x.T @ s), db

    return bwd


def leaking_fwd(x, w):
    _KEPT.append(x)
    return x @ w, (w,)


def scores(q, k):
    return jnp.einsum("qd,kd->qk", q, k) * 0.5


def gated(x, a, b):
    return jax.nn.sigmoid(x @ a) * (x @ b)


def gated_slope(swapped):
    def bwd(args, g):
        x, a, b = args
        s, v = jax.nn.sigmoid(x @ a), x @ b
        da, db = x.T @ (g * v * s * (1 - s)), x.T @ (g * s)
        dx = (g * v * s * (1 - s)) @ a.T + (g * s) @ b.T
        return (dx, db, da) if swapped else (dx, da, db)

    return bwd


def recurrence(a, x):
    return jax.lax.scan(lambda h, t: (t[0] * h + t[1],) * 2, jnp.zeros_like(x[0]), (a, x))[1]


def recurrence_slope(shifted):
    def bwd(args, g):
        a, x = args
        h = recurrence(a, x)
        following = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])]) if shifted else a
        dx = jax.lax.scan(lambda c, t: (t[0] * c + t[1],) * 2, jnp.zeros_like(x[0]), (following, g), reverse=True)[1]
        return dx * jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]]), dx

    return bwd


def filtered(x, kernel):
    return jnp.convolve(x, kernel, mode="full")


def filtered_slope(flipped):
    def bwd(args, g):
        x, kernel = args
        dx = jnp.convolve(g, kernel[::-1] if flipped else kernel, mode="valid")
        return dx, jnp.convolve(g, x[::-1], mode="valid")

    return bwd


def solved(a, b):
    return jnp.linalg.solve(a, b)


def solved_slope(transposed):
    def bwd(args, g):
        a, b = args
        u = jnp.linalg.solve(a.T if transposed else a, g)
        return -jnp.outer(u, solved(a, b)), u

    return bwd


def product(a, b):
    return a @ b


def product_slope(conjugate):
    def bwd(args, g):
        a, b = args
        return (g @ b.T, a.T @ g) if conjugate else (g @ jnp.conj(b).T, jnp.conj(a).T @ g)

    return bwd


def complex_normal(*shape, seed):
    return (normal(*shape, seed=seed) + 1j * normal(*shape, seed=seed + 9)).astype(np.complex64)


FAMILIES = [
    Family(
        "layer",
        layer,
        (normal(3, 3), normal(3, 3, seed=1), normal(3, seed=2)),
        right={"from the value": (layer_kept, layer_slope())},
        wrong={
            "dw transposed": (layer_kept, layer_slope("transposed")),
            "w not transposed": (layer_kept, layer_slope("w untransposed")),
            "the bias's mean": (layer_kept, layer_slope(bias="mean")),
            "the bias of one row": (layer_kept, layer_slope(bias="one row")),
            "the input for the value": (layer_kept, layer_slope(slope="x")),
        },
        dtypes=WIDE,
    ),
    Family(
        "product",
        lambda x, w: x @ w,
        (normal(2, 3), normal(3, 2, seed=1)),
        right={"both": lambda args, g: (g @ args[1].T, args[0].T @ g)},
        wrong={
            "a residual of another trace": (leaking_fwd, lambda kept, g: (g @ kept[0].T, _KEPT[-1].T @ g)),
            "float32 for all": lambda args, g: (
                (g @ args[1].T).astype(jnp.float32),
                (args[0].T @ g).astype(jnp.float32) * 1.01,
            ),
            "one cotangent for two arguments": lambda args, g: g @ args[1].T,
        },
        dtypes=ALL,
    ),
    Family(
        "attention scores",
        scores,
        (normal(3, 2), normal(3, 2, seed=1)),
        right={"both": lambda args, g: (0.5 * g @ args[1], 0.5 * g.T @ args[0])},
        wrong={
            "dk from g, not gᵀ": lambda args, g: (0.5 * g @ args[1], 0.5 * g @ args[0]),
            "the scale forgotten": lambda args, g: (g @ args[1], 0.5 * g.T @ args[0]),
        },
        dtypes=ALL,
    ),
    Family(
        "gated unit",
        gated,
        (normal(2, 3), normal(3, 2, seed=1), normal(3, 2, seed=2)),
        right={"in order": gated_slope(False)},
        wrong={"gate and value swapped": gated_slope(True)},
        dtypes=WIDE,
    ),
    Family(
        "linear recurrence",
        recurrence,
        (np.full((4, 2), 0.5), normal(4, 2)),
        right={"shifted": recurrence_slope(True)},
        wrong={"off by one step": recurrence_slope(False)},
    ),
    Family(
        "convolution",
        filtered,
        (normal(4), np.array([0.25, 0.5, 0.25])),
        right={"flipped": filtered_slope(True)},
        wrong={"not flipped": filtered_slope(False)},
    ),
    Family(
        "linear solve",
        solved,
        (np.eye(3) * 2 + 0.3 * np.diag([1.0, 1.0], 1) + 0.3 * np.diag([1.0, 1.0], -1), normal(3)),
        right={"transposed": solved_slope(True)},
        wrong={"not transposed": solved_slope(False)},
    ),
    Family(
        "complex product",
        product,
        (complex_normal(2, 3, seed=0), complex_normal(3, 2, seed=1)),
        right={"as JAX has it": product_slope(True)},
        wrong={"conjugated": product_slope(False)},
    ),
]
