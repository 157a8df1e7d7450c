"""A program to be compared: its work at each stage, its outputs, and what it was counted with."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from refgrad._machine import processor, versions
from refgrad.cost.arguments import Argnums, arrays_of
from refgrad.cost.causes import Cause, lowering_causes
from refgrad.cost.comparison import items as work
from refgrad.cost.comparison.instructions import of_module
from refgrad.cost.comparison.items import Figures, Item
from refgrad.cost.comparison.matching import Side
from refgrad.cost.count import Unknown, backward_jaxpr, count_jaxpr, differentiable
from refgrad.cost.residuals import residuals
from refgrad.cost.types import Count
from refgrad.cost.xla import backward_program, xla

Stage = Literal["counted", "lowered", "compiled"]
STAGES = ("counted", "lowered", "compiled")
Flags = Mapping[str, str | bool | int | float]


@dataclass(frozen=True)
class Program:
    """What a program costs at one stage, with what it takes to say why another one costs something else."""

    name: str
    stage: str
    stages: Mapping[str, tuple[Item, ...]]
    """The work at this stage and at those before it."""
    backward: bool = False
    lowering: tuple[Cause, ...] = ()
    """Why the figures of the lowered program are not those of the counted one."""
    outputs: tuple[str, ...] = ()
    """The function's outputs, a path and a shape each; empty where they are not known."""
    forward: frozenset[tuple[str, ...]] = frozenset()
    """What a backward pass has behind it: kinds of operations, each with the text of its line."""
    lines: Mapping[str, str] = field(default_factory=dict)
    """The text of each source line."""
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
    """
    if stage not in STAGES:
        raise ValueError(f"stage={stage!r}: one of {', '.join(STAGES)}")
    if flags and stage != "compiled":
        raise ValueError(f"flags={dict(flags)!r} are of XLA's compiler: they need stage='compiled', not {stage!r}")
    if backward:
        run, arrays = backward_program(f, *args, kwargs=kwargs, argnums=argnums)
        jaxpr = backward_jaxpr(f, *args, kwargs=kwargs, argnums=argnums)
    else:
        run, arrays = arrays_of(f, args, kwargs)
        jaxpr = jax.make_jaxpr(run)(*arrays)
    counted = count_jaxpr(jaxpr, unknown)
    stages: dict[str, list[Item]] = {"counted": work.of_count(counted)}
    forward: list[Item] = [item for item in stages["counted"] if not item.backward]
    if backward:
        stages["counted"] += work.of_residuals(residuals(f, *args, kwargs=kwargs, argnums=argnums))
        forward = _forward(f, args, kwargs, argnums)
    lowering: list[Cause] = []
    if stage != "counted":
        lowered = xla(run, *arrays)
        lowering = lowering_causes(jaxpr, counted, lowered)
        stages["lowered"] = of_module(lowered)
    if stage == "compiled":
        stages["compiled"] = of_module(xla(run, *arrays, stage="compiled", flags=flags))
    every = [item for one in stages.values() for item in one]
    lines = work.texts([*every, *forward])
    return Program(
        getattr(f, "__qualname__", None) or type(f).__name__,
        stage,
        {name: tuple(one) for name, one in stages.items()},
        backward,
        tuple(lowering),
        _outputs(f, args, kwargs),
        frozenset((*item.kind, lines.get(item.source, item.source)) for item in forward),
        lines,
        about(),
        device(),
        dict(flags or {}),
        counted.notes,
    )


def of_count(count: Count) -> Program:
    """Return a count as a program: its outputs are not known, nor what it keeps."""
    items = work.of_count(count)
    lines = work.texts(items)
    forward = frozenset((*i.kind, lines.get(i.source, i.source)) for i in items if not i.backward)
    return Program(
        "a count",
        "counted",
        {"counted": tuple(items)},
        forward=forward,
        lines=lines,
        versions=about(),
        device=device(),
        notes=count.notes,
    )


def about() -> dict[str, str]:
    """The versions that a count depends on."""
    return versions(("refgrad", "jax", "jaxlib"))


def device() -> str:
    """The device that programs are compiled for here."""
    backend = jax.default_backend()
    return f"{backend}: {processor() if backend == 'cpu' else jax.devices()[0].device_kind}; {platform.machine()}"


def _forward(f: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, argnums: Argnums) -> list[Item]:
    """The operations of the forward pass that leads to a backward pass."""
    leaves, pullback = differentiable(f, *args, kwargs=kwargs, argnums=argnums)
    return work.of_count(count_jaxpr(jax.make_jaxpr(pullback)(*leaves), "count"))


def _outputs(f: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> tuple[str, ...]:
    run, arrays = arrays_of(f, args, kwargs)
    out = jax.eval_shape(run, *arrays)
    return tuple(f"{jax.tree_util.keystr(path)}: {leaf.shape}" for path, leaf in jax.tree.leaves_with_path(out))
