"""One training step of GPT-2: gradients by the derived rules, any optax transformation, the state donated."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models import gpt2
from refgrad.ops import operations
from refgrad.train import inside, scanned
from refgrad.train.optimiser import State, check_transformation, update
from refgrad.train.separate import separate
from refgrad.train.walk import Pieces, cast

MEMORY = ("plain", "fast", "small")
WAY_OUT = "take memory='plain'"


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

    `rules` as in `gpt2.loss`. `memory` is "plain", all gradients and then the update; "fast", the update inside the
    backward pass, a layer's gradients dying as soon as its parameters are updated; or "small", the same with blocks
    recomputed. `scan` walks the layers by `lax.scan`, stacked or (plain) a list; `remat` recomputes blocks
    in a plain step. `compute_dtype` casts the parameters for the forward and backward pass, such as `jnp.bfloat16`;
    parameters and update keep the state's dtype.

    Raises TypeError where `tx` is no optax transformation or `compute_dtype` is not floating, and ValueError for
    unknown names. The step raises ValueError before it is compiled: for a state that is not this config's, an empty
    batch, and, where the update is inside, a transformation that mixes gradients, naming the leaves and the way out.
    """
    check_transformation(tx)
    operations(rules)
    if memory not in MEMORY:
        raise ValueError(f"memory is {memory!r}, but must be one of {', '.join(map(repr, MEMORY))}")
    if remat and memory != "plain":
        raise ValueError(f"remat is for memory='plain', but memory is {memory!r}: 'small' recomputes blocks")
    if compute_dtype is not None and not jnp.issubdtype(compute_dtype, jnp.floating):
        raise TypeError(f"compute_dtype is {compute_dtype!r}, but must be a floating dtype, such as jnp.bfloat16")
    pieces = Pieces(config, rules, memory == "small", compute_dtype)

    def step(state: State, tokens: Array, targets: Array) -> tuple[State, Array]:
        check(state, tokens, targets, config, tx)
        if memory == "plain":
            return _plain(config, tx, rules, scan, remat, compute_dtype, state, tokens, targets)
        if scan:
            return scanned.step(pieces, scanned.layerwise(tx, state, WAY_OUT), state, tokens, targets)
        return inside.step(pieces, separate(tx, state, WAY_OUT), state, tokens, targets)

    options = scanned.CPU_OPTIONS if scan and jax.default_backend() == "cpu" else None
    return jax.jit(step, donate_argnums=0, compiler_options=options)


def _plain(config, tx, rules, scan, remat, dtype, state, tokens, targets) -> tuple[State, Array]:
    """All gradients, then the update."""

    def loss(params: gpt2.Params) -> Array:
        return gpt2.loss(cast(params, dtype), tokens, targets, config, rules, scan, remat)

    value, grads = jax.value_and_grad(loss)(state.params)
    with jax.named_scope("update"):
        return update(tx, grads, state), value


def check(state: State, tokens: Array, targets: Array, config: gpt2.Config, tx: Any) -> None:
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
