"""D3's activation functions with their derivatives (D3.3), and ReLU's Jacobian (D3.12)."""

from collections.abc import Iterator

import jax
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Cases, deferred
from refgrad.claims._oracle import gradients, normal, pullback, value, weighted
from refgrad.claims._rows import claims
from refgrad.ops import TABLE, operations

OPS = operations("derived")
SHAPES = ((7,), (3, 5), (2, 4, 3))
# A sigmoid or tanh "suffers" where its slope is below `vanishing`; an input is "very large" from `large` on.
BOUNDS = {"large": 10.0, "vanishing": 1e-3}
CONSTANTS = {"slope": 0.01, "alpha": 1.0}  # of leaky ReLU and ELU
# The vectors of D3.12 stand in a picture that the text has lost: z̄ is in the words, x is chosen here.
LOST_X, UPSTREAM = [1.0, -2.0, 3.0, -1.0], [4.0, -1.0, 5.0, 9.0]


@deferred
def range(name: str) -> Iterator[Case]:
    """Cases with the slope of an activation, by its rule, where |x| is large."""
    x = np.array([-30.0, -BOUNDS["large"], BOUNDS["large"], 30.0])
    slopes = value(
        jax.vmap(jax.grad(getattr(OPS, name))), x
    )  # alone: autodiff of the plain forward has no digit left at 30
    for point, slope in zip(x, slopes, strict=True):
        yield Case(f"x={point:g}", {**BOUNDS, "slope": float(slope)})


@deferred
def values(name: str) -> Iterator[Case]:
    """Cases with an activation's values, and their mean over inputs that are symmetric about 0."""
    for n in (5, 8, 31):
        x = np.linspace(-6.0, 6.0, n)
        y = value(getattr(OPS, name), x)
        yield Case(f"{n} inputs from −6 to 6", {"y": y, "centre": round(float(y.mean()), 12)})


def jacobian() -> Iterator[Case]:
    """The Jacobian of ReLU in full."""
    for seed, shape in enumerate(((4,), (6,), (9,))):
        x = np.array(LOST_X) if seed == 0 else normal(seed, *shape)
        yield Case(f"{x.size} entries", {"x": x}, value(jax.jacobian(OPS.relu), x))


def masked() -> Iterator[Case]:
    """The gradient through ReLU for D3's upstream gradient."""
    x, dz = np.array(LOST_X), np.array(UPSTREAM)
    (dx,) = gradients(weighted(OPS.relu, dz), x)
    yield Case("x = [1, −2, 3, −1], chosen here", {"x": x, "dz": dz}, dx)


def never_formed() -> Iterator[Case]:
    """The rule: FLOPs of matrix products in its backward pass, and bytes that it keeps, with 4 for an element."""
    for n in (4, 100, 4096):
        x = jax.ShapeDtypeStruct((n,), np.float32)
        kept, passed = cost.residuals(OPS.relu, x), cost.count_backward(OPS.relu, x)
        yield Case(f"n={n}", {"n": n, "products": passed.matmul, "kept": kept.bytes + kept.argument_bytes})


def activation(name: str) -> Cases:
    """The pullback of dy through an activation, at inputs from −12 to 12."""
    constants = [CONSTANTS[static] for static in TABLE[name].statics]
    return pullback(lambda x: getattr(OPS, name)(x, *constants), SHAPES, ("x", "dy"), scale=4.0, constants=CONSTANTS)


CLAIMS = claims(__name__)
