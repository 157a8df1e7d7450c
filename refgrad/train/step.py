"""One training step of GPT-2: gradients by the derived rules, any optax transformation, the state donated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models import gpt2
from refgrad.ops import operations
from refgrad.train.optimiser import State, check_transformation, update

MEMORY = ("plain",)


def make_step(
    config: gpt2.Config,
    tx: Any,
    *,
    rules: str = "document",
    memory: str = "plain",
    scan: bool = False,
    remat: bool = False,
    compute_dtype: Any = None,
) -> Callable[[State, Array, Array], tuple[State, Array]]:
    """A jitted step: (state, tokens (b, s), targets (b, s)) → (new state, loss before the step); state is donated.

    `rules` as in `gpt2.loss`; `scan` walks the layers by `lax.scan` (the state's layers may be stacked or a list),
    `remat` recomputes blocks. `compute_dtype` casts the parameters for the forward and backward pass, such as
    `jnp.bfloat16`; parameters, gradients' sums and the update keep the state's dtype.

    Raises TypeError where `tx` is no optax transformation or `compute_dtype` is not floating, and ValueError for
    unknown names; the step itself, before it is compiled, for a state that is not this config's and an empty batch.
    """
    check_transformation(tx)
    operations(rules)
    if memory not in MEMORY:
        raise ValueError(f"memory is {memory!r}, but must be one of {', '.join(map(repr, MEMORY))}")
    if compute_dtype is not None and not jnp.issubdtype(compute_dtype, jnp.floating):
        raise TypeError(f"compute_dtype is {compute_dtype!r}, but must be a floating dtype, such as jnp.bfloat16")

    def loss(params: gpt2.Params, tokens: Array, targets: Array) -> Array:
        return gpt2.loss(cast(params, compute_dtype), tokens, targets, config, rules, scan, remat)

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, tokens: Array, targets: Array) -> tuple[State, Array]:
        check(state, tokens, config, tx)
        value, grads = jax.value_and_grad(loss)(state.params, tokens, targets)
        with jax.named_scope("update"):
            return update(tx, grads, state), value

    return step


def cast(params: gpt2.Params, dtype: Any) -> gpt2.Params:
    """The parameters in `dtype`, as they are where it is None. Its transpose casts the gradients back."""
    return params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def check(state: State, tokens: Array, config: gpt2.Config, tx: Any) -> None:
    """Raises ValueError where the batch is empty or the optimiser's state is not what `tx` makes of the parameters."""
    if not jnp.size(tokens):
        raise ValueError(f"tokens has shape {jnp.shape(tokens)}, but a mean loss needs one token at least")
    expected = jax.eval_shape(tx.init, state.params)
    same = jax.tree.structure(expected) == jax.tree.structure(state.opt_state) and all(
        one.shape == jnp.shape(other)
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(state.opt_state), strict=True)
    )
    if not same:
        raise ValueError("state.opt_state is not what tx.init makes of state.params: make it by init_state(params, tx)")
