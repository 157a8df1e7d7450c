"""XLA's own figures for a program, with every trap in them named.

`Lowered.cost_analysis()` and `Compiled.cost_analysis()` look like measurements and are not: keys whose value is zero
are missing, a loop counts once, a custom call counts −1, sums are rounded to float32, compiled figures belong to one
device and move with flags and versions. `xla` returns the figures with those traps that touch this very program.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax

from refgrad._text import table
from refgrad.cost import hlo
from refgrad.cost.arguments import Argnums, arrays_of
from refgrad.cost.count import abstract_vjp
from refgrad.cost.topology import devices

Stage = Literal["lowered", "compiled"]
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_KEYS = {"flops": "flops", "transcendentals": "transcendentals", "bytes": "bytes accessed"}


class Trap(NamedTuple):
    """One way in which XLA's answer misleads for this program: its name, and the particulars."""

    name: str
    detail: str


@dataclass(frozen=True)
class XlaCost:
    """XLA's answer, with the traps in it.

    Attributes:
      flops: XLA's FLOPs; None where the backend gives none.
      transcendentals: XLA's transcendentals, or None.
      bytes: XLA's "bytes accessed", or None.
      stage: "lowered" or "compiled".
      platform: the platform that the program is for.
      traps: each way in which the answer misleads for this program, with the particulars.
      hlo: the walk over the same module's text, in exact integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> answer = cost.xla(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
      >>> answer.flops, answer.hlo.flops
      (60, 60)
    """

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


def xla(
    f: Callable,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    stage: Stage = "lowered",
    platform: str | None = None,
    flags: Mapping[str, Any] | None = None,
    topology: str | None = None,
) -> XlaCost:
    """Ask XLA what `f(*args, **kwargs)` costs; nothing is run.

    Args:
      f: the function.
      *args: its arguments, concrete or abstract, as for `count`.
      kwargs: its keyword arguments, as for `count`.
      stage: "lowered" for the program as JAX wrote it, "compiled" for the optimised one.
      platform: of a lowered program: cpu, cuda, rocm or tpu, present or not; by default that of the default device. A
        compiled one is for the default platform.
      flags: options of XLA's compiler, for stage "compiled".
      topology: that of XLA:TPU, such as "v5e:2x2", to compile for one of its devices ahead of time (the `tpu` extra).

    Returns:
      An `XlaCost`: XLA's figures, with the traps in them named.

    Raises:
      ValueError: for another stage, platform or topology, and for an unknown flag.
      TypeError: where f is not a function.
      ImportError: for a topology without libtpu.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.xla(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5))).flops
      60
    """
    if topology is not None:
        return _ahead_of_time(f, args, kwargs, stage, topology)
    default = jax.default_backend()
    platform = platform or {"gpu": "cuda"}.get(default, default)
    if stage not in ("lowered", "compiled"):
        raise ValueError(f"stage={stage!r}: XLA counts a program 'lowered' or 'compiled'")
    if platform not in _PLATFORMS:
        raise ValueError(f"platform={platform!r}: one of {', '.join(_PLATFORMS)}")
    if stage == "compiled" and platform not in (default, {"gpu": "cuda"}.get(default)):
        raise ValueError(
            f"platform={platform!r} cannot be compiled for here, where JAX runs on {default!r}: use stage='lowered'"
        )
    program, arrays = arrays_of(f, args, kwargs)
    lowered = jax.jit(program).trace(*arrays).lower(lowering_platforms=(platform,))
    if stage == "lowered":
        return _read(lowered.as_text(dialect="hlo", debug_info=True), _ask(lowered), stage, platform)
    return of_compiled(_compile(lowered, flags), platform)


def _ahead_of_time(
    f: Callable, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, stage: Stage, topology: str
) -> XlaCost:
    if stage != "compiled":
        raise ValueError(
            f"topology={topology!r} is compiled for: use stage='compiled', or platform='tpu' for the lowered"
        )
    return of_compiled(compiled_for(f, args, topology, kwargs), "tpu")


def of_compiled(compiled: Any, platform: str) -> XlaCost:
    """Return XLA's answer for a program that is compiled already."""
    return _read(compiled.as_text() or "", _ask(compiled), "compiled", platform)


def compiled_for(f: Callable, args: tuple[Any, ...], topology: str, kwargs: Mapping[str, Any] | None = None) -> Any:
    """Return f compiled for the first device of a TPU topology, with `memory_analysis` and the rest of JAX's record."""
    where = jax.sharding.SingleDeviceSharding(devices(topology)[0])
    program, arrays = arrays_of(f, args, kwargs)
    return jax.jit(program, in_shardings=where, out_shardings=where).trace(*arrays).lower().compile()


