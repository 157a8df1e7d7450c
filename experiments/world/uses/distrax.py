"""distrax: products and powers without NaN, entropies, von Mises."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from distrax._src.distributions import von_mises
from distrax._src.utils import math

from world.use import Use, normal, positive, simplex

LOGITS = normal(2, 4)


def multinomial_entropy(logits):
    """Return the entropy of a multinomial of three trials."""
    return distrax.Multinomial(3, logits=logits).entropy()


def categorical_kl(p, q):
    """Return distrax's divergence between two categoricals."""
    return distrax.Categorical(logits=p).kl_divergence(distrax.Categorical(logits=q))


def kl(p, q):
    """Return Σ e^p (p − q), the divergence from log-probabilities."""
    return jnp.sum(jnp.exp(p) * (p - q), -1)


def log_softmax(x):
    """Return x − log Σ e^x, without a rule."""
    return x - jnp.log(jnp.sum(jnp.exp(x), -1, keepdims=True))


def entropy(logits):
    """Return distrax's entropy of a categorical."""
    return distrax.Categorical(logits=logits).entropy()


def von_mises_cdf(x, concentration):
    """Return the distribution function in float32."""
    return von_mises._von_mises_cdf(x, concentration, jnp.dtype("float32"))


def von_mises_sample(concentration):
    """Return three samples, from a fixed key."""
    return distrax.VonMises(0.0, concentration).sample(seed=jax.random.key(0), sample_shape=(3,))


USES = [
    Use("multiply_no_nan", math.multiply_no_nan, (normal(4), positive(4)), plain=lambda x, y: x * y),
    Use(
        "multiply_no_nan, y = 0",
        math.multiply_no_nan,
        (normal(3), np.array([0, 0.5, 0], np.float32)),
        plain=lambda x, y: x * y,
    ),
    Use("power_no_nan", math.power_no_nan, (positive(4), normal(4)), plain=lambda x, y: x**y),
    Use(
        "power_no_nan, y = 0",
        math.power_no_nan,
        (positive(3), np.array([0, 0.5, 0], np.float32)),
        plain=lambda x, y: x**y,
    ),
    Use(
        "power_no_nan at (0, 2)",
        math.power_no_nan,
        (np.array([0, 1.5], np.float32), np.array([2, 2], np.float32)),
        expected="wrong",
        why="0² · log 0 is NaN; the derivative in y is 0",
    ),
    Use(
        "power_no_nan, integer exponent",
        math.power_no_nan,
        (positive(2), np.array([2, 3])),
        expected="wrong",
        why="the tangent of an integer exponent cannot be multiplied: differentiation raises",
    ),
    Use(
        "Multinomial.entropy",
        multinomial_entropy,
        (LOGITS[0],),
        expected="wrong",
        why="integer exponents in power_no_nan: differentiation raises",
    ),
    Use("mul_exp", math.mul_exp, (normal(4), normal(4, seed=1)), plain=lambda x, p: x * jnp.exp(p)),
    Use(
        "Categorical.entropy",
        entropy,
        (LOGITS,),
        plain=lambda x: -jnp.sum(jnp.exp(log_softmax(x)) * log_softmax(x), -1),
    ),
    Use(
        "Categorical.kl_divergence",
        categorical_kl,
        (LOGITS, normal(2, 4, seed=1)),
        plain=lambda p, q: kl(log_softmax(p), log_softmax(q)),
    ),
    Use(
        "Categorical.log_prob",
        lambda x: distrax.Categorical(logits=x).log_prob(np.array([1, 3])),
        (LOGITS,),
        plain=lambda x: log_softmax(x)[np.arange(2), np.array([1, 3])],
    ),
    Use("Bernoulli.entropy", lambda x: distrax.Bernoulli(logits=x).entropy(), (normal(3),)),
    Use(
        "Bernoulli.log_prob",
        lambda p: distrax.Bernoulli(probs=p).log_prob(np.array([0, 1, 1])),
        (simplex(3),),
        plain=lambda p: jnp.stack([jnp.log1p(-p[0]), jnp.log(p[1]), jnp.log(p[2])]),
    ),
    Use("OneHotCategorical.entropy", lambda x: distrax.OneHotCategorical(logits=x).entropy(), (LOGITS,)),
    Use("von Mises cdf", von_mises_cdf, (normal(3), positive(3)), {"tolerance": 1e-4}),
    Use("VonMises.log_prob", lambda x, c: distrax.VonMises(0.0, c).log_prob(x), (normal(3), positive(3))),
    Use("VonMises.entropy", lambda c: distrax.VonMises(0.0, c).entropy(), (positive(2),), {"tolerance": 1e-5}),
    Use(
        "VonMises.sample",
        von_mises_sample,
        (np.float32(2),),
        expected="wrong",
        why="implicit reparameterisation, on purpose: the program rejects samples, and its own derivative is another",
    ),
]
