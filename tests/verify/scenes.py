"""Functions of an element-wise operation, each with it in another place of a program, and rules to put there."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

X = jnp.linspace(0.1, 1.0, 4)


def rule(forward, derivative, name="op"):
    """`forward` with the backward `cotangent · derivative(x)`, right or wrong."""

    def op(x):
        return forward(x)

    def op_fwd(x):
        return forward(x), x

    def op_bwd(x, ct):
        return (ct * derivative(x),)

    op.__name__ = name
    ruled = jax.custom_vjp(op)
    ruled.defvjp(op_fwd, op_bwd)
    return ruled


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((4,), ("a",), axis_types=(kind,))


def sharded(op, check_vma):
    body = lambda x: lax.psum(op(x) * x, "a")  # noqa: E731
    return jax.jit(jax.shard_map(body, mesh=mesh(), in_specs=P("a"), out_specs=P(), check_vma=check_vma))


def newton(op):
    """x³ = op(b) by a solver whose derivative is implicit; the rule is outside the solver."""

    def solve(f, x0):
        return lax.fori_loop(0, 20, lambda i, x: x - f(x) / (3 * x**2), x0)

    def root(b):
        return lax.custom_root(lambda x: x**3 - b, jnp.ones_like(b), solve, lambda g, y: y / g(jnp.ones_like(y)))

    return lambda b: root(op(b))


def solver(op):
    def f(b):
        scale = op(b) + 2
        return lax.custom_linear_solve(
            lambda x: scale * x, b, lambda mv, y: y / scale, lambda mv, y: y / scale, symmetric=True
        )

    return f


def switched(op):
    return lambda x: lax.switch(jnp.int32(2), [jnp.cos, lambda x: x, op], x)


def policy(op):
    return jax.checkpoint(lambda x: op(jnp.cos(x)), policy=jax.checkpoint_policies.dots_saveable)


def trips(op):
    """The number of trips depends on the values: no reverse mode."""
    return lambda x: lax.while_loop(lambda c: c[0] < 1.5, lambda c: op(c) * 0.25 + c + 0.25, x)


def within(op):
    """The operation inside the forward of another, right, rule."""
    return lambda x: rule(lambda x: jnp.exp(op(x)), lambda x: jnp.exp(jnp.sin(x)) * jnp.cos(x))(x)


def scanned(op):
    return lambda x: lax.scan(lambda c, y: (op(c) + y, op(y) * c.sum()), x, x)[1]


def layers(op):
    """The structure of a deep model: jit of scan of checkpoint of vmap."""
    step = jax.checkpoint(lambda c, y: (jax.vmap(op)(c) + y, None))
    return jax.jit(lambda x: lax.scan(step, x, x)[0])


SCENES = {
    "bare": lambda op: op,
    "jit": lambda op: jax.jit(lambda x: jax.jit(op)(x) * x),
    "scan": scanned,
    "reverse scan": lambda op: lambda x: lax.scan(lambda c, y: (op(c * y), c), x[0], x, reverse=True)[1],
    "fori": lambda op: lambda x: lax.fori_loop(0, 3, lambda i, c: op(c) + x, x),
    "map": lambda op: lambda x: lax.map(op, x),
    "cond": lambda op: lambda x: lax.cond(x[0] < 3, op, lambda x: x, x),
    "switch": switched,
    "platform": lambda op: lambda x: lax.platform_dependent(x, cpu=op, default=lambda x: x),
    "checkpoint": lambda op: jax.checkpoint(op),
    "checkpoint with a policy": policy,
    "vmap": lambda op: jax.vmap(lambda x: op(x) * x),
    "shard_map": lambda op: sharded(op, True),
    "shard_map without check_vma": lambda op: sharded(op, False),
    "linear solve": solver,
    "root": newton,
    "within another rule": within,
    "jit, scan, checkpoint, vmap": layers,
}
