"""The same function without its rules, so that autodiff differentiates the plain forward."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from refgrad.jaxpr.avals import is_float
from refgrad.jaxpr.calls import is_shell
from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.methods import JAX_FOLDER
from refgrad.jaxpr.programs import equations, inside, line, trace
from refgrad.jaxpr.rules import HI, JVP, VJP, RuleCall, rule_of

# JAX's functions as they stand in a Python stack: text, not imports
CALLS = "process_custom_vjp_call"
BINDING = ("current", "process_primitive", "bind_with_trace", "bind")
CALLED, VJP_CALLED = "HiPrim.__call__", "custom_vjp3.__call__"
RUNNERS = (
    "_flatten_fwd",
    "_flatten_jvp",
    "_custom_vjp_fwd.<locals>.rule",
    "_custom_jvp_rule.<locals>.rule",
    "_call_hi_primitive_linearize",
    "_call_hi_primitive_jvp",
)


def without_rules(f: Callable, jvp: bool = False, library: bool = False) -> Callable:
    """Return `f` with every `custom_vjp` inside it ignored, at any depth of the traced program.

    So are the shells around a program that JAX cannot differentiate, such as `custom_vmap`. The result takes and gives
    what `f` does, works under jit, grad, vmap and shard_map, and `f` may hold any of them. It traces `f` at each call:
    wrap it in `jax.jit` where it is called often.

    Out of reach are the rules that a `jax.grad` inside `f` has already applied, and those inside the rule of a
    `custom_jvp` that stays: `remaining_rules` names them.

    Args:
      f: any function.
      jvp: ignore `custom_jvp` too. The `custom_jvp` functions of JAX itself (`relu`, `logsumexp`, `sinc`, ...) keep
        their rules: those are what autodiff of them means.
      library: ignore JAX's own as well, for the sake of a check of these functions themselves.

    Returns:
      A function, called as `f` is.

    Example:
      >>> import jax
      >>> from refgrad.verify import without_rules
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (7 * x * dy,))  # a wrong rule
      >>> jax.grad(without_rules(square))(3.0).item()
      6.0
    """

    @functools.wraps(f, updated=())
    def plain(*args, **kwargs):
        program, arrays, tree = trace(f, args, kwargs)
        return jax.tree.unflatten(tree, Plain(jvp, library).run(program, arrays))

    return plain


class Plain(Interpreter):
    """Interpreter that leaves rules out: a call of a rule becomes the forward that it decorates."""

    def __init__(self, jvp: bool, library: bool = False) -> None:
        super().__init__()
        self.jvp, self.library = jvp, library

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Evaluate one equation; one that holds no rule is bound as it is, so that nothing about it can change."""
        rule = rule_of(eqn)
        if rule is not None and self.drops(eqn):
            return self.call(rule.forward)(*values)
        if self.keeps(eqn):
            return self.descend(eqn, values)  # its rule may hold others, out of sight until it is differentiated
        if has_shell(eqn) or any(map(self.drops, inside(eqn))):
            return self.descend(eqn, values)
        return self.bind(eqn, values)

    def keeps(self, eqn: JaxprEqn) -> bool:
        """Return True for a call of a user's function that has a jvp rule, which stays (`lax.custom_root` is one)."""
        rule = rule_of(eqn)
        return rule is not None and (rule.of_jax if rule.kind == HI else rule.kind == JVP and not rule.of_jax)

    def drops(self, eqn: JaxprEqn) -> bool:
        """Return True for a call of a rule that is to be ignored."""
        rule = rule_of(eqn)
        if rule is None or rule.kind == VJP:
            return rule is not None
        if rule.of_jax:
            return self.library and rule.kind == JVP and self.jvp
        return self.jvp or rule.kind == HI


def has_shell(eqn: JaxprEqn) -> bool:
    """Return True for a call that JAX cannot differentiate, though it can what is called, or one with such inside."""
    return is_shell(eqn) or any(map(is_shell, inside(eqn)))


