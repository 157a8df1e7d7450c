"""Values for the lines of D2's derivations: vectors, their Jacobians and pullbacks, all by autodiff."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.claims._oracle import normal
from refgrad.jaxpr.scaffold import scaffold
from refgrad.ops import TABLE
from refgrad.ops.gelu import A, C

LENGTHS = (5, 3, 8)
EPS = 1e-5
System = tuple[dict[str, Any], Any]  # names and their values, and a Jacobian


def _parts(jacobian: Any) -> dict[str, np.ndarray]:
    """A Jacobian's diagonal, and the rest of it."""
    return {"self": np.diag(jacobian), "cross": jacobian * (1 - np.eye(len(jacobian)))}


def _softmax(x: Any, ct: Any) -> System:
    """e^x, their sum S, z, and the pullback of ct."""
    softmax = TABLE["softmax"].op.fun
    z, pull = jax.vjp(softmax, x)
    e = jnp.exp(x)
    return {"e": e, "S": e.sum(), "z": z, "dz": ct, "dx": pull(ct)[0]}, jax.jacobian(softmax)(x)


def _log_softmax(x: Any, ct: Any) -> System:
    """p with its pullback of ct; the Jacobian is the softmax's, as in the document."""
    values, jacobian = _softmax(x, ct)
    p, pull = jax.vjp(TABLE["log_softmax"].op.fun, x)
    log = jnp.diag(jax.jacobian(jnp.log)(values["z"]))
    return {"z": values["z"], "p": p, "dp": ct, "dp_dz": log, "dx": pull(ct)[0]}, jacobian


def _norm(x: Any, ct: Any) -> System:
    """μ, σ² and x̂ with their derivatives, and the pullback of ct; the Jacobian is that of x̂."""
    gamma, beta = jnp.cos(ct), jnp.sin(ct)  # any will do

    def variance(x: Any) -> Any:
        return ((x - x.mean()) ** 2).mean()

    def x_hat(x: Any) -> Any:
        return (x - x.mean()) / jnp.sqrt(variance(x) + EPS)

    norm = TABLE["layer_norm"].op.fun
    dx, dgamma, dbeta = jax.vjp(lambda x, gamma, beta: norm(x, gamma, beta, EPS), x, gamma, beta)[1](ct)
    (dx_hat,) = jax.vjp(lambda x_hat: gamma * x_hat + beta, x_hat(x))[1](ct)
    values = {"x": x, "mu": jnp.mean(x), "var": variance(x), "x_hat": x_hat(x), "gamma": gamma, "dy": ct}
    grads = {"dmu": jax.grad(jnp.mean)(x), "dvar": jax.grad(variance)(x), "dx_hat": dx_hat, "dx": dx}
    return {**values, **grads, "dgamma": dgamma, "dbeta": dbeta}, jax.jacobian(x_hat)(x)


def _gelu(x: Any, ct: Any) -> System:
    """u, dt = ∂tanh(u)/∂x, and the pullback of ct."""

    def inner(x: Any) -> Any:
        return A * (x + C * x**3)

    gelu = TABLE["gelu"].op.fun
    (dx,) = jax.vjp(gelu, x)[1](ct)
    dt = jnp.diag(jax.jacobian(lambda x: jnp.tanh(inner(x)))(x))
    return {"x": x, "u": inner(x), "dt": dt, "dy": ct, "dx": dx}, jax.jacobian(gelu)(x)


SYSTEMS: Mapping[str, Callable[[Any, Any], System]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _norm,
    "gelu": _gelu,
}


@cache
def values(op: str) -> tuple[dict[str, Any], ...]:
    """Values that a line of this operation's derivation may use, and those that it may claim, at each length."""
    found, constants = [], {"eps": EPS, "a": A, "b": C}
    for n, N in enumerate(LENGTHS):
        made, jacobian = scaffold(SYSTEMS[op])(normal(n, N), normal(n + 3, N))
        arrays = {name: np.asarray(value) for name, value in made.items()}
        found.append({**constants, "N": N, "other": 1 - np.eye(N), **arrays, **_parts(np.asarray(jacobian))})
    return tuple(found)
