"""The floor under a training step: its own matmuls, each shape alone, and the optimiser's bytes at memory's speed.

The products are those that the step cannot do without: forward, and two for each in the backward pass; under the causal
mask each block of queries meets its prefix alone; nothing is recomputed. Their FLOPs are the derived cost's (a test
holds the list against `refgrad.cost`). AdamW reads parameter, gradient and two moments, and writes all but the
gradient. On a CPU alone: a GPU multiplies the blocks of attention in less time than their calls take from Python, so
that the sum would not be a floor.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from refgrad.bench.machine import peak_memory
from refgrad.models import gpt2
from refgrad.numerics import weight_grad

CHUNK = 1 << 26  # elements of one array of the memory test: 256 MB, beyond any cache
BLOCK = 128  # rows of queries that meet their causal prefix together


class Matmuls(NamedTuple):
    """`count` times: a batch of products (m, k) · (k, n), the operands stored transposed where said."""

    name: str
    count: int
    batch: int
    m: int
    k: int
    n: int
    left_transposed: bool = False
    right_transposed: bool = False

    @property
    def flops(self) -> int:
        """FLOPs of all of them."""
        return 2 * self.count * self.batch * self.m * self.k * self.n


def products(config: gpt2.Config, batch: int, sequence: int, block: int = BLOCK) -> list[Matmuls]:
    """Every product of one training step, queries in blocks of `block` rows."""
    rows, h, V, layers = batch * sequence, config.n_embd, config.vocab_size, config.n_layer
    found = []
    for name, i, o in (("c_attn", h, 3 * h), ("attn.c_proj", h, h), ("c_fc", h, 4 * h), ("mlp.c_proj", 4 * h, h)):
        found += [
            Matmuls(f"{name} forward", layers, 1, rows, i, o),
            Matmuls(f"{name} dx", layers, 1, rows, o, i, right_transposed=True),
            Matmuls(f"{name} dw", layers, 1, i, rows, o, left_transposed=True),
        ]
    heads, d = batch * config.n_head, config.n_embd // config.n_head
    for start in range(0, sequence, block):
        r = min(block, sequence - start)
        t = start + r  # the block's causal prefix, itself included
        for name, m, k, n, left, right in (
            ("q kᵀ", r, d, t, False, True),
            ("p v", r, t, d, False, False),
            ("dp = do vᵀ", r, d, t, False, True),
            ("dv = pᵀ do", t, r, d, True, False),
            ("dq = ds k", r, t, d, False, False),
            ("dk = dsᵀ q", t, r, d, True, False),
        ):
            found.append(Matmuls(f"attention {name}, prefix {t}", layers, heads, m, k, n, left, right))
    return [
        *found,
        Matmuls("logits", 1, 1, rows, h, V, right_transposed=True),
        Matmuls("head dx", 1, 1, rows, V, h),
        Matmuls("head dE", 1, 1, V, rows, h, left_transposed=True),
    ]


class RooflineRunner:
    """Run the floor: one call is every product of a step, and the optimiser's traffic."""

    def __init__(self, config: gpt2.Config, batch: int, sequence: int, dtype: Any) -> None:
        start = time.perf_counter()
        self._products = [(p.count, *compiled_product(p, dtype)) for p in products(config, batch, sequence)]
        parameters = sum(leaf.size for leaf in jax.tree.leaves(gpt2.shapes(config)))
        self._updates, self._arrays = _memory_test(parameters)
        self.built = {"trace_s": None, "compile_s": time.perf_counter() - start, "temporaries": None}

    def step(self) -> None:
        """One step's products and updates, and no loss."""
        for count, product, operands in self._products:
            for _ in range(count):
                out = product(*operands)
            out.block_until_ready()
        for _ in range(self._updates[0]):
            self._arrays = self._updates[1](*self._arrays)
        jax.block_until_ready(self._arrays)

    peak = staticmethod(peak_memory)


def compiled_product(product: Matmuls, dtype: Any) -> tuple[Any, tuple[jax.Array, ...]]:
    """One product as a compiled function, and operands for it; accumulated in float32 and rounded to `dtype`."""
    left = (product.k, product.m) if product.left_transposed else (product.m, product.k)
    right = (product.n, product.k) if product.right_transposed else (product.k, product.n)
    contracted = (1 if product.left_transposed else 2), (2 if product.right_transposed else 1)
    if product.batch == 1:
        contracted, batched, lead = tuple(axis - 1 for axis in contracted), ((), ()), ()
    else:
        batched, lead = ((0,), (0,)), (product.batch,)
    dims = (((contracted[0],), (contracted[1],)), batched)

    def dot(x: jax.Array, y: jax.Array) -> jax.Array:
        if product.left_transposed and product.batch == 1:  # in bf16 there is a faster way than as it stands
            return weight_grad(x, y).astype(dtype)
        return jax.lax.dot_general(x, y, dims, preferred_element_type=jnp.float32).astype(dtype)

    operands = tuple(
        jax.random.normal(jax.random.key(seed), (*lead, *shape), dtype) for seed, shape in enumerate((left, right))
    )
    return jax.jit(dot).lower(*operands).compile(), operands


def _memory_test(parameters: int) -> tuple[tuple[int, Any], tuple[jax.Array, ...]]:
    """Return AdamW's memory traffic as ((runs, program), arrays): one run updates 4 arrays and writes 3."""
    size = min(parameters, CHUNK)
    arrays = tuple(jnp.full(size, 0.5, jnp.float32) for _ in range(4))

    def update(p: jax.Array, m: jax.Array, v: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return p - 1e-4 * m, m, v, g

    compiled = jax.jit(update, donate_argnums=(0, 1, 2, 3)).lower(*arrays).compile()
    return (round(parameters / size), compiled), arrays
