"""D3's activation functions with their derivatives (D3.3), and ReLU's Jacobian (D3.12)."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, Claim, deferred
from refgrad.claims._oracle import gradients, normal, pullback, value, weighted
from refgrad.ops import operations

OPS = operations("derived")
SHAPES = ((7,), (3, 5), (2, 4, 3))
# A sigmoid or tanh "suffers" where its slope is below `vanishing`; an input is "very large" from `large` on.
BOUNDS = {"large": 10.0, "vanishing": 1e-3}
CONSTANTS = {"slope": 0.01, "alpha": 1.0}  # of leaky ReLU and ELU
# The vectors of D3.12 stand in a picture that the text has lost: z̄ is in the words, x is chosen here.
LOST_X, UPSTREAM = [1.0, -2.0, 3.0, -1.0], [4.0, -1.0, 5.0, 9.0]


@deferred
def _range(f: Callable[[Any], Any]) -> Iterator[Case]:
    """Cases with the slope of f, by its rule, where |x| is large."""
    x = np.array([-30.0, -BOUNDS["large"], BOUNDS["large"], 30.0])
    slopes = value(jax.vmap(jax.grad(f)), x)  # alone: autodiff of the plain forward has no digit left at 30
    for point, slope in zip(x, slopes, strict=True):
        yield Case(f"x={point:g}", {**BOUNDS, "slope": float(slope)})


@deferred
def _values(f: Callable[[Any], Any]) -> Iterator[Case]:
    """Cases with f's values, and their mean over inputs that are symmetric about 0."""
    for n in (5, 8, 31):
        x = np.linspace(-6.0, 6.0, n)
        y = value(f, x)
        yield Case(f"{n} inputs from −6 to 6", {"y": y, "centre": round(float(y.mean()), 12)})


def _jacobian() -> Iterator[Case]:
    for seed, shape in enumerate(((4,), (6,), (9,))):
        x = np.array(LOST_X) if seed == 0 else normal(seed, *shape)
        yield Case(f"{x.size} entries", {"x": x}, value(jax.jacobian(OPS.relu), x))


def _masked() -> Iterator[Case]:
    x, dz = np.array(LOST_X), np.array(UPSTREAM)
    (dx,) = gradients(weighted(OPS.relu, dz), x)
    yield Case("x = [1, −2, 3, −1], chosen here", {"x": x, "dz": dz}, dx)


def _never_formed() -> Iterator[Case]:
    """The rule: FLOPs of matrix products in its backward pass, and bytes that it keeps, with 4 for an element."""
    for n in (4, 100, 4096):
        x = jax.ShapeDtypeStruct((n,), np.float32)
        kept, passed = cost.residuals(OPS.relu, x), cost.count_backward(OPS.relu, x)
        yield Case(f"n={n}", {"n": n, "products": passed.matmul, "kept": kept.bytes + kept.argument_bytes})


# Activation, its derivative as a formula, the operation.
ACTIVATIONS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("ReLU", "where(x > 0, 1, 0)", OPS.relu),
    ("leaky ReLU", "where(x > 0, 1, slope)", lambda x: OPS.leaky_relu(x, CONSTANTS["slope"])),
    ("sigmoid", "sigmoid(x) * (1 - sigmoid(x))", OPS.sigmoid),
    ("tanh", "1 - tanh(x) ** 2", OPS.tanh),
    ("ELU", "where(x > 0, 1, alpha * exp(minimum(x, 0)))", lambda x: OPS.elu(x, CONSTANTS["alpha"])),
    ("GELU", "(1 + erf(x / sqrt(2))) / 2 + x * exp(-(x**2) / 2) / sqrt(2 * 3.141592653589793)", OPS.gelu_erf),
    ("SiLU", "sigmoid(x) * (1 + x * (1 - sigmoid(x)))", OPS.silu),
)


def _derivative(name: str, formula: str, f: Callable[[Any], Any]) -> Check:
    """The pullback of dy through f, at inputs from −12 to 12."""
    return Check(f"{name}′", f"dy * ({formula})", pullback(f, SHAPES, ("x", "dy"), scale=4.0, constants=CONSTANTS))


CLAIMS = (
    Claim(
        "D3.3",
        "Activation functions",
        "ReLU, leaky ReLU, sigmoid (into (0, 1)), tanh (into (−1, 1), zero-centred), ELU, GELU and SiLU; sigmoid and "
        "tanh have vanishing gradients at very large inputs.",
        "autodiff and the derived rules; very large is |x| ≥ 10, vanishing a slope below 1e-3",
        (
            *itertools.starmap(_derivative, ACTIVATIONS),
            Check("sigmoid lies in (0, 1)", "min(y) > 0 and max(y) < 1", _values(OPS.sigmoid)),
            Check("tanh lies in (−1, 1), around 0", "min(y) > -1 and max(y) < 1 and centre == 0", _values(OPS.tanh)),
            Check("sigmoid vanishes", "slope < vanishing", _range(OPS.sigmoid)),
            Check("tanh vanishes", "slope < vanishing", _range(OPS.tanh)),
        ),
        see=("D1.6", "D1.7", "D1.12"),
        more="refgrad verify --op relu --op leaky_relu --op sigmoid --op tanh --op elu --op gelu_erf --op silu",
        ops=("relu", "leaky_relu", "sigmoid", "tanh", "elu", "gelu", "gelu_erf", "silu"),
    ),
    Claim(
        "D3.12",
        "Backpropagation with vectors and matrices",
        "ReLU's Jacobian is diagonal, so that z̄ = [4, −1, 5, 9] is masked where x ≤ 0, never multiplied by a matrix.",
        "the Jacobian in full; the derived rule's backward pass, counted. x stands in a lost picture: [1, −2, 3, −1] "
        "is chosen",
        (
            Check("∂z/∂x", "diag(where(x > 0, 1, 0))", _jacobian),
            Check("∂L/∂x as a product", "diag(where(x > 0, 1, 0)) @ dz", _masked),
            Check("∂L/∂x as a mask", "where(x > 0, dz, 0)", _masked),
            Check("the figures", "[4, 0, 5, 0]", _masked),
            Check("no matrix is formed or multiplied", "products == 0 and kept == 4 * n", _never_formed),
        ),
        see=("D3.13",),
        more="refgrad verify --op relu",
        ops=("relu",),
    ),
)