def remaining_rules(f: Callable, *args: Any, **kwargs: Any) -> list[str]:
    """Return the rules that `without_rules(f, jvp=True)` cannot ignore, each with its place.

    They are known by the equations that they leave in the program of `f` or in that of its gradient. A rule that leaves
    none (its `_fwd` and `_bwd` return what they are given) cannot be seen.

    Args:
      f: any function.
      *args: its arguments, concrete or abstract.
      **kwargs: its keyword arguments.

    Returns:
      A text for each rule; an empty list where `without_rules` ignores them all.

    Example:
      >>> import jax
      >>> from refgrad.verify import remaining_rules
      >>> remaining_rules(jax.nn.relu, 1.0)
      []
    """
    program, arrays, _ = trace(without_rules(f, jvp=True), args, kwargs)
    programs = [program]
    with contextlib.suppress(Exception):  # JAX raises many kinds without a reverse mode: the forward stands alone
        programs.append(jax.make_jaxpr(_gradient(program))(*arrays))
    staged = (rule_of(eqn) for eqn in equations(trace(f, args, kwargs)[0]))
    # JAX gives the equations of a HiPrim that is expanded here the stack of its call
    in_sight = {rule.eqn.source_info.traceback for rule in staged if rule is not None and rule.kind == HI}
    return list(dict.fromkeys(place for p in programs for place in _applied(p, in_sight)))


def described(staged: Sequence[RuleCall], judged: Sequence[RuleCall], applied: Sequence[str]) -> str:
    """Say which rules a check is about where none of them is a user's; nothing where one is.

    Of the rules `staged` in a program truth leaves out those `judged`; `applied` are out of its reach.
    """
    if any(not rule.of_jax for rule in judged):
        return ""
    if judged:
        return f"none of yours inside; JAX's own: {_list(judged)}"
    if applied:
        return f"none left to tell from autodiff; applied inside already: {', '.join(applied)}"
    if staged:
        return f"none of yours inside; JAX's own, which are what autodiff means: {_list(staged)}"
    return "none inside: what is checked is autodiff itself"


def _list(rules: Sequence[RuleCall]) -> str:
    """Return names and places, each once."""
    places = ((rule.name, rule.location.replace(JAX_FOLDER, "jax/").partition(" (")[0]) for rule in rules)
    return ", ".join(dict.fromkeys(f"{name} ({place})" if place else name for name, place in places))


def _gradient(program: ClosedJaxpr) -> Callable:
    """The cotangents of a program's float inputs, for cotangents of ones."""
    floats = [i for i, aval in enumerate(program.in_avals) if is_float(aval)]

    def gradient(*arrays):
        def outputs(*moving):
            mixed = list(arrays)
            for i, x in zip(floats, moving, strict=True):
                mixed[i] = x
            return [y for y in jaxpr_as_fun(program)(*mixed) if is_float(y)]

        values, pull = jax.vjp(outputs, *(arrays[i] for i in floats))
        return pull([jax.numpy.ones_like(y) for y in values])

    return gradient


def _applied(program: ClosedJaxpr | Jaxpr, in_sight: set) -> Iterator[str]:
    """Rules that have been applied in a program, read off the Python stacks of its equations but those `in_sight`.

    Below a `_fwd` or jvp rule that JAX ran at once stands the function that runs it; an equation of a rule that was
    kept in a program and applied later carries the stack on which the rule was called.
    """
    for eqn in equations(program):
        traceback = eqn.source_info.traceback
        frames = traceback.frames if traceback is not None else []
        rule = rule_of(eqn)
        staged = rule is not None and rule.kind == VJP
        applied = not staged and any(f.function_name.endswith(CALLS) for f in frames[:2])
        if applied or (rule is None and traceback not in in_sight and _called(frames)):
            yield f"a rule called at {line(eqn) or 'an unknown line'}"
        for callee, caller in itertools.pairwise(frames):
            if caller.function_name in RUNNERS and not callee.file_name.startswith(JAX_FOLDER):
                yield f"{callee.function_name} at {callee.file_name}:{callee.line_num}"


def _called(frames: Sequence[Any]) -> bool:
    """Return True where JAX made an equation for the call of a user's HiPrim, or of what stands for a `custom_vjp`."""
    made = itertools.dropwhile(lambda f: f.function_name.endswith(BINDING), frames)
    callee, caller = next(made, None), next(made, None)
    if callee is None or caller is None or callee.function_name != CALLED:
        return False
    return caller.function_name == VJP_CALLED or not caller.file_name.startswith(JAX_FOLDER)
