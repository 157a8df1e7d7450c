"""The whole model: each parameter's gradient by the rules against autodiff, and its cost as polynomials."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import sympy
from jax import Array

from refgrad import cost, verify
from refgrad._text import Table
from refgrad.jaxpr.scaffold import scaffold
from refgrad.models import gpt2, gpt2_costs
from refgrad.models.inputs import named_leaves
from refgrad.report.cost import Pass, price
from refgrad.symbols import evaluate

# Largest relative difference between the rules' gradient and autodiff's of the same program, for any leaf.
BOUNDS = {"float64": 1e-11, "float32": 1e-5}


@dataclasses.dataclass(frozen=True)
class ParameterResult:
    """One parameter: its gradient's relative difference to autodiff's, by dtype."""

    name: str
    shape: tuple[int, ...]
    errors: Mapping[str, float]

    @property
    def ok(self) -> bool:
        """True if every difference is within its bound; NaN is not."""
        return all(error <= BOUNDS[dtype] for dtype, error in self.errors.items())

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        return {"parameter": self.name, "shape": list(self.shape), "errors": dict(self.errors), "ok": self.ok}


def gradient_errors(
    config: gpt2.Config, tokens: np.ndarray, targets: np.ndarray, dtype: str, rules: str = "derived"
) -> dict[str, float]:
    """Parameter → relative difference of its gradient by the rules to autodiff's of the same program without them."""
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), gpt2.init(jax.random.key(0), config))
    loss = partial(gpt2.loss, tokens=tokens, targets=targets, config=config, rules=rules)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(jax.grad(loss))(params)
        want = scaffold(jax.grad(verify.without_rules(loss)))(params)
    wanted = named_leaves(want)
    return {name: relative(leaf, wanted[name]) for name, leaf in named_leaves(got).items()}


def parameter_results(config: gpt2.Config, errors: Mapping[str, Mapping[str, float]]) -> list[ParameterResult]:
    """`gradient_errors` by dtype, turned into one result per parameter."""
    return [
        ParameterResult(name, leaf.shape, {dtype: errors[dtype][name] for dtype in errors})
        for name, leaf in named_leaves(gpt2.shapes(config)).items()
    ]


def relative(got: Array, want: Array) -> float:
    """max|got − want| / max|want|, absolute where want is 0."""
    got64, want64 = (np.asarray(x, np.float64) for x in (got, want))
    return float(np.max(np.abs(got64 - want64)) / (np.max(np.abs(want64)) or 1.0))


def parameter_table(results: Sequence[ParameterResult]) -> Table:
    """One line per parameter."""
    dtypes = list(results[0].errors)
    header = ["parameter", "shape", *(f"{dtype} (≤ {BOUNDS[dtype]:g})" for dtype in dtypes), "verdict"]
    rows = [
        [
            result.name,
            "×".join(map(str, result.shape)),
            *(f"{result.errors[dtype]:.1e}" for dtype in dtypes),
            "ok" if result.ok else "FAIL",
        ]
        for result in results
    ]
    return Table(header, rows)


def model_pass(
    name: str, config: gpt2.Config, batch: int, sequence: int, rules: str = "derived", scan: bool = True
) -> Pass:
    """One pass of the loss, from the document's total (backward) and the closed form to XLA.

    XLA counts a scanned loop's body once, which the reconciliation follows; unrolled layers it counts as they are.
    """
    dims, tied = config.fused_dims(batch, sequence), config.tie_word_embeddings
    exact = gpt2_costs.forward(rules) if name == "forward" else gpt2_costs.backward(tied, rules)
    closed: dict[str, Any] = {"derived": tuple(evaluate(part, dims) for part in exact)}
    if name == "backward":
        closed["document"] = evaluate(gpt2_costs.PRINTED_TOTAL, dims)
        closed["causes"] = {cause: evaluate(term, dims) for cause, term in gpt2_costs.differences(tied, rules).items()}
    with jax.enable_x64(False):
        return price(name, *gpt2.abstract_loss(config, batch, sequence, rules=rules, scan=scan), **closed)


