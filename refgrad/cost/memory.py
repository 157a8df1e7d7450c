"""XLA's plan of allocations for a forward and backward pass, beside the residual bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from refgrad._text import table
from refgrad.cost.arguments import Argnums
from refgrad.cost.count import abstract_vjp, differentiable
from refgrad.cost.residuals import Residuals, residuals

CPU_PEAK = "on CPU XLA's peak leaves the temporaries out: compare temporaries"
PLAN = "temporaries are XLA's plan after fusion and reuse: below the residuals where it computes some again"


@dataclass(frozen=True)
class Memory:
    """Bytes of one compiled forward-and-backward program on one device, and the residuals of the same function."""

    residuals: Residuals
    arguments: int
    """Arguments and cotangents."""
    outputs: int
    """Values and gradients."""
    temporaries: int
    """Everything between: residuals, and short-lived arrays."""
    peak: int | None
    """XLA's own peak, None where it gives none; see `notes`."""
    notes: tuple[str, ...]

    def __str__(self) -> str:
        rows = [
            ["residuals (kept from forward to backward)", f"{self.residuals.bytes:,}"],
            ["XLA temporaries", f"{self.temporaries:,}"],
            ["XLA arguments", f"{self.arguments:,}"],
            ["XLA outputs", f"{self.outputs:,}"],
            ["XLA peak", "not given" if self.peak is None else f"{self.peak:,}"],
        ]
        return "\n".join([table(["memory", "bytes"], rows), *(f"note: {note}" for note in self.notes)])


def memory(
    f: Callable[..., Any], *args: Any, kwargs: Mapping[str, Any] | None = None, argnums: Argnums = None
) -> Memory:
    """Return the bytes of f's value and pullback, compiled as one program for the default backend; nothing is run.

    Args:
      f: the function.
      *args: its arguments, as for `count`.
      kwargs: its keyword arguments, as for `count_backward`.
      argnums: the positions to differentiate, as for `count_backward`.

    Returns:
      A `Memory`: XLA's plan beside the residuals.

    Raises:
      TypeError, ValueError: as `residuals` does.
      RuntimeError: where the backend has no memory analysis.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.memory(jnp.sin, jnp.ones(8)).residuals.bytes  # cos x, in float32
      32
    """
    leaves, pullback = differentiable(f, *args, kwargs=kwargs, argnums=argnums)
    _, cotangent = abstract_vjp(f, *args, kwargs=kwargs, argnums=argnums)

    def both(leaves: list[Any], cotangent: Any) -> Any:
        out, pull = pullback(*leaves)
        return out, pull(cotangent)

    plan = jax.jit(both).lower(leaves, cotangent).compile().memory_analysis()
    if plan is None:
        raise RuntimeError(f"the {jax.default_backend()} backend has no memory analysis: use residuals alone")
    return Memory(
        residuals(f, *args, kwargs=kwargs, argnums=argnums),
        plan.argument_size_in_bytes,
        plan.output_size_in_bytes,
        plan.temp_size_in_bytes,
        getattr(plan, "peak_memory_in_bytes", None),
        (CPU_PEAK, PLAN) if jax.default_backend() == "cpu" else (PLAN,),
    )
