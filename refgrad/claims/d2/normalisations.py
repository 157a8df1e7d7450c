"""D2.12 to D2.14: softmax, log-softmax and layer normalisation."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, Claim, deferred
from refgrad.claims._oracle import normal
from refgrad.claims.d2._cases import CONVENTIONS, SIZES, Condition, at, by, gradient, line, settings
from refgrad.jaxpr.scaffold import scaffold
from refgrad.ops import TABLE, operations
from refgrad.ops.layer_norm import Residuals

OPS = operations("derived")
EPS = 1e-5  # any positive number costs the same
RAN = "autodiff of the plain forward and the derived rule, in float64; the FLOPs of the traced backward pass"
NORMALISED = (
    "mu = mean(x, -1, keepdims=True); var = mean((x - mu) ** 2, -1, keepdims=True); "
    "x_hat = (x - mu) / sqrt(var + eps); "
)
INPUT = NORMALISED + (
    "v = dy * gamma; (v - mean(v, -1, keepdims=True) - x_hat * mean(v * x_hat, -1, keepdims=True)) / sqrt(var + eps)"
)
SOFTMAX = "z * (dz - sum(dz * z, -1, keepdims=True))"


@scaffold
def _softmax(x: Any, dz: Any) -> tuple[Any, Any]:
    """The softmax with max x subtracted, and the pullback of dz by autodiff, through the maximum too."""

    def softmax(x: Any) -> Any:
        e = jnp.exp(x - jnp.max(x, axis=-1, keepdims=True))
        return e / jnp.sum(e, axis=-1, keepdims=True)

    z, pull = jax.vjp(softmax, x)
    return z, pull(dz)[0]


@deferred
def _shifted(tied: bool) -> Iterator[Case]:
    """Cases of the softmax with max x subtracted; where `tied`, on whole numbers, so that maxima occur twice."""
    for n, dims in enumerate(SIZES):
        shape = (dims["b"], dims["s"], dims["h"])
        x, dz = normal(n, *shape), normal(n + 3, *shape)
        z, dx = _softmax(np.round(x) if tied else x, dz)
        yield Case(at(dims, "b", "s", "h"), {"z": np.asarray(z), "dz": dz}, np.asarray(dx))


def _gains(argument: str) -> Callable[[int, Collection[str]], int]:
    """The FLOPs of one gradient of layer normalisation alone."""

    def measure(n: int, met: Collection[str]) -> int:
        row = TABLE["layer_norm"]
        names, shapes = list(row.arguments), row.shapes(SIZES[n], jnp.float64)
        known = [normal(i, *shape.shape) for i, shape in enumerate(shapes)]
        moving = names.index(argument)

        def f(value: Any) -> Any:
            return row.bound(SIZES[n])(*(value if i == moving else k for i, k in enumerate(known)))

        return by(cost.count_backward(f, shapes[moving]), shapes[0].size, met)

    return measure


def _listed(n: int, met: Collection[str]) -> int:
    """The whole backward pass: with x̂ and 1/√(σ² + ε) kept, or from the tensors that the document lists."""
    row, dims = TABLE["layer_norm"], SIZES[n]
    x, gamma, _ = row.shapes(dims, jnp.float64)
    if "kept" in met:
        return by(cost.count_backward(row.bound(dims), *row.shapes(dims, jnp.float64)), x.size, met)
    one_a_row = jax.ShapeDtypeStruct((*x.shape[:-1], 1), jnp.float64)
    like = jax.eval_shape(lambda x, gamma: OPS.layer_norm.fwd(x, gamma, gamma, EPS), x, gamma)[1]

    def again(dy: Any, x: Any, mean: Any, var: Any, gamma: Any) -> Any:
        rstd = jax.lax.rsqrt(var + EPS)
        return OPS.layer_norm.bwd(EPS, Residuals((x - mean) * rstd, rstd, gamma, like.x, like.beta), dy)

    return by(cost.count(again, x, x, one_a_row, one_a_row, gamma), x.size, met)


FREE = {
    "kept": Condition(
        "x̂ is kept from the forward pass (from the input, means and variances that the document lists in its place, it "
        "has to be computed again)",
        "x̂ computed again",
    ),
    "sums": CONVENTIONS["sums"],
    "rows": CONVENTIONS["rows"],
}

CLAIMS = (
    Claim(
        "D2.12",
        "Softmax",
        "x̄_i = z_i(z̄_i − Σ_j z̄_j z_j), 4b·n_h·s² FLOPs; subtracting max x first leaves it unchanged.",
        f"{RAN}; softmax with its shift differentiated through the maximum, and where maxima tie",
        (
            Check("∂L/∂x", SOFTMAX, gradient("softmax", "x", "z")),
            Check("shifted by max x", SOFTMAX, _shifted(tied=False)),
            Check("shifted by max x, which stands more than once", SOFTMAX, _shifted(tied=True)),
            line("D2.12", "sums"),
        ),
        see=("D2.26.10",),
        more="refgrad verify --op softmax",
        ops=("softmax", "causal_softmax"),
    ),
    Claim(
        "D2.13",
        "Log-softmax Gradients",
        "x̄_i = p̄_i − e^(p_i) Σ_j p̄_j, 4bsV FLOPs.",
        RAN,
        (
            Check("∂L/∂x", "dp - exp(p) * sum(dp, -1, keepdims=True)", gradient("log_softmax", "x", "p")),
            line("D2.13", "sums", "transcendentals"),
        ),
        see=("D2.22", "D2.26.16"),
        more="refgrad verify --op log_softmax",
        ops=("log_softmax",),
    ),
    Claim(
        "D2.14",
        "LayerNorm",
        "x̄ = (v − mean(v) − x̂ mean(v x̂))/√(σ² + ε) with v = ȳγ, 8bsh; γ̄ = Σ ȳx̂, 2bsh; β̄ = Σ ȳ, bsh; together 11bsh. "
        "x̂ costs nothing there, although it is not among the tensors listed.",
        f"{RAN}; the same from the tensors that the document lists",
        (
            settings("FLOPs together", "11 * b * s * h", _listed, FREE),
            Check("∂L/∂x", INPUT, gradient("layer_norm", "x")),
            Check("∂L/∂γ", NORMALISED + "sum(dy * x_hat, (0, 1))", gradient("layer_norm", "gamma")),
            Check("∂L/∂β", "sum(dy, (0, 1))", gradient("layer_norm", "beta")),
            settings("FLOPs of ∂L/∂x", "8 * b * s * h", _gains("x")),
            settings("FLOPs of ∂L/∂γ", "2 * b * s * h", _gains("gamma"), {"sums": CONVENTIONS["sums"]}),
            settings("FLOPs of ∂L/∂β", "b * s * h", _gains("beta"), {"sums": CONVENTIONS["sums"]}),
        ),
        see=("D2.23", "D2.25.10", "D2.26.36"),
        more="refgrad verify --op layer_norm",
        ops=("layer_norm",),
    ),
)