def recomputation(config: gpt2.Config, batch: int, sequence: int) -> dict[str, tuple[int, int]]:
    """Work that remat computes again: "FLOPs" and "transcendentals", each (derived, counted)."""
    dims = config.dims(batch, sequence)
    derived = [evaluate(part, dims) for part in gpt2_costs.recomputation()]
    with jax.enable_x64(False):
        again = cost.count_backward(*gpt2.abstract_loss(config, batch, sequence, scan=True, remat=True)).recomputed
    counted = again.flops, again.transcendental
    return dict(zip(("FLOPs", "transcendentals"), zip(derived, counted, strict=True), strict=True))


@dataclasses.dataclass(frozen=True)
class Total:
    """One size of GPT-2: FLOPs by the document, by the exact polynomials, and counted from the traced program.

    `ahead` are those that the rules spend in their forward pass on the gradients.
    """

    name: str
    document: int
    forward: int
    ahead: int
    backward: int
    transcendentals: int
    counted: tuple[int, int]

    @property
    def unexplained(self) -> int:
        """The difference between the count of the traced backward pass and the polynomial."""
        flops, transcendentals = self.counted
        return abs(self.backward - flops) + abs(self.transcendentals - transcendentals)

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        return dataclasses.asdict(self) | {"unexplained": self.unexplained}


def total(name: str, config: gpt2.Config, rules: str = "derived", batch: int = 1, sequence: int = 1024) -> Total:
    """One size's backward pass, from abstract values: layers scanned, so that tracing does not grow with depth."""
    dims = config.fused_dims(batch, sequence)
    exact = gpt2_costs.backward(config.tie_word_embeddings, rules)
    with jax.enable_x64(False):
        counted = cost.count_backward(*gpt2.abstract_loss(config, batch, sequence, rules=rules, scan=True))
    return Total(
        name,
        evaluate(gpt2_costs.PRINTED_TOTAL, dims),
        evaluate(gpt2_costs.forward(rules).flops, dims),
        evaluate(gpt2_costs.fwd_extra(rules).flops, dims),
        evaluate(exact.flops, dims),
        evaluate(exact.transcendentals, dims),
        (counted.flops, counted.transcendental),
    )


def total_table(results: Sequence[Total]) -> Table:
    """FLOPs by size: the document's total, the exact one, and what is unexplained between polynomial and program."""
    header = [
        "size",
        "document (D2.22)",
        "exact backward",
        "exact/document",
        "forward",
        *(["gradients made ahead"] if any(t.ahead for t in results) else ["backward/forward"]),
        "unexplained",
    ]
    rows = [
        [
            t.name,
            f"{t.document:,}",
            f"{t.backward:,}",
            f"{t.backward / t.document:.4f}",
            f"{t.forward:,}",
            f"{t.ahead:,}" if any(t.ahead for t in results) else f"{t.backward / t.forward:.4f}",
            str(t.unexplained),
        ]
        for t in results
    ]
    return Table(header, rows)


def polynomial_text(config: gpt2.Config, rules: str = "derived") -> str:
    """The tally as polynomials: the document's printed lines, what its operations add up to, and the exact one."""
    lost = sympy.expand(gpt2_costs.document_total() - gpt2_costs.PRINTED_TOTAL)
    exact = gpt2_costs.backward(config.tie_word_embeddings, rules)
    layer_holds = sympy.expand(gpt2_costs.document_layer() - gpt2_costs.PRINTED_LAYER) == 0
    lines = [
        f"document, one layer (D2.21)  {gpt2_costs.PRINTED_LAYER}",
        f"  its operations add up to   {'the same' if layer_holds else gpt2_costs.document_layer()}",
        f"document, network (D2.22)    {gpt2_costs.PRINTED_TOTAL}",
        f"  its operations add up to   that and {lost}" + (", which its last line lost" if lost != 0 else ""),
        f"exact backward, FLOPs        {exact.flops}",
        f"  transcendentals            {exact.transcendentals}",
        "  FLOPs = D2.22 plus",
    ]
    differences = gpt2_costs.differences(config.tie_word_embeddings, rules)
    rows = [(f"    {cause}", str(term)) for cause, term in differences.items() if term != 0]
    width = max(len(cause) for cause, _ in rows)
    return "\n".join([*lines, *(f"{cause.ljust(width)}  {term}" for cause, term in rows)])
