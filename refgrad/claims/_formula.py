"""A document's formula as data: Python over named numbers and arrays, with NumPy's functions and exact quotients.

`evaluate("H1.T @ dH2", {"H1": …, "dH2": …})` has NumPy's semantics in float64. Without an array, integers stay exact:
sums, products and powers of them are Python's, and their quotient is a Fraction, so that a printed polynomial is
evaluated to the last digit. A listing, `"x = 2 * y; x * x"`, names its steps and ends with its value. Formulas are
literals of this repository: nothing guards against one that does more than compute.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

NUMPY = "abs all any diag einsum exp eye log max maximum mean min minimum outer prod round sign sqrt tanh where"
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in NUMPY.split()},
    "concatenate": lambda *parts: np.concatenate(parts, -1),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "norm": np.linalg.norm,
    "ones": lambda *shape: np.ones(shape),
    "reshape": lambda x, *shape: np.reshape(x, shape),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sum": lambda x, axis=None, keepdims=False: np.sum(x, axis=axis, keepdims=keepdims),
    "zeros": lambda *shape: np.zeros(shape),
}


class FormulaError(ValueError):
    """A formula that is not Python, has no value, or uses a name without one: an error of the ledger itself."""


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
    """Return a formula's value.

    Args:
      text: The formula, or a listing whose steps are separated by semicolons.
      values: Name → Python number, array or function.

    Returns:
      A Python number (a Fraction for a quotient of integers, where no value is an array), a bool or a NumPy array.

    Raises:
      FormulaError: The formula has no value, or uses a name without one.
      ValueError: Shapes do not fit.
      IndexError: A slice runs beyond an array's end.

    Example:
      >>> from refgrad.claims import evaluate
      >>> evaluate("n = 2 * m; n / 3", {"m": 1})
      Fraction(2, 3)
    """
    *steps, last = _parsed(text).body or [ast.Pass()]
    if not isinstance(last, ast.Expr):
        raise FormulaError(f"{text!r} has no value: end it with a formula")
    arrays = any(hasattr(values.get(name), "shape") for name in names(text))  # NumPy has no exact ones
    quotient = operator.truediv if arrays else _quotient
    known = {"__builtins__": {}, "index_exp": np.index_exp, "part": _part, "quotient": quotient, **FUNCTIONS, **values}
    listing, value = map(_Exact().visit, (ast.Module(steps, []), ast.Expression(last.value)))
    try:
        with np.errstate(all="ignore"):  # an infinity or NaN is an answer
            exec(compile(ast.fix_missing_locations(listing), text, "exec"), known)
            return eval(compile(ast.fix_missing_locations(value), text, "eval"), known)
    except NameError as error:
        raise FormulaError(f"{text!r}: {error}") from error


def names(text: str) -> list[str]:
    """The names in a formula, those of functions and steps included, in order of appearance."""
    return list(compile(_parsed(text), text, "exec").co_names)


def compared(text: str) -> list[str]:
    """The quotients and calls that a statement compares: figures that its names alone do not show."""
    statements = [node for node in ast.walk(_parsed(text)) if isinstance(node, ast.Compare)]
    sides = [side for statement in statements for side in (statement.left, *statement.comparators)]
    return [ast.unparse(s) for s in sides if any(isinstance(node, ast.Call | ast.Div) for node in ast.walk(s))]


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text.strip())
    except SyntaxError as error:
        raise FormulaError(f"{text!r} is not a formula: {error.msg}") from error


class _Exact(ast.NodeTransformer):
    """Have `_quotient` and `_part` compute what Python's own operators would round or cut off."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        return _call("quotient", node.left, node.right) if isinstance(node.op, ast.Div) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        return _call("part", node.value, ast.Subscript(ast.Name("index_exp", ast.Load()), node.slice, ast.Load()))


def _call(name: str, *args: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def _quotient(left: Any, right: Any) -> Any:
    """left / right, exact for integers."""
    return (Fraction(left) if isinstance(left, int) and isinstance(right, int) else left) / right


def _part(array: Any, index: tuple[Any, ...]) -> Any:
    """array[index], where a slice must not run beyond the end."""
    for axis, part in enumerate(index):
        if isinstance(part, slice) and part.stop is not None and part.stop > np.shape(array)[axis]:
            raise IndexError(f"a sum to {part.stop}, but there are {np.shape(array)[axis]}")
    return array[index]
