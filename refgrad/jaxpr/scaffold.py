"""Compilation of programs that run once, of which compiling is all the cost; their numbers are the same to rounding."""

import os
from collections.abc import Callable
from typing import Any

import jax

from refgrad.jaxpr.versions import newest

# LLVM's optimisation takes half of the time. Until they became faster, XLA's emitters of fusions took half of the rest,
# and the division of a program into parts that are compiled side by side took more time than it saved.
UNOPTIMISED = newest(
    {
        (0, 10): {
            "xla_backend_optimization_level": 0,
            "xla_cpu_use_fusion_emitters": False,
            "xla_cpu_parallel_codegen_split_count": 1,
        },
        (0, 11, 1): {"xla_backend_optimization_level": 0},
    }
)
FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in UNOPTIMISED.items())


def scaffold(f: Callable) -> Any:
    """Return `jax.jit(f)`, to be compiled in a third to a half of the time. Starts JAX's devices."""
    return jax.jit(f, compiler_options=None if jax.default_backend() == "tpu" else UNOPTIMISED)


def scaffold_everything() -> None:
    """Compile every program of this process so, from the moment that JAX starts its devices."""
    if FLAGS not in (flags := os.environ.get("XLA_FLAGS", "")):
        os.environ["XLA_FLAGS"] = f"{flags} {FLAGS}".strip()
