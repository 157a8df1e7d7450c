"""An optax transformation as one function: gradients, state and parameters → new parameters and state."""

import re
from typing import Any, NamedTuple

import jax

from refgrad._extras import install
from refgrad.models.gpt2 import Params
from refgrad.models.inputs import path_name
from refgrad.train.settings import Train

try:
    import optax
except ImportError as error:
    raise ImportError(f"refgrad.train needs optax: {install('train')}") from error


# How Python, and optax itself, say that `update` was called without something that it needs.
MORE = re.compile(r"required keyword-only argument|must be provided to")


class State(NamedTuple):
    """What training carries from step to step: the parameters and the transformation's own state."""

    params: Params
    opt_state: Any


def check_transformation(tx: Any) -> None:
    """Raises TypeError where `tx` is no optax transformation, a pair of `init` and `update`."""
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise TypeError(f"tx is {tx!r}, but must be an optax transformation, such as optax.adamw(1e-4)")


def init_state(params: Params, tx: optax.GradientTransformation) -> State:
    """The state before the first step. Raises TypeError where `tx` is no optax transformation.

    No two of its leaves share memory, since a step donates each: what `tx` keeps of the parameters is a copy.
    """
    check_transformation(tx)
    with jax.numpy_dtype_promotion("standard"):
        opt_state = tx.init(params)
    seen = {id(leaf) for leaf in jax.tree.leaves(params)}

    def own(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and id(leaf) in seen:
            return leaf.copy()
        seen.add(id(leaf))
        return leaf

    return State(params, jax.tree.map(own, opt_state))


def update(tx: optax.GradientTransformation, grads: Params, state: State) -> State:
    """`state` after one update of every parameter.

    Traced under standard promotion, since most of optax mixes a Python-typed count with float32. Raises ValueError for
    a transformation that asks for more than gradients, state and parameters, such as the loss or a line search's
    function.
    """
    with jax.numpy_dtype_promotion("standard"):
        try:
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        except (TypeError, ValueError) as error:
            if not MORE.search(str(error)):
                raise
            raise ValueError(
                f"tx asks for more than gradients, state and parameters ({error}), which a training step does not "
                "give: take a transformation without it, or write the step with jax.value_and_grad(gpt2.loss)"
            ) from error
        params: Any = optax.apply_updates(state.params, updates)
        return State(params, opt_state)


def decay_mask(params: Params) -> Params:
    """Which leaves weight decay is for, as optax's `mask`: weights, but no biases and no gains of norms.

    By name, so that it is the same for stacked layers, whose biases have two axes.
    """

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = path_name(path)
        return name.endswith(".weight") and not name.split(".")[-2].startswith("ln_")

    return jax.tree_util.tree_map_with_path(decays, params)


def adamw(settings: Train) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """(AdamW with decay of matrices alone, its learning rate by step): linear warm-up, then half a cosine.

    With n the step from 0, w of warm-up and N in all, r the highest rate and f its final share:
    r (1 + n (w − 1)/w)/w for n < w, so that no step is lost, then r (f + (1 − f) (1 + cos(π (n − w)/(N − w)))/2).
    """
    rate = settings.learning_rate
    start = rate / max(settings.warmup, 1)
    schedule = optax.warmup_cosine_decay_schedule(
        start, rate, settings.warmup, settings.steps, rate * settings.final_rate
    )
    tx = optax.adamw(
        schedule,
        settings.beta1,
        settings.beta2,
        settings.epsilon,
        weight_decay=settings.weight_decay,
        mask=decay_mask,
    )
    return tx, schedule
