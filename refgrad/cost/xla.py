"""What XLA itself says a program costs, with every trap in that answer named.

`Lowered.cost_analysis()` and `Compiled.cost_analysis()` look like measurements and are not: keys whose value is zero
are missing, a loop counts once, a custom call counts −1, sums are rounded to float32, compiled figures belong to one
device and move with flags and versions. `xla` returns the figures with those traps that touch this very program.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from refgrad._text import table
from refgrad.cost import hlo

Stage = Literal["lowered", "compiled"]
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_KEYS = {"flops": "flops", "transcendentals": "transcendentals", "bytes": "bytes accessed"}


class Trap(NamedTuple):
    """One way in which XLA's answer misleads for this program: its name, and the particulars."""

    name: str
    detail: str


@dataclass(frozen=True)
class XlaCost:
    """XLA's answer. Figures are None where the backend gives none; `hlo` is the walk over the same module's text."""

    flops: int | None
    transcendentals: int | None
    bytes: int | None
    stage: Stage
    platform: str
    traps: tuple[Trap, ...]
    hlo: hlo.HloCost

    def __str__(self) -> str:
        figures = [(name, _figure(getattr(self, name))) for name in _KEYS]
        head = table([f"XLA, {self.stage} for {self.platform}", "count"], figures)
        return "\n".join([head, *(f"trap: {trap.name}: {trap.detail}" for trap in self.traps)])


def _figure(value: int | None) -> str:
    return "no answer" if value is None else f"{value:,}"


def xla(f: Callable, *args: Any, stage: Stage = "lowered", platform: str | None = None) -> XlaCost:
    """Ask XLA what `f(*args)` costs. Arguments may be abstract (`jax.ShapeDtypeStruct`); nothing is run.

    stage "lowered" is the program as JAX wrote it, for any of the platforms cpu, cuda, rocm, tpu, present or not;
    stage "compiled" is the optimised one, for the default platform only.
    Raises ValueError for another stage or platform.
    """
    default = jax.default_backend()
    platform = platform or {"gpu": "cuda"}.get(default, default)
    if stage not in ("lowered", "compiled"):
        raise ValueError(f"stage={stage!r}: XLA counts a program 'lowered' or 'compiled'")
    if platform not in _PLATFORMS:
        raise ValueError(f"platform={platform!r}: one of {', '.join(_PLATFORMS)}")
    if stage == "compiled" and platform not in (default, {"gpu": "cuda"}.get(default)):
        raise ValueError(f"platform={platform!r} cannot be compiled for here, where JAX runs on {default!r}: use stage='lowered'")
    lowered = jax.jit(f).trace(*args).lower(lowering_platforms=(platform,))
    if stage == "lowered":
        return _read(lowered.as_text(dialect="hlo", debug_info=True), _ask(lowered), stage, platform)
    compiled = lowered.compile()
    return _read(compiled.as_text() or "", _ask(compiled), stage, platform)


def xla_backward(f: Callable, *args: Any, stage: Stage = "lowered", platform: str | None = None) -> XlaCost:
    """Ask XLA what the backward pass of `f` alone costs: residuals and cotangent are arguments (see `backward`)."""
    program, abstract = backward(f, *args)
    return xla(program, *abstract, stage=stage, platform=platform)


def backward(f: Callable, *args: Any) -> tuple[Callable, tuple[Any, Any]]:
    """The backward pass of `f` as a program of its own, with its abstract arguments (residuals, cotangents).

    It is the transposed function that `jax.vjp` returns, differentiated in every floating or complex leaf of `args`;
    integer outputs have no cotangent. Nothing is computed or allocated. The cotangent is an argument, because a
    literal 1.0 would be folded into the program. Raises ValueError where nothing can be differentiated.
    """
    leaves, tree = jax.tree.flatten(args)
    moving = [i for i, leaf in enumerate(leaves) if _inexact(leaf)]
    if not moving:
        raise ValueError(f"none of the {len(leaves)} argument leaves is floating: there is no backward pass to count")

    def pull_back(all_leaves):
        def outputs(*some):
            merged = dict(zip(moving, some, strict=True))
            out = f(*jax.tree.unflatten(tree, [merged.get(i, leaf) for i, leaf in enumerate(all_leaves)]))
            return [leaf for leaf in jax.tree.leaves(out) if _inexact(leaf)]

        return jax.vjp(outputs, *(all_leaves[i] for i in moving))

    cotangents, vjp = jax.eval_shape(pull_back, leaves)
    if not cotangents:
        raise ValueError("no output of the function is floating: there is no backward pass to count")
    return lambda vjp, cotangents: vjp(cotangents), (vjp, cotangents)


