"""Errors inside a function of the user's, each as one line: `file.py:3 in helper: ValueError: …`."""

import contextlib
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

import refgrad
from refgrad._text import one_line, short_path
from refgrad.jaxpr.authors import code_location
from refgrad.jaxpr.methods import JAX_FOLDER

LIBRARIES = (
    os.path.dirname(os.path.realpath(refgrad.__file__)) + os.sep,
    os.path.realpath(JAX_FOLDER) + os.sep,
    *(os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib")),
)
LENGTH = 300  # characters of an error's own words
NO_RULE = re.compile(r"No (VJP|JVP) defined for custom_[vj]{2}p function (\S+)")
NO_ARRAY = re.compile(r"returned a value of type <class '(.*?)'>.*not a valid JAX type")
TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
VALUE = (
    "the line needs the value of an array, but JAX traces the function without values: write jnp.where or jax.lax.cond "
    "for `if`, jnp for NumPy, and leave out float(), int() and bool()"
)
LEAKED = "the line uses an array that an earlier trace has left behind: pass it as an argument"
MEMORY = (MemoryError, OverflowError)


@contextlib.contextmanager
def named(file: str, function: Callable | None = None) -> Iterator[None]:
    """Turn an error raised by the code in `file`, or by its callees, into a ValueError with its place.

    Errors of refgrad's own about bad input pass as they are.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if place := _place(error, file):
            raise ValueError(f"{place}: {_said(error)}") from error
        if found := NO_RULE.search(str(error)):
            where = code_location(function).rpartition(" (")[0] if function else file
            raise ValueError(f"{short_path(where)} in {found[2]}: {_said(error)}") from error
        if found := NO_ARRAY.search(str(error)):
            raise ValueError(f"it returns a value of type {found[1].rpartition('.')[2]}: only arrays count") from error
        if isinstance(error, ValueError | TypeError | OSError | ImportError):
            raise
        if isinstance(error, MEMORY) or "RESOURCE_EXHAUSTED" in str(error):
            raise ValueError(f"{file}: too large for this machine's memory: {_said(error)}") from error
        raise ValueError(f"{_ours(error)}: {_said(error)}") from error


def _place(error: BaseException, file: str) -> str:
    """`file:line in function` of the innermost line of the user's own; "" if none is."""
    if isinstance(error, SyntaxError):
        return f"{short_path(error.filename or file)}:{error.lineno}"
    target = os.path.realpath(file)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = os.path.realpath(frame.filename)
        if path == target or (os.path.isfile(path) and not path.startswith(LIBRARIES)):
            return f"{short_path(path)}:{frame.lineno} in {frame.name}"
    return ""


def _ours(error: BaseException) -> str:
    """The line of refgrad that raised, with the request to report it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"refgrad itself fails, please report this: {Path(frame.filename).name}:{frame.lineno} in {frame.name}"


def _said(error: BaseException) -> str:
    """The error's type and words, and for JAX's frequent ones what to do."""
    kind, text = type(error).__name__, str(error)
    if isinstance(error, TRACED):
        return f"{kind}: {VALUE}"
    if isinstance(error, jax.errors.UnexpectedTracerError):
        return f"{kind}: {LEAKED}"
    if found := NO_RULE.search(text):
        name, define = found[2], "defvjp(forward, backward)" if found[1] == "VJP" else "defjvp(rule)"
        return f"{name} is decorated, but has no rule yet: call {name}.{define}"
    if "Traceback (most recent call last)" in text:  # of a callback
        text = text.strip().splitlines()[-1]
    return one_line(f"{kind}: {text}" if text else kind, LENGTH)
