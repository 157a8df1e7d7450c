"""An optax transformation as one function: gradients, state and parameters → new parameters and state."""

from typing import Any, NamedTuple

import jax

from refgrad.models.gpt2 import Params

try:
    import optax
except ImportError as error:
    raise ImportError("refgrad.train needs optax: pip install 'refgrad[train]'") from error


class State(NamedTuple):
    """What training carries from step to step: the parameters and the transformation's own state."""

    params: Params
    opt_state: Any


def check_transformation(tx: Any) -> None:
    """Raises TypeError where `tx` is no optax transformation, a pair of `init` and `update`."""
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise TypeError(f"tx is {tx!r}, but must be an optax transformation, such as optax.adamw(1e-4)")


def init_state(params: Params, tx: optax.GradientTransformation) -> State:
    """The state before the first step. Raises TypeError where `tx` is no optax transformation."""
    check_transformation(tx)
    with jax.numpy_dtype_promotion("standard"):
        return State(params, tx.init(params))


def update(tx: optax.GradientTransformation, grads: Params, state: State) -> State:
    """`state` after one update of every parameter.

    Traced under standard promotion, since most of optax mixes a Python-typed count with float32.
    """
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state)
