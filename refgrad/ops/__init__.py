"""Operations with backward rules derived by hand: one file each, found by itself.

`refgrad.ops.NAME` is the operation, a `jax.custom_vjp` function, and `refgrad.ops.TABLE` maps every name to its row.
"""

import importlib
import pkgutil
from types import SimpleNamespace
from typing import Any

from refgrad.ops._row import Cost, Row, Special

TABLE: dict[str, Row] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").ROW
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_") and not module.ispkg
}
globals().update({name: row.op for name, row in TABLE.items()})  # over the submodules of the same names

RULES = ("document", "autodiff")


def operations(rules: str) -> SimpleNamespace:
    """Every operation by name, with its derived rule ("document") or as the plain function ("autodiff").

    Raises ValueError for any other `rules`.
    """
    if rules not in RULES:
        raise ValueError(f"rules is {rules!r}, but must be one of {', '.join(map(repr, RULES))}")
    return SimpleNamespace(**{name: row.op if rules == "document" else row.op.fun for name, row in TABLE.items()})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"refgrad.ops has no operation {name!r}: it has {', '.join(TABLE)}")


__all__ = ["RULES", "TABLE", "Cost", "Row", "Special", "operations"]
