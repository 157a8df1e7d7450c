"""The backward pass walked layer by layer, each layer's gradients consumed by its update before the next are made.

Forward, the stream x_0 = embed, x_{n+1} = block(θ_n, x_n), L = head(x_N), each piece keeping its residuals r_n.
Backward, with dx_N from the head, for n = N − 1 … 0

    dθ_n, dx_n = block's rule (r_n, dx_{n+1})        θ_n ← update(θ_n, dθ_n)

so that one layer's dθ is alive at a time. The head's own leaves are consumed first; the embeddings' last, since a tied
table gets its gradient from both ends.

XLA orders as it likes what does not depend on each other, and on CPU it removes `optimization_barrier`. Each layer's
backward therefore runs inside a loop whose trip count is a 1 that only the running program knows: what is inside cannot
be hoisted, merged or fused with what is outside. Its update runs in another such loop inside, and so reads
gradients that were rounded and stored, as a second program would.
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
    """The leaves in `dtype`, as they are where it is None. Its transpose casts the gradients back."""
    return params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def runtime_one(tokens: Array) -> Array:
    """A 1 that XLA cannot know before the program runs: at most 32 of an id's bits are set, so 64 divide into them 0
    times."""
    return 1 + lax.population_count(tokens.ravel()[0].astype(jnp.int32)) // 64


def apart(one: Array, body: Callable[[Any, Any], Any], given: Any, carry: Any, after: Any = ()) -> tuple[Any, Any]:
    """`body(given, carry)`, of the carry's own type, as a loop of one iteration that the compiler does not see through,
    and `after` as it is, which whoever reads it has once the loop is done.

    What a loop does not change, XLA takes out of it, with all that is made from it alone. So `given` and `after` are
    carried too: the first elements of the one are overwritten, those of the other by themselves.
    """

    def iteration(n: Array, carried: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        given, carry, after = carried
        carry = body(given, carry)
        done = jnp.stack([leaf.ravel()[0].astype(jnp.float32) for leaf in jax.tree.leaves(carry)]).sum()
        given = jax.tree.map(lambda x: _with_first(x, lambda _: done.astype(x.dtype)), given)
        return given, carry, jax.tree.map(lambda x: _with_first(x, partial(_if, n < one)), after)

    return lax.fori_loop(0, one, iteration, (given, carry, after))[1:]


def _if(condition: Array, x: Array) -> Array:
    """`x` where the condition holds, else 0."""
    return jnp.where(condition, x, jnp.zeros_like(x))


def _with_first(x: Array, new: Callable[[Array], Array]) -> Array:
    """`x` with its first element replaced; as it is where it has none, as the arguments that a kernel was not given."""
    first = (0,) * x.ndim
    return x.at[first].set(new(x[first])) if x.size else x


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["places", "structure"])
@dataclasses.dataclass(frozen=True)
class Kept:
    """A block's residuals without the layer's own parameters, which are alive anyway until they are updated."""

    arrays: list[Array]
    places: tuple[int | None, ...]
    """For each leaf of the pullback, which parameter of the layer it is; None for an array of ours, in order."""
    structure: Any


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The model's pieces with their backward rules, parameters cast to the dtype of the computation."""

    config: gpt2.Config
    rules: str
    recompute: bool
    dtype: Any

    @property
    def head_keys(self) -> tuple[str, str]:
        """What the head reads of the parameters."""
        return "ln_f", "wte" if self.config.tie_word_embeddings else "lm_head"

    def embed(self, params: gpt2.Params, tokens: Array) -> tuple[Array, Callable]:
        """The first block's stream, and its pullback to wte and wpe."""
        read = {key: params[key] for key in EMBEDDINGS}
        x, pull = jax.vjp(lambda p: gpt2.embed(cast(p, self.dtype), tokens, self.config, self.rules), read)
        return x, lambda dx: pull(dx)[0]

    def head(self, params: gpt2.Params, x: Array, targets: Array) -> tuple[Array, gpt2.Params, Array]:
        """The loss of the last block's stream, and its gradients by what the head reads and by the stream."""
        read = {key: params[key] for key in self.head_keys}

        def loss(read: gpt2.Params, x: Array) -> Array:
            chunks = "vocabulary" if self.recompute and rule_set(self.rules).fused else "positions"
            return gpt2.head_loss(cast(read, self.dtype), x, targets, self.config, self.rules, chunks)

        value, (dread, dx) = jax.value_and_grad(loss, argnums=(0, 1))(read, x)
        return value, dread, dx

    def add(self, from_head: gpt2.Params, from_embed: gpt2.Params) -> gpt2.Params:
        """The gradients of all but the layers: a tied table has one from each end."""
        both = from_head.keys() & from_embed.keys()
        return {
            **from_head,
            **from_embed,
            **{key: jax.tree.map(jnp.add, from_head[key], from_embed[key]) for key in both},
        }

    def only_head(self, grads: gpt2.Params) -> gpt2.Params:
        """Those that the head alone makes."""
        return {key: grads[key] for key in grads if key not in EMBEDDINGS}

    def only_embed(self, grads: gpt2.Params) -> gpt2.Params:
        """Those that the embeddings make, or help to make."""
        return {key: grads[key] for key in EMBEDDINGS}

    def block(self, layer: gpt2.Params, x: Array) -> Array:
        """One layer of the stream."""
        return gpt2.block(layer, x, self.config, self.rules)

    def _vjp(self, layer: gpt2.Params, x: Array) -> tuple[Array, Any]:
        return jax.vjp(self.block, layer, x)

    def keep(self, layer: gpt2.Params, x: Array) -> tuple[Array, Kept | Array]:
        """A block's output, and what its backward pass needs: its residuals, or its input alone to recompute them."""
        layer = cast(layer, self.dtype)
        if self.recompute:
            return self.block(layer, x), x
        y, pull = self._vjp(layer, x)
        leaves, structure = jax.tree.flatten(pull)
        own = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(layer))}
        places = tuple(own.get(id(leaf)) for leaf in leaves)
        return y, Kept([leaf for leaf in leaves if id(leaf) not in own], places, structure)

    def pull(self, layer: gpt2.Params, kept: Kept | Array, dy: Array) -> tuple[gpt2.Params, Array]:
        """A block's gradients by its parameters, in their dtype, and by its input."""
        low = cast(layer, self.dtype)
        if isinstance(kept, Kept):
            own, arrays = jax.tree.leaves(low), iter(kept.arrays)
            leaves = [next(arrays) if place is None else own[place] for place in kept.places]
            pull = jax.tree.unflatten(kept.structure, leaves)
        else:
            _, pull = self._vjp(low, kept)
        grads, dx = pull(dy)
        return jax.tree.map(lambda g, p: g.astype(p.dtype), grads, layer), dx
