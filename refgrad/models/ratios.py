"""The backward pass's cost over the forward's, as a function of s/h: what "2×" (D2.1, D0.7) and "2C" (D1.20) come to.

Every ratio is one of polynomials in the documents' symbols, from the operations' rows.
"""

from collections.abc import Mapping
from typing import Any

import sympy

from refgrad.models import gpt2_costs
from refgrad.symbols import b, d, h, n_h, n_L, s

r = sympy.Symbol("r", positive=True)  # s/h

# dx of the first block's c_attn. The first norm's γ and β need it, so that frozen embeddings alone spare no product.
FIRST_INPUT_GRADIENT = 6 * b * s * h**2


def ratios() -> Mapping[str, Any]:
    """Name → ratio to the forward pass; FLOPs in XLA's convention, or products of matrices alone."""
    products, forward, backward = gpt2_costs.products(), gpt2_costs.forward(), gpt2_costs.backward()
    again = gpt2_costs.recomputation()
    again_products = n_L * sum(_product(use) for use in gpt2_costs.LAYER[:-2] if use.op in gpt2_costs.PRODUCTS)
    return {
        "backward, products (D0.7)": sympy.Integer(2),
        "… embeddings frozen": sympy.Integer(2),
        "… and the first norm frozen": 2 - FIRST_INPUT_GRADIENT / products,
        "backward, FLOPs (D2.1)": backward.flops / forward.flops,
        "… and transcendentals": sum(backward) / sum(forward),
        "forward + backward, FLOPs (D1.20)": 1 + backward.flops / forward.flops,
        "… with remat (D1.11)": 1 + (backward.flops + again.flops) / forward.flops,
        "… with remat, products": 3 + again_products / products,
    }


def of_one_block() -> Mapping[str, Any]:
    """Name → ratio of a single block's products in r = s/h, with nothing else in the model."""
    blocks = {b: 1, n_L: 1, d: h / n_h, s: r * h}
    block = sympy.Add(*(_product(use) for use in gpt2_costs.LAYER if use.op in gpt2_costs.PRODUCTS))
    last = _product(gpt2_costs.LAYER[-2])
    forms = {
        "backward / forward": (2 * block) / block,
        "… without its input's gradient": (2 * block - FIRST_INPUT_GRADIENT) / block,
        "forward + backward with remat / forward": (3 * block + block - last) / block,
    }
    return {name: sympy.factor(sympy.cancel(form.subs(blocks))) for name, form in forms.items()}


def sweep(dims: Mapping[str, int], lengths: tuple[int, ...]) -> list[tuple[int, dict[str, float]]]:
    """(s, name → ratio) at each sequence length, the other dimensions as in `dims`."""
    forms = {name: sympy.lambdify(_ARGUMENTS, form) for name, form in ratios().items()}
    at = [{**dims, "s": length} for length in lengths]
    return [
        (one["s"], {name: float(form(*(one[a.name] for a in _ARGUMENTS))) for name, form in forms.items()})
        for one in at
    ]


_ARGUMENTS = tuple(sympy.symbols("b s h n_h d V n_L", integer=True, positive=True))


def _product(use: gpt2_costs.Use) -> sympy.Expr:
    """The forward FLOPs of a product of matrices, which has two of the same cost in the backward pass."""
    return use.cost(lambda spec: spec.published_flops) / 2
