"""The compiled step of a run, and where its state and its batches are put: all that knows of devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from refgrad.models import gpt2
from refgrad.train import allocator
from refgrad.train.mesh import devices
from refgrad.train.mesh.sharding import batch_sharding, shardings
from refgrad.train.optimiser import State, adamw, init_state
from refgrad.train.plan import device_plan, plan_of
from refgrad.train.settings import Settings
from refgrad.train.step import make_step


class Program:
    """What a run computes, compiled from shapes: no array is made."""

    def __init__(self, settings: Settings, mesh: Mesh | None = None) -> None:
        """Compile the step for one device, or for a mesh. Raises as `make_step` and its step do."""
        train, self._settings, self._mesh = settings.train, settings, mesh
        self._tx, schedule = adamw(train)
        choices = {
            "rules": train.rules,
            "memory": train.memory,
            "scan": train.scan,
            "remat": train.remat,
            "compute_dtype": train.compute_dtype,
            "clip_norm": train.clip_norm or None,
            "accumulate": train.accumulate,
        }
        self.like = self._placed(jax.eval_shape(self._make, jax.random.key(0)))
        """The state's shapes, and where its leaves are."""
        split = batch_sharding(mesh) if mesh else None
        ids = jax.ShapeDtypeStruct((train.batch, train.sequence), jnp.int32, sharding=split)
        step = make_step(settings.model, self._tx, measured=True, mesh=mesh, **choices)
        self.step = step.lower(self.like, ids, ids).compile()
        """(state, tokens, targets) → (state, `Measures`); the state is donated."""
        if mesh:
            self.plan = device_plan(self.step, self.like)
        else:
            self.plan = plan_of(self.step, settings.model, self.like, train.batch, train.sequence, **choices)
        with jax.numpy_dtype_promotion("standard"):
            rate = jax.jit(schedule).lower(0).compile()
        self.learning_rate = lambda n: float(rate(n))
        """Of the step after n steps."""
        allocator.return_unused()  # of the compiler

    @property
    def peaks(self) -> int:
        """Devices that have a peak rate of their own: all virtual ones of a CPU share one."""
        if jax.devices()[0].platform == "cpu":
            return jax.process_count()
        return self._mesh.size if self._mesh else 1

    def _make(self, key: jax.Array) -> State:
        params = gpt2.init(key, self._settings.model)
        return init_state(gpt2.stack(params) if self._settings.train.scan else params, self._tx)

    def first_state(self, key: jax.Array) -> State:
        """The state before the first step: one array after the other, so that little more than itself is held."""
        made = devices.make_state(self._mesh, self._make, key) if self._mesh else self._make(key)
        state = jax.block_until_ready(made)
        allocator.return_unused()  # of the random numbers' bits
        return state

    def place(self, ids: tuple[np.ndarray, np.ndarray]) -> tuple[jax.Array, jax.Array]:
        """A batch's tokens and targets, this process's rows of it (`devices.rows`), where the step wants them."""
        tokens, targets = ids
        if self._mesh:
            return devices.batch_array(self._mesh, tokens), devices.batch_array(self._mesh, targets)
        return jnp.asarray(tokens), jnp.asarray(targets)

    def _placed(self, shapes: State) -> State:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        where = shardings(shapes, self._mesh) if self._mesh else jax.tree.map(lambda _: here, shapes)
        return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, where)
