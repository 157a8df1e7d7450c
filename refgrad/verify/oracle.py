"""Truth in float64: autodiff of the function without its rules, or the nearest thing to it that JAX can compute.

In order: reverse mode, entry by entry; where the plain forward has none (an interpreted Pallas kernel, a loop with
unknown trips), forward mode, ⟨cotangent, J v⟩; where it has neither (a callback), finite differences of the forward.
The last two give every entry of the gradient while there are few inputs, and its products with random directions
beyond that. The program is traced at float64 arguments, or at the given ones where `f` refuses those, and widened.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.jaxpr.avals import is_float
from refgrad.jaxpr.calls import has_unknown_trips, is_device_bound
from refgrad.jaxpr.scaffold import scaffold
from refgrad.jaxpr.uncompiled import uncompiled
from refgrad.verify.numbers import to_wide
from refgrad.verify.subject import Flat, pullback
from refgrad.verify.widen import widen

FEW = 256  # inputs up to which forward mode and differences build the whole Jacobian
KEPT = 10_000  # entries of a J v that is kept for other cotangents
FLOAT64 = {"cpu", "cuda", "gpu", "rocm"}  # platforms that compute in it
DIRECTIONS = 8  # random ones per leaf beyond that
CONVERGED = (
    1e-9  # of forward mode through a loop with unknown trips: it stops when the value stands still, not the slope
)
STEP = 1e-3  # of central differences, relative to the size of the leaf; float64

Leaves = list[np.ndarray]


class Float64Program:
    """A flat program `f(floats, others, …)` compiled in float64; `limits` says where it could not be widened."""

    def __init__(self, f: Callable, *examples: Any, own: bool = False) -> None:
        """Trace `f` at float64 versions of the examples; at the given ones if it refuses those, or where `own`.

        Raises what `f` raises on the given ones.
        """
        self.own_types = own
        if not own:
            try:
                with jax.enable_x64(True):
                    self.program = widen(f, *jax.tree.map(_wide_leaf, examples))
            except Exception:  # whatever a user's function raises on a dtype that it does not take
                self.own_types = True
        if self.own_types:
            self.program = widen(f, *examples)
        self.compiled = scaffold(self.program)
        if self.own_types:
            self.traced(*examples)  # meets what takes no other types
        self.limits = self.program.limits
        self.device = None if is_device_bound(self.program.program) else elsewhere(default_device())

    def __call__(self, *args: Any) -> Any:
        """The outputs as NumPy arrays in float64, compiled."""
        with jax.enable_x64(True), jax.default_device(self.device or default_device()):
            return jax.tree.map(to_wide, self.compiled(*jax.tree.map(_wide_leaf, args)))

    def traced(self, *args: Any) -> Any:
        """The widened program as a jaxpr."""
        with jax.enable_x64(True):
            return self.compiled.trace(*jax.tree.map(_wide_leaf, args)).jaxpr

    def uncompiled(self, *args: Any) -> Any:
        """The same outputs, one primitive at a time."""
        program = self.traced(*args)
        with jax.enable_x64(True), jax.default_device(self.device or default_device()):
            flat = uncompiled(program, *jax.tree.map(_wide_leaf, args))
        return jax.tree.unflatten(self.program.out_tree, map(to_wide, flat))


@dataclasses.dataclass
class Oracle:
    """`cotangents(floats, others, cts)` is the truth; `measure(cotangents)` what of a rule's can be held against it."""

    kind: str
    cotangents: Callable[[Sequence, Sequence, Sequence], Leaves]
    measure: Callable[[Leaves], Leaves]
    entries: bool  # whether every entry is compared
    tolerance: float = 0.0  # how far, relatively, the truth itself may be off
    limits: Sequence[str] = ()
    program: Float64Program | None = None  # the compiled truth, in reverse mode


