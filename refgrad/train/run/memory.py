"""A lower bound on the memory of a run, in closed form, checked before anything is traced."""

import jax

from refgrad._machine import available
from refgrad._text import prefixed
from refgrad.models.gpt2 import Config
from refgrad.train.sampling import cache_bytes
from refgrad.train.settings import Train

STATE_BYTES = 12  # a parameter and AdamW's two moments, in float32
ID_BYTES = 8  # a token and its target


def check(model: Config, train: Train, devices: int) -> None:
    """Raise ValueError if the state and one batch's residual stream alone exceed the memory of all devices."""
    there = available() * memories(devices)
    state = STATE_BYTES * model.parameters
    if state > there:
        raise ValueError(
            f"model.n_layer = {model.n_layer}, n_embd = {model.n_embd}, vocab_size = {model.vocab_size} and "
            f"n_positions = {model.n_positions} are {model.parameters:.3g} parameters, whose training state "
            f"takes {prefixed(state)}, but there are {prefixed(there)} of memory: take a smaller model"
        )
    width = 4 if train.dtype == "float32" else 2
    batch = train.batch * train.sequence * (ID_BYTES + width * model.n_embd // train.accumulate)
    if state + batch > there:
        raise ValueError(
            f"train.batch = {train.batch} of train.sequence = {train.sequence} takes {prefixed(batch)} at least, but "
            f"there are {prefixed(there)} of memory: lower train.batch, or raise train.accumulate"
        )
    texts = cache_bytes(model, train.samples, min(train.sample_tokens, model.n_positions), 4)
    if texts > there:
        raise ValueError(
            f"train.samples = {train.samples} texts take {prefixed(texts)} for their keys and values, but there are "
            f"{prefixed(there)} of memory: lower train.samples"
        )


def memories(devices: int) -> int:
    """Return the number of separate memories: devices of a CPU share their machine's."""
    return jax.process_count() if jax.local_devices()[0].platform == "cpu" else devices
