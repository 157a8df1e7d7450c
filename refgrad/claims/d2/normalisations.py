"""D2.12 to D2.14: softmax, log-softmax and layer normalisation."""

from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, deferred
from refgrad.claims._oracle import normal
from refgrad.claims._rows import claims
from refgrad.claims.d2._cases import CONVENTIONS, SIZES, Condition, at, by, gradient, line, settings
from refgrad.jaxpr.scaffold import scaffold
from refgrad.ops import TABLE, operations
from refgrad.ops.layer_norm import Residuals

OPS = operations("derived")
EPS = 1e-5  # any positive number costs the same


def _softmax(x: Any, dz: Any) -> tuple[Any, Any]:
    """The softmax with max x subtracted, and the pullback of dz by autodiff, through the maximum too."""

    def softmax(x: Any) -> Any:
        e = jnp.exp(x - jnp.max(x, axis=-1, keepdims=True))
        return e / jnp.sum(e, axis=-1, keepdims=True)

    z, pull = jax.vjp(softmax, x)
    return z, pull(dz)[0]


@deferred
def shifted(tied: bool) -> Iterator[Case]:
    """Cases of the softmax with max x subtracted; where `tied`, on whole numbers, so that maxima occur twice."""
    for n, dims in enumerate(SIZES):
        shape = (dims["b"], dims["s"], dims["h"])
        x, dz = normal(n, *shape), normal(n + 3, *shape)
        z, dx = scaffold(_softmax)(np.round(x) if tied else x, dz)
        yield Case(at(dims, "b", "s", "h"), {"z": np.asarray(z), "dz": dz}, np.asarray(dx))


def gain(says: str, printed: str, argument: str, *conventions: str) -> Check:
    """The check of the FLOPs of one gradient of layer normalisation alone."""

    def measure(n: int, met: Collection[str]) -> int:
        row = TABLE["layer_norm"]
        names, shapes = list(row.arguments), row.shapes(SIZES[n], jnp.float64)
        known = [normal(i, *shape.shape) for i, shape in enumerate(shapes)]
        moving = names.index(argument)

        def f(value: Any) -> Any:
            return row.bound(SIZES[n])(*(value if i == moving else k for i, k in enumerate(known)))

        return by(cost.count_backward(f, shapes[moving]), shapes[0].size, met)

    return settings(says, printed, measure, {name: CONVENTIONS[name] for name in conventions})


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

together = settings("FLOPs together", "11 * b * s * h", _listed, FREE)


CLAIMS = claims(__name__, gradient=gradient, line=line)
