"""TensorFlow Probability on JAX: special functions, distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_probability.substrates.jax as tfp

from world.use import Use, normal, positive

math, tfd, tfb = tfp.math, tfp.distributions, tfp.bijectors
A, B = positive(3), positive(3, seed=1)
U = np.array([0.2, 0.5, 0.8], np.float32)
lgamma = jax.scipy.special.gammaln


def bessel_iv_ratio(v, z):
    """Return the ratio of modified Bessel functions of the orders v and v − 1."""
    return math.bessel_iv_ratio(v, z)


def newton_step(a, b, y):
    """One step of Newton's from the inverse, which is held: its slope by y is that of the inverse."""
    x = jax.lax.stop_gradient(math.betaincinv(a, b, y))
    density = jnp.exp((a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x) - lgamma(a) - lgamma(b) + lgamma(a + b))
    return x + y / density


USES = [
    Use("log_cosh", math.log_cosh, (normal(4),), plain=lambda x: jnp.log(jnp.cosh(x))),
    Use(
        "log_cosh, float64",
        math.log_cosh,
        (normal(4, dtype="float64"),),
        x64=True,
        plain=lambda x: jnp.log(jnp.cosh(x)),
    ),
    Use(
        "log_gamma_difference",
        math.log_gamma_difference,
        (A, 10 + B),
        {"tolerance": 1e-5},
        plain=lambda x, y: lgamma(y) - lgamma(x + y),
    ),
    Use(
        "log_gamma_difference at y = 1e5",
        math.log_gamma_difference,
        (A, np.float32([1e5, 1e6, 1e7])),
        expected="wrong",
        why="digamma(y) - digamma(x + y) cancels: 5 % off at 1e5, 0 at 1e7",
        plain=lambda x, y: lgamma(y) - lgamma(x + y),
    ),
    Use("lbeta", math.lbeta, (A, B), {"tolerance": 1e-5}, plain=lambda x, y: lgamma(x) + lgamma(y) - lgamma(x + y)),
    Use(
        "lbeta at y = 1e5",
        math.lbeta,
        (A, np.float32([1e5, 1e6, 1e7])),
        expected="wrong",
        why="digamma(y) - digamma(x + y) cancels: 5 % off at 1e5, 0 at 1e7",
    ),
    Use("betainc", math.betainc, (A, B, U), {"tolerance": 1e-4, "seconds": 180}),
    Use(
        "betaincinv in y",
        math.betaincinv,
        (A, B, U),
        {"argnums": 2, "tolerance": 1e-3, "reference": newton_step, "seconds": 180},
        expected="meant to differ",
        why="a solver, whose steps have no slope of their own; the gradient is that of the inverse",
    ),
    Use("dawsn", math.dawsn, (normal(3),), {"tolerance": 1e-4}),
    Use("erfcx", math.erfcx, (normal(3),), {"tolerance": 1e-4}),
    Use("logerfc", math.logerfc, (normal(3),), {"tolerance": 1e-5}),
    Use(
        "igammainv",
        math.igammainv,
        (1 + A, U),
        {"tolerance": 1e-3, "seconds": 30},
        expected="not decided",
        why="a series and a solver, of which the programs take minutes to compile",
    ),
    Use("lambertw", math.lambertw, (A,), {"tolerance": 1e-5}),
    Use("owens_t", math.owens_t, (normal(2), positive(2)), {"tolerance": 1e-4}),
    Use("bessel_ive in z", math.bessel_ive, (A, B), {"argnums": 1, "tolerance": 1e-4, "seconds": 180}),
    Use("bessel_kve in z", math.bessel_kve, (A, B), {"argnums": 1, "tolerance": 1e-4}),
    Use("log_bessel_kve in z", math.log_bessel_kve, (A, B), {"argnums": 1, "tolerance": 1e-4, "seconds": 180}),
    Use("bessel_iv_ratio in z", bessel_iv_ratio, (1 + A, B), {"argnums": 1, "tolerance": 1e-4}),
    Use(
        "bessel_iv_ratio in v",
        bessel_iv_ratio,
        (1 + A, B),
        {"argnums": 0, "tolerance": 1e-4},
        expected="wrong",
        why="the gradient in v is always 0",
    ),
    Use(
        "hyp2f1_small_argument",
        math.hypergeometric.hyp2f1_small_argument,
        (A, B, 2 + A, U / 2),
        {"argnums": 3, "tolerance": 1e-4, "seconds": 900},
    ),
    Use(
        "hyp2f1_small_argument, scalars with a vector",
        math.hypergeometric.hyp2f1_small_argument,
        (np.float32(0.5), np.float32(1), np.float32(2), U / 2),
        {"tolerance": 1e-4},
        expected="wrong",
        why="differentiation raises: the cotangents of the scalars have the vector's shape",
    ),
    Use("Sigmoid, bounded", tfb.Sigmoid(low=np.float32(-1), high=np.float32(2)).forward, (normal(3),)),
    Use("Softplus", tfb.Softplus().forward, (normal(3),), plain=lambda x: jnp.log1p(jnp.exp(x))),
    Use(
        "Softplus with a hinge",
        tfb.Softplus(hinge_softness=np.float32(0.5)).forward,
        (normal(3),),
        plain=lambda x: 0.5 * jnp.log1p(jnp.exp(x / 0.5)),
    ),
    Use(
        "StudentT.cdf",
        lambda x, df: tfd.StudentT(df, 0.0, 1.0).cdf(x),
        (normal(2), 2 + positive(2)),
        {"tolerance": 1e-4, "seconds": 180},
    ),
    Use(
        "Gamma.sample",
        lambda c: tfd.Gamma(c, 1.0).sample(seed=jax.random.PRNGKey(0)),
        (1 + A[:1],),
        {"seconds": 180},
        expected="wrong",
        why="implicit reparameterisation, on purpose: the program rejects samples, and its own derivative is another",
    ),
    Use("VonMises.cdf", lambda x, c: tfd.VonMises(0.0, c).cdf(x), (normal(2), positive(2)), {"tolerance": 1e-4}),
    Use("TwoPieceNormal.log_prob", lambda x, s: tfd.TwoPieceNormal(0.0, 1.0, s).log_prob(x), (normal(2), positive(2))),
    Use(
        "Normal.kl_divergence",
        lambda m, s: tfd.kl_divergence(tfd.Normal(m, s), tfd.Normal(0.0, 1.0)),
        (normal(2), positive(2)),
        plain=lambda m, s: (m * m + s * s - 1) / 2 - jnp.log(s),
    ),
    Use(
        "Beta.log_prob",
        lambda a, b: tfd.Beta(a, b).log_prob(np.float32(0.3)),
        (A, B),
        {"tolerance": 1e-5},
        plain=lambda a, b: (a - 1) * np.log(0.3) + (b - 1) * np.log(0.7) + lgamma(a + b) - lgamma(a) - lgamma(b),
    ),
    Use("log_cumsum_exp", math.log_cumsum_exp, (normal(4),), plain=lambda x: jnp.log(jnp.cumsum(jnp.exp(x)))),
    Use("log_sub_exp", math.log_sub_exp, (1 + A, A), plain=lambda x, y: jnp.log(jnp.exp(x) - jnp.exp(y))),
    Use("smootherstep", math.smootherstep, (U,), plain=lambda x: x**3 * (6 * x * x - 15 * x + 10)),
]
