"""The bytes that XLA plans to allocate for a program, host and device apart, beside those that it must keep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from refgrad._text import table
from refgrad.cost.arguments import Argnums, arrays_of, chosen
from refgrad.cost.count import abstract_vjp, differentiable
from refgrad.cost.residuals import Residuals, residuals

CPU_PEAK = "on CPU XLA's peak leaves the temporaries out: compare temporaries"
PLAN = "temporaries are XLA's plan after fusion and reuse: below the residuals where it computes some again"


@dataclass(frozen=True)
class Memory:
    """Bytes of one compiled program on one device, and the residuals of the same function.

    Attributes:
      residuals: residuals of the backward pass; None for a forward pass alone.
      arguments: arguments, and cotangents where there is a backward pass.
      outputs: values, and gradients where there is a backward pass.
      temporaries: everything between: residuals, and what is needed for a moment.
      aliased: bytes of the outputs that reuse donated arguments.
      host: bytes in the host's memory, beside all of the above: arguments, outputs and temporaries that are offloaded.
      peak: XLA's own peak, None where it gives none; see `notes`.
      notes: the conditions under which the figures hold.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.memory(jnp.sin, jnp.ones(8), backward=False).arguments
      32
    """

    residuals: Residuals | None
    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    host: int
    peak: int | None
    notes: tuple[str, ...]

    @property
    def device(self) -> int:
        """Bytes that the device holds at most: arguments, outputs and temporaries, what is donated once."""
        return self.arguments + self.outputs + self.temporaries - self.aliased

    def __str__(self) -> str:
        kept = [] if self.residuals is None else [["residuals (kept from forward to backward)", self.residuals.bytes]]
        rows = [
            *kept,
            ["XLA temporaries", self.temporaries],
            ["XLA arguments", self.arguments],
            ["XLA outputs", self.outputs],
            ["XLA outputs in donated arguments", self.aliased],
            ["on the device in all", self.device],
            ["on the host", self.host],
            ["XLA peak", "not given" if self.peak is None else self.peak],
        ]
        cells = [[name, size if isinstance(size, str) else f"{size:,}"] for name, size in rows]
        return "\n".join([table(["memory", "bytes"], cells), *(f"note: {note}" for note in self.notes)])


def memory(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: Argnums = None,
    backward: bool = True,
    donate_argnums: Argnums = (),
) -> Memory:
    """Compile f's value and pullback as one program for the default backend; allocate no array.

    Args:
      f: the function.
      *args: its arguments, concrete or abstract.
      kwargs: its keyword arguments, as for `count`.
      argnums: the positions to differentiate, as for `count_backward`.
      backward: False for the forward pass alone, which needs nothing that can be differentiated.
      donate_argnums: the positions whose memory the outputs may reuse, as for `jax.jit`.

    Returns:
      A `Memory`.

    Raises:
      TypeError: as `residuals` does.
      ValueError: for a position that does not exist, and for `argnums` of a forward pass alone.
      RuntimeError: where the backend has no memory analysis.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.memory(jnp.sin, jnp.ones(8)).residuals.bytes  # cos x, in float32
      32
    """
    if argnums is not None and not backward:
        raise ValueError(f"argnums={argnums!r} chooses what a backward pass differentiates: leave backward=True")
    donated = [i for i, given in enumerate(chosen(args, kwargs, donate_argnums)) if given]
    program, cotangent, leaves = _both(f, args, kwargs, argnums) if backward else _forward(f, args, kwargs)
    lowered = jax.jit(program, donate_argnums=[i + 1 for i in donated]).lower(cotangent, *leaves)
    plan = lowered.compile().memory_analysis()
    if plan is None:
        raise RuntimeError(f"the {jax.default_backend()} backend has no memory analysis: use residuals alone")
    host = ("host_argument_size_in_bytes", "host_output_size_in_bytes", "host_temp_size_in_bytes")
    return Memory(
        residuals(f, *args, kwargs=kwargs, argnums=argnums) if backward else None,
        plan.argument_size_in_bytes,
        plan.output_size_in_bytes,
        plan.temp_size_in_bytes,
        plan.alias_size_in_bytes,
        sum(getattr(plan, name, 0) for name in host),
        getattr(plan, "peak_memory_in_bytes", None),
        (*((CPU_PEAK,) if jax.default_backend() == "cpu" else ()), *((PLAN,) if backward else ())),
    )


def _both(f: Callable[..., Any], args: Any, kwargs: Any, argnums: Argnums) -> tuple[Callable[..., Any], Any, list[Any]]:
    """f's value and pullback as a function of a cotangent and of the arrays; both, abstract."""
    leaves, pullback = differentiable(f, *args, kwargs=kwargs, argnums=argnums)
    _, cotangent = abstract_vjp(f, *args, kwargs=kwargs, argnums=argnums)

    def program(cotangent: Any, *leaves: Any) -> Any:
        out, pull = pullback(*leaves)
        return out, pull(cotangent)

    return program, cotangent, leaves


def _forward(f: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Callable[..., Any], Any, list[Any]]:
    """f as a function of no cotangent and of the arrays."""
    forward, arrays = arrays_of(f, args, kwargs)
    leaves, tree = jax.tree.flatten(arrays)
    return lambda _, *leaves: forward(*jax.tree.unflatten(tree, leaves)), None, leaves
