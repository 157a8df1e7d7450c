"""GPT-2's cost as polynomials: the sum of its operations' own rows, the document's tally beside it.

The document prints a polynomial for one layer (D2.21) and one for the network (D2.22). Both are data here, and are
compared with what the operations' document formulas add up to.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import sympy

from refgrad.ops import TABLE, Cost, Row
from refgrad.symbols import V, b, d, h, i, n_h, n_L, o, s


class Use(NamedTuple):
    """One operation where the model calls it: the scope, the operation's name, the widths that it has there."""

    scope: str
    op: str
    widths: Mapping[sympy.Symbol, sympy.Expr] = {}

    def cost(self, part: Callable[[Row], sympy.Expr | int]) -> sympy.Expr:
        """One of the row's polynomials at these widths."""
        return sympy.sympify(part(TABLE[self.op])).subs(self.widths)


LAYER = (
    Use("ln_1", "layer_norm"),
    Use("attn.c_attn", "linear", {i: h, o: 3 * h}),
    Use("attn", "query_key"),
    Use("attn", "attention_scaling"),
    Use("attn", "causal_softmax"),
    Use("attn", "attn_value"),
    Use("attn.c_proj", "linear", {i: h, o: h}),
    Use("attn", "residual"),
    Use("ln_2", "layer_norm"),
    Use("mlp.c_fc", "linear", {i: h, o: 4 * h}),
    Use("mlp", "gelu", {i: 4 * h}),
    Use("mlp.c_proj", "linear", {i: 4 * h, o: h}),
    Use("mlp", "residual"),
)
ENDS = (
    Use("wte", "token_embedding"),
    Use("wpe", "position_embedding"),
    Use("ln_f", "layer_norm"),
    Use("lm_head", "lm_head"),
    Use("loss", "cross_entropy"),
)
# The document leaves the embeddings' gradients out of its tally, in words.
EXCLUDED = ("token_embedding", "position_embedding")

# As printed: D2, "Final Tally", its two polynomials.
PRINTED_LAYER = 48 * b * s * h**2 + 8 * b * n_h * s**2 * d + 5 * b * n_h * s**2 + 98 * b * s * h
PRINTED_TOTAL = n_L * PRINTED_LAYER + 11 * b * s * h + 4 * b * s * h * V


def _sum(uses: tuple[Use, ...], part: Callable[[Row], sympy.Expr | int]) -> sympy.Expr:
    return sympy.expand(sympy.Add(*(use.cost(part) for use in uses)))


def document_layer() -> sympy.Expr:
    """One layer's backward FLOPs: the sum of the operations' document formulas."""
    return _sum(LAYER, lambda row: row.document)


def document_total() -> sympy.Expr:
    """The network's backward FLOPs by the operations' document formulas, the embeddings excluded as in the document."""
    ends = tuple(use for use in ENDS if use.op not in EXCLUDED)
    return sympy.expand(n_L * document_layer() + _sum(ends, lambda row: row.document))


def fan_in(tied: bool) -> dict[str, sympy.Expr]:
    """The additions outside every rule, where two gradients of one value meet."""
    terms = {"residual fan-in": 2 * n_L * b * s * h}  # the stream feeds two modules a layer, and itself
    if tied:
        terms["tied weights' fan-in"] = V * h
    return terms


def forward() -> Cost:
    """The loss's forward pass in XLA's convention."""
    return Cost(*(_whole(lambda row, part=part: row.forward[part]) for part in (0, 1)))


def backward(tied: bool = True) -> Cost:
    """The backward pass in XLA's convention, exact: the operations' rules and the fan-in between them."""
    flops, transcendentals = (_whole(lambda row, part=part: row.backward[part]) for part in (0, 1))
    return Cost(sympy.expand(flops + sympy.Add(*fan_in(tied).values())), transcendentals)


def differences(tied: bool = True) -> dict[str, sympy.Expr]:
    """Every named term by which the exact FLOPs exceed the document's printed total (D2.22); they leave nothing over.

    What a tally by the document's own rows adds to its printed total comes first, as the term that its last line lost.
    """
    causes: dict[str, sympy.Expr] = {
        "cross-entropy, lost from D2.22's last line": sympy.expand(document_total() - PRINTED_TOTAL),
        "position embedding, excluded in words": TABLE["position_embedding"].document,
    }
    for uses, times in ((LAYER, n_L), (ENDS, 1)):
        for use in uses:
            for cause in TABLE[use.op].causes:
                term = times * use.cost(lambda row, cause=cause: row.causes[cause])
                causes[cause] = sympy.expand(causes.get(cause, sympy.Integer(0)) + term)
    return causes | fan_in(tied)


def _whole(part: Callable[[Row], sympy.Expr | int]) -> sympy.Expr:
    """A part of the rows, summed over the whole model."""
    return sympy.expand(n_L * _sum(LAYER, part) + _sum(ENDS, part))
