"""The function that a user wrote for a rule, behind the wrappers that JAX and other libraries put around it."""

import collections
import functools
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from jax.extend import linear_util

from refgrad.jaxpr.methods import JAX_FOLDER

MACHINERY = tuple(
    name.replace("/", os.sep)
    for name in (
        "jax/_src/api_util.py",
        "jax/_src/custom_derivatives.py",
        "jax/_src/hijax.py",
        "jax/_src/interpreters/batching.py",
        "jax/_src/interpreters/partial_eval.py",
        "jax/_src/linear_util.py",
        "equinox/_ad.py",
        "flax/core/lift.py",
        "flax/linen/module.py",
        "flax/linen/transforms.py",
        "internal/backend/jax/ops.py",  # of TensorFlow Probability
    )
)
"""Files that make rules out of other people's functions: text, not imports."""


def is_library(function: Any) -> bool:
    """Return True for a function of JAX's own, through what wraps it."""
    code = author(function)
    return code is not None and is_jax(code.co_filename)


def is_machinery(file: str) -> bool:
    """Return True for a file whose functions only call the rule that somebody else wrote."""
    return file.endswith(MACHINERY)


def is_jax(file: str) -> bool:
    """Return True for a file of JAX's own."""
    return file.startswith(JAX_FOLDER)


def author(*made: Any) -> types.CodeType | None:
    """Return the code nearest to `made`, functions that JAX keeps of a rule, other than machinery.

    Where all of it is, return that of the innermost function; None where none of it is Python code.
    """
    code = None
    for root in made:
        for code in codes(root):
            if not is_machinery(code.co_filename):
                return code
    return code


def code_location(function: Any) -> str:
    """Return `file:line (name)` of a Python function, through what wraps it; empty where it has no code."""
    code = author(function)
    return f"{code.co_filename}:{code.co_firstlineno} ({code.co_name})" if code else ""


def codes(root: Any) -> Iterator[types.CodeType]:
    """Yield the code of every Python function that `root` is made of, the nearest first.

    It is made of what it wraps, what it closes over, and, where a wrapper keeps the functions in an object, of those
    attributes that the wrapper reads.
    """
    queue: collections.deque[tuple[Any, Any]] = collections.deque([(root, None)])
    seen: set[int] = set()
    while queue:
        x, reads = queue.popleft()
        if id(x) in seen:
            continue
        seen.add(id(x))
        inner: tuple = ()
        if (wrapped := getattr(x, "__wrapped__", None)) is not None:
            inner, reads = (wrapped,), None
        elif isinstance(x, types.FunctionType):
            yield x.__code__
            filled = (cell for cell in x.__closure__ or () if cell != types.CellType())  # an empty one has no contents
            inner, reads = tuple(cell.cell_contents for cell in filled), x.__code__.co_names
        elif isinstance(x, types.MethodType):
            inner = (x.__func__,)
        elif isinstance(x, functools.partial):
            inner = (x.func, *x.args)
        elif isinstance(x, linear_util.WrappedFun):
            inner = (x.f,)
        elif isinstance(x, tuple | list):
            inner = tuple(x)
        elif callable(x) and _is_wrapper(type(x)):
            inner = tuple(v for k, v in vars(x).items() if callable(v) and (reads is None or k in reads))
        queue.extend((part, reads) for part in inner)


def _is_wrapper(kind: type) -> bool:
    """Return True for a class that is written in one of the files of machinery."""
    module = sys.modules.get(kind.__module__)
    return is_machinery(getattr(module, "__file__", None) or "")
