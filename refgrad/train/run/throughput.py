"""The FLOPs of a step and the peak rate of a device, whose ratio is the model FLOPs utilisation (MFU).

A step's FLOPs are those of the matrix products of the forward and backward pass by the derived rules, counted in the
program (`refgrad.cost`): nothing recomputed, and attention without its mask, as MFU is usually stated.

Source: Chowdhery et al. (2022), "PaLM", appendix B.
"""

import time

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad.cost.peaks import PEAKS
from refgrad.models import gpt2

KINDS = (
    ("H100 PCIe", "H100 PCIe"),
    ("H100", "H100 SXM"),
    ("H200", "H200"),
    ("B200", "B200"),
    ("A100", "A100"),
    ("V100", "V100 SXM"),
    ("T4", "T4"),
    ("TPU v4", "TPU v4"),
    ("TPU v5 lite", "TPU v5e"),
    ("TPU v5", "TPU v5p"),
    ("TPU v6 lite", "TPU v6e"),
)
"""Part of JAX's name of a device → its name in the table of peaks; the first match counts."""
SIZE, REPEATS = 1024, 20


def step_flops(config: gpt2.Config, batch: int, sequence: int) -> int:
    """Return the FLOPs of a step's matrix products, from abstract values."""
    program = gpt2.abstract_loss(config, batch, sequence, stacked=True, scan=True)
    return cost.count(*program).matmul + cost.count_backward(*program).matmul


def peak_rate(dtype: str) -> tuple[float, str]:
    """Return the peak FLOP/s of one device, the vendor's or else measured, and the source of the figure."""
    kind = jax.devices()[0].device_kind
    name = next((name for part, name in KINDS if part in kind), None)
    for wanted in ("tf32", "float32") if dtype == "float32" else (dtype,):
        for entry in PEAKS:
            if (entry.device, entry.dtype) == (name, wanted):
                return entry.flops_per_second, f"{entry.device}'s peak in {wanted} ({entry.source})"
    return measured_rate(dtype), f"a product of {SIZE} × {SIZE} matrices in {dtype}, measured here"


def measured_rate(dtype: str) -> float:
    """Return the FLOP/s of a square matrix product on one device, the best of `REPEATS`."""
    x = jnp.ones((SIZE, SIZE), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(product(x, x))
        best = min(best, time.perf_counter() - start)
    return 2 * SIZE**3 / best
