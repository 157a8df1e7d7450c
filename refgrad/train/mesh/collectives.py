"""The payloads of a step's collectives on a mesh, by formula: a term for every line of `mesh/model.py` that moves data.

Symbols are the documents'; N_d, N_f, N_m are the devices along data, fsdp and model, s_max = n_positions, and w the
bytes of an element. A payload is the array that a collective operates on (`refgrad.cost.collectives`). A device's
stream has bsh/(N_d N_f) elements, a layer's matrices 12h², its vectors 13h. Of these, the norms' 4h and c_attn's 3h are
not cut, and over model neither is a share of the rest.

    fsdp    all-gather of the matrices, forward and backward; reduce-scatter of their gradients
    data    all-reduce of the gradients that fsdp has scattered
    model   all-reduce of the stream twice forward and twice backward; c_attn turned from rows to columns of heads, in
            both passes, and its gradient turned back; the tied table whole for the head, which works on s/N_m positions
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import sympy

from refgrad.cost.collectives import Collective
from refgrad.models import gpt2
from refgrad.symbols import N_d, N_f, N_m, V, b, evaluate, h, item, n_L, s, s_max

SIZES = {"data": N_d, "fsdp": N_f, "model": N_m}
GRADIENT = ("data", "fsdp")
ALL = ("data", "fsdp", "model")


class Term(NamedTuple):
    """One array that a collective moves; a mesh with none of the term's axes does not move it."""

    scope: str
    what: str
    kind: str
    """The collective, by HLO's name."""
    axes: tuple[str, ...]
    payload: sympy.Expr
    """Bytes."""
    times: sympy.Expr | int = 1
    """Times per step."""


STREAM = item * b * s * h / (N_d * N_f)


def _cut(scope: str, what: str, elements: sympy.Expr, gathers: int, times: sympy.Expr | int) -> tuple[Term, ...]:
    """Return the terms of matrices cut by model and fsdp: gathered over fsdp, gradients scattered, summed over data."""
    whole = item * elements / N_m
    return (
        Term(scope, what, "all-gather", ("fsdp",), gathers * whole, times),
        Term(scope, f"{what}: gradients", "reduce-scatter", ("fsdp",), whole, times),
        Term(scope, f"{what}: gradients", "all-reduce", ("data",), whole / N_f, times),
    )


def terms(tied: bool, remat: bool = False) -> tuple[Term, ...]:
    """Return every term of the loss and its gradients; `remat` recomputes blocks in the backward pass."""
    layer = (
        *_cut("h", "matrices", 12 * h**2, 2, n_L),
        Term("h", "norms: gradients", "all-reduce", GRADIENT, item * 4 * h, n_L),
        Term("h", "c_attn's bias: gradient", "all-reduce", GRADIENT, item * 3 * h, n_L),
        Term("h", "other biases: gradients", "all-reduce", GRADIENT, item * 6 * h / N_m, n_L),
        Term("h", "c_attn's bias: gradient", "all-reduce", ("model",), item * 3 * h, n_L),
        Term("h", "c_attn, rows ⇄ heads: twice; its gradient", "all-to-all", ("model",), item * 9 * h**2 / N_m, n_L),
        Term("h", "stream: both modules", "all-reduce", ("model",), 2 * STREAM, n_L),
        Term("h", "stream's gradient: both norms", "all-reduce", ("model",), 2 * STREAM, n_L),
        *([Term("h", "stream: attention again", "all-reduce", ("model",), STREAM, n_L)] if remat else []),
    )
    head = "wte" if tied else "lm_head"
    ends = (
        *_cut("wte", "embedding", V * h, 1, 1),
        *_cut("wpe", "embedding", s_max * h, 1, 1),
        *([] if tied else _cut("lm_head", "head", V * h, 1, 1)),
        Term("wte", "stream, from its columns", "all-gather", ("model",), STREAM),
        Term(head, "whole for the head", "all-gather", ("model",), item * V * h),
        Term(head, "whole for the head: gradient", "reduce-scatter", ("model",), item * V * h),
        Term("ln_f", "stream's gradient, from its positions", "all-gather", ("model",), STREAM),
        Term("ln_f", "gradients", "all-reduce", ALL, item * 2 * h),
        Term("loss", "mean", "all-reduce", ALL, item * sympy.Integer(1)),
    )
    return (*layer, *ends)


def dims(config: gpt2.Config, mesh: Mapping[str, int], batch: int, sequence: int, width: int = 4) -> dict[str, int]:
    """Return the symbols' values by name; `mesh` is {axis: size}, `width` the bytes of an element."""
    sizes = {SIZES[axis].name: mesh.get(axis, 1) for axis in SIZES}
    return {**config.dims(batch, sequence), "s_max": config.n_positions, "item": width, **sizes}


def derived(model: tuple[Term, ...], mesh: Mapping[str, int], values: Mapping[str, int]) -> list[Collective]:
    """Return the terms at these values, in the form that `refgrad.cost.collectives` reads off a compiled module."""
    return [
        Collective(
            term.kind,
            axes,
            math.prod(mesh[axis] for axis in axes),
            evaluate(term.payload, values),
            evaluate(term.times, values),
            f"{term.scope}: {term.what}".removeprefix(": "),
        )
        for term in model
        if (axes := tuple(axis for axis in mesh if axis in term.axes and mesh[axis] > 1))
    ]