def _inexact(leaf: Any) -> bool:
    return jnp.issubdtype(jax.dtypes.result_type(leaf) if not hasattr(leaf, "dtype") else leaf.dtype, jnp.inexact)


def _ask(stage: Any) -> Any:
    """The raw answer; None where the backend has none."""
    try:
        return stage.cost_analysis()
    except NotImplementedError:
        return None


def _read(text: str, answer: Any, stage: Stage, platform: str) -> XlaCost:
    walked = hlo.cost(text, unknown="collect")
    figures, traps = read_answer(answer)
    traps += _traps(walked, figures, stage)
    return XlaCost(figures["flops"], figures["transcendentals"], figures["bytes"], stage, platform, tuple(traps), walked)


def read_answer(answer: Any) -> tuple[dict[str, int | None], list[Trap]]:
    """(figures, traps) from whatever `cost_analysis()` returned: a dict, a list of them, or None.

    Raises TypeError for anything else.
    """
    traps = []
    if isinstance(answer, (list, tuple)):
        traps.append(Trap("list answer", f"{len(answer)} dictionaries, of which the first is read"))
        answer = answer[0] if answer else None
    if answer is None:
        return dict.fromkeys(_KEYS), [*traps, Trap("no answer", "this backend does not count; the walk over HLO does")]
    if not isinstance(answer, Mapping):
        raise TypeError(f"cost_analysis() returned {type(answer).__name__}, neither a dict, a list of dicts nor None")
    absent = [key for key in _KEYS.values() if key not in answer]
    if absent:
        traps.append(Trap("absent key", f"{', '.join(map(repr, absent))} missing from the dictionary: read as 0"))
    figures: dict[str, int | None] = {name: round(answer.get(key, 0)) for name, key in _KEYS.items()}
    negative = [f"{name} = {value}" for name, value in figures.items() if value is not None and value < 0]
    if negative:
        traps.append(Trap("negative", f"{', '.join(negative)}: custom calls outweigh the rest"))
    return figures, traps


def _traps(walked: hlo.HloCost, figures: Mapping[str, int | None], stage: Stage) -> list[Trap]:
    traps = []
    if calls := [target for target, _ in walked.custom_calls()]:
        names = ", ".join(f"{target} ×{calls.count(target)}" for target in dict.fromkeys(calls))
        traps.append(Trap("custom call −1", f"each counts −1 FLOP whatever it does: {names}"))
    for loop in walked.loops:
        trips = "unknown trips" if loop.trips is None else f"{loop.trips} trips"
        traps.append(Trap("loop counted once", f"{trips}: {loop.scope or loop.name}"))
    if walked.executed is not None and walked.loops:
        flops, transcendentals = walked.executed
        traps.append(
            Trap("loop counted once", f"with their trips: {flops:,} flops, {transcendentals:,} transcendentals")
        )
    for scope in walked.conditionals:
        traps.append(Trap("dearest branch", f"only the dearest branch counts, each figure by itself: {scope}"))
    for name, exact, replayed in zip(("flops", "transcendentals"), (walked.flops, walked.transcendentals), walked.replayed, strict=True):
        if exact != replayed:
            traps.append(Trap("float32 sum", f"{name}: {exact:,} in integers, {replayed - exact:+,.0f} by rounding"))
        if figures[name] is not None and figures[name] != replayed and not walked.unknown:
            traps.append(
                Trap("walker disagrees", f"{name}: XLA {figures[name]:,}, the walk over its own text {replayed:,.0f}")
            )
    if walked.unknown:
        traps.append(Trap("unknown instruction", f"not priced by the walk: {', '.join(walked.unknown)}"))
    if stage == "compiled" and walked.module.partitions > 1:
        traps.append(Trap("per device", f"one of {walked.module.partitions} partitions, not the whole program"))
    if stage == "lowered" and any("manual_computation" in row.computation for row in walked.rows):
        traps.append(Trap("per device", "the body of shard_map counts for one device, what is outside for all"))
    return traps
