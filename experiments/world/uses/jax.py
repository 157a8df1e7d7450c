"""JAX's own rules: `jax.nn`, `jax.numpy`, `jax.scipy.special`, `jax.experimental.ode`, implicit differentiation."""

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import lax
from jax.experimental.ode import odeint

from world.use import Use, normal, positive, simplex

X = normal(4)
P = np.array([0.05, 0.3, 0.5, 0.93], np.float32)
SQUARE = normal(3, 3) + 3 * np.eye(3, dtype=np.float32)


def stable_bce(z, y):
    """Return binary cross-entropy from logits, by relu and abs."""
    return jnp.sum(jax.nn.relu(z) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))


def oscillator(y0, t, w):
    """Solve y″ = −w y by `odeint`."""
    return odeint(lambda y, t, w: jnp.array([y[1], -w * y[0]]), y0, t, w)


def root(a):
    """Return the cube root of a, differentiated implicitly."""
    return lax.custom_root(lambda x: x**3 - a, a, newton, lambda g, y: y / g(jnp.ones_like(y)))


def newton(f, x):
    """Run 30 steps of Newton's method."""
    return lax.fori_loop(0, 30, lambda _, x: x - f(x) / jax.jvp(f, (x,), (jnp.ones_like(x),))[1], x)


def solve(a, b):
    """Solve a x = b by `custom_linear_solve`."""

    def solver(matvec, b):
        return jnp.linalg.solve(a, b)

    def transposed(matvec, b):
        return jnp.linalg.solve(a.T, b)

    return lax.custom_linear_solve(lambda x: a @ x, b, solver, transposed)


def conjugate(a, b):
    """Solve (aᵀa + 1) x = b by conjugate gradients."""
    return jax.scipy.sparse.linalg.cg(lambda x: a.T @ (a @ x) + x, b)[0]


def log_softmax(x):
    """Return x − log Σ e^x, without a rule."""
    return x - jnp.log(jnp.sum(jnp.exp(x), -1, keepdims=True))


def elementwise(name, f, *args, **more):
    """Return the use of an element-wise function."""
    return Use(name, f, args, **more)


SIN_C = np.array([0.0, 0.25, 1.5, -2.3], np.float32)

