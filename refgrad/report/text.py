"""Real text on every machine: the Python standard library's own source, as bytes."""

import argparse
import inspect
from pathlib import Path

import numpy as np


def standard_library_ids(batch: int, sequence: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets (batch, sequence), int32 below 256: each target is the byte that follows its token.

    Raises ValueError where the text is too short for so many.
    """
    source = Path(inspect.getfile(argparse))
    data = np.frombuffer(source.read_bytes(), np.uint8).astype(np.int32)
    needed = batch * (sequence + 1)
    if needed > data.size:
        raise ValueError(
            f"batch {batch} × sequence {sequence} needs {needed} bytes, but {source.name} has {data.size}: take fewer"
        )
    rows = data[:needed].reshape(batch, sequence + 1)
    return rows[:, :-1], rows[:, 1:]
