"""A training run: `loop` trains, from settings to parameters; `evaluate` measures them at the end.

`program` compiles the step and places its arrays; `checkpoints` writes and reads the state, with a `digest` of each
leaf; `folder` is the run's folder, `metrics` its log, `display` its progress. `memory` and `throughput` compare a run
with the device, `machine` and `resumed` with the run before it; `watch`, `validation` and `signals` serve the loop.
"""

__all__ = [
    "checkpoints",
    "digest",
    "display",
    "evaluate",
    "folder",
    "loop",
    "machine",
    "memory",
    "metrics",
    "program",
    "resumed",
    "signals",
    "throughput",
    "validation",
    "watch",
]
