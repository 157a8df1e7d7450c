"""The model split into layers with their backward rules, so that each is updated before the next is differentiated.

Forward, the stream is x_0 = embed, x_{n+1} = block(θ_n, x_n), L = head(x_N), and each piece keeps its residuals r_n.
Backward, with dx_N from the head, for n = N − 1 … 0

    dθ_n, dx_n = block's rule (r_n, dx_{n+1})        θ_n ← update(θ_n, dθ_n)

so that one layer's dθ is alive at a time. The head's own leaves are updated first, the embeddings' last, since a tied
table gets its gradient from both ends.

XLA schedules independent operations in any order, and on CPU it removes `optimization_barrier`. Each update therefore
runs inside `opaque_call`: a loop whose trip count is a 1 that only the running program knows. Nothing inside can be
hoisted, merged or fused with anything outside, so that the update reads gradients that were rounded and stored, as it
would in a second program.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from refgrad.models import gpt2
from refgrad.rule_sets import rule_set

EMBEDDINGS = ("wte", "wpe")


def cast(params: Any, dtype: Any) -> Any:
    """Return the leaves in `dtype`, or unchanged if it is None. The transpose casts the gradients back."""
    return params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def runtime_one(tokens: Array) -> Array:
    """Return a 1 that XLA cannot fold: 1 + ⌊(set bits of an id)/64⌋, and at most 32 bits are set."""
    return 1 + lax.population_count(tokens.ravel()[0].astype(jnp.int32)) // 64


def opaque_call(
    one: Array, body: Callable[[Any, Any], Any], given: Any, carry: Any, after: Any = ()
) -> tuple[Any, Any]:
    """Call `body(given, carry)` in a loop of one iteration that the compiler does not see through.

    XLA hoists out of a loop everything that the loop does not change. So `given` and `after` are carried too: the first
    elements of `given` are overwritten, those of `after` by themselves.

    Args:
        one: The trip count, a 1 that XLA cannot fold (`runtime_one`).
        body: A function that returns a tree of the carry's type.
        given: Arrays that the body alone reads.
        carry: Arrays that the body replaces.
        after: Arrays whose readers must wait for the body.

    Returns:
        The new carry, and `after` with a data dependency on the loop.
    """

    def iteration(n: Array, carried: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        given, carry, after = carried
        carry = body(given, carry)
        done = jnp.stack([leaf.ravel()[0].astype(jnp.float32) for leaf in jax.tree.leaves(carry)]).sum()
        given = jax.tree.map(lambda x: _with_first(x, lambda _: done.astype(x.dtype)), given)
        return given, carry, jax.tree.map(lambda x: _with_first(x, partial(_if, n < one)), after)

    return lax.fori_loop(0, one, iteration, (given, carry, after))[1:]


def _if(condition: Array, x: Array) -> Array:
    """Return x where the condition holds, else 0."""
    return jnp.where(condition, x, jnp.zeros_like(x))


def _with_first(x: Array, new: Callable[[Array], Array]) -> Array:
    """Return x with its first element replaced. An empty array, such as a kernel's omitted argument, is unchanged."""
    first = (0,) * x.ndim
    return x.at[first].set(new(x[first])) if x.size else x


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["places", "structure"])
@dataclasses.dataclass(frozen=True)
class BlockResiduals:
    """The residuals of a block, except the layer's own parameters, which live until they are updated anyway."""

    arrays: list[Array]
    places: tuple[int | None, ...]
    """For each leaf of the pullback, the index of the layer's parameter that it is; None for the next of `arrays`."""
    structure: Any


@dataclasses.dataclass(frozen=True)
class LayerVJPs:
    """The model's embedding, blocks and head with their backward rules, computed in `dtype`."""

    config: gpt2.Config
    rules: str
    recompute: bool
    dtype: Any

    @property
    def head_keys(self) -> tuple[str, str]:
        """The keys of the parameters that the head reads."""
        return "ln_f", "wte" if self.config.tie_word_embeddings else "lm_head"

    def embed(self, params: gpt2.Params, tokens: Array) -> tuple[Array, Callable]:
        """Return the first block's stream, and its pullback to wte and wpe."""
        read = {key: params[key] for key in EMBEDDINGS}
        x, pull = jax.vjp(lambda p: gpt2.embed(cast(p, self.dtype), tokens, self.config, self.rules), read)
        return x, lambda dx: pull(dx)[0]

    def head(self, params: gpt2.Params, x: Array, targets: Array) -> tuple[Array, gpt2.Params, Array]:
        """Return the loss of the last block's stream, its gradients with respect to the head's parameters, and dx."""
        read = {key: params[key] for key in self.head_keys}

        def loss(read: gpt2.Params, x: Array) -> Array:
            chunks = "vocabulary" if self.recompute and rule_set(self.rules).fused else "positions"
            return gpt2.head_loss(cast(read, self.dtype), x, targets, self.config, self.rules, chunks)

        value, (dread, dx) = jax.value_and_grad(loss, argnums=(0, 1))(read, x)
        return value, dread, dx

    def add(self, from_head: gpt2.Params, from_embed: gpt2.Params) -> gpt2.Params:
        """Return the gradients of all parameters but the layers'; those of a tied table from both ends are added."""
        both = from_head.keys() & from_embed.keys()
        return {
            **from_head,
            **from_embed,
            **{key: jax.tree.map(jnp.add, from_head[key], from_embed[key]) for key in both},
        }

    def only_head(self, grads: gpt2.Params) -> gpt2.Params:
        """Return the gradients that the head alone contributes to."""
        return {key: grads[key] for key in grads if key not in EMBEDDINGS}

    def only_embed(self, grads: gpt2.Params) -> gpt2.Params:
        """Return the gradients that the embeddings contribute to."""
        return {key: grads[key] for key in EMBEDDINGS}

    def block(self, layer: gpt2.Params, x: Array) -> Array:
        """Return the stream after one layer."""
        return gpt2.block(layer, x, self.config, self.rules)

    def _vjp(self, layer: gpt2.Params, x: Array) -> tuple[Array, Any]:
        return jax.vjp(self.block, layer, x)

    def keep(self, layer: gpt2.Params, x: Array) -> tuple[Array, BlockResiduals | Array]:
        """Return a block's output and its residuals, or, to recompute them, its input."""
        layer = cast(layer, self.dtype)
        if self.recompute:
            return self.block(layer, x), x
        y, pull = self._vjp(layer, x)
        leaves, structure = jax.tree.flatten(pull)
        parameters = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(layer))}
        places = tuple(parameters.get(id(leaf)) for leaf in leaves)
        return y, BlockResiduals([leaf for leaf in leaves if id(leaf) not in parameters], places, structure)

    def pull(self, layer: gpt2.Params, kept: BlockResiduals | Array, dy: Array) -> tuple[gpt2.Params, Array]:
        """Return a block's gradients with respect to its parameters, in their dtype, and to its input."""
        low = cast(layer, self.dtype)
        if isinstance(kept, BlockResiduals):
            parameters, arrays = jax.tree.leaves(low), iter(kept.arrays)
            leaves = [next(arrays) if place is None else parameters[place] for place in kept.places]
            pull = jax.tree.unflatten(kept.structure, leaves)
        else:
            _, pull = self._vjp(low, kept)
        grads, dx = pull(dy)
        return jax.tree.map(lambda g, p: g.astype(p.dtype), grads, layer), dx
