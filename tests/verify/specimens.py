"""Rules, right and wrong, for the tests of the verifier: small functions that users could have written."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl


def rule(fun, fwd, bwd, symbolic_zeros=False, **settings):
    """A `custom_vjp` function from its three parts."""
    made = jax.custom_vjp(fun, **settings)
    made.defvjp(fwd, bwd, symbolic_zeros=symbolic_zeros)
    return made


def normal(*shape, dtype=jnp.float32, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).standard_normal(shape), dtype)


def _matmul(x, w):
    return x @ w


def matmul_bwd(kept, g):
    x, w = kept
    return g @ w.T, x.T @ g


matmul = rule(_matmul, lambda x, w: (_matmul(x, w), (x, w)), matmul_bwd)


def sine(bwd):
    """sin with a backward of choice."""
    return rule(jnp.sin, lambda x: (jnp.sin(x), x), bwd)


right_sine = sine(lambda x, g: (g * jnp.cos(x),))


# Right rules, each with something about it that a verifier must know of


def _scale(k, x):
    return k * x


nondiff = rule(_scale, lambda k, x: (_scale(k, x), None), lambda k, _, g: (k * g,), nondiff_argnums=(0,))


def _pick(table, ids):
    return table[ids]


def pick_bwd(kept, g):
    ids, like = kept
    return jnp.zeros_like(like).at[ids].add(g), None


pick = rule(_pick, lambda table, ids: (_pick(table, ids), (ids, table)), pick_bwd)


def _dropout(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)


def dropout_fwd(key, x):
    return _dropout(key, x), key


def dropout_bwd(key, g):
    return None, jnp.where(jax.random.bernoulli(key, 0.5, g.shape), g, 0)


dropout = rule(_dropout, dropout_fwd, dropout_bwd)


def _affine(params, x):
    return {"y": x @ params["w"] + params["b"][None], "norm": jnp.sum(x * x)}


def affine_bwd(kept, g):
    params, x = kept
    dx = g["y"] @ params["w"].T + 2 * g["norm"] * x
    return {"w": x.T @ g["y"], "b": g["y"].sum(0)}, dx


trees = rule(_affine, lambda p, x: (_affine(p, x), (p, x)), affine_bwd)


def _count(x):
    return jnp.sin(x), jnp.sum(x > 0)


aux = rule(_count, lambda x: (_count(x), x), lambda x, g: (g[0] * jnp.cos(x),))


def symbolic_fwd(x, y):
    return x.value * y.value, (x.value, y.value, x.perturbed, y.perturbed)


def symbolic_bwd(kept, g):
    x, y, moves_x, moves_y = kept
    g = jnp.zeros(g.shape, g.dtype) if isinstance(g, jax.custom_derivatives.SymbolicZero) else g
    return g * y if moves_x else None, g * x if moves_y else None


symbolic = rule(jnp.multiply, symbolic_fwd, symbolic_bwd, symbolic_zeros=True)


def nested(x, w):
    """Rules inside jit, scan, cond and remat."""

    @jax.jit
    def step(x):
        return right_sine(x)

    x = lax.scan(lambda c, _: (step(c), None), x, None, length=2)[0]
    x = lax.cond(True, right_sine, jnp.cos, x)
    return jnp.sum(jax.checkpoint(matmul)(x, w))


@jax.custom_jvp
def softsign(x):
    return x / (1 + jnp.abs(x))


@softsign.defjvp
def softsign_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return softsign(x), t / (1 + jnp.abs(x)) ** 2


def _pallas_sine(x):
    def kernel(x, o):
        o[...] = jnp.sin(x[...])

    return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)


pallas = rule(_pallas_sine, lambda x: (_pallas_sine(x), x), lambda x, g: (g * jnp.cos(x),))


def _root(a):
    """√a by Newton's method, until it stands still: a loop with unknown trips."""
    tight = 4 * float(jnp.finfo(a.dtype).eps)
    step = lambda x: (x + a / x) / 2  # noqa: E731
    going = lambda c: jnp.any(jnp.abs(c[0] - c[1]) > tight * jnp.abs(c[0]))  # noqa: E731
    return lax.while_loop(going, lambda c: (step(c[0]), c[0]), (step(a), a))[0]


def root_fwd(a):
    x = _root(a)
    return x, x


fixed_point = rule(_root, root_fwd, lambda x, g: (g / (2 * x),))


def _callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")


callback = rule(_callback, lambda x: (_callback(x), x), lambda x, g: (g * jnp.cos(x),))

fwd_calls_rule = rule(jnp.sin, lambda x: (fwd_calls_rule(x), x), lambda x, g: (g * jnp.cos(x),))

cube = rule(
    lambda x: x * x * jnp.conj(x),
    lambda x: (x * x * jnp.conj(x), x),
    lambda x, g: (2 * g * x * jnp.conj(x) + jnp.conj(g * x * x),),
)