def default_device() -> Any:
    """JAX's device for values that nobody placed."""
    return next(iter(jax.device_put(np.zeros(())).devices()))  # where jnp.zeros compiles a program


def elsewhere(device: Any) -> Any:
    """The CPU where `device` has no float64 of its own, else None: truth is computed where everything else is."""
    return None if device.platform in FLOAT64 else jax.devices("cpu")[0]


def truth_device(oracle: Oracle, device: Any) -> str:
    """Name the device that computes truth, with the reason where it is another one or lacks float64."""
    if elsewhere(device) is None:
        return device.platform
    if oracle.program is not None and oracle.program.device is None:
        return f"{device.platform}, which has no float64: the program is bound to it, and truth is only as good"
    return f"cpu: {device.platform} has no float64"


def find(plain: Flat, diff: Leaves, rest: Leaves, cts: Leaves, rng: np.random.Generator, own: bool = False) -> Oracle:
    """The best oracle that `plain` allows at these arguments; `own` traces it at their dtypes."""
    try:
        return reverse(plain, diff, rest, cts, own)
    except Exception as refused:
        why = first_line(refused)
    kind, jvp, tolerance, limits = forward_mode(plain, diff, rest, own)
    directions = _directions(diff, rng)
    return Oracle(
        f"{kind} (no reverse mode: {why})",
        _projector(jvp, directions),
        lambda leaves: _project(leaves, directions),
        entries=_few(diff),
        tolerance=tolerance,
        limits=limits,
    )


class Forward(NamedTuple):
    """`jvp(floats, others, tangents)` gives the tangents of the float outputs."""

    kind: str
    jvp: Callable[[Sequence, Sequence, Sequence], Leaves]
    tolerance: float
    limits: Sequence[str]


def forward_mode(plain: Flat, diff: Leaves, rest: Leaves, own: bool = False) -> Forward:
    """Forward mode of `plain`, or finite differences where it has none."""
    try:
        push = Float64Program(_pushforward(plain), diff, rest, diff, own=own)
    except Exception:  # JAX raises one of many errors without a forward mode
        value = Float64Program(lambda diff, rest: plain(diff, rest)[0], diff, rest, own=own)
        tolerance = 1e-3 if value.limits or value.own_types else 1e-7
        return Forward("finite differences of the forward", _differences(value), tolerance, value.limits)
    kind = "forward mode ⟨cotangent, J·v⟩ of the plain forward"
    return Forward(kind, push, CONVERGED if has_unknown_trips(push.program.program) else 0.0, push.limits)


def reverse(plain: Flat, diff: Leaves, rest: Leaves, cts: Leaves, own: bool = False) -> Oracle:
    """Autodiff in reverse mode: every entry. Raises JAX's error for a function without one."""
    program = Float64Program(pullback(plain), diff, rest, cts, own=own)
    kind = "autodiff of the plain forward"
    truth = lambda diff, rest, cts: program(diff, rest, cts)[1]  # noqa: E731
    return Oracle(kind, truth, lambda leaves: leaves, True, limits=program.limits, program=program)


def given(kind: str, cotangents: Callable[[Sequence, Sequence, Sequence], list], *examples: Any) -> Oracle:
    """The cotangents that the user says are meant: widened where they are a program of JAX's."""
    try:
        truth = Float64Program(cotangents, *examples)
    except Exception:  # NumPy, say: called on float64 instead
        truth = functools.partial(eagerly, cotangents)
    return Oracle(kind, truth, lambda leaves: leaves, True, limits=())


def eagerly(f: Callable, *args: Any) -> Any:
    """The results of `f` at float64 versions of its arguments, called without being traced."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(to_wide(x)) if is_float(x) else x, args)
        return jax.tree.map(to_wide, f(*wide))


def first_line(error: BaseException) -> str:
    """The first sentence of an error, without JAX's advice and stack."""
    return re.split(r"(?<!e\.g)\. ", " ".join(str(error).split()))[0].rstrip(".") or type(error).__name__


