"""equinox: filtered rules, checkpointed loops, errors, layers."""

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from world.use import Use, normal


@eqx.filter_custom_vjp
def cube(x, scale):
    """Return scale · x³."""
    return scale * x**3


@cube.def_fwd
def cube_fwd(perturbed, x, scale):
    """Return the value; nothing is kept."""
    return scale * x**3, None


@cube.def_bwd
def cube_bwd(residuals, g, perturbed, x, scale):
    """Return 3 · scale · g · x²."""
    return 3 * scale * g * x * x


@eqx.filter_custom_jvp
def sine(x, *, scale):
    """Return scale · sin x."""
    return scale * jnp.sin(x)


@sine.def_jvp
def sine_jvp(primals, tangents, *, scale):
    """Return the value and its tangent."""
    (x,), (t,) = primals, tangents
    return scale * jnp.sin(x), scale * jnp.cos(x) * t


def checked(x):
    """Return √x behind a runtime check."""
    return jnp.sqrt(eqx.error_if(x, jnp.any(x < -100), "far"))


def halving(kind):
    """Return a loop of three steps, of one kind, as a function."""

    def loop(x):
        def step(carry):
            n, y = carry
            return n + 1, jnp.sin(y) + x

        return eqxi.while_loop(lambda c: c[0] < 3, step, (0, x), kind=kind, max_steps=4, checkpoints=2)[1]

    return loop


def unrolled(x):
    """Run the same three steps without a loop."""
    y = x
    for _ in range(3):
        y = jnp.sin(y) + x
    return y


def scanned(x):
    """Run the same three steps as a checkpointed scan."""
    return eqxi.scan(lambda c, _: (jnp.sin(c) + x, c), x, jnp.arange(3), kind="checkpointed", checkpoints=2)[0]


def layer(name):
    """Return a layer by name, from a fixed key."""
    made = {
        "Linear": lambda: eqx.nn.Linear(3, 2, key=jax.random.key(0)),
        "LayerNorm": lambda: eqx.nn.LayerNorm(3),
        "GRUCell": lambda: eqx.nn.GRUCell(3, 2, key=jax.random.key(0)),
        "MLP": lambda: eqx.nn.MLP(3, 2, 4, 1, activation=jax.nn.silu, key=jax.random.key(0)),
    }
    return made[name]()


def mlp(weights, x):
    """Apply the MLP with these weights."""
    _, static = eqx.partition(layer("MLP"), eqx.is_inexact_array)
    return eqx.combine(weights, static)(x)


def attention(q):
    """Apply self-attention of two heads."""
    made = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))
    return made(q, q, q)


USES = [
    Use("filter_custom_vjp", lambda x: cube(x, 2.0), (normal(3),), plain=lambda x: 2 * x**3),
    Use("filter_custom_jvp", lambda x: sine(x, scale=2.0), (normal(3),), plain=lambda x: 2 * jnp.sin(x)),
    Use("filter_closure_convert", lambda x: eqx.filter_closure_convert(jnp.sin, x)(x), (normal(3),), plain=jnp.sin),
    Use("error_if", checked, (np.array([0.5, 2], np.float32),), plain=jnp.sqrt),
    Use("while_loop, bounded", halving("bounded"), (normal(2),), plain=unrolled),
    Use("while_loop, checkpointed", halving("checkpointed"), (normal(2),), plain=unrolled),
    Use("scan, checkpointed", scanned, (normal(2),), plain=unrolled),
    Use("prevbefore", eqxi.nextafter, (normal(2),)),
    Use("prevbefore, two", eqxi.prevbefore, (normal(2),)),
    Use("Linear", lambda w, x: w @ x, (normal(2, 3), normal(3)), plain=lambda w, x: w @ x),
    Use("MLP", mlp, (eqx.partition(layer("MLP"), eqx.is_inexact_array)[0], normal(3))),
    Use("LayerNorm", lambda x: layer("LayerNorm")(x), (normal(3),)),
    Use("GRUCell", lambda x, h: layer("GRUCell")(x, h), (normal(3), normal(2))),
    Use("MultiheadAttention", attention, (normal(3, 4),)),
    Use("backward_nan", lambda x: jnp.sin(eqx.debug.backward_nan(x)), (normal(2),), plain=jnp.sin),
    Use(
        "custom rule over scan",
        lambda x: lax.scan(lambda c, _: (cube(c, 0.5), c), x, None, 2)[0],
        (normal(2),),
        plain=lambda x: 0.5 * (0.5 * x**3) ** 3,
    ),
]
