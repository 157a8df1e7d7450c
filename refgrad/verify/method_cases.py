"""The rules of a program that have methods to be checked one by one: a `MethodCase` for each.

These are the rules written as HiPrim, the jvp rules of `custom_jvp` functions, and of `custom_vjp` functions those that
do more than return cotangents.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from refgrad.jaxpr.authors import code_location
from refgrad.jaxpr.hiprim import prim_of
from refgrad.jaxpr.methods import OPTIONAL, Places, backward, has, is_hiprim, locations
from refgrad.jaxpr.rules import HI, JVP, RuleCall
from refgrad.jaxpr.versions import is_rule, opened
from refgrad.verify.calls import Call, CallRecorder, as_array
from refgrad.verify.method_case import MethodCase
from refgrad.verify.subject import Flat, Subject

MOST = 8  # different rules
CHECKED = ("vjp_fwd", "jvp", "lin", "linearized", "batch", "dce", "remat", "transpose")


def methods_of(prim: Any) -> dict[str, Places]:
    """Return the places of each method of a HiPrim, by the name of what is checked.

    The fault of a method that works on another one's residuals may lie in that one.
    """
    places: dict[str, Places] = {m: locations(prim, m) for m in CHECKED if has(prim, m)}
    if "linearized" in places:
        places["linearized"] += places.get("lin", ())
    if "vjp_fwd" in places:
        places["vjp_bwd"] = locations(prim, backward(prim)) + places["vjp_fwd"]
    if has(prim, "vjp_bwd"):
        places["accumulators"] = places["logs"] = places["vjp_bwd"]
    elif has(prim, "vjp_bwd_retval_logs"):
        places["logs"] = places["vjp_bwd"]
    return places


def lacks(prim: Any) -> dict[str, str]:
    """Return JAX's behaviour without each optional method that a HiPrim lacks."""
    return {m: f"no `{m}`: {effect}" for m, effect in OPTIONAL.items() if not has(prim, m)}


def names_of(prim: Any) -> list[str]:
    """Return the names of the leaves of a HiPrim's arguments, as in "params['w']"."""
    try:
        parameters = list(inspect.signature(prim.expand).parameters)
    except (TypeError, ValueError):
        parameters = []
    parameters += [f"argument {i}" for i in range(len(parameters), len(prim.in_avals))]
    leaves, _ = jax.tree_util.tree_flatten_with_path(prim.in_avals)
    return [parameters[path[0].idx] + jax.tree_util.keystr(path[1:]) for path, _ in leaves]


def found(
    f: Callable, flat: Flat, diff: list, rest: list, rules: Sequence[RuleCall], tolerance: float = 0.0
) -> list[MethodCase]:
    """Return a case for each of the `rules` inside `flat` that has methods, at the values that reach it."""
    wanted = {_key(rule) for rule in rules if _methods(rule, f)}
    if not wanted:
        return []
    finder = Finder(wanted, any(rule.of_jax for rule in rules))
    with contextlib.suppress(Complete):
        finder.run(jax.make_jaxpr(flat)(diff, rest), [*diff, *rest])
    moving = [call for call in finder.found.values() if call.diff]
    cases = [_case(call, _methods(call.rule, f), tolerance) for call in moving]
    for case, call in zip(cases, moving, strict=True):
        # a rule that is told which arguments move may count on how the function around it calls it
        case.alone = is_rule(f) or call.rule.kind != JVP or not _told(call.rule)
    return cases


def whole(flat: Flat, plain: Flat, subject: Subject, part: MethodCase) -> MethodCase:
    """Return the case of a whole function, judged like a rule inside it."""
    return dataclasses.replace(
        part, ruled=flat, plain=plain, diff=subject.diff, rest=subject.rest, names=subject.arguments, alone=True
    )


def _told(rule: RuleCall) -> bool:
    """Return True for a jvp rule that gets symbolic zeros."""
    return bool(rule.eqn.params.get("symbolic_zeros", getattr(prim_of(rule.eqn), "symbolic_zeros", False)))


class Complete(Exception):
    """Every rule has been found."""


class Finder(CallRecorder):
    """Interpreter that stops once it has met a call of each rule that is `wanted`."""

    def __init__(self, wanted: set, library: bool) -> None:
        super().__init__(library=library)
        self.wanted, self.found = wanted, {}

    def note(self, rule: RuleCall, values: Sequence[Any]) -> list:
        """Keep the first call of a rule; those inside `shard_map` have no values of one device."""
        key = _key(rule)
        given = [as_array(x, v.aval) for x, v in zip(values, rule.eqn.invars, strict=True)]
        if key in self.wanted and key not in self.found and self.devices is None:
            self.found[key] = Call(rule, "", (), None, given, None, rule.constants)
            if len(self.found) == min(len(self.wanted), MOST):
                raise Complete
        return super().note(rule, values)


def _key(rule: RuleCall) -> tuple:
    return rule.name, rule.location, *(str(v.aval) for v in rule.eqn.invars)


def _case(call: Call, places: dict[str, Places], tolerance: float) -> MethodCase:
    prim = call.rule.rule if call.rule.kind == HI else None
    leaves = names_of(prim) if prim is not None else _arguments(call)
    names = [name for i, name in enumerate(leaves) if call.moves(i)]
    lacking = lacks(prim) if prim is not None else {}
    return MethodCase(
        call.rule.name,
        call.ruled,
        call.plain,
        call.diff,
        call.rest,
        names,
        places,
        lacking,
        kind=call.rule.kind,
        tolerance=tolerance,
    )


def _arguments(call: Call) -> list[str]:
    """The names of the arguments of a function, as far as JAX keeps them."""
    known = opened(call.rule.forward).debug_info.arg_names or ()
    names = [name for name in known if name]
    return names if len(names) == len(call.values) else [f"argument {i}" for i in range(len(call.values))]


def _methods(rule: RuleCall, f: Callable) -> dict[str, Places]:
    """Return the places of what is checked of a rule, by name; nothing where the properties of every rule say it all.

    What a `custom_vjp` function does besides is known of its object, and of the equation that calls it under
    `jax_custom_vjp3`.
    """
    if rule.kind == HI:
        return methods_of(rule.rule) if is_hiprim(rule.rule) else {}
    if rule.kind == JVP:
        return {"jvp": (rule.location,)}
    source: Any = prim_of(rule.eqn) or f
    places: dict[str, Places] = {}
    if getattr(source, "bwd_accums", None) or getattr(source, "with_accums", False):
        places["accumulators"] = (rule.location,)
    if getattr(source, "with_logs", False) or "accumulators" in places:
        places["logs"] = (rule.location,)
    if source is not f and source.remat_rules:
        places["remat"] = (code_location(source.remat_rules[1]),)
    if source is not f and source.generic_batching:
        places["batch"] = (rule.location,)
    return places | {"vjp_bwd": (rule.location,)} if places else {}
