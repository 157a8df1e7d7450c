"""LLVM's optimisation for single programs, which `conftest` turns off for all.

Without it, which products and sums LLVM contracts differs by program, and so do the last bits.
"""

from refgrad.jaxpr.scaffold import UNOPTIMISED

USUAL = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
AS_USERS_COMPILE = {name: value for name, value in USUAL.items() if name in UNOPTIMISED}
