"""Two-dimensional convolution, stride 1: each pixel of y is a window of x against the kernel, channels mixed.

Forward. With α rows and β columns of zeros above and to the left of x, and enough on the other sides,

    y_b,p,q,o = Σ_u,v,i x_b,p+u−α,q+v−β,i K_u,v,i,o + bias_o        0 ≤ u < k, 0 ≤ v < l

(a correlation, as the field calls convolution). "SAME" pads `k − 1` rows in all, (k − 1)//2 of them above, so that y is
as large as x; "VALID" pads nothing, and y has `k − 1` rows less. Columns are alike.

Derivation. `x_b,r,c,i` stands in the sum of pixel p, q where `r = p + u − α` and `c = q + v − β`, against `K_u,v,i,o`:

    dx_b,r,c,i = Σ_u,v,o dy_b,r−u+α,c−v+β,o K_u,v,i,o

With `u′ = k − 1 − u` and `v′ = l − 1 − v` the windows run forward again, `r − u + α = r + u′ − (k − 1 − α)`: dx is
the correlation of dy, padded by `k − 1` less than x was, with the kernel turned by half a circle, inputs for outputs.
`K_u,v,i,o` meets, for each pixel, what is `u − α`, `v − β` further on: a correlation of x with dy as the kernel, which
sums over examples as the forward pass over channels. The bias is in every pixel:

    dx = dy ⋆ K_k−1−u,l−1−v,o,i        dK = x ⋆ dy over examples        dbias = Σ_b,p,q dy

Kept: x and K. Cost: the same products three times, 2 for each pair of a pixel and a tap that does not fall on padding:
under "SAME" along one axis of length `H ≥ k`, `Hk − ⌊k²/4⌋` of the Hk pairs. The document names it without counting.
Source: D1, "Computational Complexity".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, lift, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import H, W, b, i, item, k, l, o

PADDINGS = ("SAME", "VALID")
Padding = list[tuple[int, int]]


class Residuals(NamedTuple):
    """x (b, H, W, i), K (k, l, i, o), and the bias's type."""

    x: Array
    kernel: Array
    bias: PrimalType


def _around(kernel: Array, padding: str) -> Padding:
    """Zeros before and after each of the two axes."""
    if padding == "VALID":
        return [(0, 0), (0, 0)]
    return [((n - 1) // 2, n // 2) for n in kernel.shape[:2]]


def _correlate(x: Array, kernel: Array, padding: Padding, layout: tuple[str, str, str], out_sharding=None) -> Array:
    """Windows of x against the kernel, in the dtype of sums; a layout names the axes of x, kernel and result."""
    return jax.lax.conv_general_dilated(
        wide(x), wide(kernel), (1, 1), padding, dimension_numbers=layout, out_sharding=out_sharding
    )


def _check_args(x: Array, kernel: Array, bias: Array, padding: str) -> None:
    check_args("conv2d", x=(x, "b H W i"), kernel=(kernel, "k l i o"), bias=(bias, "o"))
    if padding not in PADDINGS:
        raise ValueError(f"conv2d: padding is {padding!r}, but must be one of {', '.join(map(repr, PADDINGS))}")
    image, taps = x.shape[1:3], kernel.shape[:2]
    if 0 in taps:
        raise ValueError(f"conv2d: kernel has shape {kernel.shape}, but needs a tap at least along both its axes")
    if padding == "VALID" and any(n < taken for n, taken in zip(image, taps, strict=True)):
        raise ValueError(f"conv2d: kernel is {taps} for an image of {image}, but must fit into it: pad it by 'SAME'")


@custom_vjp(nondiff_argnums=(3,))
@jax.named_scope("conv2d")
def conv2d(x: Array, kernel: Array, bias: Array, padding: str) -> Array:
    """Cross-correlate images with a kernel, in steps of 1, and add a bias.

    Args:
      x: Images (b, H, W, i).
      kernel: (k, l, i, o).
      bias: (o,).
      padding: "SAME" or "VALID".

    Returns:
      Images (b, H, W, o) for "SAME", (b, H − k + 1, W − l + 1, o) for "VALID".

    Raises:
      ValueError: The shapes do not agree, or no window fits.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.conv2d(jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1)), jnp.zeros(1), "VALID")[0, ..., 0].tolist()
      [[4.0, 4.0], [4.0, 4.0]]
    """
    _check_args(x, kernel, bias, padding)
    y = _correlate(x, kernel, _around(kernel, padding), ("NHWC", "HWIO", "NHWC"))
    return (y + lift(wide(bias), 4)).astype(x.dtype)


@jax.named_scope("conv2d")
def _fwd(x: Array, kernel: Array, bias: Array, padding: str) -> tuple[Array, Residuals]:
    return conv2d.fun(x, kernel, bias, padding), Residuals(x, kernel, PrimalType.of(bias))


@jax.named_scope("conv2d")
def _bwd(padding: str, kept: Residuals, dy: Array) -> tuple[Array, Array, Array]:
    x, kernel = kept.x, kept.kernel
    like_x, like_kernel = PrimalType.of(x), PrimalType.of(kernel)
    around = _around(kernel, padding)
    less = [(n - 1 - before, n - 1 - after) for n, (before, after) in zip(kernel.shape[:2], around, strict=True)]
    turned = jnp.flip(kernel, (0, 1))
    dx = _correlate(dy, turned, less, ("NHWC", "HWOI", "NHWC"), like_x.sharding)
    dkernel = _correlate(x, dy, around, ("CHWN", "IHWO", "HWNC"), like_kernel.sharding)
    dbias = jnp.sum(wide(dy), axis=(0, 1, 2))
    return like_x(dx), like_kernel(dkernel), kept.bias(dbias)


conv2d.defvjp(_fwd, _bwd)

PAIRS = (H * k - k**2 // 4) * (W * l - l**2 // 4)  # of a pixel and a tap, off the padding
SPEC = OpSpec(
    op=conv2d,
    source="D1, Computational Complexity",
    arguments={"x": "b H W i", "kernel": "k l i o", "bias": "o"},
    statics={"padding": "SAME"},
    forward=OpCost(2 * b * i * o * PAIRS + b * H * W * o),
    backward=OpCost(4 * b * i * o * PAIRS + (b * H * W - 1) * o),
    adjustments={
        "products with the padding, not counted": 4 * b * i * o * H * W * k * l,
        "taps on the padding": 4 * b * i * o * (PAIRS - H * W * k * l),
        "bias": (b * H * W - 1) * o,
    },
    residuals=item * (b * H * W * i + k * l * i * o),
    special={
        "one tap": Special(dims={"k": 1, "l": 1}),
        "a kernel as large as the image": Special(dims={"H": 3, "W": 4, "k": 3, "l": 4}),
    },
)
