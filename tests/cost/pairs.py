"""Pairs of programs that differ in one planted thing; the line that it stands on ends in `# here`."""

import jax
import jax.numpy as jnp
from jax import lax


def shape(*dims, dtype="float32"):
    return jax.ShapeDtypeStruct(dims, dtype)


X, W, B, V = shape(8, 16), shape(16, 32), shape(32), shape(32, 4)


def plain(x, w):
    h = jnp.tanh(x @ w)
    return jnp.sum(h * h)


def gated(x):
    return jnp.sum(jnp.tanh(x))  # here


def one_flop_more(x, w):
    h = jnp.tanh(x @ w)
    return jnp.sum(h * h) + 1.0  # here


def without_bias(x, w, b):
    return jnp.sum(jnp.tanh(x @ w))


def with_bias(x, w, b):
    return jnp.sum(jnp.tanh(x @ w + b[None]))  # here


def in_half(x, w):
    h = jnp.tanh(x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)  # here
    return jnp.sum(h * h)


def twice_in_half(x):
    return jnp.sum(jnp.sin(jnp.cos(x.astype(jnp.bfloat16))).astype(jnp.float32))


def transposed_twice(x, w):
    h = jnp.tanh(x @ w).T.copy().T  # here
    return jnp.sum(h * h)


def left_first(x, w, v):
    return jnp.sum((x @ w) @ v)


def right_first(x, w, v):
    return jnp.sum(x @ (w @ v))  # here


def by_broadcasting(x, w, v):
    h = jnp.sum(x[:, :, None] * w[None], axis=1)  # here
    return jnp.sum(h @ v)


def layer(x, w):
    with jax.named_scope("layer"):
        return jnp.sin(jnp.tanh(x @ w) @ w.T)  # here


def stacked(x, w):
    return jnp.sum(layer(layer(x, w), w))


def checkpointed(x, w):
    again = jax.checkpoint(layer)
    return jnp.sum(again(again(x, w), w))


def rule_keeps(x):
    return jnp.sum(keeps(x))


def rule_recomputes(x):
    return jnp.sum(recomputes(x))  # here


def gate(x):
    return jnp.tanh(x)


@jax.custom_vjp
def keeps(x):
    return gate(x)


def keeps_fwd(x):
    y = gate(x)
    return y, y


@jax.custom_vjp
def recomputes(x):
    return gate(x)


def recomputes_fwd(x):
    return gate(x), x


keeps.defvjp(keeps_fwd, lambda y, ct: (ct * (1.0 - y * y),))
recomputes.defvjp(recomputes_fwd, lambda x, ct: (ct * (1.0 - gate(x) * gate(x)),))


def repeat(x, w, n):
    def body(x, _):
        return jnp.tanh(x @ w) @ w.T, None  # here

    return jnp.sum(lax.scan(body, x, None, length=n)[0])


def three_trips(x, w):
    return repeat(x, w, 3)


def five_trips(x, w):
    return repeat(x, w, 5)


def unrolled(x, w):
    for _ in range(3):
        x = jnp.tanh(x @ w) @ w.T  # here
    return jnp.sum(x)


def squared(x):
    return jnp.sum(lax.integer_pow(x, 2))


def fifth_power(x):
    return jnp.sum(lax.integer_pow(x, 5))  # here


def two_lines(x, w):
    h = jnp.tanh(x @ w)
    h = h * jax.nn.sigmoid(h)  # here
    return jnp.sum(h * h)


def fan_out(x, w):
    return jnp.sum(jnp.tanh(x @ w)) + jnp.sum(x)  # here


def no_fan_out(x, w):
    return jnp.sum(jnp.tanh(x @ w))


def on_two_devices(inside, x, out):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jnp.sum(jax.shard_map(inside, mesh=mesh, in_specs=jax.P("data"), out_specs=out)(x))


def one_exchange(x):
    return on_two_devices(lambda x: lax.psum(x, "data") * x, x, jax.P("data"))


def two_exchanges(x):
    return on_two_devices(lambda x: lax.psum(lax.psum(x, "data") * x, "data"), x, jax.P())  # here