def _wide_leaf(x: Any) -> Any:
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return x
    return to_wide(x)


def _pushforward(plain: Flat) -> Callable:
    def push(diff, rest, tangents):
        return jax.jvp(lambda d: plain(d, rest)[0], (list(diff),), (list(tangents),))[1]

    return push


def _differences(forward: Float64Program) -> Callable:
    """Central differences with one Richardson step: the error falls like h⁴."""
    h = STEP * (20 if forward.limits or forward.own_types else 1)

    def slope(diff, rest, tangents, h):
        above, below = ([to_wide(x) + s * h * t for x, t in zip(diff, tangents, strict=True)] for s in (1, -1))
        return [(a - b) / (2 * h) for a, b in zip(forward(above, rest), forward(below, rest), strict=True)]

    def jvp(diff, rest, tangents):
        pairs = zip(slope(diff, rest, tangents, h / 2), slope(diff, rest, tangents, h), strict=True)
        return [(4 * fine - coarse) / 3 for fine, coarse in pairs]

    return jvp


def _few(diff: Leaves) -> bool:
    return sum(np.size(x) for x in diff) <= FEW


def _directions(diff: Leaves, rng: np.random.Generator) -> list[Leaves]:
    """Per leaf: the unit vectors where there are few inputs, random signs over √size beyond."""
    found = []
    for x in diff:
        shape, size = np.shape(x), np.size(x)
        if _few(diff):
            units = list(np.eye(size).reshape(size, *shape))
            found.append([*units, *(1j * u for u in units)] if np.iscomplexobj(x) else units)
        else:
            found.append([rng.choice([-1.0, 1.0], shape) / np.sqrt(size) for _ in range(DIRECTIONS)])
    return found


def _projector(jvp: Callable, directions: list[Leaves]) -> Callable:
    """⟨cotangent, J v⟩ for every direction of every leaf, in the form that `_project` gives a rule's.

    J v does not depend on the cotangent: small ones are kept for the arguments that were asked for last.
    """
    last: dict[str, Any] = {"diff": None, "moved": {}}

    def moved(diff, rest, i: int, k: int) -> Leaves:
        if last["diff"] is None or any(a is not b for a, b in zip(diff, last["diff"], strict=True)):
            last.update(diff=list(diff), moved={})
        if (i, k) not in last["moved"]:
            tangents = [np.zeros_like(to_wide(x)) for x in diff]
            tangents[i] = np.asarray(directions[i][k], tangents[i].dtype)
            found = jvp(diff, rest, tangents)
            if sum(m.size for m in found) > KEPT:
                return found
            last["moved"][i, k] = found
        return last["moved"][i, k]

    def product(cts, outputs) -> float:
        return float(sum(np.sum(np.real(to_wide(c) * m)) for c, m in zip(cts, outputs, strict=True)))

    def truth(diff, rest, cts):
        rows = ([product(cts, moved(diff, rest, i, k)) for k in range(len(vs))] for i, vs in enumerate(directions))
        return [_shaped(np.asarray(row), diff, i) for i, row in enumerate(rows)]

    return truth


def _shaped(row: np.ndarray, diff: Leaves, i: int) -> np.ndarray:
    """Entries in the leaf's own shape where the directions were unit vectors; a plain list of products elsewhere."""
    shape, size = np.shape(diff[i]), np.size(diff[i])
    if not _few(diff):
        return row
    if np.iscomplexobj(diff[i]):
        return (row[:size] - 1j * row[size:]).reshape(shape)
    return row.reshape(shape)


def _project(leaves: Leaves, directions: list[Leaves]) -> Leaves:
    """⟨leaf, v⟩ for the random directions; the leaf itself where the directions are unit vectors."""
    if _few(leaves):
        return leaves
    return [np.asarray([np.sum(np.real(x * v)) for v in vs]) for x, vs in zip(leaves, directions, strict=True)]
