"""Finding the rows: each file of a package of operations that does not begin with an underscore holds one."""

import importlib
import pkgutil
from collections.abc import Iterable

from refgrad.ops._spec import OpSpec


def specs(package: str, path: Iterable[str]) -> dict[str, OpSpec]:
    """File name → row, for every operation of one package (its name and its `__path__`), subpackages left out."""
    return {
        module.name: importlib.import_module(f"{package}.{module.name}").SPEC
        for module in pkgutil.iter_modules(path)
        if not module.name.startswith("_") and not module.ispkg
    }
