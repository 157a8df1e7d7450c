"""Output of the commands: results gathered from the instruments, as data and as tables."""

__all__ = [
    "bench",
    "cells",
    "claims",
    "comparison",
    "conventions",
    "cost",
    "figures",
    "memory",
    "mesh",
    "model",
    "networks",
    "operations",
    "page",
    "prediction",
    "proofs",
    "sections",
    "shares",
    "text",
    "training",
    "uses",
]
