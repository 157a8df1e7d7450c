"""Operations with backward rules derived by hand: one file each.

`refgrad.ops.NAME` is the operation, a `jax.custom_vjp` function, and `refgrad.ops.TABLE` maps every name to its row.
`refgrad.ops.fused` holds the same mathematics in fewer bytes and less time; its rows are `TABLE["fused.NAME"]`.
"""

import sys
from types import SimpleNamespace
from typing import Any

from refgrad._renamed import renamed
from refgrad.ops import fused
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.ops._table import specs
from refgrad.ops.add import add
from refgrad.ops.attention_scaling import attention_scaling
from refgrad.ops.attn_value import attn_value
from refgrad.ops.batch_norm import batch_norm
from refgrad.ops.binary_cross_entropy import binary_cross_entropy
from refgrad.ops.binary_cross_entropy_with_logits import binary_cross_entropy_with_logits
from refgrad.ops.causal_softmax import causal_softmax
from refgrad.ops.conv2d import conv2d
from refgrad.ops.copy import copy
from refgrad.ops.cross_entropy import cross_entropy
from refgrad.ops.dense import dense
from refgrad.ops.dropout import dropout
from refgrad.ops.elu import elu
from refgrad.ops.gelu import gelu
from refgrad.ops.gelu_erf import gelu_erf
from refgrad.ops.hinge import hinge
from refgrad.ops.l2_penalty import l2_penalty
from refgrad.ops.layer_norm import layer_norm
from refgrad.ops.leaky_relu import leaky_relu
from refgrad.ops.linear import linear
from refgrad.ops.lm_head import lm_head
from refgrad.ops.log_softmax import log_softmax
from refgrad.ops.matmul import matmul
from refgrad.ops.maximum import maximum
from refgrad.ops.mean_square import mean_square
from refgrad.ops.mul import mul
from refgrad.ops.multi_head_attention import multi_head_attention
from refgrad.ops.nll import nll
from refgrad.ops.position_embedding import position_embedding
from refgrad.ops.query_key import query_key
from refgrad.ops.relu import relu
from refgrad.ops.residual import residual
from refgrad.ops.rnn import rnn
from refgrad.ops.sigmoid import sigmoid
from refgrad.ops.silu import silu
from refgrad.ops.softmax import softmax
from refgrad.ops.softmax_cross_entropy import softmax_cross_entropy
from refgrad.ops.squared_error_mean import squared_error_mean
from refgrad.ops.squared_error_sum import squared_error_sum
from refgrad.ops.tanh import tanh
from refgrad.ops.token_embedding import token_embedding
from refgrad.rule_sets import FUSED, PLAIN, RULE_SETS, rule_set

_PLAIN = specs(__name__, __path__)
TABLE: dict[str, OpSpec] = {spec.name: spec for spec in (*_PLAIN.values(), *fused.SPECS.values())}

_PACKAGES = {PLAIN: _PLAIN, FUSED: fused.SPECS}
RULES = tuple(RULE_SETS)
OLD_NAMES = {"Row": "OpSpec", "Cost": "OpCost"}  # until 0.3


def operations(rules: str) -> SimpleNamespace:
    """Return every operation by name under one set of rules.

    Args:
      rules: "derived" has each operation with the rule derived in its file, "fused" the same with those of
        `refgrad.ops.fused` in the place of what they fuse, "fused-cudnn" those too (its attention is named by
        `refgrad.models`), "autodiff" the document's plain functions, differentiated by JAX.

    Returns:
      A namespace with an attribute for each operation.

    Raises:
      ValueError: for any other `rules`.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.ops import operations
      >>> operations("derived").relu(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]
    """
    chosen = rule_set(rules)
    specs = {name: spec for package in chosen.packages for name, spec in _PACKAGES[package].items()}
    return SimpleNamespace(**{name: spec.op.fun if chosen.by_autodiff else spec.op for name, spec in specs.items()})


def __getattr__(name: str) -> Any:
    if name in OLD_NAMES:
        return renamed(sys.modules[__name__], OLD_NAMES, name)
    raise AttributeError(f"refgrad.ops has no operation {name!r}: it has {', '.join(TABLE)}")


__all__ = [
    "RULES",
    "TABLE",
    "OpCost",
    "OpSpec",
    "Special",
    "add",
    "attention_scaling",
    "attn_value",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "causal_softmax",
    "conv2d",
    "copy",
    "cross_entropy",
    "dense",
    "dropout",
    "elu",
    "fused",
    "gelu",
    "gelu_erf",
    "hinge",
    "l2_penalty",
    "layer_norm",
    "leaky_relu",
    "linear",
    "lm_head",
    "log_softmax",
    "matmul",
    "maximum",
    "mean_square",
    "mul",
    "multi_head_attention",
    "nll",
    "operations",
    "position_embedding",
    "query_key",
    "relu",
    "residual",
    "rnn",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "squared_error_mean",
    "squared_error_sum",
    "tanh",
    "token_embedding",
]
