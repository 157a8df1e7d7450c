"""The compiled step of a run, and the placement of its state and batches on devices."""

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
from refgrad.train.settings import Train
from refgrad.train.step import make_step


class CompiledStep:
    """The step of a run, compiled from shapes: no array is made."""

    def __init__(self, config: gpt2.Config, train: Train, mesh: Mesh | None = None) -> None:
        """Compile the step for one device, or for a mesh. Raises as `make_step` and its step do."""
        self._config, self._scan, self._mesh = config, train.scan, mesh
        self._tx, schedule = adamw(train)
        choices = vars(train.step_options())
        self.like = self._placed(jax.eval_shape(self._make, jax.random.key(0)))
        """The shapes and shardings of the state."""
        split = batch_sharding(mesh) if mesh else None
        ids = jax.ShapeDtypeStruct((train.batch, train.sequence), jnp.int32, sharding=split)
        step = make_step(config, self._tx, measured=True, mesh=mesh, **choices)
        self.step = step.lower(self.like, ids, ids).compile()
        """(state, tokens, targets) → (state, `Measures`); the state is donated."""
        if mesh:
            self.plan = device_plan(self.step, self.like)
        else:
            self.plan = plan_of(self.step, config, self.like, train.batch, train.sequence, **choices)
        with jax.numpy_dtype_promotion("standard"):
            rate = jax.jit(schedule).lower(0).compile()
        self.learning_rate = lambda n: float(rate(n))
        """The learning rate of the step after n steps."""
        allocator.return_unused()  # memory of the compiler

    @property
    def peaks(self) -> int:
        """The number of devices with a peak rate of their own: virtual devices of a CPU share one."""
        if jax.devices()[0].platform == "cpu":
            return jax.process_count()
        return self._mesh.size if self._mesh else 1

    def _make(self, key: jax.Array) -> State:
        params = gpt2.init(key, self._config)
        return init_state(gpt2.stack(params) if self._scan else params, self._tx)

    def first_state(self, key: jax.Array) -> State:
        """Return the state before the first step, made array by array, so that little more memory is needed."""
        made = devices.make_state(self._mesh, self._make, key) if self._mesh else self._make(key)
        state = jax.block_until_ready(made)
        allocator.return_unused()  # memory of the random bits
        return state

    def place(self, ids: tuple[np.ndarray, np.ndarray]) -> tuple[jax.Array, jax.Array]:
        """Place a batch's tokens and targets, given this process's rows (`devices.rows`), as the step takes them."""
        tokens, targets = ids
        if self._mesh:
            return devices.batch_array(self._mesh, tokens), devices.batch_array(self._mesh, targets)
        return jnp.asarray(tokens), jnp.asarray(targets)

    def _placed(self, shapes: State) -> State:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        where = shardings(shapes, self._mesh) if self._mesh else jax.tree.map(lambda _: here, shapes)
        return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, where)
