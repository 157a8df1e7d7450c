"""One training step of GPT-2: gradients by the derived rules, any optax transformation, the state donated."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, Mesh

from refgrad.models import gpt2
from refgrad.models.inputs import check_ids, check_params
from refgrad.train.mesh import model
from refgrad.train.mesh.sharding import shardings
from refgrad.train.optimiser import State, check_transformation, init_state, update
from refgrad.train.settings import StepOptions
from refgrad.train.update_in_backward import scanned, unrolled
from refgrad.train.update_in_backward.clip import scaled, squares
from refgrad.train.update_in_backward.layers import LayerVJPs, cast
from refgrad.train.update_in_backward.measures import Measures, measures, squares_by_leaf, unless_finite
from refgrad.train.update_in_backward.per_leaf import per_leaf_update
from refgrad.train.update_in_backward.scanned import layerwise_update

__all__ = ["make_step"]

WAY_OUT = "take memory='plain', or clip_norm=… in place of optax.clip_by_global_norm"
Step = Callable[[State, Array, Array], tuple[State, Any]]
Gradients = Callable[[gpt2.Params, Array, Array], tuple[Array, gpt2.Params]]


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
) -> Step:
    """Return a jitted step: (state, tokens (b, s), targets (b, s)) → (new state, loss before the step).

    The state is donated. A step on a mesh takes a global state and batch, sharded by `mesh/sharding.py`; its
    collectives are written out in `mesh/model.py`.

    Args:
        config: The model's sizes.
        tx: An optax transformation.
        rules: The rules of the backward pass, as in `gpt2.loss`.
        memory: "plain" makes all gradients and then the update. "fast" updates inside the backward pass: a layer's
            gradients die as soon as its parameters are updated. "small" does the same, recomputes blocks and, by fused
            rules, computes the head in chunks of the vocabulary.
        scan: Walk stacked layers by `lax.scan`; otherwise layers are a list.
        remat: Recompute the blocks of a plain step.
        compute_dtype: Cast the parameters to this dtype for the forward and backward pass, such as `jnp.bfloat16`;
            parameters and update keep the state's dtype.
        clip_norm: Clip all gradients by their global norm before `tx`. With the update inside, this takes two backward
            passes (`update_in_backward/clip.py`).
        accumulate: Average the gradients of this many parts of the batch, one after another, before the update of a
            plain step: the same loss and gradients to rounding, with the memory of one part.
        measured: Return `Measures` instead of the loss. A step whose loss or norm is not finite then leaves the state
            as it was; with the update inside and no clipping, the norm is known too late for that.
        mesh: The mesh of a plain step on many devices, made by `mesh.devices.make`.

    Returns:
        The step. Before it is compiled, it raises ValueError for a state that does not belong to this config, for an
        empty batch and, with the update inside, for a transformation that mixes gradients; the message names the
        leaves and the way out.

    Raises:
        TypeError: `tx` is not an optax transformation, or `compute_dtype` is not a floating dtype.
        ValueError: An option is unknown, out of bounds, or does not fit another.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from refgrad.models import gpt2
        >>> from refgrad.train.optimiser import init_state
        >>> from refgrad.train.step import make_step
        >>> config, tx = gpt2.Config(n_layer=1, n_embd=4, n_head=2, n_positions=4, vocab_size=8), optax.sgd(0.1)
        >>> step = make_step(config, tx, memory="fast")
        >>> ids = jnp.array([[1, 2, 3]])
        >>> state, first = step(init_state(gpt2.init(jax.random.key(0), config), tx), ids[:, :-1], ids[:, 1:])
        >>> state, second = step(state, ids[:, :-1], ids[:, 1:])
        >>> bool(second < first)
        True
    """
    check_transformation(tx)
    options = StepOptions(rules, memory, scan, remat, compute_dtype, clip_norm, accumulate)
    if mesh is not None:
        options.check_mesh()
    make = _plain_step if memory == "plain" else _step_in_backward
    unchecked = make(config, tx, options, measured, mesh)

    def step(state: State, tokens: Array, targets: Array) -> tuple[State, Any]:
        check(state, tokens, targets, config, tx, scan)
        if jnp.shape(tokens)[0] % accumulate:
            raise ValueError(f"tokens has {jnp.shape(tokens)[0]} rows, which accumulate = {accumulate} does not divide")
        return unchecked(state, tokens, targets)

    compiler_options = scanned.CPU_OPTIONS if scan and jax.default_backend() == "cpu" else None
    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options)


def _plain_step(config: gpt2.Config, tx: Any, options: StepOptions, measured: bool, mesh: Mesh | None) -> Step:
    """Return a step that makes all gradients, then the update."""
    gradients = _gradients(config, options, mesh)
    if options.accumulate > 1:
        gradients = partial(averaged, gradients, parts=options.accumulate)

    def step(state: State, tokens: Array, targets: Array) -> tuple[State, Array | Measures]:
        value, grads = gradients(state.params, tokens, targets)
        result = measures(value, squares_by_leaf(grads)) if measured else value
        if options.clip_norm is not None:
            grads = scaled(grads, jnp.sqrt(squares(grads)), options.clip_norm)
        with jax.named_scope("update"):
            new = update(tx, grads, state)
        if isinstance(result, Measures):
            new = unless_finite(result.loss + result.norm)(new, state)
        if mesh is not None and AxisType.Auto in mesh.axis_types:  # explicit axes are part of the types
            new = jax.lax.with_sharding_constraint(new, shardings(new, mesh))
        return new, result

    return step


def _gradients(config: gpt2.Config, options: StepOptions, mesh: Mesh | None) -> Gradients:
    """Return the loss and its gradients as a function of parameters, tokens and targets."""
    rules, remat, dtype = options.rules, options.remat, options.compute_dtype
    if mesh is not None:
        return model.value_and_grad(config, mesh, rules=rules, remat=remat, compute_dtype=dtype)

    def loss(params: gpt2.Params, tokens: Array, targets: Array) -> Array:
        return gpt2.loss(cast(params, dtype), tokens, targets, config, rules, options.scan, remat)

    return jax.value_and_grad(loss)


def _step_in_backward(config: gpt2.Config, tx: Any, options: StepOptions, measured: bool, mesh: Mesh | None) -> Step:
    """Return a step that updates each layer in the backward pass; `mesh` is None (`StepOptions.check_mesh`)."""
    vjps = LayerVJPs(config, options.rules, options.memory == "small", options.compute_dtype)

    def step(state: State, tokens: Array, targets: Array) -> tuple[State, Array | Measures]:
        if options.scan:
            sliced = layerwise_update(tx, state, WAY_OUT)
            return scanned.step(vjps, sliced, options.clip_norm, measured, state, tokens, targets)
        whole = per_leaf_update(tx, state, WAY_OUT)
        return unrolled.step(vjps, whole, options.clip_norm, measured, state, tokens, targets)

    return step


def averaged(
    gradients: Gradients,
    params: gpt2.Params,
    tokens: Array,
    targets: Array,
    parts: int,
) -> tuple[Array, gpt2.Params]:
    """Return the loss and gradients of the whole batch as means over `parts` of equal size, one after another.

    Row r belongs to part r mod `parts`, so that a batch that is divided over devices by rows needs no exchange.
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
    """Raise ValueError or TypeError unless state, batch, config and transformation fit together.

    Args:
        state: Parameters of this config, and the state that `tx.init` makes of them.
        tokens: Ids (b, s), at least one.
        targets: Ids of the same shape.
        config: The model's sizes.
        tx: The transformation that the state was made with.
        scan: True for stacked layers, False for a list of them.
    """
    check_params(state.params, gpt2.shapes(config))
    check_ids("tokens", tokens, config.vocab_size, config.n_positions)
    check_ids("targets", targets, config.vocab_size, config.n_positions)
    if not jnp.size(tokens):
        raise ValueError(f"tokens has shape {jnp.shape(tokens)}, but a mean loss needs at least one token")
    if jnp.shape(targets) != jnp.shape(tokens):
        raise ValueError(f"targets has shape {jnp.shape(targets)}, but tokens has {jnp.shape(tokens)}: one per token")
    if scan != isinstance(state.params["h"], Mapping):
        stacked, needs = ("a list of", "stack") if scan else ("stacked", "unstack")
        raise ValueError(f"state.params has {stacked} layers, but scan is {scan}: make them by gpt2.{needs}")
    expected = jax.eval_shape(partial(init_state, tx=tx), state.params).opt_state
    same = jax.tree.structure(expected) == jax.tree.structure(state.opt_state) and all(
        leaf.shape == jnp.shape(given)
        for leaf, given in zip(jax.tree.leaves(expected), jax.tree.leaves(state.opt_state), strict=True)
    )
    if not same:
        raise ValueError("state.opt_state is not what tx.init makes of state.params: make it by init_state(params, tx)")
