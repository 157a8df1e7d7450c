"""A document's formula as data: a small expression language over named numbers and arrays, evaluated through `ast`.

`evaluate("H1.T @ dH2", {"H1": …, "dH2": …})` has NumPy's semantics in float64. Integers stay exact: sums, products and
powers of them are Python's, and their quotient is a Fraction, so that a printed polynomial is evaluated to the last
digit. A listing, `"x = 2 * y; x * x"`, names its steps and ends with its value. Nothing else can be reached: no
attribute but `.T`, no call but those of `FUNCTIONS` and of functions among the values, no name but those given.
"""

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.MatMult: operator.matmul,
    ast.Pow: operator.pow,
}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "all": np.all,
    "any": np.any,
    "concatenate": lambda *parts: np.concatenate(parts, -1),
    "diag": np.diag,
    "einsum": np.einsum,
    "erf": np.vectorize(math.erf, otypes=[float]),
    "exp": np.exp,
    "eye": np.eye,
    "log": np.log,
    "max": np.max,
    "maximum": np.maximum,
    "mean": np.mean,
    "min": np.min,
    "minimum": np.minimum,
    "norm": np.linalg.norm,
    "ones": lambda *shape: np.ones(shape),
    "outer": np.outer,
    "prod": np.prod,
    "reshape": lambda x, *shape: np.reshape(x, shape),
    "round": np.round,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sign": np.sign,
    "sqrt": np.sqrt,
    "sum": lambda x, axis=None, keepdims=False: np.sum(x, axis=axis, keepdims=keepdims),
    "tanh": np.tanh,
    "where": np.where,
    "zeros": lambda *shape: np.zeros(shape),
}


class FormulaError(ValueError):
    """A formula that is outside the language, or that uses a name without a value: an error of the ledger itself."""


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
    """`text` at `values` (name → Python number, array or function): a Python number, a bool or a NumPy array.

    Raises FormulaError for anything outside the language, naming it, and for a name without a value; ValueError or
    IndexError where shapes do not fit, also for a slice that runs beyond an array's end.
    """
    with np.errstate(all="ignore"):  # an infinity or NaN is an answer
        return _last(_parsed(text).body, dict(values), text)


def _last(listing: list[ast.stmt], known: dict[str, Any], text: str) -> Any:
    """The value of a listing's last line, its steps taken in order."""
    *steps, last = listing
    for step in steps:
        match step:
            case ast.Assign(targets=[ast.Name(id=name)], value=formula):
                known[name] = _value(formula, known, text)
            case _:
                raise FormulaError(f"{text!r}: {ast.unparse(step)!r} is no step of a listing: write name = formula")
    if not isinstance(last, ast.Expr):
        raise FormulaError(f"{text!r} has no value: end it with a formula")
    return _value(last.value, known, text)


def _parsed(text: str) -> ast.Module:
    """The formula or listing as a tree."""
    try:
        tree = ast.parse(text.strip())
    except SyntaxError as error:
        raise FormulaError(f"{text!r} is no formula: {error.msg}") from error
    if not tree.body:
        raise FormulaError("there is no formula")
    return tree


def names(text: str) -> list[str]:
    """The names that a formula uses, functions and a listing's own steps left out, in order of appearance."""
    tree = _parsed(text)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    made = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    found = [node for node in used if node.id not in made]
    return list(dict.fromkeys(node.id for node in sorted(found, key=lambda node: (node.lineno, node.col_offset))))


def compared(text: str) -> list[str]:
    """The quotients and calls that a statement compares: figures that its names alone do not show."""
    sides = [side for node in ast.walk(_parsed(text)) if isinstance(node, ast.Compare) for side in _sides(node)]
    return [ast.unparse(side) for side in sides if any(map(_telling, ast.walk(side)))]


def _telling(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))


def _sides(node: ast.Compare) -> list[ast.expr]:
    return [node.left, *node.comparators]


def _value(node: ast.expr, values: Mapping[str, Any], text: str) -> Any:
    def value(part: ast.expr) -> Any:
        return _value(part, values, text)

    match node:
        case ast.Constant(value=int() | float() | str() | None as constant):  # bool is an int
            return constant
        case ast.Name(id=name):
            if name not in values:
                raise FormulaError(f"{text!r}: {name} has no value; there are {', '.join(values)}")
            return values[name]
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _quotient(value(left), value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return BINARY[type(op)](*_together(value(left), value(right)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value(operand)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not np.all(value(operand))
        case ast.BoolOp(op=op, values=parts):
            return (all if isinstance(op, ast.And) else any)(bool(np.all(value(part))) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            return _compare(value(left), ops, [value(right) for right in rights], text)
        case ast.Attribute(value=array, attr="T"):
            return np.transpose(value(array))
        case ast.Subscript(value=array, slice=index):
            return _part(value(array), _index(index, value))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in FUNCTIONS or name in values:
            named = {keyword.arg: value(keyword.value) for keyword in keywords if keyword.arg}
            return values.get(name, FUNCTIONS.get(name))(*map(value, args), **named)
        case ast.Tuple(elts=parts):
            return tuple(map(value, parts))
        case ast.List(elts=parts):
            return np.array([value(part) for part in parts])
    raise FormulaError(f"{text!r}: {ast.unparse(node)!r} is outside the language of formulas ({type(node).__name__})")


def _together(left: Any, right: Any) -> tuple[Any, Any]:
    """Both, a Fraction beside an array as a float: NumPy has no exact arrays."""
    if isinstance(left, Fraction) and not isinstance(right, int | Fraction):
        return float(left), right
    if isinstance(right, Fraction) and not isinstance(left, int | Fraction):
        return left, float(right)
    return left, right


def _quotient(left: Any, right: Any) -> Any:
    """left / right, exact for integers."""
    if isinstance(left, int | Fraction) and isinstance(right, int | Fraction):
        return Fraction(left) / right
    left, right = _together(left, right)
    return left / right


def _compare(left: Any, ops: list[ast.cmpop], rights: list[Any], text: str) -> Any:
    """A chain of comparisons, entry by entry."""
    result: Any = True
    for op, right in zip(ops, rights, strict=True):
        if type(op) not in COMPARISONS:
            raise FormulaError(f"{text!r}: {type(op).__name__} is outside the language of formulas")
        result = result & COMPARISONS[type(op)](left, right)
        left = right
    return result


def _part(array: Any, index: Any) -> Any:
    """array[index], where a slice must not run beyond the end."""
    for axis, part in enumerate(index if isinstance(index, tuple) else (index,)):
        if isinstance(part, slice) and part.stop is not None and part.stop > np.shape(array)[axis]:
            raise IndexError(f"a sum to {part.stop}, but there are {np.shape(array)[axis]}")
    return array[index]


def _index(node: ast.expr, value: Callable[[ast.expr], Any]) -> Any:
    """What stands between brackets: integers, slices and None."""

    def parts(slices: ast.Slice) -> Iterator[Any]:
        for part in (slices.lower, slices.upper, slices.step):
            yield None if part is None else value(part)

    match node:
        case ast.Tuple(elts=elements):
            return tuple(_index(element, value) for element in elements)
        case ast.Slice():
            return slice(*parts(node))
    return value(node)
