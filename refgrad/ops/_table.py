"""Finding the rows: each file of a package of operations that does not begin with an underscore holds one."""

import importlib
import pkgutil
from collections.abc import Iterable

from refgrad.ops._row import Row


def rows(package: str, path: Iterable[str]) -> dict[str, Row]:
    """File name → row, for every operation of one package (its name and its `__path__`), subpackages left out."""
    return {
        module.name: importlib.import_module(f"{package}.{module.name}").ROW
        for module in pkgutil.iter_modules(path)
        if not module.name.startswith("_") and not module.ispkg
    }
