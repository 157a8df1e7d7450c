"""Parameters' names, in the tree and in a checkpoint.

The tree's paths are the names without prefix ("h.0.attn.c_attn.weight"); transformers' `GPT2LMHeadModel` writes
"transformer." before all but the head, the original files and `GPT2Model` write none.
"""

import re

import jax

from refgrad.models.gpt2 import Config, shapes
from refgrad.models.inputs import path_name

PREFIX = "transformer."
HEAD = "lm_head.weight"
EMBEDDING = "wte.weight"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
# The causal mask and the value under it, which older versions stored with the parameters.
BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
# What safetensors calls the types that parameters can have.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def parameter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name → shape of every parameter, layers one by one, in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(shapes(config))
    return {path_name(path): leaf.shape for path, leaf in leaves}


def stored_name(name: str) -> str:
    """The name under which `GPT2LMHeadModel` stores a parameter."""
    return name if name == HEAD else PREFIX + name
