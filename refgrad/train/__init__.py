"""Training: the step, ordinary or with the optimiser's update inside the backward pass, and what it needs of memory.

`refgrad.train.step` makes the step; it needs optax (the `train` extra), `refgrad.train.allocator` nothing but libc.
"""
