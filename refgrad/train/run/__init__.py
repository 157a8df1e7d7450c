"""A training run: `loop` trains, from settings to parameters; `evaluate` measures them at the end.

`program` compiles the step and places its arrays; `folder` is the run's folder, `metrics` its log, `display` its
progress. `checkpoints` writes the state to `storage` with a `digest` of each leaf, `restore` reads it, and `damage`
finds leaves that have changed. `memory` and `throughput` compare a run with the device, `machine` and `resumed` with
the run before it; `watch`, `validation` and `signals` serve the loop.
"""

__all__ = [
    "checkpoints",
    "damage",
    "digest",
    "display",
    "evaluate",
    "folder",
    "loop",
    "machine",
    "memory",
    "metrics",
    "program",
    "restore",
    "resumed",
    "signals",
    "storage",
    "throughput",
    "validation",
    "watch",
]
