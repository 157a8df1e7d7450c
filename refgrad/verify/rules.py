"""The same function without its rules, so that autodiff differentiates the plain forward; and the names of rules."""

import contextlib
import functools
import itertools
import os
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import linear_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from refgrad.verify.allowance import is_float
from refgrad.verify.interpret import Interpreter, equations, inside, line, trace

JAX_FOLDER = os.path.dirname(str(jax.__file__)) + os.sep
CALLS = "process_custom_vjp_call"  # JAX's functions as they stand in a Python stack: text, not imports
RUNNERS = ("_flatten_fwd", "_flatten_jvp")


def without_rules(f: Callable, jvp: bool = False) -> Callable:
    """`f` with every `custom_vjp` inside it ignored, at any depth of the traced program; with `jvp`, `custom_jvp` too.

    The result takes and returns what `f` does, works under jit, grad, vmap and shard_map, and `f` may hold any of them.
    It traces `f` at each call: wrap it in `jax.jit` where it is called often. The `custom_jvp` functions of JAX itself
    (`relu`, `logsumexp`, `sinc`, ...) always keep their rules: those are what autodiff of them means.

    Out of reach are the rules that a `jax.grad` inside `f` has already applied, and those inside the rule of a
    `custom_jvp` that stays: `remaining_rules` names them.
    """

    @functools.wraps(f, updated=())
    def plain(*args, **kwargs):
        program, arrays, tree = trace(f, args, kwargs)
        return jax.tree.unflatten(tree, Plain(jvp).run(program, arrays))

    return plain


class Plain(Interpreter):
    """Runs a program with its rules left out: a call of a rule becomes the forward that it decorates."""

    def __init__(self, jvp: bool) -> None:
        super().__init__()
        self.jvp = jvp

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """What holds no rule is bound as it stands, so that nothing about it can change."""
        if self.drops(eqn):
            return self.call(eqn.params["call_jaxpr"])(*values)
        if self.keeps(eqn):
            return self.descend(eqn, values)  # its rule may hold others, out of sight until it is differentiated
        return self.descend(eqn, values) if any(map(self.drops, inside(eqn))) else self.bind(eqn, values)

    def keeps(self, eqn: JaxprEqn) -> bool:
        """Whether it calls a function of the user's that has a jvp rule, which stays (`lax.custom_root` is one)."""
        name = eqn.primitive.name
        return name == "call_hi_primitive" or (name == "custom_jvp_call" and not of_jax(eqn))

    def drops(self, eqn: JaxprEqn) -> bool:
        """Whether this equation calls a rule that is to be ignored."""
        name = eqn.primitive.name
        return name == "custom_vjp_call" or (self.jvp and name == "custom_jvp_call" and not of_jax(eqn))


def remaining_rules(f: Callable, *args: Any, **kwargs: Any) -> list[str]:
    """The rules that `without_rules(f, jvp=True)` cannot ignore, each with its place; arguments may be abstract.

    They are known by the equations that they leave in the program of `f` or in that of its gradient. A rule that leaves
    none (its `_fwd` and `_bwd` return what they are given) cannot be seen.
    """
    program, arrays, _ = trace(without_rules(f, jvp=True), args, kwargs)
    programs = [program]
    with contextlib.suppress(Exception):  # whatever JAX raises where there is no reverse mode: the forward stands alone
        programs.append(jax.make_jaxpr(_gradient(program))(*arrays))
    return list(dict.fromkeys(place for p in programs for place in _applied(p)))


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


def _applied(program: ClosedJaxpr | Jaxpr) -> Iterator[str]:
    """Rules that have been applied in a program, read off the Python stacks of its equations.

    Below a `_fwd` or jvp rule that JAX ran at once stands the function that runs it; an equation of a rule that was
    kept in a program and applied later carries the stack on which the rule was called.
    """
    for eqn in equations(program):
        traceback = eqn.source_info.traceback
        frames = traceback.frames if traceback is not None else []
        if eqn.primitive.name != "custom_vjp_call" and any(f.function_name.endswith(CALLS) for f in frames[:2]):
            yield f"a rule called at {line(eqn) or 'an unknown line'}"
        for callee, caller in itertools.pairwise(frames):
            if caller.function_name in RUNNERS and not callee.file_name.startswith(JAX_FOLDER):
                yield f"{callee.function_name} at {callee.file_name}:{callee.line_num}"


def rule_name(eqn: JaxprEqn) -> str:
    """The name of the function that a rule's equation calls."""
    return _source(eqn.params["call_jaxpr"].jaxpr.debug_info.func_src_info)[0]


def bwd_location(rule: JaxprEqn | Callable) -> str:
    """`file:line (name)` of the backward of a rule: of an equation that calls it, or of the decorated function itself.

    For `custom_jvp` it is the place of its jvp rule. Empty where Python does not know one (a built-in, `eval`).
    Raises TypeError for a function that has no rule.
    """
    if isinstance(rule, JaxprEqn):
        wrapped = rule.params["bwd" if rule.primitive.name == "custom_vjp_call" else "jvp_jaxpr_fun"]
        name, place = _source(wrapped.debug_info.func_src_info)
        return f"{place} ({name})" if place else ""
    backward = getattr(rule, "bwd", None) or getattr(rule, "jvp", None)
    if backward is None:
        raise TypeError(
            f"{rule!r} has no rule: pass a jax.custom_vjp or jax.custom_jvp function, after its defvjp or defjvp"
        )
    while (inner := getattr(backward, "__wrapped__", None) or getattr(backward, "func", None)) is not None:
        backward = inner  # functools.wraps, jax.jit and functools.partial
    code = getattr(backward, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno} ({code.co_name})" if code else ""


def of_jax(eqn: JaxprEqn) -> bool:
    """Whether a rule's equation calls a function of JAX's own library: no code of anybody else's makes its rule."""
    rule = eqn.params["bwd" if eqn.primitive.name == "custom_vjp_call" else "jvp_jaxpr_fun"]
    place = _source(eqn.params["call_jaxpr"].jaxpr.debug_info.func_src_info)[1]
    return all(file.startswith(JAX_FOLDER) for file in (place, *_files(rule, set())))


def _files(x: Any, seen: set[int]) -> Iterator[str]:
    """The file of every Python function that `x` is made of: itself, what it wraps and what it closes over."""
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
    """(name, `file:line`) from the text `name at file:line` that JAX keeps of a traced function."""
    name, _, place = (info or "").partition(" at ")
    return name or "rule", place
