"""`shard_map`: the rule on each of two devices, with every argument sharded and with each of them replicated in turn.

With `check_vma=True` a cotangent must vary over the mesh as its primal does. A rule written without a mesh in mind
is refused there by JAX, loudly: "not available", with the remedy. With `check_vma=False` and the gradient taken
inside, plain autodiff leaves the sum over devices out as well: what counts is that the rule does as autodiff does.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from refgrad.jaxpr.rules import HI
from refgrad.jaxpr.scaffold import scaffold
from refgrad.verify.case import FunctionCase
from refgrad.verify.numbers import sample, to_wide
from refgrad.verify.properties.transforms import inside, pulled, summed_up
from refgrad.verify.report import UNAVAILABLE, Row
from refgrad.verify.subject import Flat, pullback

DEVICES = 2
ARGUMENTS = 6  # replicated in turn, at most
HIPRIM_REMEDY = "make the object from jax.typeof of its arguments, which names the axes that they vary on"
REFUSED = ("varying", "manual axis", "{V:")  # words of JAX's about a type that varies over an axis
REMEDY = "psum the cotangent in _bwd over the axes its primal does not vary on, or pcast the argument before the call"


def shard_map(case: FunctionCase) -> Iterator[Row]:
    """Rows for `check_vma` on and off; nothing where there is one device."""
    if jax.device_count() < DEVICES:
        return
    if any(len(getattr(x, "devices", set)()) > 1 for x in (*case.diff, *case.rest)):
        yield Row("shard_map", "", UNAVAILABLE, note="the arguments are sharded already")
        return
    n = len(case.diff)
    replicated: list[int | None] = [None, *(sample(range(n), case.at_most(ARGUMENTS)) if n > 1 else ())]
    for check_vma in (True, False):
        rows: list[Row] = []
        for fixed in replicated:
            rows += _rows(case, fixed, check_vma)
        yield from summed_up(rows, f"check_vma={check_vma}, {len(replicated)} shardings")


def _remedy(case: FunctionCase) -> str:
    return HIPRIM_REMEDY if any(rule.kind == HI for rule in case.rules) else REMEDY


def _rows(case: FunctionCase, fixed: int | None, check_vma: bool) -> list[Row]:
    """The rows of one sharding: every argument sharded, or all but the one that is `fixed`."""
    where = f"check_vma={check_vma}" + ("" if fixed is None else f", {case.subject.arguments[fixed]} replicated")
    transformed = lambda flat: _sharded(case, flat, fixed, check_vma)  # noqa: E731
    rows = list(inside(case, "shard_map", where, transformed, _expected(case, fixed, check_vma)))
    if not any(row.failed for row in rows):
        return rows
    if rows[0].error is None and check_vma and any(word in rows[0].note for word in REFUSED):
        return [Row("shard_map", where, UNAVAILABLE, note=f"JAX refuses the rule: {_remedy(case)}")]
    if rows[0].error is not None and not check_vma and case.autodiff is not None:
        return list(inside(case, "shard_map", where, transformed, [to_wide(g) for g in transformed(case.plain)]))
    return rows


def _entry(case: FunctionCase, fixed: int | None, k: int) -> list:
    return [case.diff[i] if i == fixed else x for i, x in enumerate(case.arguments(k))]


def _expected(case: FunctionCase, fixed: int | None, check_vma: bool) -> list[np.ndarray]:
    """Each device's cotangents; their sum for the replicated argument, where JAX keeps account of it."""
    each = [pulled(case, _entry(case, fixed, k), case.rest, k) for k in range(DEVICES)]
    stacked = [np.stack(g) for g in zip(*each, strict=True)]
    return [g.sum(0) if i == fixed and check_vma else g for i, g in enumerate(stacked)]


def _sharded(case: FunctionCase, flat: Flat, fixed: int | None, check_vma: bool) -> list:
    mesh = jax.make_mesh((DEVICES,), ("devices",), (AxisType.Auto,), devices=jax.devices()[:DEVICES])
    split, whole = PartitionSpec("devices"), PartitionSpec()
    specs = [whole if i == fixed else split for i in range(len(case.diff))]
    entries = zip(*(_entry(case, fixed, k) for k in range(DEVICES)), strict=True)
    diff = [e[0] if i == fixed else np.stack([np.asarray(x) for x in e]) for i, e in enumerate(entries)]
    cts = [np.stack(c) for c in zip(*map(case.drawn, range(DEVICES)), strict=True)]

    def local(diff, rest, cts):
        own = [x if i == fixed else x[0] for i, x in enumerate(diff)]
        grads = pullback(flat)(own, rest, [c[0] for c in cts])[1]
        return [g if i == fixed and check_vma else jnp.expand_dims(g, 0) for i, g in enumerate(grads)]

    out_specs = [whole if i == fixed and check_vma else split for i in range(len(case.diff))]
    program = jax.shard_map(local, mesh=mesh, in_specs=(specs, whole, split), out_specs=out_specs, check_vma=check_vma)
    return scaffold(program)(diff, case.rest, cts)
