"""Measurements as a product: contenders in processes of their own, interleaved with a baseline, beside the roofline."""

__all__ = [
    "contenders",
    "library",
    "machine",
    "pairs",
    "parts",
    "peers",
    "process",
    "roofline",
    "run",
    "sweep",
    "worker",
]
