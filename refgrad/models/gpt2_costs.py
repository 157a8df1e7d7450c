"""GPT-2's cost as polynomials: the sum of its operations' own rows, the document's tally beside it.

The document prints a polynomial for one layer (D2.21) and one for the network (D2.22). Both are data here, and are
compared with what the operations' document formulas add up to.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import sympy

from refgrad._renamed import old_names
from refgrad.jaxpr.versions import newest
from refgrad.ops import TABLE, OpCost, OpSpec
from refgrad.rule_sets import rule_set
from refgrad.symbols import V, b, d, evaluate, h, i, n_h, n_L, o, s


class Use(NamedTuple):
    """One operation where the model calls it: the scope, the operation's name, the widths that it has there."""

    scope: str
    op: str
    widths: Mapping[sympy.Symbol, sympy.Expr] = {}

    def __str__(self) -> str:
        return f"{self.scope}/{self.op}"

    def cost(self, part: Callable[[OpSpec], sympy.Expr | int]) -> sympy.Expr:
        """One of the row's polynomials at these widths."""
        return sympy.sympify(part(TABLE[self.op])).subs(self.widths.items())

    def sizes(self, dims: Mapping[str, int]) -> dict[str, int]:
        """The model's dimensions and this use's own widths, by name."""
        return {**dims, **{symbol.name: evaluate(width, dims) for symbol, width in self.widths.items()}}


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
# The same model by fused rules: a layer is one operation, head and loss are another.
FUSED_LAYER = (Use("", "fused.block"),)
FUSED_ENDS = (
    Use("wte", "token_embedding"),
    Use("wpe", "position_embedding"),
    Use("ln_f", "fused.layer_norm"),
    Use("loss", "fused.head_loss"),
)
USES: Mapping[str, tuple[tuple[Use, ...], tuple[Use, ...]]] = {
    "derived": (LAYER, ENDS),
    "fused": (FUSED_LAYER, FUSED_ENDS),
}
# The document leaves the embeddings' gradients out of its tally, in words.
EXCLUDED = ("token_embedding", "position_embedding")

# As printed: D2, "Final Tally", its two polynomials.
PRINTED_LAYER = 48 * b * s * h**2 + 8 * b * n_h * s**2 * d + 5 * b * n_h * s**2 + 98 * b * s * h
PRINTED_TOTAL = n_L * PRINTED_LAYER + 11 * b * s * h + 4 * b * s * h * V

PRODUCTS = ("linear", "query_key", "attn_value", "lm_head")


class Printed(NamedTuple):
    """One line of the document's tally as printed: its claim, the operation's use, its FLOPs."""

    claim: str
    use: Use
    flops: sympy.Expr


def _printed() -> tuple[Printed, ...]:
    layer = {(use.scope, use.op): use for use in LAYER}
    ends = {use.op: use for use in ENDS}
    log_softmax, nll, softmax = Use("loss", "log_softmax"), Use("loss", "nll"), Use("attn", "softmax")
    product, zero = 4 * b * n_h * s**2 * d, sympy.Integer(0)
    lines = (
        ("D2.6", ends["lm_head"], 4 * b * s * h * V),
        ("D2.7", layer["mlp.c_proj", "linear"], 16 * b * s * h**2),
        ("D2.8", layer["mlp.c_fc", "linear"], 16 * b * s * h**2),
        ("D2.9", layer["attn.c_proj", "linear"], 4 * b * s * h**2),
        ("D2.10", layer["attn", "attn_value"], product),
        ("D2.10b", layer["attn", "query_key"], product),
        ("D2.11", layer["attn.c_attn", "linear"], 12 * b * s * h**2),
        ("D2.12", softmax, 4 * b * n_h * s**2),
        ("D2.13", log_softmax, 4 * b * s * V),
        ("D2.14", layer["ln_1", "layer_norm"], 11 * b * s * h),
        ("D2.15", layer["mlp", "gelu"], 76 * b * s * h),
        ("D2.16", layer["attn", "attention_scaling"], b * n_h * s**2),
        ("D2.17", layer["attn", "residual"], zero),
        ("D2.19", ends["position_embedding"], (b - 1) * s * h),
        ("D2.20", nll, zero),
    )
    return tuple(Printed(*line) for line in lines)


# As printed: D2's table of operations, backward.
PRINTED_OPERATIONS = _printed()


def _sum(uses: tuple[Use, ...], part: Callable[[OpSpec], sympy.Expr | int]) -> sympy.Expr:
    return sympy.expand(sympy.Add(*(use.cost(part) for use in uses)))


def document_layer() -> sympy.Expr:
    """One layer's backward FLOPs: the sum of the operations' document formulas."""
    return _sum(LAYER, lambda spec: spec.published_flops)


def document_total() -> sympy.Expr:
    """The network's backward FLOPs by the operations' document formulas, the embeddings excluded as in the document."""
    ends = tuple(use for use in ENDS if use.op not in EXCLUDED)
    return sympy.expand(n_L * document_layer() + _sum(ends, lambda spec: spec.published_flops))