USES = [
    Use("relu", jax.nn.relu, (X,), plain=lambda x: jnp.where(x > 0, x, 0)),
    Use("relu at 0", jax.nn.relu, (np.array([0, -1, 2], np.float32),), why="a kink: the slope from the left is taken"),
    Use("relu6", jax.nn.relu6, (3 * X,), plain=lambda x: jnp.clip(x, 0, 6)),
    Use("softmax", jax.nn.softmax, (normal(2, 5),), plain=lambda x: jnp.exp(log_softmax(x))),
    Use(
        "softmax of large",
        jax.nn.softmax,
        (40 * normal(2, 4),),
        why="saturated: in float32 nothing is left of the gradient but rounding",
        plain=lambda x: jnp.exp(log_softmax(x)),
    ),
    Use("softmax, bfloat16", jax.nn.softmax, (jnp.asarray(normal(2, 5), jnp.bfloat16),)),
    Use("log_softmax", jax.nn.log_softmax, (normal(2, 5),), plain=log_softmax),
    Use("logsumexp", special.logsumexp, (normal(6),), plain=lambda x: jnp.log(jnp.sum(jnp.exp(x)))),
    Use("logsumexp with -inf", special.logsumexp, (np.array([-np.inf, 0, 1], np.float32),)),
    Use("silu", jax.nn.silu, (X,), plain=lambda x: x / (1 + jnp.exp(-x))),
    Use("log_sigmoid", jax.nn.log_sigmoid, (X,), plain=lambda x: -jnp.log1p(jnp.exp(-x))),
    Use("softplus", jax.nn.softplus, (X,), plain=lambda x: jnp.log1p(jnp.exp(x))),
    Use("gelu, exact", lambda x: jax.nn.gelu(x, approximate=False), (X,)),
    Use("log1mexp", jax.nn.log1mexp, (positive(4),), plain=lambda x: jnp.log(1 - jnp.exp(-x))),
    Use(
        "binary cross-entropy by relu and abs, at 0",
        stable_bce,
        (np.zeros(3, np.float32), np.array([0, 1, 1], np.float32)),
        expected="wrong",
        why="smooth at 0, but JAX takes 0 for the slope of relu there and 1 for that of abs: -0.5 - y for 0.5 - y",
        plain=lambda z, y: jnp.sum(jnp.logaddexp(0.0, z) - z * y),
    ),
    Use(
        "binary cross-entropy by relu and abs",
        stable_bce,
        (normal(3), np.array([0, 1, 1], np.float32)),
        plain=lambda z, y: jnp.sum(jnp.logaddexp(0.0, z) - z * y),
    ),
    Use("logaddexp", jnp.logaddexp, (X, normal(4, seed=1)), plain=lambda x, y: jnp.log(jnp.exp(x) + jnp.exp(y))),
    Use("logaddexp of equals", jnp.logaddexp, (X, X), plain=lambda x, y: jnp.log(jnp.exp(x) + jnp.exp(y))),
    Use("logaddexp2", jnp.logaddexp2, (X, normal(4, seed=1)), plain=lambda x, y: jnp.log2(2**x + 2**y)),
    Use("sinc", jnp.sinc, (SIN_C[1:],), plain=lambda x: jnp.sin(jnp.pi * x) / (jnp.pi * x)),
    Use("sinc at 0", jnp.sinc, (SIN_C,)),
    Use("hypot", jnp.hypot, (X, normal(4, seed=1)), plain=lambda x, y: jnp.sqrt(x * x + y * y)),
    Use("i0", special.i0, (X,)),
    Use("i1", special.i1, (X,)),
    Use("xlogy", special.xlogy, (X, positive(4)), plain=lambda x, y: x * jnp.log(y)),
    Use(
        "xlogy at x = 0",
        special.xlogy,
        (np.array([0, 1], np.float32), np.array([0.5, 2], np.float32)),
        plain=lambda x, y: x * jnp.log(y),
    ),
    Use("xlog1py", special.xlog1py, (X, positive(4)), plain=lambda x, y: x * jnp.log1p(y)),
    Use("entr", special.entr, (positive(4),), plain=lambda x: -x * jnp.log(x)),
    Use("rel_entr", special.rel_entr, (positive(4), positive(4, seed=1)), plain=lambda p, q: p * jnp.log(p / q)),
    Use("kl_div", special.kl_div, (positive(4), positive(4, seed=1)), plain=lambda p, q: p * jnp.log(p / q) - p + q),
    Use("logit", special.logit, (P,), plain=lambda p: jnp.log(p / (1 - p))),
    Use("expit", special.expit, (X,), plain=lambda x: 1 / (1 + jnp.exp(-x))),
    Use("ndtri", special.ndtri, (P,), {"tolerance": 1e-5}),
    Use("log_ndtr", special.log_ndtr, (X,), plain=lambda x: jnp.log(0.5 * special.erfc(-x / np.sqrt(2)))),
    Use("log_ndtr, far left", special.log_ndtr, (np.array([-30, -12, -6], np.float32),), {"tolerance": 1e-4}),
    Use("expi", special.expi, (positive(4),), {"tolerance": 1e-5}),
    Use("exp1", special.exp1, (positive(4),), {"tolerance": 1e-5}),
    Use("zeta", special.zeta, (np.array([2.5, 3.0], np.float32), positive(2)), {"argnums": 1, "tolerance": 1e-4}),
    Use("fresnel", special.fresnel, (positive(3),), {"tolerance": 1e-5}),
    Use("det, 2 by 2", jnp.linalg.det, (normal(2, 2),), plain=lambda a: a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]),
    Use("det, 3 by 3", jnp.linalg.det, (SQUARE,)),
    Use("det, 4 by 4", jnp.linalg.det, (normal(4, 4) + 2 * np.eye(4, dtype=np.float32),)),
    Use("slogdet", lambda a: jnp.linalg.slogdet(a)[1], (SQUARE,), plain=lambda a: jnp.log(jnp.abs(jnp.linalg.det(a)))),
    Use("pinv", jnp.linalg.pinv, (normal(3, 2),), plain=lambda a: jnp.linalg.inv(a.T @ a) @ a.T),
    Use(
        "odeint",
        oscillator,
        (normal(2), np.array([0, 0.5, 1], np.float32), np.float32(2)),
        {"tolerance": 1e-4, "argnums": (0, 2)},
    ),
    Use("custom_root", root, (positive(2),), plain=lambda a: a ** (1 / 3)),
    Use("custom_linear_solve", solve, (SQUARE, X[:3]), plain=jnp.linalg.solve),
    Use(
        "conjugate gradients",
        conjugate,
        (normal(3, 3), X[:3]),
        {"tolerance": 1e-4},
        plain=lambda a, b: jnp.linalg.solve(a.T @ a + jnp.eye(3), b),
    ),
    Use(
        "sparse cross-entropy",
        lambda x: -jnp.sum(simplex(2, 5) * jax.nn.log_softmax(x)),
        (normal(2, 5),),
        plain=lambda x: -jnp.sum(simplex(2, 5) * log_softmax(x)),
    ),
    Use(
        "xlogy at (0, 0)",
        special.xlogy,
        (np.zeros(1, np.float32), np.zeros(1, np.float32)),
        expected="wrong",
        why="the derivative in y is 0; the rule gives 0/0",
    ),
]
