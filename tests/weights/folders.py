"""GPT-2 folders for the tests of `refgrad.weights`: odd sizes, values that no two parameters share."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from refgrad.models import gpt2

CONFIG = gpt2.Config(n_layer=3, n_head=3, n_embd=12, n_positions=7, vocab_size=11, layer_norm_epsilon=2e-5)
UNTIED = gpt2.Config(n_layer=1, n_head=5, n_embd=10, n_positions=6, vocab_size=13, tie_word_embeddings=False)


def parameters(config=CONFIG, dtype=jnp.float32):
    """Random everywhere, from a fixed seed: no zero bias, no gain of one."""
    random = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), dtype), gpt2.shapes(config))


def same_bits(a, b):
    """Return True if two trees are the same, to the bit and the dtype."""
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), a, b)
    return all(jax.tree.leaves(same))


def change_config(folder, **values):
    """Set keys of the folder's config; None stays a value, `...` removes the key."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def change_tensors(folder, change, file="model.safetensors"):
    """Put the file's tensors through `change`, a function of name → array that returns another such mapping."""
    save_file(change(load_file(folder / file)), folder / file, {"format": "pt"})
