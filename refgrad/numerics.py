"""Parts shared by every rule: accumulation in at least float32, and cotangents of their primal's type."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.avals import explicit_sharding, varying_axes


def wide_dtype(dtype: Any) -> jnp.dtype:
    """The dtype that sums are taken in: `dtype` itself, float32 at least."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def wide(x: Array) -> Array:
    """`x` in the dtype that sums are taken in."""
    return x.astype(wide_dtype(x.dtype))


def product(subscripts: str, x: Array, y: Array, out_sharding=None) -> Array:
    """The contraction of two arrays, accumulated and returned in at least float32."""
    return jnp.einsum(subscripts, x, y, preferred_element_type=wide_dtype(x.dtype), out_sharding=out_sharding)


def weight_grad(x: Array, dz: Array, out_sharding=None) -> Array:
    """Σ_r x_r dz_rᵀ (i, o) of x (r, i) and dz (r, o): a weight's gradient, in the dtype of sums.

    XLA on CPU has no bf16 kernel for a product over the first axis of both and takes both to float32, at a fourth of
    the speed. There x is turned first.
    """

    def as_it_stands(x: Array, dz: Array) -> Array:
        return product("ri,ro->io", x, dz, out_sharding)

    def turned(x: Array, dz: Array) -> Array:
        return depend_on(product("ir,ro->io", _turned(x), dz, out_sharding), first_entry(dz))  # see `_turned`

    if x.dtype != jnp.bfloat16:
        return as_it_stands(x, dz)
    return jax.lax.platform_dependent(x, dz, cpu=turned, default=as_it_stands)


def _turned(x: Array) -> Array:
    """xᵀ, stored so: XLA folds a transposition into the product that reads it, but takes none out of a loop of two.

    It folds one of the product's own result too, and raises since it has no kernel for what comes of it: whoever
    multiplies puts a sum behind.
    """
    return jax.lax.fori_loop(0, 2, lambda _, __: jnp.swapaxes(x, 0, 1), jnp.zeros_like(jnp.swapaxes(x, 0, 1)))


def lift(x: Array, ndim: int) -> Array:
    """`x` with leading axes of length one up to `ndim`: broadcasting that strict rank promotion accepts."""
    return jax.lax.expand_dims(x, range(ndim - x.ndim))


def vary_with(x: Array, *others: Array) -> Array:
    """`x` varying over the manual axes of `others` too: a loop's carry must start as it goes on."""
    missing = frozenset().union(*map(varying_axes, others)) - varying_axes(x)
    return jax.lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x


def depend_on(x: Array, cotangent: Array) -> Array:
    """`x`, but not before `cotangent`, of the same shape or of lengths one, exists: x + 0·cotangent.

    What a backward pass makes again depends on the forward's values alone, so that a compiler may make it early, or
    find it among what the forward made, and keep it in between: the memory that was to be saved. XLA on CPU drops an
    `optimization_barrier`; a sum it cannot drop, since 0·∞ is not 0. The blocks of one operation wait for each other in
    the same way, or they would all be alive at once.
    """
    return x + 0.0 * cotangent.astype(x.dtype)


def first_entry(x: Array) -> Array:
    """The first entry of each matrix of `x` (..., n, k), as (..., 1, 1): something to wait for."""
    return x[..., :1, :1]


def rows(x: Array) -> Array:
    """`x` (..., n) as a matrix (rows, n): every leading axis in one."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def blocks(length: int, size: int) -> list[slice]:
    """An axis of `length` in blocks of `size`, the last as long as the rest."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PrimalType:
    """The type of a primal, without its values: a residual of zero bytes that its cotangent is cast to."""

    shape: tuple[int, ...]
    dtype: jnp.dtype
    varying: frozenset[str]
    sharding: jax.sharding.NamedSharding | None

    @classmethod
    def of(cls, primal: Array) -> "PrimalType":
        """The type of `primal`: shape, dtype, the manual axes it varies over, its explicit sharding or None."""
        return cls(primal.shape, primal.dtype, varying_axes(primal), explicit_sharding(primal))

    def __call__(self, cotangent: Array) -> Array:
        """`cotangent` as its primal's: summed over the manual axes on which the primal did not vary, and cast."""
        axes = tuple(sorted(varying_axes(cotangent) - self.varying))
        if axes:
            cotangent = jax.lax.psum(cotangent, axes)
        return cotangent.astype(self.dtype)
