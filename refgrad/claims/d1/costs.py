"""D1 on FLOPs: one gradient against one forward pass (D1.2, D1.20), and what is dearer backward (D1.19)."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad.claims._ledger import Case
from refgrad.claims._rows import claims
from refgrad.models import gpt2, linear_network
from refgrad.ops import TABLE, operations

OPS = operations("derived")
# "About the order of one forward pass" is up to 5 of them; "≈" is within a tenth.
BOUNDS = {"order": 5, "about": 0.1}
# Widths of D1's network, from a hundred parameters to ten million.
WIDTHS = (8, 64, 512, 2048)
BATCH = 16
# The linear layer, and each operation that D1 names, which is compared with it.
COMPARED = ("linear", "layer_norm", "batch_norm", "causal_softmax", "multi_head_attention", "conv2d")
DIMS = (
    {"b": 4, "s": 32, "h": 64, "n_h": 4, "d": 16, "i": 64, "o": 48, "H": 12, "W": 10, "k": 3, "l": 5},
    {"b": 2, "s": 96, "h": 48, "n_h": 3, "d": 16, "i": 24, "o": 80, "H": 9, "W": 20, "k": 5, "l": 3},
    {"b": 7, "s": 20, "h": 60, "n_h": 2, "d": 30, "i": 40, "o": 32, "H": 16, "W": 6, "k": 4, "l": 2},
)


def _shape(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@cache
def _gpt2(size: str) -> tuple[Any, ...]:
    """The loss of 1 × 1024 tokens with its layers scanned, and its abstract arguments: traced once, as one layer."""
    return gpt2.abstract_loss(gpt2.SIZES[size], 1, 1024, stacked=True, scan=True)


def _network(W1: Any, b1: Any, W2: Any, b2: Any, x: Any, y: Any) -> Any:
    """D1's network, its targets without a gradient."""
    o = OPS.dense(OPS.sigmoid(OPS.dense(x, W1, b1)), W2, b2)
    return OPS.squared_error_mean(o, jax.lax.stop_gradient(y))


def _operations(count: cost.Count) -> int:
    """FLOPs and transcendentals together."""
    return count.flops + count.transcendental


@cache
def _programs() -> Mapping[str, tuple[int, int, int]]:
    """Program → (parameters, forward, backward) operations, from shapes alone."""
    found = {}
    for width in WIDTHS:
        params = _shape(width, width), _shape(width), _shape(width, width), _shape(width)
        x = _shape(BATCH, width)
        passes = cost.count(_network, *params, x, x), cost.count_backward(_network, *params, x, x)
        found[f"one hidden layer of {width}"] = 2 * width * (width + 1), *map(_operations, passes)
    for name in ("124M", "1.5B"):
        program = _gpt2(name)
        passes = cost.count(*program), cost.count_backward(*program)
        size = sum(leaf.size for leaf in jax.tree.leaves(program[1]))
        found[f"GPT-2 {name}"] = size, *map(_operations, passes)
    return found


def one_pass() -> Iterator[Case]:
    """Parameters and operations of every program, forward and backward."""
    for where, (parameters, forward, backward) in _programs().items():
        yield Case(where, {"parameters": parameters, "forward": forward, "backward": backward, **BOUNDS})


def deep() -> Iterator[Case]:
    """C, the FLOPs of one forward pass, and those backward: D0's network with ∂X, and GPT-2."""
    shapes = {"W1": _shape(256, 256), "W2": _shape(256, 10)}
    programs = {"D0's network with ∂X": (linear_network.loss, shapes, _shape(32, 256))}
    programs |= {f"GPT-2 {name}": _gpt2(name) for name in ("124M", "1.5B")}
    for where, program in programs.items():
        yield _against(where, cost.count(*program).flops, cost.count_backward(*program).flops)


def first_layer_alone() -> Iterator[Case]:
    """D0's network where its first layer is nearly all of it, and the input's gradient is not computed."""
    for width, classes in ((256, 10), (512, 3), (1000, 20)):
        params = {"W1": _shape(width, width), "W2": _shape(width, classes)}

        def loss(params: Any, width: int = width) -> Any:
            return linear_network.loss(params, jnp.ones((32, width), jnp.float32))

        yield _against(
            f"D={width}, C={classes}", cost.count(loss, params).flops, cost.count_backward(loss, params).flops
        )


def _against(where: str, forward: int, backward: int) -> Case:
    return Case(where, {"C": forward, "backward": backward, **BOUNDS})


@cache
def _compared(name: str) -> tuple[Case, ...]:
    """Operations forward and backward at each of `DIMS`, and bytes kept beyond the arguments, in float32."""
    found = []
    for dims in DIMS:
        row = TABLE[name]
        f, args = row.bound(dims), row.shapes(dims, jnp.float32)
        forward, backward = map(_operations, (cost.count(f, *args), cost.count_backward(f, *args)))
        values = {
            "forward": forward,
            "backward": backward,
            "kept": cost.residuals(f, *args).bytes,
            "normalises": int("softmax" in name or "norm" in name or "attention" in name),
        }
        shapes = ", ".join("×".join(map(str, arg.shape)) for arg in args)
        found.append(Case(f"{name} of {shapes}", {**values, **BOUNDS}))
    return tuple(found)


def linear() -> Iterator[Case]:
    """The linear layer, with which the others are compared."""
    yield from _compared("linear")


def dearer() -> Iterator[Case]:
    """The operations that D1 names."""
    for name in COMPARED[1:]:
        yield from _compared(name)


CLAIMS = claims(__name__)
