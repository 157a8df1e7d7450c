"""Objects that JAX writes as a `call_hi_primitive` equation, and the rule behind each of them.

It is a rule that a user wrote as a `HiPrim`, or one of JAX's own classes: a `custom_vjp` or `custom_jvp` function or a
checkpoint, under `jax_custom_vjp3`, `jax_custom_jvp3` and `jax_remat3`, or a function of its library.
"""

import contextlib
import inspect
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

VJP, JVP, HI, CHECKPOINT = "custom_vjp", "custom_jvp", "HiPrim", "checkpoint"

# JAX's classes, by name → what they stand for
_OWN = {"CustomVJPTraced": VJP, "CustomJVPTraced": JVP, "RematTraced": CHECKPOINT}
# the attribute that holds the rule, and the name under which that function closes over the user's; JAX 0.11, 0.12
_RULES = {VJP: (("bwd_accums", "bwd"), "bwd"), JVP: (("jvp_rule", "jvp_fun"), "jvp_fun")}


WIDE = ("float64", "complex128", "int64", "uint64")


def prim_of(eqn: JaxprEqn) -> Any:
    """Return the object of a `call_hi_primitive`; None for any other equation."""
    return eqn.params["_prim"] if eqn.primitive.name == "call_hi_primitive" else None


def is_own(prim: Any) -> bool:
    """Return True for an object of a class of JAX's own."""
    return type(prim).__module__.partition(".")[0] == "jax"


def stands_for(prim: Any) -> str:
    """Return VJP, JVP or CHECKPOINT for the object of such a function; HI for any other."""
    return _OWN.get(type(prim).__name__, HI) if is_own(prim) else HI


def user_rule(prim: Any) -> Any:
    """Return the function that the user gave to `defvjp` (its backward) or to `defjvp`."""
    attributes, name = _RULES[stands_for(prim)]
    made = next(rule for a in attributes if (rule := getattr(prim, a, None)) is not None)
    made = inspect.unwrap(made)  # vmap wraps it
    return inspect.getclosurevars(made).nonlocals.get(name, made) if inspect.isfunction(made) else made


def user_forward(prim: Any) -> Any:
    """Return the function that holds what the user gave to `defvjp` as the forward; None for a jvp rule."""
    return getattr(prim, "fwd", None)


def constants_of(prim: Any) -> int:
    """Return how many leading inputs are arrays that the user's functions close over."""
    groups = {VJP: 2, JVP: 1}.get(stands_for(prim), 0)  # those of the function and of its forward; of the function
    if not groups:
        return 0
    return len(jax.tree.leaves(prim.in_tree.unflatten(range(prim.in_tree.num_leaves))[:groups]))


def program_of(prim: Any) -> Jaxpr | ClosedJaxpr | None:
    """Return the program that JAX's object has traced; None where it has none that takes its operands one by one."""
    kind = stands_for(prim)
    program = prim.jaxpr if kind == CHECKPOINT else prim.traced.jaxpr if kind in (VJP, JVP) else None
    return program if program is not None and len(program.in_avals) == len(prim.in_avals_flat) else None


def expansion(eqn: JaxprEqn) -> Jaxpr | ClosedJaxpr:
    """Return the program of a `call_hi_primitive`: an object that expands when it is lowered."""
    prim = prim_of(eqn)
    if (traced := program_of(prim)) is not None:
        return traced
    avals: list[Any] = [v.aval for v in eqn.invars]
    for given, made_for in zip(avals, prim.in_avals_flat, strict=True):
        if (given.shape, given.dtype) != (made_for.shape, made_for.dtype):
            types = f"made for {made_for.str_short()}, and called at {given.str_short()}"
            raise TypeError(f"{type(prim).__name__} is {types}")

    def program(*arrays):
        return prim.out_tree.flatten_up_to(prim.expand(*prim.in_tree.unflatten(arrays)))

    wide = any(a.dtype in WIDE for a in avals)  # traced with 64-bit types on, wherever it is read
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        return jax.make_jaxpr(program)(*avals)
