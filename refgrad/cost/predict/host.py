"""This machine's CPU as a device, measured: products and memory by size, arithmetic, functions, calls, fresh memory.

A figure of a region is that inside a program: it is repeated few and many times, and the difference counts. So it holds
neither the call from Python nor the first touch of new memory, which a program pays once and which have figures of
their own.
"""

import functools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from refgrad.cost.predict.devices import Allocation, Device, Efficiency
from refgrad.cost.predict.fusion import XLA_CPU
from refgrad.jaxpr.versions import newest

_PRODUCTS = (32, 64, 128, 256, 512, 1024)
_STREAMS = tuple(
    1 << n for n in (12, 15, 17, 18, 19, 20, 22, 24)
)  # elements of the array that a region reads, and of the one it writes
_TURNED = (384, 1024)  # rows of a square array that is transposed, and of one whose rows are pages
_ELEMENTS = 1 << 16
_POLYNOMIAL = 32
_FRESH = 1 << 24  # elements of a result that lies in new memory
_MMAP = 32 << 20  # glibc on 64 bits asks the system for each block of so many bytes: mallopt(3), M_MMAP_THRESHOLD
_ROUNDS = 15
_TURN = 5e-3  # seconds that a run has in each round, or once

Run = Callable[[], Any]


@functools.cache
def this_cpu() -> Device:
    """Measure this machine's CPU under XLA; seconds, once a process."""
    with jax.default_device(jax.devices("cpu")[0]):
        return measured({})[0]


def measured(beside: Mapping[str, Run], rounds: int = _ROUNDS) -> tuple[Device, dict[str, float]]:
    """Measure the default device as `this_cpu` does, in rounds that take every figure in turn, programs `beside` too.

    Returns the device, and the least seconds of each of those programs: neighbours on the machine disturb both alike.
    """
    best = fastest({**_programs(), **beside}, rounds)
    times = {name: best.pop(name) for name in beside}
    call = best.pop("call")

    def inside(name: str) -> float:
        """Seconds of one region, or of one program without its call."""
        if name in best:
            return max(best[name] - call, 0.1 * best[name])
        few, many = _times(name)
        short, long = (best[_repeated(name, times)] for times in (few, many))
        return max(long - short, 0.1 * long) / (many - few)

    sizes = tuple((2.0 * n**3, 2 * n**3 / inside(f"product {n}")) for n in _PRODUCTS)
    streams = tuple((8.0 * n, 8 * n / inside(f"stream {n}")) for n in _STREAMS)
    first_touch = inside("fresh") - 12 * _FRESH / streams[-1][1]
    device = Device(
        "cpu",
        {"float32": sizes[-1][1], "bfloat16": 2 * 1024**3 / inside("product bf16"), "float64": sizes[-1][1] / 2},
        1.0,
        2 * _POLYNOMIAL * _ELEMENTS / inside("polynomial"),
        _ELEMENTS / inside("exp"),
        streams[-1][1],
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        streams[-1][1],
        inside("launch") / 64,
        Efficiency(),
        "measured on this machine by refgrad.cost.predict.host",
        XLA_CPU,
        "cpu",
        sizes,
        streams,
        _ELEMENTS / inside("tanh"),
        (_TURNED[0] ** 2 / inside(f"turned {_TURNED[0]}"), _TURNED[1] ** 2 / inside(f"turned {_TURNED[1]}")),
        Allocation(call, _MMAP, 4 * _FRESH / max(first_touch, 0.1 * inside("fresh"))),
    )
    return device, times


def fastest(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Return the least seconds of each run, in rounds that take all: straight after itself, for some milliseconds."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            start = end = time.perf_counter()
            while end - start < _TURN:
                before = end
                run()
                end = time.perf_counter()
                best[name] = min(best[name], end - before)
    return best


def _times(name: str) -> tuple[int, int]:
    """The few and the many times that a region is repeated: fewer over arrays beyond any cache."""
    elements = int(name.removeprefix("stream ")) if name.startswith("stream") else _ELEMENTS
    return (3, 5) if elements > 1 << 20 else (3, 19)  # from 3 on the arrays take turns in the same two blocks of memory


def _repeated(name: str, times: int) -> str:
    return f"{name}, {times} times"


Region = Callable[[jax.Array], jax.Array]


def _by_loop(name: str, f: Region | None, x: jax.Array) -> dict[str, Run]:
    """Run f(x), f(f(x)), … in a loop; without f, x plus a number into another array."""

    def copied(times: jax.Array, x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, times, lambda k, _: x + k.astype(x.dtype), jnp.zeros_like(x))[-1]

    def computed(f: Region, times: jax.Array, x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, times, lambda _, y: f(y) * 0.5, x)

    program = copied if f is None else functools.partial(computed, f)
    compiled = jax.jit(program).lower(jnp.int32(0), x).compile()
    return {_repeated(name, times): _run(compiled, jnp.int32(times), x) for times in _times(name)}


def _in_line(name: str, f: Region | None, x: jax.Array) -> dict[str, Run]:
    """Run the same one after another, apart from each other by barriers."""

    def program(times: int, x: jax.Array) -> jax.Array:
        y, last = x, jnp.zeros((), x.dtype)
        for _ in range(times):
            y = lax.optimization_barrier(x + last if f is None else f(y) * 0.5)
            last = y[-1] if f is None else last
        return last if f is None else y

    compiled = {times: jax.jit(functools.partial(program, times)).lower(x).compile() for times in _times(name)}
    return {_repeated(name, times): _run(of, x) for times, of in compiled.items()}


# XLA 0.10 has no barriers on a CPU; 0.12 runs what is inside a loop on one core.
_AGAIN = newest({(0, 10): _by_loop, (0, 12): _in_line})


def _programs() -> dict[str, Run]:
    """Compiled programs: products, loops over arrays of every size, functions, small regions, a call, a new array."""

    def polynomial(x: jax.Array) -> jax.Array:
        y = x
        for _ in range(_POLYNOMIAL):
            y = y * x + 0.5
        return y

    def regions(x: jax.Array) -> jax.Array:
        for _ in range(64):
            x = x @ x
        return x

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(jax.random.key(0), shape)

    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "call": (jnp.negative, (jnp.ones(1 << 13),)),  # so large that XLA hands it to a thread of its own
        "launch": (regions, (jnp.ones((8, 8)),)),
        "fresh": (jnp.add, (normal(_FRESH),) * 2),
        "product bf16": (jnp.matmul, (jnp.ones((1024, 1024), jnp.bfloat16),) * 2),
        **{f"product {n}": (jnp.matmul, (normal(n, n),) * 2) for n in _PRODUCTS},
    }

    regions_of: dict[str, tuple[Region | None, tuple[int, ...]]] = {
        "polynomial": (polynomial, (_ELEMENTS,)),
        "exp": (jnp.exp, (_ELEMENTS,)),
        "tanh": (jnp.tanh, (_ELEMENTS,)),
        **{f"turned {n}": (jnp.transpose, (n, n)) for n in _TURNED},
        **{f"stream {n}": (None, (n,)) for n in _STREAMS},
    }
    runs = {name: _run(jax.jit(f).lower(*args).compile(), *args) for name, (f, args) in programs.items()}
    for name, (f, shape) in regions_of.items():
        runs |= _AGAIN(name, f, normal(*shape))
    return runs


def _run(compiled: Any, *args: Any) -> Run:
    return lambda: jax.block_until_ready(compiled(*args))
