"""Functions of single entries."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.corpus.family import ALL, WIDE, Family, normal, positive


def _custom_jvp(fun, tangent):
    rule = jax.custom_jvp(fun)
    rule.defjvp(lambda primals, tangents: (fun(*primals), tangent(primals, tangents)))
    return rule


def softplus(x):
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def sinc(x):
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, jnp.sin(safe) / safe)


def sinc_slope(x):
    safe = jnp.where(jnp.abs(x) < 0.3, 1, x)
    s = x * x
    near = x * (-1 / 3 + s * (1 / 30 + s * (-1 / 840 + s * (1 / 45360 + s * (-1 / 3991680 + s / 518918400)))))
    return jnp.where(jnp.abs(x) < 0.3, near, (jnp.cos(safe) - jnp.sin(safe) / safe) / safe)


def xlogy(x, y):
    safe = jnp.where(x == 0, 1, y)
    return jnp.where(x == 0, 0, x * jnp.log(safe))


def root_or_zero(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def relative_growth(x, y):
    return jnp.log1p(x / y)


def expm1_over(x):
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, jnp.expm1(safe) / safe)


def expm1_over_slope(x):
    safe = jnp.where(jnp.abs(x) < 1, 1, x)
    near = sum(x**k * ((k + 1) / float(_factorial(k + 2))) for k in range(18))
    return jnp.where(jnp.abs(x) < 1, near, (jnp.exp(safe) - jnp.expm1(safe) / safe) / safe)


def _factorial(n):
    return n * _factorial(n - 1) if n else 1


def log_cosh(x):
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - float(np.log(2))


def huber(x):
    return jnp.where(jnp.abs(x) <= 1.5, 0.5 * x * x, 1.5 * (jnp.abs(x) - 0.75))


def bce(z, y):
    return jax.nn.relu(z) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))


def elu(x):
    return jnp.where(x > 0, x, 0.5 * jnp.expm1(jnp.minimum(x, 0)))


def log_add_exp(x, y):
    top = jnp.maximum(x, y)
    safe = jnp.where(jnp.isfinite(top), top, 0)
    return jnp.where(top == -jnp.inf, -jnp.inf, safe + jnp.log(jnp.exp(x - safe) + jnp.exp(y - safe)))


def _shares(args, g):
    x, y = args
    return g * jax.nn.sigmoid(x - y), g * jax.nn.sigmoid(y - x)


SMALL = np.array([0.1, -0.2, 0.35, 0.5])

FAMILIES = [
    Family(
        "softplus",
        softplus,
        (normal(4),),
        right={
            "sigmoid": lambda args, g: g * jax.nn.sigmoid(args[0]),
            "the stable quotient": lambda args, g: g * jnp.exp(args[0] - softplus(args[0])),
        },
        wrong={
            "a quotient that overflows": lambda args, g: g * jnp.exp(args[0]) / (1 + jnp.exp(args[0])),
            "an overflow made 0": lambda args, g: g * jnp.nan_to_num(jnp.exp(args[0]) / (1 + jnp.exp(args[0]))),
        },
        dtypes=ALL,
    ),
    Family(
        "sigmoid",
        jax.nn.sigmoid,
        (normal(4),),
        right={
            "from the value": (
                lambda x: (jax.nn.sigmoid(x), jax.nn.sigmoid(x)),
                lambda y, g: g * y * (1 - y),
            )
        },
        wrong={
            "e⁻ˣ over its square": lambda args, g: g * jnp.exp(-args[0]) / (1 + jnp.exp(-args[0])) ** 2,
            "the residual is x": lambda args, g: g * args[0] * (1 - args[0]),
        },
    ),
    Family(
        "relu",
        lambda x: jnp.maximum(x, 0),
        (normal(4),),
        right={
            "slope 0 at 0": lambda args, g: jnp.where(args[0] > 0, g, 0),
            "slope 1 at 0": lambda args, g: jnp.where(args[0] >= 0, g, 0),
            "slope ½ at 0": lambda args, g: g * (0.5 * (1 + jnp.sign(args[0]))),
        },
        wrong={
            "x / x": lambda args, g: g * jnp.maximum(args[0], 0) / args[0],
            "slope −1 at 0": lambda args, g: jnp.where(args[0] > 0, g, jnp.where(args[0] < 0, 0, -g)),
        },
        dtypes=ALL,
    ),
    Family(
        "leaky relu",
        lambda x: jnp.where(x > 0, x, 0.125 * x),
        (positive(4),),
        right={"both slopes": lambda args, g: jnp.where(args[0] > 0, g, 0.125 * g)},
        wrong={"0 for negative inputs": lambda args, g: jnp.where(args[0] > 0, g, 0)},
        dtypes=ALL,
    ),
    Family(
        "elu",
        elu,
        (positive(3),),
        right={"αeˣ": lambda args, g: g * jnp.where(args[0] > 0, 1, 0.5 * jnp.exp(jnp.minimum(args[0], 0)))},
        wrong={
            "value + 1, as if α were 1": lambda args, g: g * jnp.where(args[0] > 0, 1, elu(args[0]) + 1),
            "0 times an overflow": lambda args, g: (
                g * jnp.where(args[0] > 0, 1, 0) + g * jnp.where(args[0] > 0, 0, 1) * 0.5 * jnp.exp(args[0])
            ),
        },
        dtypes=WIDE,
    ),
    Family(
        "abs",
        jnp.abs,
        (normal(4),),
        right={"sign": lambda args, g: g * jnp.sign(args[0])},
        wrong={"x / |x|": lambda args, g: g * args[0] / jnp.abs(args[0])},
        dtypes=ALL,
    ),
    Family(
        "sinc",
        sinc,
        (normal(3),),
        right={"a series near 0": lambda args, g: g * sinc_slope(args[0])},
        wrong={
            "0/0 at 0": lambda args, g: g * (jnp.cos(args[0]) - jnp.sin(args[0]) / args[0]) / args[0],
            "1 at 0": lambda args, g: g * jnp.where(args[0] == 0, 1, sinc_slope(args[0])),
        },
    ),
    Family(
        "expm1(x)/x",
        expm1_over,
        (positive(3),),
        right={"a series near 0": lambda args, g: g * expm1_over_slope(args[0])},
        wrong={
            "0/0 at 0": lambda args, g: g * (jnp.exp(args[0]) - jnp.expm1(args[0]) / args[0]) / args[0],
        },
        dtypes=WIDE,
    ),
    Family(
        "versine",
        lambda x: 2 * jnp.sin(0.5 * x) ** 2,
        (positive(3),),
        right={"sin": lambda args, g: g * jnp.sin(args[0])},
        wrong={
            "√(1 − cos²): cancels near 0": lambda args, g: g * jnp.sqrt(1 - jnp.cos(args[0]) ** 2) * jnp.sign(args[0])
        },
        dtypes=WIDE,
    ),
    Family(
        "xlogy",
        xlogy,
        (positive(3), positive(3, seed=1)),
        right={
            "guarded": lambda args, g: (
                jnp.where(args[0] == 0, jnp.where(args[1] > 0, jnp.log(args[1]), -jnp.inf), jnp.log(args[1])) * g,
                g * jnp.where(args[0] == 0, 0, args[0] / args[1]),
            )
        },
        wrong={
            "0 for x at x = 0": lambda args, g: (
                g * jnp.where(args[0] == 0, 0, jnp.log(args[1])),
                g * args[0] / args[1],
            )
        },
    ),
    Family(
        "sqrt or 0",
        root_or_zero,
        (positive(3),),
        right={
            "two wheres": lambda args, g: (
                g * jnp.where(args[0] > 0, 0.5 / jnp.sqrt(jnp.where(args[0] > 0, args[0], 1)), 0)
            )
        },
        wrong={"a mask times ∞": lambda args, g: g * (args[0] > 0).astype(g.dtype) * 0.5 / jnp.sqrt(args[0])},
        dtypes=WIDE,
    ),
    Family(
        "x³",
        lambda x: x * x * x,
        (positive(3),),
        right={"3x²": lambda args, g: 3 * g * args[0] * args[0]},
        wrong={"3 exp(2 log x)": lambda args, g: 3 * g * jnp.exp(2 * jnp.log(args[0]))},
        dtypes=ALL,
    ),
    Family(
        "log1p(x/y)",
        relative_growth,
        (positive(3), positive(3, seed=1)),
        right={"one fraction": lambda args, g: (g / (args[0] + args[1]), -g * args[0] / args[1] / (args[0] + args[1]))},
        wrong={
            "a difference that cancels at large y": lambda args, g: (
                g / (args[0] + args[1]),
                g * (1 / (args[0] + args[1]) - 1 / args[1]),
            )
        },
        dtypes=WIDE,
    ),
    Family(
        "log cosh",
        log_cosh,
        (normal(3),),
        right={"tanh": lambda args, g: g * jnp.tanh(args[0])},
        wrong={"sinh / cosh": lambda args, g: g * jnp.sinh(args[0]) / jnp.cosh(args[0])},
        dtypes=WIDE,
    ),
    Family(
        "clip",
        lambda x: jnp.clip(x, -0.75, 0.75),
        (SMALL,),
        right={
            "open bounds": lambda args, g: jnp.where(jnp.abs(args[0]) < 0.75, g, 0),
            "closed bounds": lambda args, g: jnp.where(jnp.abs(args[0]) <= 0.75, g, 0),
        },
        wrong={
            "no mask": lambda args, g: g,
            "other bounds": lambda args, g: jnp.where(jnp.abs(args[0]) < 1, g, 0),
            "twice at a bound": lambda args, g: jnp.where(
                jnp.abs(args[0]) < 0.75, g, jnp.where(jnp.abs(args[0]) == 0.75, 2 * g, 0)
            ),
        },
        dtypes=ALL,
    ),
    Family(
        "huber",
        huber,
        (SMALL,),
        right={"clipped": lambda args, g: g * jnp.clip(args[0], -1.5, 1.5)},
        wrong={
            "x everywhere": lambda args, g: g * args[0],
            "δ without sign": lambda args, g: g * jnp.minimum(args[0], 1.5),
        },
        dtypes=ALL,
    ),
    Family(
        "binary cross-entropy",
        bce,
        (normal(4), np.array([0.0, 1.0, 1.0, 0.0])),
        right={"σ(z) − y": lambda args, g: (g * (jax.nn.sigmoid(args[0]) - args[1]), -g * args[0])},
        wrong={
            "autodiff's own, wrong at 0": lambda args, g: jax.vjp(bce, *args)[1](g),
            "0 for y": lambda args, g: (g * (jax.nn.sigmoid(args[0]) - args[1]), jnp.zeros_like(g)),
        },
        dtypes=WIDE,
    ),
    Family(
        "log add exp",
        log_add_exp,
        (normal(3), normal(3, seed=1)),
        right={"sigmoids": _shares},
        wrong={
            "weights that overflow": lambda args, g: (
                g * jnp.exp(args[0]) / (jnp.exp(args[0]) + jnp.exp(args[1])),
                g * jnp.exp(args[1]) / (jnp.exp(args[0]) + jnp.exp(args[1])),
            ),
            "a value of 0 for −∞": (
                lambda x, y: (jnp.nan_to_num(log_add_exp(x, y), neginf=0.0), (x, y)),
                _shares,
            ),
        },
        dtypes=WIDE,
    ),
    Family(
        "round",
        jnp.round,
        (normal(4),),
        right={"straight through, declared": lambda args, g: g},
        wrong={"straight through, undeclared": lambda args, g: g},
        settings={"reference": lambda x: x * 1},
        dtypes=ALL,
    ),
    Family(
        "identity",
        lambda x: x * 1,
        (SMALL,),
        right={
            "itself": lambda args, g: g,
        },
        wrong={
            "a clipped gradient, undeclared": lambda args, g: jnp.clip(g, -0.5, 0.5),
            "reversed": lambda args, g: -g,
        },
    ),
    Family(
        "sqrt",
        jnp.sqrt,
        (positive(3),),
        right={"as a jvp": _custom_jvp(jnp.sqrt, lambda primals, tangents: 0.5 * tangents[0] / jnp.sqrt(primals[0]))},
        wrong={
            "an affine jvp": _custom_jvp(
                jnp.sqrt, lambda primals, tangents: 0.5 * tangents[0] / jnp.sqrt(primals[0]) + 0.01
            )
        },
    ),
    Family(
        "gelu",
        lambda x: jax.nn.gelu(x, approximate=False),
        (normal(3),),
        right={
            "exact": lambda args, g: (
                g * (jax.scipy.stats.norm.cdf(args[0]) + args[0] * jax.scipy.stats.norm.pdf(args[0]))
            )
        },
        wrong={
            "that of the tanh form": lambda args, g: jax.vjp(lambda x: jax.nn.gelu(x, approximate=True), *args)[1](g)
        },
        dtypes=WIDE,
    ),
    Family(
        "hypot",
        lambda x, y: jnp.sqrt(x * x + y * y),
        (normal(3), normal(3, seed=1)),
        right={
            "0 at the origin": lambda args, g: tuple(
                g * a / jnp.where((args[0] == 0) & (args[1] == 0), 1, jnp.sqrt(args[0] ** 2 + args[1] ** 2))
                for a in args
            )
        },
        wrong={"0/0 at the origin": lambda args, g: tuple(g * a / jnp.sqrt(args[0] ** 2 + args[1] ** 2) for a in args)},
        dtypes=WIDE,
    ),
    Family(
        "|z|²",
        lambda z: jnp.real(z * jnp.conj(z)),
        ((normal(3) + 1j * normal(3, seed=1)).astype(np.complex64),),
        right={"2 conj(z)": lambda args, g: 2 * g.astype(jnp.complex64) * jnp.conj(args[0])},
        wrong={"2z": lambda args, g: 2 * g.astype(jnp.complex64) * args[0]},
    ),
]
