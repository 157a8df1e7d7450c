"""The operations again, with rules that keep less, compute less and let go sooner: one file each, found by itself.

`refgrad.ops.fused.NAME` is the operation, `refgrad.ops.TABLE["fused.NAME"]` its row: derived, verified and priced like
every other, with recomputed and skipped work as causes of their own.
"""

from refgrad.ops._row import Row
from refgrad.ops._table import rows

ROWS: dict[str, Row] = rows(__name__, __path__)
globals().update({name: row.op for name, row in ROWS.items()})  # over the submodules of the same names
