"""Old public names, which answer for one release."""

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any


def outside() -> int:
    """Return the `stacklevel` at which a warning of the caller names the first line outside of refgrad and JAX."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("refgrad", "jax"):
        frame, level = frame.f_back, level + 1
    return level


def renamed(owner: Any, names: Mapping[str, str], name: str) -> Any:
    """Return what `owner`, a module or an instance, has under the new name, with a DeprecationWarning that gives it.

    Args:
        names: Old name → new name.
        name: The name asked for, which `owner` does not have.

    Raises:
        AttributeError: `name` is not an old name.
    """
    label = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__name__
    if name not in names:
        raise AttributeError(f"{label} has no attribute {name!r}")
    warnings.warn(f"{label}.{name} is now {label}.{names[name]}", DeprecationWarning, stacklevel=outside())
    return getattr(owner, names[name])


def old_names(module: str, **names: str) -> Callable[[str], Any]:
    """Return a module's `__getattr__` for its old names (old name → new name), see `renamed`."""
    return partial(renamed, sys.modules[module], names)
