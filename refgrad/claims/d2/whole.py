"""D2.1, D2.2 and D2.21 to D2.24: the whole network, its tally, and the tally's omissions."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from functools import cache

import sympy

from refgrad import cost
from refgrad.claims._ledger import Case, Check, deferred
from refgrad.claims._rows import claims
from refgrad.claims.d2._cases import CONVENTIONS, PRINTED, SIZES, Condition, backward, by, settings
from refgrad.claims.d2._model import BATCH, LISTING, gradient_gaps, losses, passes, seconds
from refgrad.claims.d2.elementwise import LISTED, listing_flops
from refgrad.models import gpt2, gpt2_costs, omissions
from refgrad.symbols import evaluate

# Words of the document as numbers, before anything is measured.
ABOUT = Fraction(1, 20)  # "~2x": within 5%
MOST = Fraction(9, 10)  # "dominates"
NEGLIGIBLE = Fraction(1, 1000)
LAYERS = 3
DOCUMENT = {
    "as_listed": Condition(
        "each operation is counted as the document counts it (D2.5 to D2.20), biases and the additions where two "
        "gradients meet left out",
        "what one layer more adds to the traced network",
    )
}
TOTAL = str(gpt2_costs.PRINTED_TOTAL)
# The line above the last one, its terms by their own printed lines.
ABOVE = f"n_L * ({gpt2_costs.PRINTED_LAYER}) + " + " + ".join(
    f"({PRINTED[claim].flops})" for claim in ("D2.14", "D2.6", "D2.13", "D2.20")
)


def _by_document(use: gpt2_costs.Use, n: int) -> int:
    """One operation's backward FLOPs as the document counts, from the traced programs."""
    sizes = use.sizes(SIZES[n])
    if use.op == "gelu":
        return listing_flops(sizes["b"] * sizes["s"] * sizes["i"], tuple(LISTED))
    if use.op in gpt2_costs.PRODUCTS:
        name = "matmul" if use.op == "linear" else use.op
        return backward(name, n, (("i", sizes["i"]), ("o", sizes["o"])))[0].flops
    return by(*backward(use.op, n), tuple(CONVENTIONS))


@cache
def _exact(layers: int, n: int) -> int:
    """The traced backward pass of the whole network with this many layers."""
    dims = SIZES[n]
    config = gpt2.Config(layers, dims["n_h"], dims["h"], dims["s"], dims["V"])
    return cost.count_backward(*gpt2.abstract_loss(config, dims["b"], dims["s"], scan=True)).flops


def _layer(n: int, met: Collection[str]) -> int:
    """One layer: the document's tally of its operations, or the cost of one layer more in the traced network."""
    if "as_listed" in met:
        return sum(_by_document(use, n) for use in gpt2_costs.LAYER)
    return _exact(2, n) - _exact(1, n)


def _network() -> Iterator[Case]:
    """The network: its operations as the document counts them, the embeddings left out as there in words."""
    ends = [use for use in gpt2_costs.ENDS if use.op not in gpt2_costs.EXCLUDED]
    for n, dims in enumerate(SIZES):
        whole = LAYERS * _layer(n, DOCUMENT) + sum(_by_document(use, n) for use in ends)
        values = {**dims, "n_L": LAYERS}
        yield Case(", ".join(f"{k}={values[k]}" for k in ("b", "s", "h", "n_h", "V", "n_L")), values, whole)


@deferred
def twice(part: str) -> Iterator[Case]:
    """The backward pass over the forward, of GPT-2's four sizes."""
    for name, config in gpt2.SIZES.items():
        forward, back = passes(name)
        ratio = Fraction(getattr(back, part), getattr(forward, part))
        yield Case(f"{name}, s={config.n_positions}", {"ratio": ratio, "about": ABOUT})


def gap() -> Iterator[Case]:
    """The printed total, the known omissions, and the traced count."""
    for name, config in gpt2.SIZES.items():
        dims = config.dims(BATCH, config.n_positions)
        left_out = sum(evaluate(term, dims) for term in omissions.counted(True).values())
        printed, exact = evaluate(gpt2_costs.PRINTED_TOTAL, dims), passes(name)[1].flops
        values = {"printed": printed, "left_out": left_out, "exact": exact}
        yield Case(f"{name}, s={config.n_positions}", values)


def _left_out(name: str, term: sympy.Expr) -> Check:
    """One omission at GPT-2's sizes: its share of the traced count, against "negligible"."""
    masked = name.startswith("causal half")

    def cases() -> Iterator[Case]:
        for size, config in gpt2.SIZES.items():
            exact = passes(size)[1].flops
            for dense in (True, False) if masked else (True,):
                omitted = 0 if masked and dense else abs(evaluate(term, config.dims(BATCH, config.n_positions)))
                values = {"share": Fraction(omitted, exact), "negligible": NEGLIGIBLE, "dense": dense}
                yield Case(f"{size}{' (the closed half skipped)' * (not dense)}", values)

    says = f"{name} = {sympy.factor(term)}"
    when = {"when": "dense", "condition": "every entry of the scores is computed, those that the mask closes too"}
    return Check(says, "share <= negligible", cases, **(when if masked else {}))


@deferred
def shares(part: str) -> Iterator[Case]:
    """Share of matrix products in the FLOPs or the unfused bytes of the backward pass."""
    for name, config in gpt2.SIZES.items():
        _, back = passes(name)
        products = back.where(lambda site: site.primitive == "dot_general")
        share = Fraction(getattr(products, part), getattr(back, part))
        yield Case(f"{name}, s={config.n_positions}", {"share": share, "most": MOST, "half": Fraction(1, 2)})


def rates() -> Iterator[Case]:
    """Seconds per FLOP of a norm's backward pass and of a product's, measured."""
    each = seconds()
    yield Case("124M, 128 tokens", {"norm": each["layer_norm"], "product": each["linear"], "times": 2})


loss = Check("the loss", LISTING, losses)
layer_flops = settings("FLOPs of a layer", str(gpt2_costs.PRINTED_LAYER), _layer, DOCUMENT)
# The line above the last one: its terms by their own printed lines.
line_above = Check("the line with cross_entropy in it", ABOVE, _network)
last_line = Check("the last line", TOTAL, _network, str(gpt2_costs.PRINTED_TOTAL + PRINTED["D2.13"].flops))
omitted = tuple(_left_out(*item) for item in {**omissions.counted(True), **omissions.uncounted()}.items())


CLAIMS = claims(__name__, gradient_gaps=gradient_gaps)
