"""NumPyro: truncated power laws, stable logarithms, distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import util

from world.use import Use, normal, positive, simplex

X = np.array([1.3, 2.1, 3.5], np.float32)
ALPHA = np.array([-2.5, 0.5, 1.5], np.float32)
LOW, HIGH = np.float32(1), np.float32(4)
lgamma = jax.scipy.special.gammaln


def log_prob(x, alpha, low, high):
    """Return NumPyro's log-density of a truncated power law."""
    return dist.DoublyTruncatedPowerLaw(alpha, low, high).log_prob(x)


def plain_log_prob(x, alpha, low, high):
    """Return the log-density, by its formula."""
    return jnp.log(x**alpha * (alpha + 1) / (high ** (alpha + 1) - low ** (alpha + 1)))


def cdf(x, alpha, low, high):
    """Return NumPyro's distribution function of a truncated power law."""
    return dist.DoublyTruncatedPowerLaw(alpha, low, high).cdf(x)


def plain_cdf(x, alpha, low, high):
    """Return the distribution function, by its formula."""
    return (x ** (alpha + 1) - low ** (alpha + 1)) / (high ** (alpha + 1) - low ** (alpha + 1))


def icdf(q, alpha, low, high):
    """Return NumPyro's quantiles of a truncated power law."""
    return dist.DoublyTruncatedPowerLaw(alpha, low, high).icdf(q)


def plain_icdf(q, alpha, low, high):
    """Return the quantiles, by their formula."""
    b = alpha + 1
    return (low**b + q * (high**b - low**b)) ** (1 / b)


Q = np.array([0.2, 0.5, 0.9], np.float32)
ONE = np.array([-1.0, -1.0, 0.5], np.float32)

USES = [
    Use("log1mexp", util.log1mexp, (-positive(4),), plain=lambda x: jnp.log(1 - jnp.exp(x))),
    Use(
        "log1mexp near 0",
        util.log1mexp,
        (np.array([-1e-6, -1e-3, -30], np.float32),),
        plain=lambda x: jnp.log(-jnp.expm1(x)),
    ),
    Use(
        "logdiffexp",
        util.logdiffexp,
        (1 + positive(3), positive(3) / 2),
        plain=lambda a, b: jnp.log(jnp.exp(a) - jnp.exp(b)),
    ),
    Use(
        "DoublyTruncatedPowerLaw.log_prob",
        log_prob,
        (X, ALPHA, LOW, HIGH),
        expected="wrong",
        why="the tangents of low and high are those of the density, not of its logarithm; high's has the wrong sign",
        plain=plain_log_prob,
    ),
    Use("DoublyTruncatedPowerLaw.cdf", cdf, (X, ALPHA, LOW, HIGH), plain=plain_cdf),
    Use("DoublyTruncatedPowerLaw.icdf", icdf, (Q, ALPHA, LOW, HIGH), plain=plain_icdf),
    Use("DoublyTruncatedPowerLaw.log_prob, alpha = -1", log_prob, (X, ONE, LOW, HIGH), {"argnums": 0}),
    Use("DoublyTruncatedPowerLaw.cdf, alpha = -1", cdf, (X, ONE, LOW, HIGH), {"argnums": 0}),
    Use("DoublyTruncatedPowerLaw.icdf, alpha = -1", icdf, (Q, ONE, LOW, HIGH), {"argnums": 0}),
    Use(
        "LowerTruncatedPowerLaw.log_prob",
        lambda x, a, l: dist.LowerTruncatedPowerLaw(a, l).log_prob(x),
        (X, np.float32([-2.5, -1.5, -3]), LOW),
    ),
    Use(
        "Normal.log_prob",
        lambda x, m, s: dist.Normal(m, s).log_prob(x),
        (normal(3), normal(3, seed=1), positive(3)),
        plain=lambda x, m, s: -((x - m) ** 2) / (2 * s * s) - jnp.log(s) - 0.5 * np.log(2 * np.pi),
    ),
    Use(
        "Gamma.log_prob",
        lambda x, a, b: dist.Gamma(a, b).log_prob(x),
        (positive(3), positive(3), positive(3)),
        {"tolerance": 1e-5},
        plain=lambda x, a, b: a * jnp.log(b) - lgamma(a) + (a - 1) * jnp.log(x) - b * x,
    ),
    Use(
        "Dirichlet.log_prob",
        lambda x, a: dist.Dirichlet(a).log_prob(x),
        (simplex(3), positive(3)),
        {"argnums": 1, "tolerance": 1e-5},
    ),
    Use("Categorical.log_prob", lambda x: dist.Categorical(logits=x).log_prob(np.array([1, 0])), (normal(2, 3),)),
    Use("Poisson.log_prob", lambda r: dist.Poisson(r).log_prob(np.array([0, 1, 3])), (positive(3),)),
    Use(
        "NegativeBinomial2.log_prob",
        lambda m, c: dist.NegativeBinomial2(m, c).log_prob(np.array([0, 2])),
        (positive(2), positive(2, seed=1)),
        {"tolerance": 1e-4},
    ),
    Use(
        "StudentT.log_prob",
        lambda x, d: dist.StudentT(d).log_prob(x),
        (normal(2), 1 + positive(2)),
        {"tolerance": 1e-5},
    ),
    Use(
        "TruncatedNormal.log_prob",
        lambda x, m: dist.TruncatedNormal(m, 1.0, low=0.0).log_prob(x),
        (positive(2), normal(2)),
    ),
    Use(
        "LKJCholesky.log_prob",
        lambda c: dist.LKJCholesky(2, c).log_prob(np.float32([[1, 0], [0.6, 0.8]])),
        (np.float32(1.5),),
        {"tolerance": 1e-5},
    ),
    Use(
        "BetaBinomial.log_prob",
        lambda a, b: dist.BetaBinomial(a, b, 3).log_prob(np.array([0, 2])),
        (positive(2), positive(2, seed=1)),
        {"tolerance": 1e-4},
    ),
    Use("StickBreakingTransform", dist.transforms.StickBreakingTransform(), (normal(3),)),
]
