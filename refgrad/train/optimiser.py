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


__all__ = ["State", "decay_mask", "init_state"]

# How Python, and optax itself, say that `update` was called without something that it needs.
MORE = re.compile(r"required keyword-only argument|must be provided to")


class State(NamedTuple):
    """The state of training.

    Attributes:
        params: The parameters.
        opt_state: The transformation's own state.

    Example:
        >>> import jax
        >>> import optax
        >>> from refgrad.models import gpt2
        >>> from refgrad.train.optimiser import init_state
        >>> state = init_state(gpt2.init(jax.random.key(0), gpt2.Config()), optax.sgd(0.1))
        >>> sorted(state.params)
        ['h', 'ln_f', 'wpe', 'wte']
    """

    params: Params
    opt_state: Any


def check_transformation(tx: Any) -> None:
    """Raise TypeError unless `tx` is an optax transformation, a pair of `init` and `update`."""
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise TypeError(f"tx is {tx!r}, but must be an optax transformation, such as optax.adamw(1e-4)")


def init_state(params: Params, tx: optax.GradientTransformation) -> State:
    """Return the state before the first step.

    A step donates every leaf, so that no two may share memory: parameters that `tx` keeps are copied.

    Args:
        params: The parameters, layers as a list or stacked.
        tx: An optax transformation.

    Returns:
        The state.

    Raises:
        TypeError: `tx` is not an optax transformation.

    Example:
        >>> import jax
        >>> import optax
        >>> from refgrad.models import gpt2
        >>> from refgrad.train.optimiser import init_state
        >>> state = init_state(gpt2.init(jax.random.key(0), gpt2.Config()), optax.adam(1e-3))
        >>> state.opt_state[0].mu["wte"]["weight"].shape
        (256, 32)
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
    """Return the state after one update of every parameter.

    It is traced under standard promotion, since most of optax mixes a Python-typed count with float32.

    Args:
        tx: An optax transformation.
        grads: Gradients, a tree like the parameters.
        state: The state before the update.

    Raises:
        ValueError: The transformation asks for more than gradients, state and parameters, such as the loss, or the
            function of a line search.
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
    """Return optax's `mask` for weight decay: True for weights, False for biases and the gains of norms.

    It goes by names, so that it is the same for stacked layers, whose biases have two axes.

    Args:
        params: The parameters, layers as a list or stacked.

    Returns:
        A tree of booleans like the parameters.

    Example:
        >>> from refgrad.models import gpt2
        >>> from refgrad.train.optimiser import decay_mask
        >>> mask = decay_mask(gpt2.shapes(gpt2.Config()))
        >>> mask["wte"]["weight"], mask["ln_f"]["weight"]
        (True, False)
    """

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = path_name(path)
        return name.endswith(".weight") and not name.split(".")[-2].startswith("ln_")

    return jax.tree_util.tree_map_with_path(decays, params)


def adamw(train: Train) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return AdamW with weight decay of matrices alone, and its learning rate by step: warm-up, then half a cosine.

    With n the step from 0, w the steps of warm-up, N all steps, r the highest rate and f its final share:
    r (1 + n (w − 1)/w)/w for n < w, so that no step is lost, then r (f + (1 − f) (1 + cos(π (n − w)/(N − w)))/2).
    """
    rate = train.learning_rate
    start = rate / max(train.warmup, 1)
    schedule = optax.warmup_cosine_decay_schedule(start, rate, train.warmup, train.steps, rate * train.final_rate)
    tx = optax.adamw(
        schedule,
        train.beta1,
        train.beta2,
        train.epsilon,
        weight_decay=train.weight_decay,
        mask=decay_mask,
    )
    return tx, schedule
