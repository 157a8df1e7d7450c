"""The least memory that a run can need, in closed form, held against what there is: before anything is traced."""

import jax

from refgrad import _machine
from refgrad.models.gpt2 import Config
from refgrad.train.settings import Settings

STATE_BYTES = 12  # a parameter and AdamW's two moments, in float32
ID_BYTES = 8  # a token and its target


def check(settings: Settings, devices: int) -> None:
    """Raise ValueError where the state and one batch's residual stream alone exceed the memory of all devices."""
    train, model, there = settings.train, settings.model, available() * memories(devices)
    state = STATE_BYTES * model.parameters
    if state > there:
        raise ValueError(
            f"model.n_layer = {model.n_layer}, n_embd = {model.n_embd}, vocab_size = {model.vocab_size} and "
            f"n_positions = {model.n_positions} are {model.parameters:.3g} parameters, whose training state "
            f"takes {shown(state)}, but there are {shown(there)} of memory: take a smaller model"
        )
    width = 4 if train.compute_dtype is None else 2
    batch = train.batch * train.sequence * (ID_BYTES + width * model.n_embd // train.accumulate)
    if state + batch > there:
        raise ValueError(
            f"train.batch = {train.batch} of train.sequence = {train.sequence} takes {shown(batch)} at least, but "
            f"there are {shown(there)} of memory: lower train.batch, or raise train.accumulate"
        )
    texts = cache_bytes(model, train.samples, min(train.sample_tokens, model.n_positions), 4)
    if texts > there:
        raise ValueError(
            f"train.samples = {train.samples} texts take {shown(texts)} for their keys and values, but there are "
            f"{shown(there)} of memory: lower train.samples"
        )


def cache_bytes(config: Config, texts: int, tokens: int, width: int) -> int:
    """Return the bytes of the keys and values of so many texts, in elements of `width` bytes."""
    return 2 * config.n_layer * config.n_embd * texts * tokens * width


def available() -> int:
    """Return the bytes of memory of one accelerator, or of this machine where JAX computes on its CPU."""
    device = jax.local_devices()[0]
    if device.platform != "cpu" and (stats := device.memory_stats()):
        return stats["bytes_limit"]
    return _machine.memory()


def memories(devices: int) -> int:
    """Return how many times `available` the devices have: those of a CPU share their machine's."""
    return jax.process_count() if jax.local_devices()[0].platform == "cpu" else devices


def shown(number: float) -> str:
    """Return a number of bytes to three digits."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {prefix}B"
    return f"{number:,} B"
