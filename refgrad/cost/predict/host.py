"""This machine's CPU as a device, measured: products by size, arithmetic, transcendental functions, bandwidth."""

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from refgrad.cost.predict.devices import Device, Efficiency
from refgrad.cost.predict.fusion import XLA_CPU

_PRODUCTS = (32, 64, 128, 256, 512, 1024)
_STREAMS = tuple(1 << n for n in (12, 15, 17, 19, 21, 23))  # elements of each of three arrays
_ELEMENTS = 1 << 19
_ROUNDS = 15


@functools.cache
def this_cpu() -> Device:
    """Measure this machine's CPU under XLA; seconds, once a process."""
    with jax.default_device(jax.devices("cpu")[0]):
        return measured()


def measured(rounds: int = _ROUNDS) -> Device:
    """Measure the default device as `this_cpu` does, the best of some rounds that take every figure in turn."""
    runs = _programs()
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    call = best.pop("call")  # from Python, which a region inside a program does not pay
    best = {name: max(seconds - call, 0.1 * seconds) for name, seconds in best.items()}
    sizes = tuple((2.0 * n**3, 2 * n**3 / best[f"product {n}"]) for n in _PRODUCTS)
    streams = tuple((12.0 * n, 12 * n / best[f"sum {n}"]) for n in _STREAMS)
    return Device(
        "cpu",
        {"float32": sizes[-1][1], "bfloat16": 2 * 1024**3 / best["product bf16"], "float64": sizes[-1][1] / 2},
        1.0,
        64 * _ELEMENTS / best["polynomial"],
        _ELEMENTS / best["tanh"],
        streams[-1][1],
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        streams[-1][1],
        best["launch"] / 64,
        Efficiency(),
        "measured on this machine by refgrad.cost.predict.host",
        XLA_CPU,
        "cpu",
        sizes,
        streams,
    )


def _programs() -> dict[str, Callable[[], Any]]:
    """Compiled programs: products, sums of two arrays, a polynomial, tanh, and many small regions."""

    def polynomial(x: jax.Array) -> jax.Array:
        y = x
        for _ in range(32):
            y = y * x + 0.5
        return y

    def regions(x: jax.Array) -> jax.Array:
        for _ in range(64):
            x = x @ x
        return x

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(jax.random.key(0), shape)

    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "polynomial": (polynomial, (normal(_ELEMENTS),)),
        "tanh": (jnp.tanh, (normal(_ELEMENTS),)),
        "call": (jnp.negative, (jnp.ones(8),)),
        "launch": (regions, (jnp.ones((8, 8)),)),
        "product bf16": (jnp.matmul, (jnp.ones((1024, 1024), jnp.bfloat16),) * 2),
        **{f"product {n}": (jnp.matmul, (normal(n, n),) * 2) for n in _PRODUCTS},
        **{f"sum {n}": (jnp.add, (normal(n), normal(n))) for n in _STREAMS},
    }
    compiled = {name: (jax.jit(f).lower(*args).compile(), args) for name, (f, args) in programs.items()}
    return {
        name: functools.partial(lambda f, args: jax.block_until_ready(f(*args)), f, args)
        for name, (f, args) in compiled.items()
    }
