"""A program's equations at any depth, their places in the user's code, and functions as programs."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from refgrad.jaxpr.authors import is_jax, is_machinery
from refgrad.jaxpr.avals import canonical
from refgrad.jaxpr.hiprim import expansion, prim_of
from refgrad.jaxpr.versions import opened

ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)
ROOMS = os.path.dirname(os.path.dirname(__file__))
INSTRUMENTS = tuple(os.path.join(ROOMS, room) + os.sep for room in ("jaxpr", "verify", "cost", "report"))
SHELL = os.path.join(ROOMS, "cli") + os.sep
STOP_GRADIENT = "stop_gradient"
REMAT = "rematted_computation"  # the scope that JAX puts around what `jax.checkpoint` computes again


def programs_in(eqn: JaxprEqn) -> Iterator[Jaxpr | ClosedJaxpr]:
    """Yield the programs that an equation holds, among its parameters or as its expansion."""
    if prim_of(eqn) is not None:
        yield expansion(eqn)
    else:
        yield from jaxprs_in_params(eqn.params)


def holds_programs(eqn: JaxprEqn) -> bool:
    """Return True for an equation that holds at least one program."""
    return next(iter(programs_in(eqn)), None) is not None


def equations(program: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """Yield every equation of a program and of the programs inside it, in order of appearance."""
    for eqn in program.eqns:
        yield eqn
        yield from inside(eqn)


def inside(eqn: JaxprEqn) -> Iterator[JaxprEqn]:
    """Yield every equation of the programs that `eqn` holds."""
    for program in programs_in(eqn):
        yield from equations(program)


def directly_inside(eqn: JaxprEqn) -> Iterator[JaxprEqn]:
    """Yield the equations of the programs that `eqn` holds, but not those of programs further inside."""
    for program in programs_in(eqn):
        yield from program.eqns


def located(
    program: ClosedJaxpr | Jaxpr, enters: Callable[[JaxprEqn], bool], place: str = "an unknown line"
) -> Iterator[tuple[JaxprEqn, str]]:
    """Yield (equation, its line), at any depth, descending only into equations that `enters` accepts.

    `place` is where the program is called: it stands for equations that JAX's own code made.
    """
    for eqn in program.eqns:
        here = line(eqn) or place
        yield eqn, here
        if enters(eqn):
            for inner in programs_in(eqn):
                yield from located(inner, enters, here)


def makers(program: ClosedJaxpr | Jaxpr) -> dict[Any, tuple[JaxprEqn, int]]:
    """Return, for each variable that an equation makes, that equation and the index of the result."""
    return {v: (eqn, i) for eqn in opened(program).eqns for i, v in enumerate(eqn.outvars)}


def readers(program: ClosedJaxpr | Jaxpr) -> dict[Any, list[JaxprEqn]]:
    """Return, for each variable that equations read, those equations."""
    found: dict[Any, list[JaxprEqn]] = {}
    for eqn in opened(program).eqns:
        for v in eqn.invars:
            if not isinstance(v, Literal):
                found.setdefault(v, []).append(eqn)
    return found


def line(eqn: JaxprEqn) -> str:
    """Return `file:line (function)` of the user's code that made the equation; empty where JAX's own code made it.

    An instrument that traced the user's function, and a library's wrapper around a rule, are not the user's code.
    """
    found = source_info_util.summarize(eqn.source_info)
    file = found.rpartition(" (")[0].rstrip(":0123456789")
    traceback = eqn.source_info.traceback
    if traceback is None or not (is_machinery(file) or file.startswith((*INSTRUMENTS, SHELL))):
        return found
    for frame in traceback.frames:
        file = frame.file_name
        if file.startswith(SHELL):  # what runs the command is not the user's code
            return ""
        if not (is_jax(file) or is_machinery(file) or file.startswith(INSTRUMENTS)):
            return f"{file}:{frame.line_num} ({frame.function_name})"
    return ""


def is_instrument(source: str) -> bool:
    """Return True for a line of an instrument, which traced the user's function."""
    return source.startswith(INSTRUMENTS)


def source_of(eqn: JaxprEqn) -> str:
    """Return `file:line` of the user's code that made the equation."""
    match = re.match(r"(.*?:\d+)(?::\d+)?(?: \(.*\))?$", line(eqn))
    return match.group(1) if match else line(eqn)


def scope_of(eqn: JaxprEqn) -> tuple[str, bool]:
    """Return the `named_scope` path without the transformations' marks, and True where it is rematerialised.

    A transformation's mark inside the path can start it again from its root, as in
    transpose(jvp(block))/jvp(block): the repeated part is dropped.
    """
    path: list[str] = []
    piece: list[str] = []
    for entry in (*eqn.source_info.name_stack.stack, None):
        if entry is not None and type(entry).__name__ == "Scope":
            piece.append(entry.name)
            continue
        path = piece if piece[: len(path)] == path else path + piece
        piece = []
    return "/".join(name for name in path if name != REMAT), REMAT in path


def is_backward(eqn: JaxprEqn) -> bool:
    """Return True for an equation of the transpose of a program that was differentiated."""
    stack = eqn.source_info.name_stack.stack
    return any(type(entry).__name__ == "Transform" and entry.name == "transpose" for entry in stack)


def trace(f: Callable, args: tuple, kwargs: dict) -> tuple[ClosedJaxpr, list, Any]:
    """Return `f` as a program of its array arguments: (program, those arguments flat, tree of its outputs).

    Everything else among the leaves (Python scalars, strings, functions) is static and reaches `f` as it is.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, ARRAYS)]

    def flat(*arrays):
        mixed = list(leaves)
        for i, array in zip(where, arrays, strict=True):
            mixed[i] = array
        inner_args, inner_kwargs = jax.tree.unflatten(tree, mixed)
        return f(*inner_args, **inner_kwargs)

    arrays = [canonical(leaves[i]) for i in where]
    program, shapes = jax.make_jaxpr(flat, return_shape=True)(*arrays)
    return program, arrays, jax.tree.structure(shapes)
