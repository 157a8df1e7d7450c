"""The one room that reads and evaluates JAX programs, and that knows JAX's versions.

- `versions`: everything that depends on the version of JAX
- `avals`: shapes, dtypes, bytes and sharding of a program's values
- `calls`: the table of structured primitives, and the programs that each of them runs
- `programs`: equations at any depth, where they stand, and functions as programs
- `rules`: equations that call a custom derivative rule
- `interpret`, `rebuild`, `unroll`, `uncompiled`: programs evaluated equation by equation
- `analysis`, `dependence`: what flows forward through a program, and what of it is needed
- `values`: values that a program makes more than once
- `alike`: two programs compared

Other rooms supply a function per equation; only this one descends into the programs that an equation runs.
"""

__all__ = [
    "alike",
    "analysis",
    "authors",
    "avals",
    "calls",
    "dependence",
    "hiprim",
    "interpret",
    "methods",
    "programs",
    "rebuild",
    "rules",
    "uncompiled",
    "unroll",
    "values",
    "versions",
]
