"""Equations that call a custom derivative rule: whose it is, what it is called, and where its backward stands."""

import dataclasses
import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

from jax.extend import linear_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr.calls import callee
from refgrad.jaxpr.hiprim import CHECKPOINT, HI, JVP, VJP, is_own, prim_of, stands_for, user_rule
from refgrad.jaxpr.methods import JAX_FOLDER, backward, locations
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.versions import opened

# primitive → the kind of rule that it calls, and the parameter that holds the rule
_RULES = {"custom_vjp_call": (VJP, "bwd"), "custom_jvp_call": (JVP, "jvp_jaxpr_fun")}


@dataclasses.dataclass(frozen=True)
class RuleCall:
    """A call of a rule: one equation of a program."""

    eqn: JaxprEqn
    kind: str  # VJP, JVP or HI
    rule: Any  # what JAX keeps of the user's rule: a wrapped function, the function itself, or a HiPrim

    @property
    def forward(self) -> ClosedJaxpr | Jaxpr:
        """The program that the rule differentiates."""
        program = callee(self.eqn)
        assert program is not None
        return program

    @property
    def name(self) -> str:
        """The name of the function that has the rule, or of the HiPrim's class."""
        return type(self.rule).__name__ if self.kind == HI else self._function[0]

    @property
    def location(self) -> str:
        """`file:line (name)` of the backward, or of the jvp rule; empty where Python does not know one."""
        if self.kind == HI:
            return next(iter(locations(self.rule, backward(self.rule))), "")
        if not isinstance(self.rule, linear_util.WrappedFun):
            return code_location(self.rule)
        name, place = _source(self.rule.debug_info.func_src_info)
        return f"{place} ({name})" if place else ""

    @property
    def of_jax(self) -> bool:
        """True for a function of JAX's own library: no code of anybody else's makes its rule."""
        if self.kind == HI:
            return is_own(self.rule)
        return all(file.startswith(JAX_FOLDER) for file in (self._function[1], *_files(self.rule, set())))

    @property
    def _function(self) -> tuple[str, str]:
        """Name and place of the function that has the rule."""
        return _source(opened(self.forward).debug_info.func_src_info)


def rule_of(eqn: JaxprEqn) -> RuleCall | None:
    """Return the rule that an equation calls; None where it calls none."""
    if (prim := prim_of(eqn)) is not None:
        kind = stands_for(prim)
        if kind == CHECKPOINT:
            return None
        return RuleCall(eqn, kind, prim if kind == HI else user_rule(prim))
    if (row := _RULES.get(eqn.primitive.name)) is None:
        return None
    kind, parameter = row
    return RuleCall(eqn, kind, eqn.params[parameter])


def code_location(function: Any) -> str:
    """Return `file:line (name)` of a Python function, through what wraps it; empty where it has no code."""
    while (inner := getattr(function, "__wrapped__", None) or getattr(function, "func", None)) is not None:
        function = inner  # functools.wraps, jax.jit and functools.partial
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno} ({code.co_name})" if code else ""


def meets_rule(program: ClosedJaxpr | Jaxpr) -> bool:
    """Return True for a derivative in which forward mode met a rule: JAX stages its call, and refuses to run it."""
    return any(eqn.primitive.name == "custom_lin" for eqn in equations(program))


def _files(x: Any, seen: set[int]) -> Iterator[str]:
    """Yield the file of every Python function that `x` is made of: itself, what it wraps and what it closes over."""
    if id(x) in seen:
        return
    seen.add(id(x))
    parts: Iterable = ()
    if isinstance(x, types.FunctionType):
        yield x.__code__.co_filename
        filled = (cell for cell in x.__closure__ or () if cell != types.CellType())  # an empty one has no contents
        parts = [cell.cell_contents for cell in filled]
    elif isinstance(x, functools.partial):
        parts = (x.func, *x.args)
    elif isinstance(x, linear_util.WrappedFun):
        parts = (x.f,)
    elif isinstance(x, tuple | list):
        parts = x
    for part in parts:
        yield from _files(part, seen)


def _source(info: str | None) -> tuple[str, str]:
    """Return (name, `file:line`) from the text `name at file:line` that JAX keeps of a traced function."""
    name, _, place = (info or "").partition(" at ")
    return name or "rule", place
