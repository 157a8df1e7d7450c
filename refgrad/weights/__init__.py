"""GPT-2 checkpoints in and out: a local folder as the ecosystem stores it ↔ parameters and config, bit for bit.

`config.json` beside `model.safetensors`, or beside its shards and their index. Needs safetensors (the `train` extra).
"""

from refgrad.weights.reading import load
from refgrad.weights.writing import save

__all__ = ["load", "save"]
