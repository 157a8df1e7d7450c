"""The backward pass's cost over the forward's, as a function of s/h: what "2×" (D2.1, D0.7) and "2C" (D1.20) come to.

Every ratio is one of polynomials in the documents' symbols, from the operations' rows.
"""

from collections.abc import Mapping

import sympy

from refgrad.models import tally
from refgrad.symbols import b, d, h, n_h, n_L, s

r = sympy.Symbol("r", positive=True)  # s/h

# The gradient of the first block's normalised input, dx of its c_attn: needed for the embeddings' gradients alone.
FIRST_INPUT_GRADIENT = 6 * b * s * h**2


def ratios() -> Mapping[str, sympy.Expr]:
    """Name → ratio to the forward pass; FLOPs in XLA's convention, or products of matrices alone."""
    products, forward, backward = tally.products(), tally.forward(), tally.backward()
    again = tally.recomputation()
    again_products = n_L * sum(
        use.cost(lambda row: row.document) / 2 for use in tally.LAYER[:-2] if use.op in tally.PRODUCTS
    )
    return {
        "backward, products": sympy.Integer(2),
        "… without the first input's gradient": 2 - FIRST_INPUT_GRADIENT / products,
        "backward, FLOPs": backward.flops / forward.flops,
        "… and transcendentals": sum(backward) / sum(forward),
        "forward + backward, FLOPs": 1 + backward.flops / forward.flops,
        "… with remat": 1 + (backward.flops + again.flops) / forward.flops,
        "… with remat, products": 3 + again_products / products,
    }


def of_one_block() -> Mapping[str, sympy.Expr]:
    """Name → ratio of a single block's products in r = s/h, with nothing else in the model."""
    blocks = {b: 1, n_L: 1, d: h / n_h, s: r * h}
    block = sympy.Add(*(use.cost(lambda row: row.document) / 2 for use in tally.LAYER if use.op in tally.PRODUCTS))
    last = tally.LAYER[-2].cost(lambda row: row.document) / 2
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
