"""A user's own function and its arguments, as the command line names them: `path/to/module.py:function`, `f32[4,8]`."""

import argparse
import ast
import contextlib
import difflib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from refgrad._given import positions as positions_of
from refgrad._text import is_integer
from refgrad.cli import faults
from refgrad.verify import arguments as described
from refgrad.verify import intents

NO_FUNCTION = {
    "an async function": inspect.iscoroutinefunction,
    "a generator": inspect.isgeneratorfunction,
    "a class": inspect.isclass,
}


def load(target: str) -> Callable[..., Any]:
    """Return the function that `path/to/module.py:function` or `:Class.method` names; imports look beside the file too.

    Raises ValueError for a missing name, for one that is not a function, and where the file itself raises;
    FileNotFoundError for a missing file.
    """
    file, colon, name = target.rpartition(":")
    if not (colon and file and name):
        raise ValueError(f"{target}: write path/to/module.py:function")
    found: Any = _module(Path(file))
    for done, attribute in enumerate(name.split(".")):
        if not hasattr(found, attribute):
            where = ".".join([file, *name.split(".")[:done]])
            raise ValueError(f"{where} has no {attribute!r}: {_hint(attribute, found)}")
        found = getattr(found, attribute)
    if not callable(found):
        raise ValueError(f"{target} is {type(found).__name__} {found!r:.60}, but must be a function")
    for kind, test in NO_FUNCTION.items():
        if test(found):
            raise ValueError(f"{target} is {kind}, which returns no arrays: name a plain function")
    return found


def file_of(target: str) -> str:
    """The file that a target names."""
    return target.rpartition(":")[0]


@contextlib.contextmanager
def running(target: str, function: Callable[..., Any], given: Iterable[Any]) -> Iterator[None]:
    """Provide 64-bit types where arguments have them, and name the place of what a target's function raises."""
    with jax.enable_x64(described.needs_x64(tuple(given))), faults.named(file_of(target), function):
        yield


def only_for_functions(options: argparse.Namespace, names: Iterable[str]) -> None:
    """Raise ValueError where one of the options is given, but no function that it could be about."""
    for name in names:
        if getattr(options, name) is not None:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} are a function's: give path/to/module.py:function before it")


def keywords(text: str | None) -> dict[str, Any]:
    """Keyword arguments as text, `train=True scale=f32[4]`: a `Spec` for each array, a plain value for each literal."""
    found: dict[str, Any] = {}
    for piece in described.pieces(text or ""):
        name, equals, value = piece.partition("=")
        if not (equals and name.isidentifier()):
            raise ValueError(f"--kwargs: {piece!r} must be name=value, such as train=True or scale=f32[4]")
        (found[name],) = arguments(value)
    return found


def positions(text: str | None) -> tuple[int, ...] | None:
    """Positions as text: `0,2`."""
    if text is None:
        return None
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise ValueError(f"--argnums {text}: write positions such as 0 or 0,2") from None


def intent(text: str | None) -> intents.Intent | None:
    """An intention as it is written in Python: `straight_through`, `clip(-1, 1)`."""
    if text is None:
        return None
    name, _, given = text.partition("(")
    known = ("straight_through", "stop", "clip", "reversal", "finite")
    try:
        if name not in known:
            raise ValueError
        made = getattr(intents, name)
        made = made(*ast.literal_eval(f"({given.removesuffix(')')},)")) if given else made
        if not isinstance(made, intents.Intent):
            raise ValueError
        return made
    except (ValueError, SyntaxError, TypeError) as error:
        why = f": {error}" if str(error) else ""
        raise ValueError(
            f'--intent {text}{why}: write straight_through, stop, "clip(-1, 1)", "reversal(0.1)" or "finite(1e6)"'
        ) from None


def _module(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (a target is path/to/module.py:function)")
    spec = importlib.util.spec_from_file_location(f"_target_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        with faults.named(str(path)):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _hint(name: str, found: Any) -> str:
    callables = [other for other in vars(found) if not other.startswith("_") and callable(getattr(found, other, None))]
    near = difflib.get_close_matches(name, callables, 3)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(callables) or 'no function at all'}"


def arguments(text: str) -> tuple[Any, ...]:
    """`refgrad.verify.arguments.arguments` of the option `--args`, which its errors name."""
    return _named(described.arguments, text)


def sized_arguments(text: str, sizes: str | None) -> tuple[Any, ...]:
    """The same, with named dimensions as the option `--sizes` has them, such as `b=2,s=8`.

    Raises ValueError also for a size that is missing, not positive, or of no dimension.
    """
    names = dimensions(text)
    given = _sizes(sizes or "", names)
    if missing := [name for name in names if name not in given]:
        example = ",".join(f"{name}={n}" for n, name in enumerate(names, 2))
        raise ValueError(f"--args {text!r}: the size of {', '.join(missing)} is not given: add --sizes {example}")
    return arguments(described.sized(text, given))


def _sizes(text: str, names: Sequence[str]) -> dict[str, int]:
    """The sizes of named dimensions."""
    sizes: dict[str, int] = {}
    for piece in filter(None, re.split(r"[,\s]+", text)):
        name, _, size = piece.partition("=")
        if not (is_integer(size) and int(size)):
            raise ValueError(f"--sizes: {piece!r} must be name=size, a positive integer, such as b=2")
        if name not in names:
            raise ValueError(f"--sizes: --args have no dimension {name!r}, only {', '.join(names) or 'numbers'}")
        sizes[name] = int(size)
    return sizes


def dimensions(text: str) -> tuple[str, ...]:
    """`refgrad.verify.arguments.dimensions` of the same."""
    return _named(described.dimensions, text)


def _named(parse: Callable[[str], tuple], text: str) -> tuple:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"--args: {error}") from None


def bind(
    function: Callable[..., Any], given: Sequence[Any], chosen: Sequence[int] | None = None
) -> tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...] | None]:
    """(a function of the arrays alone, the arrays, which of these are `chosen`): literals in `given` are held fixed.

    Without literals the function itself comes back, so that its rule stays visible.
    Raises ValueError for a chosen position that does not exist.
    """
    arrays = [n for n, value in enumerate(given) if any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value))]
    moving = positions_of(chosen, len(given))
    argnums = None if moving is None else tuple(i for i, n in enumerate(arrays) if n in moving)
    if len(arrays) == len(given):
        return function, tuple(given), argnums

    def bound(*moving: Any, **keywords: Any) -> Any:
        every = list(given)
        for n, value in zip(arrays, moving, strict=True):
            every[n] = value
        return function(*every, **keywords)

    bound.__name__ = bound.__qualname__ = getattr(function, "__name__", "function")
    return bound, tuple(given[n] for n in arrays), argnums