RIGHT = {
    "matmul": (matmul, (normal(3, 4), normal(4, 2))),
    "nondiff_argnums": (nondiff, (3.0, normal(4))),
    "integer argument, None cotangent": (pick, (normal(5, 3), jnp.array([1, 0, 1], jnp.int32))),
    "key argument": (dropout, (jax.random.key(1), normal(6))),
    "pytrees in and out": (trees, ({"w": normal(3, 2), "b": normal(2)}, normal(4, 3))),
    "auxiliary output": (aux, (normal(4),)),
    "symbolic zeros": (symbolic, (normal(4), normal(4, seed=1))),
    "scalar": (right_sine, (jnp.float32(0.7),)),
    "zero size": (
        rule(
            lambda x, e: x * 2 + jnp.sum(e),
            lambda x, e: (x * 2 + jnp.sum(e), None),
            lambda _, g: (g * 2, jnp.zeros((0, 4)) + jnp.sum(g)),
        ),
        (normal(3), normal(0, 4)),
    ),
    "rules inside": (nested, (normal(3, 4), normal(4, 2))),
    "custom_jvp": (softsign, (normal(5),)),
    "interpreted Pallas kernel": (pallas, (normal(4),)),
    "unknown trips": (fixed_point, (jnp.array([2.0, 3.0], jnp.float32),)),
    "callback": (callback, (normal(4),)),
    "_fwd calls the rule": (fwd_calls_rule, (normal(4),)),
    "complex": (cube, (lax.complex(normal(3), normal(3, seed=1)),)),
}


# Wrong rules: each with the property that must turn red


def _leaky(x):
    kept = []

    def fwd(x):
        kept.append(x)
        return jnp.sin(x), None

    inner = rule(jnp.sin, fwd, lambda _, g: (g * jnp.cos(x),))
    return inner(x * 2)


def partial_fwd(x, y):
    return x.value * y.value, (x.value, y.value, y.perturbed)


def partial_bwd(kept, g):
    x, y, moves_y = kept
    return g * y * (1 if moves_y else 2), g * x


_calls = iter(range(10**9))


def _unsteady(x, g):
    noise = jax.pure_callback(lambda: np.float32(1e-7 * next(_calls)), jax.ShapeDtypeStruct((), jnp.float32))
    return (g * jnp.cos(x) * (1 + noise.astype(g.dtype)),)


def _only_under_jit(x, g):
    return (g * jnp.cos(x) * (1 if isinstance(g, jax.core.Tracer) else 2),)


@jax.custom_batching.custom_vmap
def _unbatchable(x, g):
    return g * jnp.cos(x)


@_unbatchable.def_vmap
def _wrong_batching(size, batched, x, g):
    return jnp.broadcast_to(2 * g * jnp.cos(x), (size, *jnp.broadcast_shapes(x.shape, g.shape)[-1:])), True


def _hinge(bwd):
    return rule(lambda x: jnp.maximum(x, 0), lambda x: (jnp.maximum(x, 0), x), bwd)


hinge = _hinge(lambda x, g: (jnp.where(x > 0, g, 0),))

AT_THE_HINGE = (jnp.array([-1.0, 0.0, 2.0], jnp.float32),)

stops = lambda x: x * lax.stop_gradient(x)  # noqa: E731

WRONG = {
    "cotangent of another dtype": (
        "structure",
        sine(lambda x, g: ((g * jnp.cos(x)).astype(jnp.bfloat16),)),
        (normal(4),),
    ),
    "wrong tree": ("structure", sine(lambda x, g: g * jnp.cos(x)), (normal(4),)),
    "wrong shape": ("structure", sine(lambda x, g: (g[:2],)), (normal(4),)),
    "tracer leak": ("structure", _leaky, (normal(4),)),
    "_fwd's value": (
        "value",
        rule(jnp.sin, lambda x: (1.001 * jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),)),
        (normal(4),),
    ),
    "sign": ("accuracy", sine(lambda x, g: (-g * jnp.cos(x),)), (normal(4),)),
    "six digits right, in bfloat16": (
        "float64",
        sine(lambda x, g: (g * (1 + 1e-6) * jnp.cos(x),)),
        (normal(4, dtype=jnp.bfloat16),),
    ),
    "stopped gradient": ("accuracy", rule(stops, lambda x: (stops(x), x), lambda x, g: (g * x,)), (normal(4),)),
    "one entry": ("jacobian", sine(lambda x, g: ((g * jnp.cos(x)).at[2].mul(1.01),)), (normal(4),)),
    "one argument alone": (
        "parts",
        rule(jnp.multiply, partial_fwd, partial_bwd, symbolic_zeros=True),
        (normal(4), normal(4)),
    ),
    "not linear": ("linearity", sine(lambda x, g: (g * jnp.abs(g) * jnp.cos(x),)), (normal(4),)),
    "unsteady": ("repeat", sine(_unsteady), (normal(4),)),
    "right under jit alone": ("eager", sine(_only_under_jit), (normal(4),)),
    "wrong batching": ("vmap", sine(lambda x, g: (_unbatchable(x, g),)), (normal(4),)),
    "residual held constant": (
        "reverse over reverse",
        sine(lambda x, g: (g * lax.stop_gradient(jnp.cos(x)),)),
        (normal(4),),
    ),
    "not one-sided": (
        "points",
        _hinge(lambda x, g: (jnp.where(x > 0, g, jnp.where(x == 0, 7.0, 0).astype(g.dtype)),)),
        AT_THE_HINGE,
    ),
}


@jax.custom_jvp
def wrong_softsign(x):
    return x / (1 + jnp.abs(x))


@wrong_softsign.defjvp
def wrong_softsign_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return wrong_softsign(x), t / (1 + jnp.abs(x))


WRONG["custom_jvp"] = ("accuracy", wrong_softsign, (normal(4),))
