"""Training: the step, ordinary or with the optimiser's update inside the backward pass, and a run around it.

`step` makes the step; it needs optax (the `train` extra), `allocator` nothing but libc. `settings` says what a run can
be told, `loop` trains, `checkpoints` writes and reads its state, `runs` its folder, `final` measures what was learnt;
`text` makes batches of text, `sampling` text of a model.
"""
