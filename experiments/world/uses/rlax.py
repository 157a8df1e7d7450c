"""RLax: clipped gradients, losses, transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import rlax

from refgrad.verify import intents
from world.use import Use, normal, positive, simplex


def clipped(x):
    """Clip the gradient to [−0.5, 0.5]."""
    return rlax.clip_gradient(x, -0.5, 0.5)


Q, NEXT = normal(4), normal(4, seed=1)

USES = [
    Use(
        "clip_gradient",
        clipped,
        (3 * normal(4),),
        expected="wrong",
        why="the gradient is clipped on purpose; without its intent it must be red",
    ),
    Use(
        "clip_gradient, with its intent",
        clipped,
        (3 * normal(4),),
        {"intent": intents.clip(-0.5, 0.5)},
        expected="meant to differ",
        why="clips the gradient",
    ),
    Use(
        "huber_loss",
        rlax.huber_loss,
        (3 * normal(4),),
        plain=lambda x: jnp.where(jnp.abs(x) < 1, x * x / 2, jnp.abs(x) - 0.5),
    ),
    Use("l2_loss", rlax.l2_loss, (normal(3), normal(3, seed=1)), plain=lambda x, y: (x - y) ** 2 / 2),
    Use("log_loss", rlax.log_loss, (simplex(3), np.float32([0, 1, 1]))),
    Use("signed_hyperbolic", rlax.signed_hyperbolic, (normal(4),)),
    Use("signed_parabolic", rlax.signed_parabolic, (normal(4),)),
    Use("power transform", lambda x: rlax.power(x, 0.5), (positive(3),)),
    Use(
        "td_learning",
        rlax.td_learning,
        (np.float32(0.3), np.float32(1), np.float32(0.9), np.float32(0.7)),
        plain=lambda v, r, discount, w: jax.lax.stop_gradient(r + discount * w) - v,
    ),
    Use(
        "policy_gradient_loss",
        rlax.policy_gradient_loss,
        (normal(3, 4), np.array([0, 2, 1]), normal(3, seed=1), positive(3)),
        why="the advantages are held constant by stop_gradient, which differences do not see",
    ),
    Use("entropy_loss", rlax.entropy_loss, (normal(3, 4), positive(3))),
    Use("lambda_returns", rlax.lambda_returns, (normal(3), positive(3) / 2, normal(3, seed=1), np.float32(0.9))),
    Use(
        "double_q_learning",
        lambda q, n: rlax.double_q_learning(q, 1, 0.5, 0.9, n, n),
        (Q, NEXT),
        why="the target is held constant by stop_gradient, which differences do not see",
    ),
    Use(
        "categorical_cross_entropy",
        rlax.categorical_cross_entropy,
        (simplex(4), normal(4)),
        plain=lambda p, x: jnp.dot(p / jnp.sum(p), jnp.log(jnp.sum(jnp.exp(x))) - x),
    ),
    Use("softmax entropy", lambda x: rlax.softmax(0.5).entropy(x), (normal(4),)),
]
