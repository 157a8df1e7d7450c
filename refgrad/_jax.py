"""What newer versions of JAX change, behind one small file. Only public modules; jax >= 0.10.2."""

import jax


def varying_axes(x) -> frozenset[str]:
    """The manual mesh axes over which `x` varies inside `shard_map(check_vma=True)`; empty outside."""
    return varying_axes_of(jax.typeof(x))


def varying_axes_of(aval) -> frozenset[str]:
    """The same of a type, such as those of a traced program's variables."""
    manual = getattr(aval, "mat", None)  # jax < 0.10 has `.vma` in its place
    return frozenset(manual.varying if manual is not None else getattr(aval, "vma", ()))


def explicit_sharding(x) -> jax.sharding.NamedSharding | None:
    """The sharding in the type of `x` where its mesh has explicit axes; None under auto or manual axes."""
    sharding = jax.typeof(x).sharding
    explicit = jax.sharding.AxisType.Explicit
    return sharding if not sharding.mesh.empty and explicit in sharding.mesh.axis_types else None
