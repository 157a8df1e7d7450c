"""Values inside a `shard_map`, seen from outside: one version for each device.

From outside, such a value is an array with one leading dimension for each manual axis: the size of the axis where the
value varies over it, 1 where it does not. Without `check_vma` JAX keeps no account of that, and all may vary.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn
from jax.sharding import PartitionSpec

from refgrad.jaxpr.avals import varying_axes_of


class Devices:
    """The manual axes of one `shard_map` equation, by its parameters."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params
        self.axes = tuple(a for a in params["mesh"].axis_names if a in params["newly_manual_axes"])

    def varying(self, aval: Any) -> list[bool]:
        """Return a flag for each axis, True if a value of this type varies over it."""
        return [not self.params["check_vma"] or a in varying_axes_of(aval) for a in self.axes]

    def spec(self, aval: Any) -> PartitionSpec:
        """The split of a value's stacked form over the devices."""
        return PartitionSpec(*(a if v else None for a, v in zip(self.axes, self.varying(aval), strict=True)))

    def shape(self, aval: Any) -> tuple[int, ...]:
        """The shape of the stacked form."""
        sizes = self.params["mesh"].shape
        return *(sizes[a] if v else 1 for a, v in zip(self.axes, self.varying(aval), strict=True)), *aval.shape

    def lift(self, x: Any) -> jax.Array:
        """Inside: this device's part of a stacked form that is split over every axis."""
        x = jnp.asarray(x)
        missing = tuple(a for a, v in zip(self.axes, self.varying(jax.typeof(x)), strict=True) if not v)
        if missing:
            x = lax.pcast(x, missing, to="varying")
        return jnp.expand_dims(x, tuple(range(len(self.axes))))

    def thin(self, x: jax.Array, aval: Any) -> jax.Array:
        """Outside: the stacked form of a value of type `aval`, from one that is split over every axis."""
        return x[tuple(slice(None) if v else slice(0, 1) for v in self.varying(aval))]

    def map(self, body: Callable, tap_specs: Any) -> Callable:
        """The `shard_map` itself around `body(taps, *inputs) → (outputs, values to stack over every axis)`."""
        p = self.params
        specs = (list(p["out_specs"]), PartitionSpec(*self.axes))
        return self._shard_map(body, (tap_specs, *p["in_specs"]), specs)

    def run(self, program: Callable[..., Sequence], eqn: JaxprEqn) -> Callable[..., Sequence]:
        """`program`, with the inputs and outputs of `eqn`, on every device; it takes and returns stacked forms."""

        stack = tuple(range(len(self.axes)))

        def body(*stacked):
            inputs = [jnp.squeeze(x, stack) for x in stacked]
            return [jnp.expand_dims(y, stack) for y in program(*inputs)]

        in_specs = tuple(self.spec(v.aval) for v in eqn.invars)
        return self._shard_map(body, in_specs, [self.spec(v.aval) for v in eqn.outvars])

    def _shard_map(self, body: Callable, in_specs: Any, out_specs: Any) -> Callable:
        p, axes = self.params, set(self.axes)
        mapped = jax.shard_map(
            body, mesh=p["mesh"], in_specs=in_specs, out_specs=out_specs, axis_names=axes, check_vma=p["check_vma"]
        )
        return jax.jit(mapped)  # primitive by primitive a shard_map takes seconds
