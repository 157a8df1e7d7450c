"""Equations that call a custom derivative rule: its owner, its name, and the place of its backward."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr.authors import author, code_location, is_jax, is_machinery
from refgrad.jaxpr.calls import callee
from refgrad.jaxpr.hiprim import (
    CHECKPOINT,
    HI,
    JVP,
    VJP,
    constants_of,
    is_own,
    prim_of,
    stands_for,
    user_forward,
    user_rule,
)
from refgrad.jaxpr.methods import JAX_FOLDER, backward, locations
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.versions import opened

# primitive → the kind of rule that it calls, and the parameters that hold the rule and its forward
_RULES = {"custom_vjp_call": (VJP, "bwd", "fwd_jaxpr_thunk"), "custom_jvp_call": (JVP, "jvp_jaxpr_fun", None)}


@dataclasses.dataclass(frozen=True)
class RuleCall:
    """A call of a rule: one equation of a program."""

    eqn: JaxprEqn
    kind: str  # VJP, JVP or HI
    rule: Any  # what JAX keeps of the user's rule: a wrapped function, the function itself, or a HiPrim
    fwd: Any = (
        None  # the same of the forward that keeps residuals: `custom_gradient` has the user's function only there
    )

    @property
    def forward(self) -> ClosedJaxpr | Jaxpr:
        """The program that the rule differentiates."""
        program = callee(self.eqn)
        assert program is not None
        return program

    @property
    def constants(self) -> frozenset[int]:
        """The inputs that are arrays which the function closes over: JAX differentiates no rule by those."""
        prim = prim_of(self.eqn)
        return frozenset(range(self.eqn.params.get("num_consts", 0) if prim is None else constants_of(prim)))

    @property
    def name(self) -> str:
        """The name of the function that has the rule, or of the HiPrim's class."""
        if self.kind == HI:
            return type(self.rule).__name__
        name, file = self._function
        return next(self._called_by(name), name) if is_machinery(file) else name

    @property
    def location(self) -> str:
        """`file:line (name)` of the backward, or of the jvp rule; empty where Python does not know one.

        Of the whole function where the backward is made again at each call, as `jax.custom_gradient` has it.
        """
        if self.kind == HI:
            return next(iter(locations(self.rule, backward(self.rule))), "")
        return code_location((self.rule, self.fwd))

    @property
    def defined(self) -> str:
        """`file:line` of the function that has the rule; of the rule where that function is a library's."""
        _, _, place = (opened(self.forward).debug_info.func_src_info or "").partition(" at ")
        file = place.rpartition(":")[0]
        return place if place and not (is_jax(file) or is_machinery(file)) else self.location

    @property
    def of_jax(self) -> bool:
        """True for a function of JAX's own library: no code of anybody else's makes its rule.

        A guard of a library's wrapper counts as one too, such as equinox's `nondifferentiable`.
        """
        if self.kind == HI:
            return is_own(self.rule)
        written = author(self.rule, self.fwd)
        files = self._function[1], written.co_filename if written else JAX_FOLDER
        return all(is_jax(file) or is_machinery(file) for file in files)

    @property
    def _function(self) -> tuple[str, str]:
        """Name and file of the function that has the rule."""
        name, _, place = (opened(self.forward).debug_info.func_src_info or "").partition(" at ")
        return name or "rule", place.rpartition(":")[0]

    def _called_by(self, wrapper: str) -> Iterator[str]:
        """Yield the function that a wrapper of this name calls, as the stacks of its equations have it."""
        for eqn in equations(self.forward):
            traceback = eqn.source_info.traceback
            inner = ""
            for frame in traceback.frames if traceback is not None else ():
                name = frame.function_name.rpartition(".")[2]
                if not is_machinery(frame.file_name):
                    inner = name
                elif name == wrapper and inner:
                    yield inner


def rule_of(eqn: JaxprEqn) -> RuleCall | None:
    """Return the rule that an equation calls; None where it calls none."""
    if (prim := prim_of(eqn)) is not None:
        kind = stands_for(prim)
        if kind == CHECKPOINT:
            return None
        return RuleCall(eqn, kind, prim) if kind == HI else RuleCall(eqn, kind, user_rule(prim), user_forward(prim))
    if (row := _RULES.get(eqn.primitive.name)) is None:
        return None
    kind, rule, forward = row
    return RuleCall(eqn, kind, eqn.params[rule], eqn.params.get(forward))


def meets_rule(program: ClosedJaxpr | Jaxpr) -> bool:
    """Return True for a derivative in which forward mode met a rule: JAX stages its call, and refuses to run it."""
    return any(eqn.primitive.name == "custom_lin" for eqn in equations(program))
