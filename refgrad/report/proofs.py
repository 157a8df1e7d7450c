"""Proofs of every operation, small network and, by testing, the tiny GPT-2: what `refgrad verify --prove` shows."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import verify
from refgrad._text import Table
from refgrad.models import gpt2
from refgrad.models.networks import NETWORKS
from refgrad.ops import TABLE
from refgrad.report.text import standard_library_ids
from refgrad.verify.prove import Proof, ProofVerdict

SMALL = {"b": 2, "s": 3, "h": 4, "n_h": 2, "d": 2, "V": 5, "i": 3, "o": 2, "m": 3, "c": 2, "v": 2}
IMAGE = {"H": 3, "W": 4, "k": 2, "l": 2}
LESS = {name: {"b": 1, "s": 2} for name in ("fused.block", "fused.mlp", "multi_head_attention")}  # of what swells
MODEL = "gpt2"
INPUT = (2, 24)


@dataclasses.dataclass(frozen=True)
class ProofResult:
    """One subject's proof, and the seconds that it took."""

    name: str
    proof: Proof
    seconds: float

    @property
    def note(self) -> str:
        """The reason of a verdict, or the number of constants that were identified."""
        if (found := self.proof.counterexample) is not None:
            return str(found)
        constants = len(self.proof.constants)
        return self.proof.why or (f"{constants} constant{'s' * (constants > 1)} identified" if constants else "")

    def data(self) -> dict[str, Any]:
        """The result as plain values."""
        return {"name": self.name, "seconds": self.seconds, **self.proof.data()}


def subjects() -> Mapping[str, Callable[[], tuple[Callable, tuple]]]:
    """Return by name what makes each function and its arguments: operations, small networks, the tiny GPT-2."""
    made: dict[str, Callable[[], tuple[Callable, tuple]]] = {}
    for name in TABLE:
        made[name] = lambda name=name: operation(name)
    for name, network in NETWORKS.items():
        made[name] = lambda network=network: (network.loss, network.arguments(jnp.float64))
    made[MODEL] = _model
    return made


def dimensions(name: str) -> dict[str, int]:
    """Return the small sizes at which an operation is proven."""
    return {**SMALL, **IMAGE, **LESS.get(name, {})}


def operation(name: str) -> tuple[Callable, tuple]:
    """Return an operation as a function of its arrays, and small ones."""
    row, dims = TABLE[name], dimensions(name)
    return row.bound(dims), row.sample(0, dims, jnp.float64)


def _model() -> tuple[Callable, tuple]:
    config = gpt2.Config()
    params = gpt2.init(jax.random.key(0), config)
    tokens, targets = standard_library_ids(*INPUT)

    def loss(params: gpt2.Params) -> jax.Array:
        return gpt2.loss(params, tokens, targets, config)

    return loss, (params,)


def prove(name: str) -> ProofResult:
    """Prove the rules of one subject."""
    start = time.perf_counter()
    with jax.enable_x64(True):
        f, args = subjects()[name]()
        proof = verify.prove(f, *args)
    return ProofResult(name, proof, time.perf_counter() - start)


def proof_table(results: Sequence[ProofResult]) -> Table:
    """Return the verdicts as a table."""
    rows = []
    for result in results:
        proof = result.proof
        note = result.note if len(result.note) <= 42 else f"{result.note[:41]}…"
        entries = max((b.entries for b in proof.branches), default=0)
        rows.append(
            [
                result.name,
                proof.verdict.brief,
                str(len(proof.branches)),
                str(entries),
                f"{result.seconds:.2f}",
                note,
            ]
        )
    return Table(["rules of", "verdict", "branches", "entries", "s", "note"], rows)


def counts(results: Sequence[ProofResult]) -> str:
    """Return how many have each verdict, in words."""
    found = [(verdict, sum(r.proof.verdict is verdict for r in results)) for verdict in ProofVerdict]
    return ", ".join(f"{n} {verdict.brief}" for verdict, n in found if n)
