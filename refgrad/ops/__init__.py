"""Operations with backward rules derived by hand: one file each, found by itself.

`refgrad.ops.NAME` is the operation, a `jax.custom_vjp` function, and `refgrad.ops.TABLE` maps every name to its row.
`refgrad.ops.fused` holds the same mathematics in fewer bytes and less time; its rows are `TABLE["fused.NAME"]`.
"""

from types import SimpleNamespace
from typing import Any

from refgrad.ops import fused
from refgrad.ops._row import Cost, Row, Special
from refgrad.ops._table import rows

_PLAIN = rows(__name__, __path__)
TABLE: dict[str, Row] = {row.name: row for row in (*_PLAIN.values(), *fused.ROWS.values())}
globals().update({name: row.op for name, row in _PLAIN.items()})  # over the submodules of the same names

RULES = ("document", "fused", "fused-cudnn", "autodiff")


def operations(rules: str) -> SimpleNamespace:
    """Return every operation by name under one set of rules.

    Args:
      rules: "document" has each operation with the rule derived in its file, "fused" the same with those of
        `refgrad.ops.fused` in the place of what they fuse, "fused-cudnn" those too (its attention is named by
        `refgrad.models`), "autodiff" the document's plain functions, differentiated by JAX.

    Returns:
      A namespace with an attribute for each operation.

    Raises:
      ValueError: for any other `rules`.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.ops import operations
      >>> operations("document").relu(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]
    """
    if rules not in RULES:
        raise ValueError(f"rules is {rules!r}, but must be one of {', '.join(map(repr, RULES))}")
    if rules == "autodiff":
        return SimpleNamespace(**{name: row.op.fun for name, row in _PLAIN.items()})
    found = _PLAIN if rules == "document" else _PLAIN | fused.ROWS
    return SimpleNamespace(**{name: row.op for name, row in found.items()})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"refgrad.ops has no operation {name!r}: it has {', '.join(TABLE)}")


__all__ = ["RULES", "TABLE", "Cost", "Row", "Special", "fused", "operations"]
