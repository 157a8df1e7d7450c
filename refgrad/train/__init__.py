"""Training: the step, ordinary or with the optimiser's update inside the backward pass, and a run around it.

`step` makes the step, `plan` says what memory it needs; both need optax (the `train` extra). `settings` holds all that
a run can be told, `sampling` draws text from a model, `allocator` needs nothing but libc.

`update_in_backward` is the backward pass that updates as it goes, `mesh` the same model over many devices, `text` turns
files into batches, and `run` is the loop with its checkpoints, metrics and evaluation.
"""

__all__ = [
    "allocator",
    "fields",
    "mesh",
    "optimiser",
    "plan",
    "run",
    "sampling",
    "settings",
    "step",
    "text",
    "update_in_backward",
]
