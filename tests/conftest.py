"""Every test runs with strict promotion on four virtual CPU devices; `x64` opens the float64 lane.

LLVM compiles without optimising: that is a third of the time of tests that compile more than they compute. What users
run is compiled as they compile it by `refgrad verify`, which CI runs over every operation.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # read when JAX starts its devices

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """The float64 lane: 64-bit types are on while the test runs."""
    with jax.enable_x64(True):
        yield
