"""Structure: `_fwd`'s value is the primal's, and each cotangent has its primal's shape, dtype and sharding.

A rule that JAX itself refuses (a wrong tree, a wrong shape, a leaked tracer) gives one line here, and nothing else is
checked: there is nothing to check it on.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator

import jax
import numpy as np

from refgrad.jaxpr.avals import explicit_sharding
from refgrad.jaxpr.hiprim import JVP
from refgrad.verify.advice import WAYS, foreign_type, on_arguments
from refgrad.verify.case import FunctionCase
from refgrad.verify.numbers import difference, to_wide
from refgrad.verify.oracle import first_line
from refgrad.verify.properties.methods import METHODS
from refgrad.verify.report import FAIL, OK, UNAVAILABLE, Row

# what JAX raises where Python asks for the value of a tracer
TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def broken(case: FunctionCase) -> list[Row]:
    """A row that says why the rule cannot be run at all, or only without jit; else nothing.

    Raises what `f` itself raises, and TypeError where `f` holds no rule and has no reverse mode of its own.
    """
    try:
        own = (case.diff, case.rest, case.cotangent(0))
    except Exception as error:  # whatever the function itself raises when it is traced
        if advice := on_arguments(case.subject, error):
            raise TypeError(f"{case.subject.call}: {advice}") from error
        raise
    try:
        case.rule(*own)
    except Exception as error:  # whatever a rule, or JAX on its behalf, raises
        if not case.rules:
            raise TypeError(
                f"{case.subject.call} holds no rule and has no reverse mode of its own, "
                f"so that no gradient can be checked: {first_line(error)}"
            ) from error
        if note := case.lacked(error):
            return [Row("structure", "", UNAVAILABLE, note=note)]
        with contextlib.suppress(Exception):  # it is the first error that counts
            for row in METHODS["jvp"](case):
                if row.failed and row.cause:
                    return [dataclasses.replace(row, argument="")]
        if isinstance(error, TRACED):
            with contextlib.suppress(Exception):  # it is the first error that counts
                case.run_eagerly(own)
                return [Row("jit", "", FAIL, note=f"only jit fails: {explain(error)}")]
        return [Row("structure", "", FAIL, note=explain(error))]
    return []


def structure(case: FunctionCase) -> Iterator[Row]:
    """One row per argument for the type of its cotangent, and one per float output for its value."""
    outputs, cotangents = case.rule(case.diff, case.rest, case.cotangent(0))
    for name, primal, ct in zip(case.subject.arguments, case.diff, cotangents, strict=True):
        wrong = _mismatch(primal, ct)
        yield Row("structure", name, FAIL if wrong else OK, note=wrong)
    yield from _values(case, outputs)


def _values(case: FunctionCase, outputs: list) -> Iterator[Row]:
    """`_fwd`'s first output against the function's own, both compiled."""
    values = case.primal(case.diff, case.rest)
    for k, (own, fwd, allowed) in enumerate(zip(values, outputs, case.allowed_values, strict=True)):
        found = difference(to_wide(fwd), to_wide(own))
        same = found.error <= allowed and fwd.dtype == own.dtype
        types = "" if fwd.dtype == own.dtype else f": {fwd.dtype} for {own.dtype}"
        note = "" if same else f"{_forwards(case)} another value than the function{types}"
        label = "output" if len(outputs) == 1 else f"output {k}"
        yield Row("value", label, OK if same else FAIL, **found.cells(), allowed=allowed, note=note)


def _forwards(case: FunctionCase) -> str:
    """Name the functions that compute the value when a rule is differentiated: "_fwd returns"."""
    kinds = {rule.kind for rule in case.rules}
    if kinds == {JVP}:
        names = " and ".join(dict.fromkeys(rule.name for rule in case.rules))
        return f"the jvp rule of {names} returns"
    return "_fwd returns" if JVP not in kinds else "_fwd, or a jvp rule, returns"


def _mismatch(primal, ct) -> str:
    """Describe a difference between the types of a cotangent and its primal; "" where they agree."""
    if np.shape(ct) != np.shape(primal):
        return f"the cotangent has shape {np.shape(ct)}, its primal {np.shape(primal)}"
    if ct.dtype != primal.dtype:
        return f"the cotangent is {ct.dtype}, its primal {primal.dtype}"
    own, found = explicit_sharding(primal), explicit_sharding(ct)
    if (
        own is not None and own != found
    ):  # a sharding over other axes than explicit ones is XLA's choice, not the rule's
        spec = "not at all" if found is None else f"as {found.spec}"
        return f"`bwd` drops the sharding: the primal is sharded as {own.spec}, its cotangent {spec}"
    return ""


def leak(error: Exception) -> str:
    """Return the sentence about a tracer that a rule must not hold; empty for any other error."""
    if not isinstance(error, jax.errors.UnexpectedTracerError) and not foreign_type(str(error)).endswith("Tracer"):
        return ""
    return (
        "a tracer leaks: the rule closes over a differentiated value, or uses one stored when it was traced before"
        "; pass it as an argument instead"
    )


def explain(error: Exception) -> str:
    """One clear line for JAX's error about a rule."""
    text = " ".join(str(error).split())
    if leaked := leak(error):
        return leaked
    if foreign := foreign_type(text):
        return f"JAX takes arrays only, and _fwd keeps a {foreign} among its residuals: close over it, or {WAYS}"
    trees = re.search(
        r"got bwd output structure PyTreeDef\((.*?)\) for primal input structure PyTreeDef\((.*?)\)\.", text
    )
    if trees:
        return f"_bwd must return one cotangent per argument, a tuple like {trees[2]}, but returns {trees[1]}"
    number = re.search(r"bwd rule .*? must produce a tuple (?:of length .*?)?but got (?:<class )?(.*?)[>.]*$", text)
    if number:
        return f"_bwd must return one cotangent per argument, a tuple, but returns {number[1]}"
    types = re.search(
        r"at (output\S*) .*? an output of type (\w+\[[^\]]*\]) (?:corresponding to an input of|which doesn't match "
        r"expected) type (\w+\[[^\]]*\])",
        text,
    )
    if types:
        return f"_bwd returns {types[2]} where the primal is {types[3]} ({types[1].replace('output', 'cotangent', 1)})"
    if re.search(r"takes \d+ positional arguments? but \d+ (?:was|were) given|missing \d+ required positional", text):
        text += ": _fwd takes the function's arguments, defaults too; _bwd the nondiff_argnums, residuals and cotangent"
    sentence = text.split(". ")[0].split(" --------")[0]
    return f"{type(error).__name__}: {sentence if len(sentence) <= 200 else sentence[:197] + '…'}"
