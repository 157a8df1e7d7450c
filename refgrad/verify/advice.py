"""Advice on arguments of a rule that are not arrays: JAX's own messages do not say what to do about them."""

import re

import jax

from refgrad.jaxpr.avals import is_array
from refgrad.jaxpr.versions import is_rule, nondiff_argnums
from refgrad.verify.subject import Subject

WAYS = "name it in nondiff_argnums, or bind it with functools.partial"
NOT_ARRAY = (
    r"(?:Argument|Value) .*? (?:of|with) type '?<class '(.*?)'>'? is not a valid JAX type",
    r"No constant handler for type: <class '(.*?)'>",
    r"problematic value is of type <class '(.*?)'>",
)
NOT_KNOWN = (
    "Shapes must be 1D sequences of concrete values",
    "must be known statically",
    "depends on the value of the",
)


def foreign_type(text: str) -> str:
    """Return the type that JAX refuses where it takes arrays only; "" for any other message."""
    found = next(filter(None, (re.search(pattern, text) for pattern in NOT_ARRAY)), None)
    return found[1].rpartition(".")[2] if found else ""


def on_arguments(subject: Subject, error: Exception) -> str:
    """Return the line that says which argument a rule must declare as not an array; empty for any other error."""
    text = " ".join(str(error).split())
    foreign = foreign_type(text)
    if not foreign and not any(words in text for words in NOT_KNOWN):
        return ""
    if is_rule(subject.f) and (named := _not_arrays(subject)):
        values = ", ".join(f"`{name}` = {_shown(value)}" for name, value in named.values())
        numbers = ", ".join(map(str, named)) + ("," if len(named) == 1 else "")
        way = f"write nondiff_argnums=({numbers}), or bind it with functools.partial"
        return f"JAX traces every argument of a rule, and {values} is not an array: {way}"
    place = re.search(r"while tracing the function (\S+ at \S+) for custom_[jv]{2}p", text)
    if place and not foreign:
        return f"JAX traces every argument of a rule, and {place[1]} needs the value of one: {WAYS}"
    return f"JAX traces every argument of a rule, and one is given a {foreign}: {WAYS}" if foreign else ""


def _not_arrays(subject: Subject) -> dict[int, tuple[str, object]]:
    """Return name and value, by position, of the arguments without an array that the rule is not told about."""
    told = {i % len(subject.args) for i in nondiff_argnums(subject.f)}
    found = {}
    for i, arg in enumerate(subject.args):
        leaves = jax.tree.leaves(arg)
        if i not in told and leaves and not any(map(is_array, leaves)):
            found[i] = subject.parameters[i], arg
    return found


def _shown(value: object) -> str:
    return getattr(value, "__name__", None) or (type(value).__name__ if " at 0x" in repr(value) else repr(value))
