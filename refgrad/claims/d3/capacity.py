"""D3.10: capacity by hidden units, and the L2 penalty against over-fitting, on two noisy spirals."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.claims._ledger import Case
from refgrad.claims._rows import claims
from refgrad.ops import operations

OPS = operations("derived")
UNITS = (3, 6, 20)
STRENGTHS = (1e-4, 1e-3, 1e-2)  # of the penalty, for the widest network
TRAIN, TEST, NOISE = 40, 400, 0.15
STEPS, RATE, MOMENTUM = 600, 0.3, 0.9
DRAWS = 3


def _spirals(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n points (n, 2) on two spirals with noise, and their labels."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.int32)
    turn = rng.uniform(0, 3 * np.pi, n)
    radius, angle = turn / (3 * np.pi) * 2 + 0.3, turn + np.pi * labels
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points + NOISE * rng.standard_normal((n, 2)), labels


def _loss(params: Any, used: Any, points: Any, labels: Any) -> Any:
    """Mean binary cross-entropy of W₂ tanh(W₁ x + b₁) + b₂, only the hidden units marked in `used`."""
    W1, b1, W2, b2 = params
    hidden = OPS.tanh(OPS.dense(points, W1, b1))
    logits = OPS.dense(hidden * jnp.broadcast_to(used, hidden.shape), W2, b2)[:, 0]
    return OPS.binary_cross_entropy_with_logits(logits, labels)


def _train(used: Any, strength: Any, points: Any, labels: Any) -> Any:
    """Parameters after gradient descent with momentum, by the derived rules."""

    def objective(params: Any) -> Any:
        penalty = OPS.l2_penalty(params[0], 1.0) + OPS.l2_penalty(params[2], 1.0)
        return _loss(params, used, points, labels) + strength * penalty

    def step(state: Any, _: None) -> Any:
        params, velocity = state
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, jax.grad(objective)(params))
        return (jax.tree.map(lambda p, v: p - RATE * v, params, velocity), velocity), None

    first, second = jax.random.split(jax.random.key(0))
    width = used.size
    params = [
        1.5 * jax.random.normal(first, (width, 2), points.dtype),
        jnp.zeros(width, points.dtype),
        jax.random.normal(second, (1, width), points.dtype) / width**0.5,
        jnp.zeros(1, points.dtype),
    ]
    return jax.lax.scan(step, (params, jax.tree.map(jnp.zeros_like, params)), None, length=STEPS)[0][0]


@cache
def trained() -> tuple[Case, ...]:
    """Losses on the points and on fresh ones, for every width and every strength, at each draw."""
    settings = [(units, 0.0) for units in UNITS] + [(UNITS[-1], strength) for strength in STRENGTHS]
    used = np.array([np.arange(UNITS[-1]) < units for units, _ in settings], np.float64)
    strengths = np.array([strength for _, strength in settings])

    @jax.jit
    def run(points: Any, labels: Any, fresh: Any, fresh_labels: Any) -> Any:
        def one(used: Any, strength: Any) -> Any:
            params = _train(used, strength, points, labels)
            return _loss(params, used, points, labels), _loss(params, used, fresh, fresh_labels)

        return jax.vmap(one)(used, strengths)

    found = []
    for draw in range(DRAWS):
        seen, fresh = run(*_spirals(draw, TRAIN), *_spirals(100 + draw, TEST))
        names = [f"{units}" for units in UNITS] + [f"20_L2_{strength:.0e}".replace("-0", "m") for strength in STRENGTHS]
        values = {f"seen_{name}": float(x) for name, x in zip(names, seen, strict=True)}
        values |= {f"fresh_{name}": float(x) for name, x in zip(names, fresh, strict=True)}
        found.append(Case(f"draw {draw}", values))
    return tuple(found)


CLAIMS = claims(__name__)
