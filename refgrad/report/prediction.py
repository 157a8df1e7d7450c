"""GPT-2's training step, or a user's function, as `cost.predict` sees it on a device or a mesh of them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from refgrad.cost.predict import Device, Prediction, predict
from refgrad.models import gpt2

KERNELS = ("attention",)  # one kernel on an accelerator, cuDNN's or Pallas'
ASSUMED = "AdamW, fused rules, bfloat16 with parameters and moments in float32, attention as one kernel"


def step(config: gpt2.Config, device: str | Device, sizes: Mapping[str, int], batch: int, sequence: int) -> Prediction:
    """Predict a training step of `batch` × `sequence` ids on each device of a mesh {axis: size}; {} for one device.

    Raises ValueError for an unknown device and as `sharding.check` and `devices.make` do, ImportError without optax.
    """
    from refgrad.train.mesh import devices, sharding
    from refgrad.train.optimiser import init_state, optax
    from refgrad.train.step import make_step

    mesh, count = None, devices.count(sizes)
    if count > 1:
        devices.simulate(count)  # first, since shapes alone make JAX start its devices
        sharding.check(config, sizes, batch, sequence)
        mesh = devices.make(sizes, devices=jax.devices("cpu"))
    tx = optax.adamw(1e-4)
    state: Any = jax.eval_shape(lambda key: init_state(gpt2.init(key, config), tx), jax.random.key(0))
    ids: Any = jax.ShapeDtypeStruct((batch, sequence), jnp.int32)
    if mesh is not None:
        state = jax.tree.map(_placed, state, sharding.shardings(state, mesh))
        ids = _placed(ids, sharding.batch_sharding(mesh))
    made = make_step(config, tx, rules="fused", compute_dtype=jnp.bfloat16, mesh=mesh)
    return predict(made, state, ids, ids, device=device, mesh=dict(sizes), kernels=KERNELS)


def _placed(x: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
