"""A program to be compared: its work at each stage, its outputs, and the versions it was counted with."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from refgrad._machine import processor, versions
from refgrad.cost.arguments import Argnums, arrays_of
from refgrad.cost.causes import Cause, lowering_causes
from refgrad.cost.comparison import items as work
from refgrad.cost.comparison.instructions import of_module
from refgrad.cost.comparison.items import Figures, Item
from refgrad.cost.comparison.matching import Side
from refgrad.cost.count import Unknown, count_jaxpr, differentiable
from refgrad.cost.operations import types_of
from refgrad.cost.residuals import residuals
from refgrad.cost.types import Count
from refgrad.cost.walk import NOWHERE
from refgrad.cost.xla import backward_program, xla
from refgrad.jaxpr.values import repeated_in_backward

Stage = Literal["counted", "lowered", "compiled"]
STAGES = ("counted", "lowered", "compiled")
PLAIN = ("name", "stage", "backward", "inputs", "outputs", "lines", "versions", "device", "flags", "notes")
_FORWARD = "forward"
_PARTS = ("scope", "source")
Flags = Mapping[str, str | bool | int | float]


@dataclass(frozen=True)
class Program:
    """The cost of a program at one stage, with the evidence for why another one costs something else.

    Attributes:
      name: the function's name.
      stage: "counted", "lowered" or "compiled".
      stages: the work at this stage and at those before it.
      backward: True for a backward pass.
      forward: the forward pass that a backward pass has before it.
      lowering: the causes of the differences between the counted and the lowered program.
      inputs: the types of the function's array arguments.
      outputs: the function's outputs, a path and a shape each; empty where they are not known.
      lines: the text of each source line.
      versions: package → its version.
      device: the device that a compiled program is for.
      flags: the compiler's settings that were given.
      notes: the assumptions behind the figures.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> program = cost.program(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
      >>> program.stage, program.figures.flops
      ('counted', 60)
    """

    name: str
    stage: str
    stages: Mapping[str, tuple[Item, ...]]
    backward: bool = False
    forward: tuple[Item, ...] = ()
    lowering: tuple[Cause, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    lines: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> Figures:
        """The figures at the program's stage."""
        return work.total(self.stages[self.stage])

    def side(self, stage: str) -> Side:
        """Return the program's work at a stage, to be matched with another's."""
        return Side(list(self.stages[stage]), self.lines)

    def save(self, path: Any) -> None:
        """Write the program to a file that `cost.load` reads, whole or not at all.

        Args:
          path: the file, JSON.

        Raises:
          OSError: where it cannot be written.
        """
        from refgrad.cost.comparison import snapshot  # which makes programs

        snapshot.save(self, path)

    def json(self) -> dict[str, Any]:
        """The figures in all, by scope and by source line, as plain data."""
        items = self.stages[self.stage]
        parts = {f"by_{key}": {name: one._asdict() for name, one in work.by(items, key).items()} for key in _PARTS}
        return {**{key: getattr(self, key) for key in PLAIN}, "figures": self.figures._asdict(), **parts}

    def __str__(self) -> str:
        shown = ", ".join(f"{n:,} {name}" for name, n in self.figures._asdict().items())
        return f"{self.name}, {'backward, ' * self.backward}{self.stage}: {shown}"


def program(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: Argnums = None,
    stage: Stage = "counted",
    backward: bool = False,
    flags: Flags | None = None,
    unknown: Unknown = "raise",
) -> Program:
    """Count f at its arguments, in the detail that `compare` needs.

    Args:
      f: the function.
      *args: its arguments, as for `count`.
      kwargs: its keyword arguments, as for `count`.
      argnums: the positions to differentiate, as for `count_backward`.
      stage: "counted" for the traced program, "lowered" or "compiled" for what XLA makes of it.
      backward: count f's backward pass and what it keeps from the forward pass, instead of f.
      flags: options of XLA's compiler for stage "compiled", such as {"xla_cpu_enable_fast_math": True}.
      unknown: as for `count`.

    Returns:
      A `Program`: an argument of `compare`, which can be saved.

    Raises:
      ValueError: for an unknown stage, for flags of a program that is not compiled, and for an unknown flag.
      UnknownCost, TypeError: as `count` and `count_backward` do.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.program(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)), backward=True).figures.flops
      120
    """
    if stage not in STAGES:
        raise ValueError(f"stage={stage!r}: one of {', '.join(STAGES)}")
    if flags and stage != "compiled":
        raise ValueError(f"flags={dict(flags)!r} are of XLA's compiler: they need stage='compiled', not {stage!r}")
    traced = _backward(f, args, kwargs, argnums) if backward else _forward(f, args, kwargs)
    counted = count_jaxpr(traced.jaxpr, unknown)
    stages = {"counted": work.of_count(counted, _again(traced.whole))}
    lowering: list[Cause] = []
    if stage != "counted":
        lowered = xla(traced.run, *traced.arrays)
        lowering = lowering_causes(traced.jaxpr, counted, lowered)
        stages["lowered"] = of_module(lowered, stages["counted"])
    if stage == "compiled":
        compiled = xla(traced.run, *traced.arrays, stage="compiled", flags=flags)
        stages["compiled"] = of_module(compiled, stages["counted"])
    everything = {name: [*one, *traced.kept] for name, one in stages.items()}
    if backward:
        whole = work.of_count(count_jaxpr(traced.whole, "count"))
        everything[_FORWARD] = [item for item in whole if not item.backward]
    placed, lines = work.portable(everything)
    forward = placed.pop(_FORWARD, ())
    return Program(
        _name(f),
        stage,
        placed,
        backward,
        forward,
        tuple(lowering),
        traced.inputs,
        traced.outputs,
        lines,
        about(),
        device(),
        dict(flags or {}),
        counted.notes,
    )


class _Traced(NamedTuple):
    """A program traced: what runs, its jaxpr, and that of the whole that it is a part of."""

    run: Callable[..., Any]
    arrays: tuple[Any, ...]
    jaxpr: Any
    whole: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kept: tuple[Item, ...] = ()


def _forward(f: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> _Traced:
    run, arrays = arrays_of(f, args, kwargs)
    jaxpr, out = jax.make_jaxpr(run, return_shape=True)(*arrays)
    return _Traced(run, arrays, jaxpr, jaxpr, _inputs(arrays), _outputs(out))


def _backward(f: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, argnums: Argnums) -> _Traced:
    """The backward pass, and the whole of forward and backward pass, in which values are made again."""
    run, arrays = backward_program(f, *args, kwargs=kwargs, argnums=argnums)
    leaves, pullback = differentiable(f, *args, kwargs=kwargs, argnums=argnums)

    def both(leaves: list[Any], cotangent: Any) -> Any:
        out, pull = pullback(*leaves)
        return out, pull(cotangent)

    whole = jax.make_jaxpr(both)(leaves, arrays[1])
    kept = tuple(work.of_residuals(residuals(f, *args, kwargs=kwargs, argnums=argnums)))
    return _Traced(run, arrays, jax.make_jaxpr(run)(*arrays), whole, _inputs(leaves), _outputs(arrays[1]), kept)


def _name(f: Any) -> str:
    """A function's name, through what `functools.partial` holds."""
    while hasattr(f, "func"):
        f = f.func
    return getattr(f, "__qualname__", None) or type(f).__name__


def _again(whole: Any) -> frozenset[tuple[str, ...]]:
    """The operations of the backward pass, with their lines, whose values the forward pass has made."""
    return frozenset(
        (eqn.primitive.name, *types_of(eqn), source or NOWHERE) for eqn, source in repeated_in_backward(whole)
    )


def _inputs(arrays: Any) -> tuple[str, ...]:
    return tuple(str(jnp.shape(x)) for x in jax.tree.leaves(arrays))


def _outputs(out: Any) -> tuple[str, ...]:
    """A function's outputs: a path, a rank and a shape each."""
    found = ((jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(out))
    return tuple(f"{path or 'an array'} of rank {len(shape)}, {str(shape).replace(' ', '')}" for path, shape in found)


def of_count(count: Count) -> Program:
    """Return a count as a program, with unknown outputs and residuals."""
    placed, lines = work.portable({"counted": work.of_count(count)})
    return Program("a count", "counted", placed, lines=lines, versions=about(), device=device(), notes=count.notes)


def about() -> dict[str, str]:
    """The versions that a count depends on."""
    return versions()


def device() -> str:
    """The device that programs are compiled for here."""
    backend = jax.default_backend()
    return f"{backend}: {processor() if backend == 'cpu' else jax.devices()[0].device_kind}; {platform.machine()}"