def fan_in(tied: bool, rules: str = "derived") -> dict[str, sympy.Expr]:
    """The additions outside every rule, where two gradients of one value meet."""
    terms = {}
    if not rule_set(
        rules
    ).fused:  # the stream feeds two modules a layer, and itself; the fused layer adds them up itself
        terms["residual fan-in"] = 2 * n_L * b * s * h
    if tied:
        terms["tied weights' fan-in"] = V * h
    return terms


def forward(rules: str = "derived") -> OpCost:
    """The loss's forward pass in XLA's convention."""
    return OpCost(*(_whole(lambda spec, part=part: spec.forward[part], rules) for part in (0, 1)))


def fwd_extra(rules: str = "derived") -> OpCost:
    """Work that the rules' forward pass does beyond the forward, in the backward pass's place."""
    return OpCost(*(_whole(lambda spec, part=part: spec.fwd_extra[part], rules) for part in (0, 1)))


def backward(tied: bool = True, rules: str = "derived") -> OpCost:
    """The backward pass in XLA's convention, exact: the operations' rules and the fan-in between them.

    Fused rules have the symbols m, c and v beside the document's: see `Config.fused_dims`.
    """
    flops, transcendentals = (_whole(lambda spec, part=part: spec.backward[part], rules) for part in (0, 1))
    return OpCost(sympy.expand(flops + sympy.Add(*fan_in(tied, rules).values())), transcendentals)


def differences(tied: bool = True, rules: str = "derived") -> dict[str, sympy.Expr]:
    """Every named term by which the exact FLOPs exceed the document's printed total (D2.22); they leave nothing over.

    What a tally by the document's own rows adds to its printed total comes first, as the term that its last line lost.
    """
    causes: dict[str, sympy.Expr] = {
        "cross-entropy, lost from D2.22's last line": sympy.expand(document_total() - PRINTED_TOTAL),
        "position embedding, excluded in words": sympy.sympify(TABLE["position_embedding"].published_flops),
    }
    for uses, times in zip(USES[rule_set(rules).name], (n_L, 1), strict=True):
        for use in uses:
            for cause in TABLE[use.op].adjustments:
                term = times * use.cost(lambda spec, cause=cause: spec.adjustments[cause])
                causes[cause] = sympy.expand(causes.get(cause, sympy.Integer(0)) + term)
    return causes | fan_in(tied, rules)


def _whole(part: Callable[[OpSpec], sympy.Expr | int], rules: str) -> sympy.Expr:
    """A part of the rows, summed over the whole model."""
    layer, ends = USES[rule_set(rules).name]
    return sympy.expand(n_L * _sum(layer, part) + _sum(ends, part))


def products() -> sympy.Expr:
    """The forward pass's products of matrices, in FLOPs; each has two of the same cost in the backward pass."""
    layer, ends = (tuple(use for use in uses if use.op in PRODUCTS) for uses in (LAYER, ENDS))
    layer, ends = (_sum(uses, lambda spec: spec.published_flops) for uses in (layer, ends))
    return sympy.expand((n_L * layer + ends) / 2)


def recomputation() -> OpCost:
    """Work that a backward pass with every block rematerialised repeats: each block's forward but its last sum.

    The last product, its bias and the residual addition only make the block's output, which no rule needs.
    """
    again = tuple(use for use in LAYER if use not in (LAYER[-2], LAYER[-1]))
    return OpCost(*(sympy.expand(n_L * _sum(again, lambda spec, part=part: spec.forward[part])) for part in (0, 1)))


# Bytes that one block keeps in float32, beyond parameters. By the rules: two x̂ and 1/σ with the norms' values
# (4bsh + 2bs elements), q, k, v and the merged heads (4bsh), p, GELU's argument and value (8bsh). By autodiff: two
# norms (6bsh + 4bs + 2h), q, k, v and the heads (4bsh), GELU's five arrays and its tanh's (4bsh each) and its value
# (4bsh), three arrays of the softmax with its mask in single bytes. With remat: the block's input.
_TANH = newest({(0, 10): 2, (0, 11, 2): 1})  # arrays that autodiff keeps of y = tanh(x): y and 1 − y, then 1 − y² alone
_AUTODIFF = 14 + 4 * (5 + _TANH)  # bsh elements
BLOCK_RESIDUALS: Mapping[str, sympy.Expr] = {
    "rules": 4 * (16 * b * s * h + b * n_h * s**2 + 2 * b * s),
    "autodiff": 4 * (_AUTODIFF * b * s * h + 3 * b * n_h * s**2 + 2 * b * n_h * s + 4 * b * s + 2 * h) + b * n_h * s**2,
    "remat": 4 * b * s * h,
}


__getattr__ = old_names(__name__, ahead="fwd_extra")
