"""`config.json` ↔ `gpt2.Config`: the settings of GPT-2 that this model has, and those that it refuses.

Keys that change what the model computes must have the value that it implements; dropout, token ids, initial values
and keys that only other models read change nothing in the loss or the logits and are ignored.
"""

import json
from pathlib import Path
from typing import Any

from refgrad.models.gpt2 import Config

SIZES = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
DEFAULTS = {"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}  # transformers leaves out what is at its default
# Key → the one value that this model implements, which is also what a config without the key means.
IMPLEMENTED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "quantization_config": None,
    "pruned_heads": {},
}
GPT2_VOCABULARY = 50257  # its last id ends a text


def read_json(path: Path) -> dict[str, Any]:
    """The file's object. Raises ValueError, naming the file, where it is missing, no JSON, or no object."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}: give a folder as save_pretrained leaves it") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON that can be read ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, but must hold an object: fetch it again")
    return found


def read_config(path: Path) -> Config:
    """The model's config out of a `config.json`.

    Raises ValueError naming the file, the key and its value for a variant of GPT-2 that this model does not implement,
    for a size that is missing, and for values that no model can have.
    """
    values = read_json(path)
    for key, implemented in IMPLEMENTED.items():
        if values.get(key, implemented) != implemented:
            raise ValueError(
                f"{path}: {key} is {json.dumps(values[key])}, but this model implements {json.dumps(implemented)} "
                "alone: take another checkpoint"
            )
    for key in SIZES:
        if key not in values:
            raise ValueError(f"{path} has no {key}, and another model's would be a guess: add it")
    try:
        config = Config(**{key: value for key, value in (DEFAULTS | values).items() if key in (*SIZES, *DEFAULTS)})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if values.get("n_inner") not in (None, 4 * config.n_embd):
        raise ValueError(
            f"{path}: n_inner is {json.dumps(values['n_inner'])}, but this model implements 4·n_embd = "
            f"{4 * config.n_embd} alone (or null): take another checkpoint"
        )
    return config


def config_json(config: Config, dtype: str) -> dict[str, Any]:
    """The object of a `config.json` that transformers reads as this model: no dropout, parameters of `dtype`."""
    end = GPT2_VOCABULARY - 1 if config.vocab_size == GPT2_VOCABULARY else None
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{key: getattr(config, key) for key in (*SIZES, *DEFAULTS)},
        "activation_function": "gelu_new",
        "n_inner": None,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": end,
        "eos_token_id": end,
        "dtype": dtype,
    }