def _compile(lowered: Any, flags: Mapping[str, Any] | None) -> Any:
    if not flags:
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=dict(flags))
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"flags={dict(flags)!r}: XLA's compiler says {str(error).splitlines()[0]}") from error


def xla_backward(
    f: Callable,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: Argnums = None,
    stage: Stage = "lowered",
    platform: str | None = None,
) -> XlaCost:
    """Ask XLA what the backward pass of `f` alone costs: from its residuals and a cotangent to its gradients.

    Args:
      f: the function.
      *args: its arguments, as for `xla`.
      kwargs: its keyword arguments, as for `count_backward`.
      argnums: the positions to differentiate, as for `count_backward`.
      stage: as for `xla`.
      platform: as for `xla`.

    Returns:
      An `XlaCost`.

    Raises:
      ValueError, TypeError: as `xla` and `count_backward` do.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.xla_backward(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5))).flops
      120
    """
    program, abstract = backward_program(f, *args, kwargs=kwargs, argnums=argnums)
    return xla(program, *abstract, stage=stage, platform=platform)


def backward_program(
    f: Callable, *args: Any, kwargs: Mapping[str, Any] | None = None, argnums: Argnums = None
) -> tuple[Callable, tuple[Any, Any]]:
    """The backward pass of `f` as a program of its own, with its abstract arguments (the pullback, the cotangent).

    Residuals and cotangent are arguments, because a literal cotangent would be folded into the program. Nothing is
    computed or allocated. Raises TypeError and ValueError as `count_backward` does.
    """
    return lambda pull, cotangent: pull(cotangent), abstract_vjp(f, *args, kwargs=kwargs, argnums=argnums)


def _ask(stage: Any) -> Any:
    """The raw answer; None where the backend has none."""
    try:
        return stage.cost_analysis()
    except NotImplementedError:
        return None


def _read(text: str, answer: Any, stage: Stage, platform: str) -> XlaCost:
    walked = hlo.cost(text, unknown="collect")
    figures, traps = read_answer(answer)
    traps = (*traps, *_traps(walked), *_sum_traps(walked, figures), *_device_traps(walked, stage))
    return XlaCost(figures["flops"], figures["transcendentals"], figures["bytes"], stage, platform, traps, walked)


def read_answer(answer: Any) -> tuple[dict[str, int | None], list[Trap]]:
    """(figures, traps) from the result of `cost_analysis()`: a dict, a list of them, or None.

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


def _traps(walked: hlo.HloCost) -> Iterator[Trap]:
    """Yield the traps in the program: custom calls, loops, conditionals, instructions that the walk does not know."""
    if calls := [target for target, row in walked.custom_calls() if row.flops]:
        names = ", ".join(f"{target} ×{calls.count(target)}" for target in dict.fromkeys(calls))
        yield Trap("custom call −1", f"each counts −1 FLOP whatever it does: {names}")
    for loop in walked.loops:
        trips = "unknown trips" if loop.trips is None else f"{loop.trips} trips"
        yield Trap("loop counted once", f"{trips}: {loop.scope or loop.instruction.name}")
    if walked.loops and all(loop.trips is not None for loop in walked.loops):
        flops, transcendentals = walked.executed
        yield Trap("loop counted once", f"with their trips: {flops:,} flops, {transcendentals:,} transcendentals")
    for conditional in walked.conditionals:
        yield Trap("costliest branch", f"the costliest branch counts, each figure by itself: {conditional.scope}")
    if walked.unknown:
        yield Trap("unknown instruction", f"not priced by the walk: {', '.join(walked.unknown)}")


def _sum_traps(walked: hlo.HloCost, figures: Mapping[str, int | None]) -> Iterator[Trap]:
    """Yield the float32 sums that leave the integers, and those that the walk's replay does not reproduce."""
    exact = {"flops": walked.flops, "transcendentals": walked.transcendentals}
    for (name, true), replayed in zip(exact.items(), map(round, walked.replayed), strict=True):
        answered = figures[name]
        if true != replayed:
            yield Trap("float32 sum", f"{name}: {true:,} in integers, {replayed - true:+,} by rounding")
        if answered is not None and answered != replayed and not walked.unknown:
            yield Trap("walker disagrees", f"{name}: XLA says {answered:,}, the walk over its text {replayed:,}")


def _device_traps(walked: hlo.HloCost, stage: Stage) -> Iterator[Trap]:
    if stage == "compiled" and walked.module.partitions > 1:
        yield Trap("per device", f"one of {walked.module.partitions} partitions, not the whole program")
    if stage == "lowered" and any("manual_computation" in name for name in walked.module.computations):
        yield Trap("per device", "the body of shard_map counts for one device, what is outside for all")
