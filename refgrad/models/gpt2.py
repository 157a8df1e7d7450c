"""GPT-2 as pure functions: biases, learned positions, norm before each module, tied head, tanh-GELU.

Parameters are a tree whose paths are the checkpoint's names ("h.0.attn.c_attn.weight"), weights stored in × out. Under
"h" stands a list with one tree a layer, or one tree of arrays stacked over the layers, as `stack` makes it.

Source: D2, "Model Architecture Overview"; names, initial values and the tied head are GPT-2's.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad._text import nearest
from refgrad.models.composition import block_sizes, composition
from refgrad.models.inputs import check_ids, check_params
from refgrad.ops import operations

__all__ = ["SIZES", "Config", "abstract_loss", "init", "logits", "loss", "shapes", "stack", "unstack"]

Params = dict[str, Any]
Ids = Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of a GPT-2, by the checkpoint's names; the defaults are those of the embedded tiny one.

    Raises ValueError or TypeError for sizes that no model can have.

    Attributes:
      n_layer: n_L, the number of layers.
      n_head: n_h, the number of heads.
      n_embd: h, the width.
      n_positions: the longest sequence.
      vocab_size: V.
      layer_norm_epsilon: ε of the layer norms.
      tie_word_embeddings: True where the head is the token embedding.

    Example:
      >>> from refgrad.models import gpt2
      >>> gpt2.Config(n_layer=12, n_head=12, n_embd=768, n_positions=1024, vocab_size=50257).parameters
      124439808
    """

    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 32
    n_positions: int = 64
    vocab_size: int = 256
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for field in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field} is {value!r}, but must be an integer")
            if value < 1:
                raise ValueError(f"{field} is {value}, but must be at least 1")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd is {self.n_embd}, which n_head = {self.n_head} does not divide: the heads share its columns"
            )
        if isinstance(self.layer_norm_epsilon, bool) or not isinstance(self.layer_norm_epsilon, int | float):
            raise TypeError(f"layer_norm_epsilon is {self.layer_norm_epsilon!r}, but must be a number")
        if not 0 < self.layer_norm_epsilon < 1:
            raise ValueError(f"layer_norm_epsilon is {self.layer_norm_epsilon}, but must lie between 0 and 1")
        if not isinstance(self.tie_word_embeddings, bool):
            raise TypeError(f"tie_word_embeddings is {self.tie_word_embeddings!r}, but must be true or false")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Config":
        """The config with these values, the rest as in the tiny one.

        Raises ValueError for a key that it does not have, naming the nearest.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(f"{key} = {values[key]!r} is not a key of the model's config: {nearest(key, known)}")
        return cls(**values)

    def dims(self, batch: int, sequence: int) -> dict[str, int]:
        """The documents' symbols at this model's sizes, by name."""
        h, n_h = self.n_embd, self.n_head
        return {"b": batch, "s": sequence, "h": h, "n_h": n_h, "d": h // n_h, "V": self.vocab_size, "n_L": self.n_layer}

    @property
    def parameters(self) -> int:
        """Number of parameters, by formula, so that it takes no time at any size."""
        h, tables = self.n_embd, self.vocab_size * (1 if self.tie_word_embeddings else 2) + self.n_positions
        return tables * h + self.n_layer * (12 * h * h + 13 * h) + 2 * h

    def fused_dims(self, batch: int, sequence: int) -> dict[str, int]:
        """`dims`, and what fused rules add in float32: m rows of a block of queries, c positions of a chunk of logits
        and v of its columns."""
        return {**self.dims(batch, sequence), **block_sizes(batch, sequence, self.vocab_size)}


SIZES: dict[str, Config] = {
    name: Config(layers, heads, width, 1024, 50257)
    for name, layers, heads, width in (
        ("124M", 12, 12, 768),
        ("355M", 24, 16, 1024),
        ("774M", 36, 20, 1280),
        ("1.5B", 48, 25, 1600),
    )
}


def init(key: Array, config: Config) -> Params:
    """Return random parameters in float32, layers as a list.

    Weights are normal of 0.02, the two projections onto the residual stream of 0.02/√(2 n_layer), biases 0, gains 1.

    Args:
      key: a key from `jax.random.key`.
      config: the sizes.

    Returns:
      A tree of arrays by the checkpoint's names.

    Example:
      >>> import jax
      >>> from refgrad.models import gpt2
      >>> config = gpt2.Config(n_layer=1, n_embd=4, n_head=2, n_positions=4, vocab_size=8)
      >>> gpt2.init(jax.random.key(0), config)["wte"]["weight"].shape
      (8, 4)
    """
    h = config.n_embd
    keys = iter(jax.random.split(key, 3 + 4 * config.n_layer))

    def normal(*shape: int, scale: float = 0.02) -> Array:
        return scale * jax.random.normal(next(keys), shape, jnp.float32)

    def projection(n_in: int, n_out: int, scale: float = 0.02) -> dict[str, Array]:
        return {"weight": normal(n_in, n_out, scale=scale), "bias": jnp.zeros(n_out, jnp.float32)}

    def norm() -> dict[str, Array]:
        return {"weight": jnp.ones(h, jnp.float32), "bias": jnp.zeros(h, jnp.float32)}

    onto_stream = 0.02 / (2 * config.n_layer) ** 0.5
    params: Params = {
        "wte": {"weight": normal(config.vocab_size, h)},
        "wpe": {"weight": normal(config.n_positions, h)},
        "h": [
            {
                "ln_1": norm(),
                "attn": {"c_attn": projection(h, 3 * h), "c_proj": projection(h, h, onto_stream)},
                "ln_2": norm(),
                "mlp": {"c_fc": projection(h, 4 * h), "c_proj": projection(4 * h, h, onto_stream)},
            }
            for _ in range(config.n_layer)
        ],
        "ln_f": norm(),
    }
    if not config.tie_word_embeddings:
        params["lm_head"] = {"weight": normal(config.vocab_size, h)}
    return params


def shapes(config: Config) -> Params:
    """Return the shapes of `init`'s parameters, as `jax.ShapeDtypeStruct`s: nothing is allocated.

    Args:
      config: the sizes.

    Returns:
      A tree like `init`'s.

    Example:
      >>> from refgrad.models import gpt2
      >>> gpt2.shapes(gpt2.SIZES["124M"])["wte"]["weight"].shape
      (50257, 768)
    """
    return jax.eval_shape(partial(init, config=config), jax.random.key(0))


def abstract_loss(config: Config, batch: int, sequence: int, stacked: bool = False, **how: Any) -> tuple[Any, ...]:
    """Return the loss under `how`, and its abstract arguments: parameters, tokens and targets.

    It is counted, or compiled, as `f(*args)`; nothing is allocated.

    Args:
      config: the sizes.
      batch: b, the number of sequences.
      sequence: s, the tokens of a sequence.
      stacked: stack the layers' parameters.
      **how: arguments of `loss`: rules, scan, remat.

    Returns:
      (f, parameters, tokens, targets).

    Example:
      >>> from refgrad import cost
      >>> from refgrad.models import gpt2
      >>> f, *arguments = gpt2.abstract_loss(gpt2.Config(n_layer=1), batch=1, sequence=8)
      >>> cost.count(f, *arguments).matmul
      335872
    """
    params = shapes(config)
    ids = jax.ShapeDtypeStruct((batch, sequence), jnp.int32)
    return partial(loss, config=config, **how), jax.eval_shape(stack, params) if stacked else params, ids, ids


def stack(params: Params) -> Params:
    """Return parameters whose layers are one tree of arrays with a leading axis of n_layer, which `scan` walks.

    Args:
      params: the parameters, layers as a list or stacked.

    Returns:
      The same parameters, stacked.

    Example:
      >>> import jax
      >>> from refgrad.models import gpt2
      >>> stacked = gpt2.stack(gpt2.init(jax.random.key(0), gpt2.Config()))
      >>> stacked["h"]["ln_1"]["bias"].shape
      (2, 32)
    """
    if isinstance(params["h"], Mapping):
        return params
    return {**params, "h": jax.tree.map(lambda *leaves: jnp.stack(leaves), *params["h"])}


def unstack(params: Params) -> Params:
    """Return parameters whose layers are a list: the inverse of `stack`.

    Args:
      params: the parameters, layers as a list or stacked.

    Returns:
      The same parameters, layers as a list.

    Example:
      >>> import jax
      >>> from refgrad.models import gpt2
      >>> stacked = gpt2.stack(gpt2.init(jax.random.key(0), gpt2.Config()))
      >>> len(gpt2.unstack(stacked)["h"])
      2
    """
    if not isinstance(params["h"], Mapping):
        return params
    layers = jax.tree.leaves(params["h"])[0].shape[0]
    return {**params, "h": [jax.tree.map(lambda leaf, n=n: leaf[n], params["h"]) for n in range(layers)]}


def logits(
    params: Params,
    tokens: Ids,
    config: Config,
    rules: str = "derived",
    scan: bool = False,
    remat: bool = False,
) -> Array:
    """Return logits (..., s, vocab_size) for token ids (..., s), in the parameters' dtype.

    Args:
      params: those of `init`, layers as a list or stacked.
      tokens: integer ids (..., s).
      config: the parameters' config.
      rules: "derived" (the rules as the document derives them), "fused" (the same gradients in less time and memory),
        "fused-cudnn" (these, with cuDNN's attention: for 16 bits on NVIDIA's GPUs, no second derivatives) or "autodiff"
        (the document's forward, differentiated by JAX).
      scan: walk the layers by `lax.scan`.
      remat: recompute each block in the backward pass.

    Returns:
      The logits. They are NaN for a traced id outside [0, vocab_size).

    Raises:
      ValueError, TypeError: for parameters that are not this config's, for a sequence longer than n_positions, for
        other rules, and for a concrete id outside [0, vocab_size). The message names the argument and the bound.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.models import gpt2
      >>> config = gpt2.Config(n_layer=1, n_embd=4, n_head=2, n_positions=4, vocab_size=8)
      >>> gpt2.logits(gpt2.init(jax.random.key(0), config), jnp.array([[1, 2, 3]]), config).shape
      (1, 3, 8)
    """
    x = _final_norm(params, _hidden(params, tokens, config, rules, scan, remat), config, rules)
    with jax.named_scope("lm_head"):
        return operations(rules).lm_head(x, _head(params, config))


def loss(
    params: Params,
    tokens: Ids,
    targets: Ids,
    config: Config,
    rules: str = "derived",
    scan: bool = False,
    remat: bool = False,
) -> Array:
    """Return the mean cross-entropy of `targets` under the logits at `tokens`, a scalar in float32 at least.

    Fused rules never hold the logits of the whole batch.

    Args:
      params: as in `logits`.
      tokens: as in `logits`.
      targets: ids of the shape of `tokens`, below vocab_size too.
      config: as in `logits`.
      rules: as in `logits`.
      scan: as in `logits`.
      remat: as in `logits`.

    Returns:
      A scalar.

    Raises:
      ValueError, TypeError: as `logits` does, and for targets of another shape than the tokens'.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.models import gpt2
      >>> config = gpt2.Config(n_layer=1, n_embd=4, n_head=2, n_positions=4, vocab_size=8)
      >>> ids = jnp.array([1, 2, 3, 4])
      >>> gradient = jax.grad(gpt2.loss)(gpt2.init(jax.random.key(0), config), ids[:-1], ids[1:], config)
      >>> gradient["wte"]["weight"].shape
      (8, 4)
    """
    check_ids("targets", targets, config.vocab_size, config.n_positions)
    if jnp.shape(targets) != jnp.shape(tokens):
        raise ValueError(
            f"targets has shape {jnp.shape(targets)}, but tokens has {jnp.shape(tokens)}: give one a token"
        )
    x = _hidden(params, tokens, config, rules, scan, remat)
    return head_loss(params, x, jnp.asarray(targets), config, rules)


def _hidden(params: Params, tokens: Ids, config: Config, rules: str, scan: bool, remat: bool) -> Array:
    """Token ids (..., s) → the stream after the last layer (..., s, n_embd)."""
    check_params(params, shapes(config))
    check_ids("tokens", tokens, config.vocab_size, config.n_positions)
    x = embed(params, tokens, config, rules)

    if scan:
        with jax.named_scope("h"):
            x, _ = jax.lax.scan(lambda x, layer: (block(layer, x, config, rules, remat), None), x, stack(params)["h"])
    else:
        for n, layer in enumerate(unstack(params)["h"]):
            with jax.named_scope(f"h.{n}"):
                x = block(layer, x, config, rules, remat)
    return x


def embed(params: Params, tokens: Ids, config: Config, rules: str = "derived") -> Array:
    """Token ids (..., s) → the stream that the first layer reads, (..., s, n_embd)."""
    o = operations(rules)
    with jax.named_scope("wte"):
        x = o.token_embedding(params["wte"]["weight"], jnp.asarray(tokens))
    with jax.named_scope("wpe"):
        return o.position_embedding(x, params["wpe"]["weight"])


def block(layer: Params, x: Array, config: Config, rules: str = "derived", recompute: bool = False) -> Array:
    """One layer of the stream, (..., s, n_embd) → the same; with `recompute` only x is kept for the backward pass."""
    return composition(rules).block(x, layer, config.n_head, config.layer_norm_epsilon, recompute)


def head_loss(
    params: Params, x: Array, targets: Array, config: Config, rules: str = "derived", chunks: str = "positions"
) -> Array:
    """The stream after the last layer (..., s, n_embd), ids (..., s) → the mean loss, a scalar.

    Fused rules hold the logits of one of `chunks` at a time: of "positions", or of the "vocabulary", which takes less
    memory and more time. Raises ValueError for other chunks, and under other rules for any but "positions".
    """
    x = _final_norm(params, x, config, rules)
    return composition(rules).loss(x, _head(params, config), targets, chunks)


def _final_norm(params: Params, x: Array, config: Config, rules: str) -> Array:
    """The last layer normalisation."""
    with jax.named_scope("ln_f"):
        p = params["ln_f"]
        return operations(rules).layer_norm(x, p["weight"], p["bias"], config.layer_norm_epsilon)


def _head(params: Params, config: Config) -> Array:
    """The head's weight (vocab_size, n_embd): the token embedding where they are tied."""
    return params["wte" if config.tie_word_embeddings else "lm_head"]["weight"]
