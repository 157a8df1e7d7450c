"""The operations again, with rules that keep less, compute less and let go sooner: one file each.

`refgrad.ops.fused.NAME` is the operation, `refgrad.ops.TABLE["fused.NAME"]` its row: derived, verified and priced like
every other, with recomputed and skipped work as causes of their own.
"""

from refgrad.ops._table import specs
from refgrad.ops.fused.attention import attention
from refgrad.ops.fused.block import block
from refgrad.ops.fused.gelu import gelu
from refgrad.ops.fused.head_loss import head_loss
from refgrad.ops.fused.head_loss_by_vocabulary import head_loss_by_vocabulary
from refgrad.ops.fused.layer_norm import layer_norm
from refgrad.ops.fused.linear import linear
from refgrad.ops.fused.mlp import mlp
from refgrad.ops.fused.rms_norm import rms_norm
from refgrad.ops.fused.rotary import rotary
from refgrad.ops.fused.swiglu import swiglu

SPECS = specs(__name__, __path__)
"""File name → row, of every operation here."""

__all__ = [
    "SPECS",
    "attention",
    "block",
    "gelu",
    "head_loss",
    "head_loss_by_vocabulary",
    "layer_norm",
    "linear",
    "mlp",
    "rms_norm",
    "rotary",
    "swiglu",
]
