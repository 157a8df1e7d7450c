"""optax: losses, projections, gradient scaling."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.losses._classification import weighted_logsoftmax
from optax.projections import projection_l1_ball, projection_simplex

from world.use import Use, normal, positive, simplex

LOGITS = normal(3, 4)
LABELS = simplex(3, 4, seed=1)
CLASSES = np.array([0, 2, 3])


def log_softmax(x):
    """Return x − log Σ e^x, without a rule."""
    return x - jnp.log(jnp.sum(jnp.exp(x), -1, keepdims=True))


def one_hot(labels):
    """Return the labels as one-hot rows of four."""
    return jax.nn.one_hot(labels, 4)


USES = [
    Use(
        "scale_gradient",
        optax.scale_gradient,
        (normal(3), 2.0),
        expected="wrong",
        why="the gradient is scaled on purpose; without its reference it must be red",
    ),
    Use(
        "scale_gradient, with its reference",
        lambda x: optax.scale_gradient(x, 2.0),
        (normal(3),),
        {"reference": lambda x: 2 * x - jax.lax.stop_gradient(x)},
        expected="meant to differ",
        why="multiplies the gradient by `scale`",
    ),
    Use(
        "scale_gradient by 0",
        lambda x: optax.scale_gradient(x, 0.0),
        (normal(3),),
        {"reference": jax.lax.stop_gradient},
        expected="meant to differ",
        why="stops the gradient",
    ),
    Use("projection_simplex", projection_simplex, (normal(5),)),
    Use("projection_simplex, scaled", projection_simplex, (normal(5), np.float32(2))),
    Use("projection_simplex, inside", projection_simplex, (simplex(4),)),
    Use("projection_l1_ball", projection_l1_ball, (normal(4), np.float32(1.5))),
    Use("weighted_logsoftmax", weighted_logsoftmax, (LOGITS, LABELS), plain=lambda x, w: w * log_softmax(x)),
    Use(
        "weighted_logsoftmax, some weights 0",
        weighted_logsoftmax,
        (normal(4), np.array([0, 0.5, 0, 2], np.float32)),
        plain=lambda x, w: w * log_softmax(x),
    ),
    Use(
        "safe_softmax_cross_entropy",
        optax.safe_softmax_cross_entropy,
        (LOGITS, LABELS),
        plain=lambda x, y: -jnp.sum(y * log_softmax(x), -1),
    ),
    Use(
        "safe_softmax_cross_entropy, one-hot",
        optax.safe_softmax_cross_entropy,
        (LOGITS, np.eye(4, dtype=np.float32)[CLASSES]),
        plain=lambda x, y: -jnp.sum(y * log_softmax(x), -1),
    ),
    Use(
        "safe_softmax_cross_entropy, bfloat16",
        optax.safe_softmax_cross_entropy,
        (jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(LABELS, jnp.bfloat16)),
    ),
    Use(
        "softmax_cross_entropy",
        optax.softmax_cross_entropy,
        (LOGITS, LABELS),
        plain=lambda x, y: -jnp.sum(y * log_softmax(x), -1),
    ),
    Use(
        "softmax_cross_entropy_with_integer_labels",
        optax.softmax_cross_entropy_with_integer_labels,
        (LOGITS, CLASSES),
        plain=lambda x, y: -jnp.sum(one_hot(y) * log_softmax(x), -1),
    ),
    Use(
        "sigmoid_binary_cross_entropy",
        optax.sigmoid_binary_cross_entropy,
        (LOGITS, LABELS),
        plain=lambda x, y: jnp.logaddexp(0.0, x) - x * y,
    ),
    Use("sigmoid_focal_loss", optax.sigmoid_focal_loss, (LOGITS, LABELS)),
    Use("sparsemax_loss", optax.losses.sparsemax_loss, (normal(4), np.array([0, 1, 1, 0], np.int32))),
    Use("multiclass_sparsemax_loss", optax.losses.multiclass_sparsemax_loss, (LOGITS, CLASSES)),
    Use(
        "kl_divergence",
        optax.kl_divergence,
        (np.log(simplex(3, 4)), LABELS),
        plain=lambda p, q: jnp.sum(q * (jnp.log(q) - p), -1),
    ),
    Use("convex_kl_divergence", optax.convex_kl_divergence, (np.log(simplex(3, 4)), LABELS)),
    Use("cosine_similarity", optax.cosine_similarity, (normal(2, 3), normal(2, 3, seed=1))),
    Use("huber_loss", optax.huber_loss, (3 * normal(4), normal(4, seed=1))),
    Use("log_cosh", optax.log_cosh, (normal(4), normal(4, seed=1)), plain=lambda x, y: jnp.log(jnp.cosh(x - y))),
    Use("ntxent", optax.ntxent, (normal(4, 3), np.array([0, 0, 1, 1]))),
    Use(
        "ctc_loss",
        optax.ctc_loss,
        (normal(1, 4, 3), np.zeros((1, 4), np.float32), np.array([[1, 2]]), np.zeros((1, 2), np.float32)),
        {"argnums": 0},
    ),
    Use(
        "fenchel_young_loss",
        optax.losses.make_fenchel_young_loss(jax.scipy.special.logsumexp),
        (normal(4), simplex(4)),
        plain=lambda x, y: jnp.log(jnp.sum(jnp.exp(x))) - jnp.dot(x, y),
    ),
    Use("global norm", optax.tree.norm, ({"a": normal(3), "b": positive(2)},)),
]
