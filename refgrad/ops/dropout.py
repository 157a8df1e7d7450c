"""Dropout: `y = x r / (1 − p)`, where each r is 0 with probability p and 1 otherwise, drawn from a key.

Forward. The division keeps the expectation, `E[y] = x`, so that nothing changes when dropout is left out. r is a
function of the key and x's shape alone: 32 random bits an element, held against `p·2³²`.

Derivation. r does not depend on x, and `y_j` on no other x than `x_j`, through the factor `r_j / (1 − p)`:

    dx = dy r / (1 − p)

The same line as the forward pass, with dy for x: the mask is drawn again from the key that drew it.
Kept: the key and x's type, 8 bytes at any size of x; a kept mask would take a byte or more an element.
Cost: an element's bits (117 operations of Threefry for a pair of words, 3 to number it, 1 to join the words), a
comparison, a product and a selection, forward and backward alike; the document prints no count. That is the price of
keeping nothing: most of it are integer operations in registers, where the mask would come from memory.
Source: D1, "Gradient Checkpointing" (recomputing in the place of keeping).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.avals import explicit_sharding
from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, h, s


class Residuals(NamedTuple):
    """The key that draws the mask, and x's type."""

    key: Array
    x: PrimalType


def mask(key: Array, rate: float, like: Array) -> Array:
    """Booleans of `like`'s shape, True where an element is kept: the same for the same key and shape."""
    bits = jax.random.bits(key, (like.size,), "uint32").reshape(like.shape)
    keep = bits >= jnp.uint32(int(rate * 2**32))
    sharding = explicit_sharding(like)
    return keep if sharding is None else jax.sharding.reshard(keep, sharding)


def _drop(x: Array, key: Array, rate: float) -> Array:
    """x r / (1 − p), in the dtype of sums; dropped elements are 0 even where x is not finite."""
    return jnp.where(mask(key, rate, x), wide(x) * (1 / (1 - rate)), 0.0)


@custom_vjp(nondiff_argnums=(2,))
@jax.named_scope("dropout")
def dropout(x: Array, key: Array, rate: float) -> Array:
    """Set elements of x to 0 at random, and divide the others by 1 − rate.

    Args:
      x: Any shape.
      key: One key from `jax.random.key`; the same key draws the same mask.
      rate: The probability of dropping an element, 0 ≤ rate < 1.

    Returns:
      An array of x's shape and dtype.

    Raises:
      ValueError: `key` is a batch of keys, or `rate` is out of range.
      TypeError: `x` is not floating, or `key` is not a key.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.dropout(jnp.ones(3), jax.random.key(0), 0.0).tolist()
      [1.0, 1.0, 1.0]
    """
    _check_args(x, key, rate)
    return _drop(x, key, rate).astype(x.dtype)


def _check_args(x: Array, key: Array, rate: float) -> None:
    check_args("dropout", x=(x, "..."))
    if not jnp.issubdtype(jnp.result_type(key), jax.dtypes.prng_key):
        raise TypeError(
            f"dropout: key is {jnp.result_type(key)}{list(jnp.shape(key))}, but must come from jax.random.key "
            "(jax.random.wrap_key_data makes one of raw key data)"
        )
    if jnp.shape(key):
        raise ValueError(f"dropout: key has shape {jnp.shape(key)}, but one key draws the mask: vmap over several")
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate is {rate}, but is the probability of dropping, at least 0 and below 1")


@jax.named_scope("dropout")
def _fwd(x: Array, key: Array, rate: float) -> tuple[Array, Residuals]:
    return dropout.fun(x, key, rate), Residuals(key, PrimalType.of(x))


@jax.named_scope("dropout")
def _bwd(rate: float, kept: Residuals, dy: Array) -> tuple[Array, None]:
    return kept.x(_drop(dy, kept.key, rate)), None


dropout.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=dropout,
    source="D1, Gradient Checkpointing",
    arguments={"x": "b s h", "key": "key"},
    statics={"rate": 0.25},
    # Threefry's 117, numbering 3, joining 1; comparison, product, selection; the key's own 2
    forward=OpCost(124 * b * s * h + 2),
    backward=OpCost(124 * b * s * h + 2),
    adjustments={"the mask drawn again": 122 * b * s * h + 2, "product and selection, not counted": 2 * b * s * h},
    residuals=8,
    special={"large values": Special(values={"x": lambda x: x * 1e4})},
)
