"""Omissions of the document's tally (D2.23): each one as a polynomial, ready for its share of the exact total.

Two kinds. `counted` are in the exact count: they lead from the printed total (D2.22) to XLA's, with nothing over.
`uncounted` are in neither, because both count a product as 2mnp and every entry under the causal mask.
"""

from collections.abc import Mapping

import sympy

from refgrad.models import gpt2_costs
from refgrad.ops import TABLE
from refgrad.symbols import V, b, d, h, i, n_h, n_L, o, s

# Elements that an operation's backward products make: 2mnp less one addition for each is mp(2n − 1).
PRODUCED: Mapping[str, sympy.Expr] = {
    "linear": b * s * i + i * o,
    "query_key": 2 * b * n_h * s * d,
    "attn_value": b * n_h * s**2 + b * n_h * s * d,
    "lm_head": b * s * h + V * h,
}
# Backward FLOPs of one entry of the scores: four products of d terms, softmax's 4 (D2.12), scaling's 1 (D2.16).
PER_SCORE = 8 * d + 4 + 1


def counted(tied: bool) -> Mapping[str, sympy.Expr]:
    """Omission → FLOPs that the exact backward count has beyond the document's total; negative where it has fewer."""
    return {name: term for name, term in gpt2_costs.differences(tied).items() if term != 0}


def uncounted() -> Mapping[str, sympy.Expr]:
    """Omission → FLOPs by which another way of counting, or of computing, would differ from the exact count."""
    fused, composed = (TABLE[name].backward.flops for name in ("softmax_cross_entropy", "cross_entropy"))
    norms = sum(use.op == "layer_norm" for use in gpt2_costs.LAYER) * n_L + 1
    return {
        "n−1 additions of a product: mp(2n−1)": -_produced(),
        "x̂ recomputed, not kept: 2bsh a norm": sympy.expand(norms * 2 * b * s * h),
        "causal half of attention skipped": sympy.expand(-n_L * b * n_h * PER_SCORE * s * (s - 1) / 2),
        "softmax and NLL fused": sympy.expand(fused - composed),
    }


def transcendentals() -> sympy.Expr:
    """The exact backward pass's transcendentals, which XLA counts apart and the document among its FLOPs."""
    return sympy.expand(sympy.sympify(gpt2_costs.backward().transcendentals))


def _produced() -> sympy.Expr:
    """Elements made by all products of the backward pass."""
    uses = [*((use, n_L) for use in gpt2_costs.LAYER), *((use, 1) for use in gpt2_costs.ENDS)]
    made = (times * sympy.sympify(PRODUCED.get(use.op, 0)).subs(use.widths.items()) for use, times in uses)
    return sympy.expand(sympy.Add(*made))
