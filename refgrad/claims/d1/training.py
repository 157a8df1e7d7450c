"""D1's training step (D1.14), and its four mistakes as they come out in pure functions (D1.15 to D1.18)."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.claims._ledger import Case, deferred
from refgrad.claims._oracle import at, gradients, normal, value
from refgrad.claims._rows import claims
from refgrad.ops import operations

OPS = operations("derived")
SIZES = ({"B": 6, "D": 3, "H": 4}, {"B": 9, "D": 5, "H": 2}, {"B": 4, "D": 2, "H": 7})
BOUNDS = {"nearly": 1e-3}  # the fall of the loss may differ from η‖∇L‖² by a thousandth
ETA = 1e-5
NOTHING = "no error"


def _loss(W1: Any, W2: Any, x: Any, y: Any, cut: Callable[[Any], Any] = lambda h: h) -> Any:
    """An encoder (W₁, tanh) and a decoder (W₂) with the mean squared error; `cut` stands between the two."""
    hidden = cut(OPS.tanh(OPS.matmul(x, W1)))
    return OPS.squared_error_mean(OPS.matmul(hidden, W2), y)


@cache
def _problems() -> tuple[tuple[str, tuple[Any, ...], tuple[Any, ...]], ...]:
    """Name, (W1, W2, x, y), and the gradients of W₁ and W₂ by the oracle, for each size."""
    found = []
    for sizes in SIZES:
        B, D, H = sizes.values()
        W1, W2, x, y = normal(0, D, H), normal(1, H, 1), normal(2, B, D), normal(3, B, 1)
        found.append((at(sizes), (W1, W2, x, y), gradients(partial(_loss, x=x, y=y), W1, W2)))
    return tuple(found)


def steps() -> Iterator[Case]:
    """One step θ − η∇L: by how much the loss falls, against η‖∇L‖²."""
    for where, (W1, W2, x, y), grads in _problems():
        stepped = W1 - ETA * grads[0], W2 - ETA * grads[1]
        values = {"before": float(value(_loss, W1, W2, x, y)), "after": float(value(_loss, *stepped, x, y)), "eta": ETA}
        yield Case(where, {**values, **BOUNDS, "square": float(sum((g**2).sum() for g in grads))})


def twice() -> Iterator[Case]:
    """A second gradient at the same point: as jax.grad gives it, and with the first carried along by the program."""
    for where, (W1, W2, x, y), _ in _problems():
        grad = jax.grad(_loss)
        first, second = (value(grad, W1, W2, x, y) for _ in range(2))
        yield Case(f"{where}, a pure function", {"first": first, "second": second, "carried": 0})
        yield Case(f"{where}, the sum carried", {"first": first, "second": first + second, "carried": 1})


def _error(f: Callable[[], Any]) -> str:
    """Return the name of the error that f raises, or `NOTHING`."""
    try:
        f()
    except Exception as error:
        return type(error).__name__
    return NOTHING


def left_the_graph() -> Iterator[Case]:
    """Differentiate a loss that became a Python number or a NumPy array: JAX raises, or the gradient is returned."""
    _, (W1, W2, x, y), _ = _problems()[0]
    ways = {".item()": lambda loss: loss.item(), "float()": float, "np.asarray()": np.asarray}
    for way, leave in ways.items():
        grad = jax.grad(lambda W1, leave=leave: jnp.asarray(leave(_loss(W1, W2, x, y))))
        for where, f in ((way, grad), (f"{way} under jit", jax.jit(grad))):
            error = _error(lambda f=f: f(W1))
            values = {"error": error, "largest": float(np.abs(f(W1)).max()) if error == NOTHING else "none"}
            yield Case(where, {**values, "nothing": NOTHING})


def overwritten() -> Iterator[Case]:
    """x changed after y = x² was computed from it, in the three ways that JAX has."""
    for n in (3, 5, 8):
        x = jnp.asarray(normal(0, n))
        _, pull = jax.vjp(lambda x: OPS.mul(x, x).sum(), x)

        def assign(x: Any = x) -> None:
            x[0] = 1.0

        new = x.at[:].add(1.0)
        found = {"x[0] = 1": (_error(assign), 1), "a new array, x.at[:].add(1)": (_error(lambda p=pull: p(1.0)), 0)}
        for where, (error, same) in found.items():
            yield Case(f"{n} entries, {where}", {"error": error, "nothing": NOTHING, "buffer": same, "new": new})


def donated() -> Iterator[Case]:
    """Residuals of the backward pass after the buffer of x was donated to another program."""
    for n in (3, 5, 8):
        x = jnp.array(normal(0, n))
        _, pull = jax.vjp(lambda x: OPS.mul(x, x).sum(), x)
        kept = jax.tree.leaves(pull)
        jax.jit(lambda x: x + 1.0, donate_argnums=0)(x)
        yield Case(f"{n} entries", {"kept": len(kept), "deleted": sum(array.is_deleted() for array in kept)})


def unchanged() -> Iterator[Case]:
    """The gradient of Σ x² where x + 1 is made, as a new array, before the backward pass."""
    for n in (3, 5, 8):
        x = jnp.asarray(normal(0, n))
        _, pull = jax.vjp(lambda x: OPS.mul(x, x).sum(), x)
        x.at[:].add(1.0)
        yield Case(f"{n} entries", {"x": np.asarray(x)}, np.asarray(pull(jnp.ones(()))[0]))


@deferred
def detached(argument: int) -> Iterator[Case]:
    """The gradient of the encoder (0) or the decoder (1) with `stop_gradient` between them, and what it is without."""
    for where, problem, whole in _problems():
        detached = partial(_loss, cut=jax.lax.stop_gradient)
        yield Case(where, {"attached": whole[argument]}, value(jax.grad(detached, argument), *problem))


CLAIMS = claims(__name__)
