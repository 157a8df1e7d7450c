"""Every test runs with strict promotion on four virtual CPU devices; `x64` opens the float64 lane.

XLA compiles as for programs that run once (`refgrad.jaxpr.scaffold`), since most tests compile more than they compute.
What users run is compiled as they compile it by `refgrad verify`, which CI runs over every operation. Workers share
what they compile, and a later run reads it back: the programs lie in pytest's own cache, which `pytest --cache-clear`
empties.
"""

import functools
import os
import signal
from pathlib import Path

# read by JAX and by commands that a test starts
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "d" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ["COLUMNS"] = "100"  # whatever the terminal has

import jax
import pytest

from refgrad.jaxpr.scaffold import FLAGS
from tests.optimised import AS_USERS_COMPILE

os.environ.setdefault("XLA_FLAGS", FLAGS)  # read when JAX starts its devices
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """The float64 lane: 64-bit types are on while the test runs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def as_users_compile(monkeypatch):
    """Every program that the test jits is compiled with LLVM's optimisation."""
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=AS_USERS_COMPILE))
