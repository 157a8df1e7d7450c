"""The documents' dimensions as symbols, in which every cost is a polynomial.

b batch, s sequence, h hidden, n_h heads, d = h/n_h, V vocabulary, n_L layers; i and o are a layer's input and
output width. `item` and a are bytes: of one element of the arguments, and of one accumulated element (at least 4).
B examples, D columns in and C out are those of D0's linear network. H and W are an image's rows and columns, k and l
those of a kernel. m is the rows of a block of queries, c the length of a chunk of positions or of the vocabulary, v
the columns of a chunk's logits that are made at a time.
N_d, N_f and N_m are a mesh's devices along data, fsdp and model, and s_max is the rows of the position embedding.
"""

import functools
from collections.abc import Mapping
from typing import Any

import sympy

b, s, h, n_h, d, V, n_L, i, o, item, a = sympy.symbols("b s h n_h d V n_L i o item a", integer=True, positive=True)
B, C, D = sympy.symbols("B C D", integer=True, positive=True)
H, W, k, l = sympy.symbols("H W k l", integer=True, positive=True)
m, c, v = sympy.symbols("m c v", integer=True, positive=True)
N_d, N_f, N_m, s_max = sympy.symbols("N_d N_f N_m s_max", integer=True, positive=True)

SYMBOLS = {
    symbol.name: symbol
    for symbol in (b, s, h, n_h, d, V, n_L, i, o, item, a, B, C, D, H, W, k, l, m, c, v, N_d, N_f, N_m, s_max)
}


@functools.cache
def parse(text: str) -> sympy.Expr:
    """A polynomial as text, such as `"3*h"`, in this module's symbols."""
    return sympy.parse_expr(text, SYMBOLS)


def evaluate(expression: sympy.Expr | int, dims: Mapping[str, int]) -> int:
    """`expression` at `dims` (symbol name → value) as an exact Python integer.

    Raises ValueError where a symbol has no value or the result is not an integer.
    """
    values = {SYMBOLS[name]: sympy.sympify(value) for name, value in dims.items() if name in SYMBOLS}
    value: Any = sympy.sympify(expression).xreplace(values)
    if not value.is_Integer:
        missing = sorted(map(str, value.free_symbols))
        raise ValueError(f"{expression} is {value} at {dict(dims)}: give integers for {missing or 'every symbol'}")
    return int(value)
