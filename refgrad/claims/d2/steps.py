"""D2.26: the steps between, line by line as printed, each evaluated as numbers against autodiff.

`steps.toml` holds the lines: the operation, the line in words, the name of its truth, the line as printed and, where it
is wrong, the right one. A Jacobian J stands as a matrix with [j, i] = ∂z_j/∂x_i; `other` is 1 off its diagonal and 0 on
it, so that a sum over j ≠ i is a product with it. Lines that only define a symbol, with the derivative still to be
taken, are left out.
"""

from collections.abc import Iterator

from refgrad.claims._ledger import Case, Check, Claim, deferred
from refgrad.claims._rows import table
from refgrad.claims.d2._systems import values

# Operation → its section in the document, and the row of its final formula.
SECTIONS = {
    "softmax": ("Softmax", "D2.12"),
    "log_softmax": ("Log-softmax Gradients", "D2.13"),
    "layer_norm": ("LayerNorm", "D2.14"),
    "gelu": ("GELU", "D2.15"),
}


@deferred
def _cases(op: str, truth: str) -> Iterator[Case]:
    for found in values(op):
        known = {name: value for name, value in found.items() if name != truth}
        yield Case(f"N={found['N']}", known, found[truth])


def _claim(number: int, op: str, says: str, truth: str, printed: str, corrected: str = "") -> Claim:
    place, final = SECTIONS[op]
    return Claim(
        f"D2.26.{number}",
        place,
        f"A step of the derivation: {says}.",
        "autodiff of the plain functions, in float64",
        (Check(says, printed, _cases(op, truth), corrected),),
        see=(final,),
        more=f"refgrad verify --op {op}",
        ops=(op,),
    )


CLAIMS = tuple(_claim(number, **step) for number, step in enumerate(table(__name__, "steps"), 1))
