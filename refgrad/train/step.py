"""One training step of GPT-2: gradients by the derived rules, any optax transformation, the state donated."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, Mesh

from refgrad.models import gpt2
from refgrad.models._inputs import check_ids, check_params
from refgrad.ops import operations
from refgrad.train import inside, parallel, scanned
from refgrad.train.clip import scaled, squares
from refgrad.train.measures import Measures, measures, squares_by_leaf, unless_finite
from refgrad.train.optimiser import State, check_transformation, init_state, update
from refgrad.train.separate import separate
from refgrad.train.settings import MEMORY
from refgrad.train.sharding import shardings
from refgrad.train.walk import Pieces, cast

WAY_OUT = "take memory='plain', or clip_norm=… in place of optax.clip_by_global_norm"


def make_step(
    config: gpt2.Config,
    tx: Any,
    *,
    rules: str = "derived",
    memory: str = "plain",
    scan: bool = False,
    remat: bool = False,
    compute_dtype: Any = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    measured: bool = False,
    mesh: Mesh | None = None,
) -> Callable[[State, Array, Array], tuple[State, Any]]:
    """A jitted step: (state, tokens (b, s), targets (b, s)) → (new state, loss before the step); state is donated.

    `rules` as in `gpt2.loss`. `memory` is "plain", all gradients and then the update; "fast", the update inside the
    backward pass, a layer's gradients dying as soon as its parameters are updated; or "small", the same with blocks
    recomputed and, by fused rules, the head in chunks of the vocabulary. `scan` walks stacked layers by `lax.scan`,
    else they are a list; `remat` recomputes blocks in a plain step. `compute_dtype` casts the parameters for the
    forward and backward pass, such as `jnp.bfloat16`; parameters and update keep the state's dtype. `clip_norm` clips
    all gradients by their global norm before `tx`; with the update inside that takes two backward passes (`clip.py`).
    `accumulate` divides the batch into so many parts, one after another, whose gradients are averaged before the one
    update of a plain step: the same loss and gradients to rounding, with the memory of one part.

    On a `mesh` (`devices.make`) the state and the batch are global arrays, sharded by `sharding.py`, and what devices
    exchange is written out in `parallel.py`; that is for a plain step.

    With `measured` the step returns `Measures` in place of the loss, and leaves the state as it was where the loss, or
    the norm where it is known before the update (not with the update inside and no clipping), is not finite.

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
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm is {clip_norm}, but must be above 0, or None for no clipping")
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}, but must be at least 1")
    if accumulate > 1 and memory != "plain":
        raise ValueError(
            f"accumulate is {accumulate}, but memory is {memory!r}, which updates a layer before the next part's "
            "gradients exist: take memory='plain' or accumulate=1"
        )
    if mesh is not None and memory != "plain":
        raise ValueError(
            f"memory is {memory!r}, whose update inside the backward pass is for one device: take memory='plain' on a "
            "mesh, whose fsdp axis divides parameters, gradients and the optimiser's state"
        )
    pieces = Pieces(config, rules, memory == "small", compute_dtype)
    divided = {"rules": rules, "remat": remat, "compute_dtype": compute_dtype}

    def gradients(params: gpt2.Params, tokens: Array, targets: Array) -> tuple[Array, gpt2.Params]:
        if mesh is not None:
            return parallel.value_and_grad(config, mesh, **divided)(params, tokens, targets)

        def loss(params: gpt2.Params) -> Array:
            return gpt2.loss(cast(params, compute_dtype), tokens, targets, config, rules, scan, remat)

        return jax.value_and_grad(loss)(params)

    def plain(state: State, tokens: Array, targets: Array) -> tuple[State, Array | Measures]:
        if accumulate == 1:
            value, grads = gradients(state.params, tokens, targets)
        else:
            value, grads = averaged(gradients, state.params, tokens, targets, accumulate)
        found = measures(value, squares_by_leaf(grads)) if measured else value
        if clip_norm is not None:
            grads = scaled(grads, jnp.sqrt(squares(grads)), clip_norm)
        with jax.named_scope("update"):
            new = update(tx, grads, state)
        if isinstance(found, Measures):
            new = unless_finite(found.loss + found.norm)(new, state)
        if mesh is not None and AxisType.Auto in mesh.axis_types:  # explicit axes are part of the types
            new = jax.lax.with_sharding_constraint(new, shardings(new, mesh))
        return new, found

    def step(state: State, tokens: Array, targets: Array) -> tuple[State, Array | Measures]:
        check(state, tokens, targets, config, tx, scan)
        if jnp.shape(tokens)[0] % accumulate:
            raise ValueError(f"tokens has {jnp.shape(tokens)[0]} rows, which accumulate = {accumulate} does not divide")
        if memory == "plain":
            return plain(state, tokens, targets)
        how: Any = (clip_norm, measured, state, tokens, targets)
        if scan:
            return scanned.step(pieces, scanned.layerwise(tx, state, WAY_OUT), *how)
        return inside.step(pieces, separate(tx, state, WAY_OUT), *how)

    options = scanned.CPU_OPTIONS if scan and jax.default_backend() == "cpu" else None
    return jax.jit(step, donate_argnums=0, compiler_options=options)


def averaged(
    gradients: Callable[[gpt2.Params, Array, Array], tuple[Array, gpt2.Params]],
    params: gpt2.Params,
    tokens: Array,
    targets: Array,
    parts: int,
) -> tuple[Array, gpt2.Params]:
    """Loss and gradients of the whole batch as means over `parts` of it of one size, one after another.

    Row r belongs to part r mod `parts`: a batch that is divided over devices by rows needs no exchange.
    """

    def divided(ids: Array) -> Array:
        return ids.reshape(-1, parts, ids.shape[-1]).swapaxes(0, 1)  # (parts, b/parts, s)

    def add(total: Any, batch: tuple[Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients(params, *batch)), None

    shapes = jax.eval_shape(gradients, params, tokens, targets)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (divided(tokens), divided(targets)))
    return jax.tree.map(lambda x: x / parts, total)


def check(state: State, tokens: Array, targets: Array, config: gpt2.Config, tx: Any, scan: bool) -> None:
    """Raises ValueError or TypeError where the batch is empty or no batch of this config's, where the parameters are
    not this config's, or where the optimiser's state is not what `tx` makes of them."""
    check_params(state.params, gpt2.shapes(config))
    check_ids("tokens", tokens, config.vocab_size, config.n_positions)
    check_ids("targets", targets, config.vocab_size, config.n_positions)
    if not jnp.size(tokens):
        raise ValueError(f"tokens has shape {jnp.shape(tokens)}, but a mean loss needs one token at least")
    if jnp.shape(targets) != jnp.shape(tokens):
        raise ValueError(f"targets has shape {jnp.shape(targets)}, but tokens has {jnp.shape(tokens)}: one a token")
    if scan != isinstance(state.params["h"], Mapping):
        stacked, needs = ("a list of", "stack") if scan else ("stacked", "unstack")
        raise ValueError(f"state.params has {stacked} layers, but scan is {scan}: make them by gpt2.{needs}")
    expected = jax.eval_shape(partial(init_state, tx=tx), state.params).opt_state
    same = jax.tree.structure(expected) == jax.tree.structure(state.opt_state) and all(
        one.shape == jnp.shape(other)
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(state.opt_state), strict=True)
    )
    if not same:
        raise ValueError("state.opt_state is not what tx.init makes of state.params: make it by init_state(params, tx)")
