"""Compilation of the programs that a check runs around a rule, and that nobody else ever runs."""

from collections.abc import Callable
from typing import Any

import jax

UNOPTIMISED = {"xla_backend_optimization_level": 0}  # of LLVM; XLA's own passes run as ever


def scaffold(f: Callable) -> Any:
    """Return `jax.jit(f)` compiled without LLVM's optimisation, in little more than half of the time."""
    return jax.jit(f, compiler_options=None if jax.default_backend() == "tpu" else UNOPTIMISED)
