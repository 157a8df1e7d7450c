"""The documents' small networks, verified and priced: each gradient against autodiff, each pass against XLA."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad._text import Table
from refgrad.jaxpr.scaffold import scaffold
from refgrad.models.inputs import named_leaves
from refgrad.models.networks import Network
from refgrad.report.cost import Pass, price
from refgrad.report.model import BOUNDS, relative
from refgrad.symbols import evaluate


@dataclasses.dataclass(frozen=True)
class NetworkResult:
    """One network: by dtype the relative difference of each gradient to autodiff's, and the way of each pass to XLA."""

    name: str
    source: str
    errors: Mapping[str, Mapping[str, float]]
    passes: Mapping[str, Pass]

    @property
    def ok(self) -> bool:
        """True if every difference is within its bound (NaN is not), and no FLOP is unexplained."""
        within = all(error <= BOUNDS[dtype] for dtype, found in self.errors.items() for error in found.values())
        return within and not self.unexplained

    @property
    def unexplained(self) -> int:
        """FLOPs and transcendentals over, of both passes."""
        return sum(priced.unexplained for priced in self.passes.values())

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        passes = {name: priced.reconciliation.json() for name, priced in self.passes.items()}
        return {"network": self.name, "source": self.source, "ok": self.ok, "errors": self.errors, "cost": passes}


def verify_network(name: str, network: Network, dtypes: Sequence[str]) -> NetworkResult:
    """The gradients of every parameter and of the inputs in each dtype, and both passes from the rows to XLA."""
    errors = {dtype: _errors(network, dtype) for dtype in dtypes}
    with jax.enable_x64(False):
        passes = {name: _price(network, name) for name in ("forward", "backward")}
    return NetworkResult(name, network.source, errors, passes)


def _errors(network: Network, dtype: str) -> dict[str, float]:
    """Parameter, or "x" → relative difference of its gradient by the rules to autodiff's."""
    args = network.arguments(dtype)

    def gradients(rules: str, compiler: Callable) -> dict[str, Any]:
        with jax.default_matmul_precision("highest"):
            params, x = compiler(jax.grad(partial(network.loss, rules=rules), (0, 1)))(*args)
        return {**named_leaves(params), "x": x}

    got, want = gradients("derived", jax.jit), gradients("autodiff", scaffold)
    return {name: relative(leaf, want[name]) for name, leaf in got.items()}


def _price(network: Network, name: str) -> Pass:
    """A pass from the rows of the network's operations to XLA."""
    params, x, *targets = network.arguments(jnp.float32)
    given = [t for t in targets if jnp.issubdtype(t.dtype, jnp.integer)]  # float targets would get a gradient
    held = [np.asarray(t) for t in targets if not jnp.issubdtype(t.dtype, jnp.integer)]
    derived = tuple(evaluate(part, network.sizes) for part in network.exact[name])

    def loss(*args: Any) -> jax.Array:
        return network.loss(*args, *held)

    return price(name, loss, params, x, *given, derived=derived)


def network_table(results: Sequence[NetworkResult]) -> Table:
    """One line a network: its largest difference to autodiff in each dtype, its FLOPs, and what is unexplained."""
    dtypes = list(results[0].errors)
    bounds = [f"{dtype} (≤ {BOUNDS[dtype]:g})" for dtype in dtypes]
    header = ["network", "claim", *bounds, "forward FLOPs", "backward FLOPs", "ratio", "unexplained", "verdict"]
    rows = []
    for result in results:
        forward, backward = (priced.count.flops for priced in result.passes.values())
        rows.append(
            [
                result.name,
                result.source,
                *(f"{max(result.errors[dtype].values()):.1e}" for dtype in dtypes),
                f"{forward:,}",
                f"{backward:,}",
                f"{backward / forward:.2f}",
                str(result.unexplained),
                "ok" if result.ok else "FAIL",
            ]
        )
    return Table(header, rows)
