"""What a jaxpr says of its own constants: which values are known before it runs, and what may be folded for it.

The lowering folds constants, x · 1, x ± 0 and a select by a constant. These are candidates: the rules here say what may
be folded, the HLO says what is.
"""

from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import JaxprEqn

_HANDED_ON = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "split", "slice", "convert_element_type", "copy")
_NEUTRAL = {"mul": 1, "add": 0, "add_any": 0, "and": True, "or": False, "xor": False, "ne": False, "eq": True}


class Known(NamedTuple):
    """A value that is the same at every run; `value` where all its elements are one known number, else None."""

    value: Any = None


def known_value(value: Any) -> Known:
    """A literal or a closed-over constant; one number where it is small enough to look at and all elements agree."""
    if np.ndim(value) == 0 and not hasattr(value, "aval"):
        return Known(np.asarray(value).item())
    if not hasattr(value, "__array__") or value.size > 2**16:
        return Known()
    array = np.asarray(value)
    return Known(array.flat[0].item()) if array.size and (array == array.flat[0]).all() else Known()


def fold_reason(eqn: JaxprEqn, inputs: list[Known | None]) -> str:
    """Why the equation may be folded, given what is known of its operands; "" if nothing speaks for it."""
    name = eqn.primitive.name
    if all(k is not None for k in inputs) and not eqn.effects and name != "optimization_barrier":
        return "constant"
    values = [k.value if k is not None else None for k in inputs]
    boolean = name not in ("ne", "eq") or str(getattr(eqn.invars[0].aval, "dtype", None)) == "bool"
    if name in _NEUTRAL and boolean and any(v is not None and v == _NEUTRAL[name] for v in values):
        return {"mul": "x·1", "add": "x + 0", "add_any": "x + 0"}.get(name, f"x {name} {_NEUTRAL[name]}")
    if name == "sub" and values[1] is not None and values[1] == 0:
        return "x − 0"
    if name == "select_n" and values[0] is not None:
        return "select by a constant"
    if name == "select_n" and len(set(map(id, eqn.invars[1:]))) == 1:
        return "select between equals"
    return ""


def result(eqn: JaxprEqn, inputs: list[Known | None]) -> Known:
    """What is known of the results of an equation whose operands are all constant."""
    if inputs and inputs[0] is not None and eqn.primitive.name in _HANDED_ON:
        return inputs[0]
    return Known(_evaluate(eqn, inputs))


_ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": max,
    "min": min,
    "neg": lambda a: -a,
    "not": lambda a: not a if isinstance(a, bool) else ~a,
    "sign": lambda a: (a > 0) - (a < 0),
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "select_n": lambda which, *cases: cases[int(which)],
    "abs": abs,
    "cos": np.cos,
    "exp": np.exp,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": lambda a: a * a,
    "tanh": np.tanh,
}


def _evaluate(eqn: JaxprEqn, inputs: list[Known | None]) -> Any:
    """The number that an equation yields when all its operands are known numbers; None where it is not simple."""
    name, values = eqn.primitive.name, [k.value for k in inputs if k is not None]
    if name == "iota":
        return 0 if eqn.params["shape"][eqn.params["dimension"]] == 1 else None
    if name == "integer_pow" and values[0] is not None:
        return float(values[0]) ** eqn.params["y"] if values[0] else None
    if name not in _ARITHMETIC or None in values or len(values) != len(inputs):
        return None
    with np.errstate(all="ignore"):
        return _ARITHMETIC[name](*values)
