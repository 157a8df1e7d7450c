"""Operations on each element: (flops, transcendentals) of one element, as JAX lowers them.

One HLO instruction is one FLOP or one transcendental. A function that JAX or CHLO expands costs its expansion, which
depends on the dtype: half precisions are converted to float32 and back, complex numbers are taken apart. Functions
that are expanded into series are in `special`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import source_info_util
from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Programs, Rule, Work, kind, names
from refgrad.jaxpr.avals import bits, dtype_of, shape_of, size
from refgrad.jaxpr.calls import Bodies, Body, Form
from refgrad.jaxpr.versions import newest

PER_ELEMENT = (1, 0)
TRANSCENDENTAL = (0, 1)

# primitive → (flops, transcendentals) of one element; by kind of dtype, "" for all the others.
COSTS: dict[str, dict[str, tuple[int, int]]] = {
    **{
        name: {"": PER_ELEMENT}
        for name in names(
            "add add_any sub mul div rem neg floor ceil round is_finite real imag complex "
            "eq ne lt le gt ge eq_to lt_to le_to and or xor not shift_left shift_right_logical "
            "shift_right_arithmetic population_count clz reduce_precision clamp mulhi "
            "reciprocal"
        )
    },
    "abs": {"": PER_ELEMENT, "complex": newest({(0, 10): PER_ELEMENT, (0, 12): (25, 1)})},
    "sign": {"": PER_ELEMENT, "uint": (2, 0)},
    "max": {"": PER_ELEMENT, "complex": (9, 0)},
    "min": {"": PER_ELEMENT, "complex": (9, 0)},
    "square": {"": PER_ELEMENT, "complex": (14, 0)},
    "conj": {"": PER_ELEMENT, "complex": (4, 0)},
    "nextafter": {"": (24, 0)},
    **{name: {"": TRANSCENDENTAL} for name in names("tan tanh expm1 rsqrt cbrt atan2 erf")},
    "exp": {"": TRANSCENDENTAL, "complex": (15, 4)},
    "exp2": {"": (1, 1), "complex": (16, 4)},
    "log": {"": TRANSCENDENTAL, "complex": (62, 4)},
    "log2": {"": (1, 1), "complex": (64, 4)},
    "log1p": {"": TRANSCENDENTAL, "complex": (79, 5)},
    "sin": {"": TRANSCENDENTAL, "complex": (14, 4)},
    "cos": {"": TRANSCENDENTAL, "complex": (15, 4)},
    "asin": {"": newest({(0, 10): (5, 2), (0, 12): (3, 2)}), "complex": (105, 9)},
    "acos": {"": (3, 2), "complex": (105, 9)},
    "atan": {"": TRANSCENDENTAL, "complex": (47, 2)},
    "sinh": {"": (10, 3), "half": (12, 3), "complex": (95, 12)},
    "cosh": {"": (3, 2), "half": (5, 2), "complex": (95, 12)},
    "asinh": {"": (11, 3), "complex": (104, 9)},
    "acosh": {"": (7, 4), "complex": (105, 9)},
    "atanh": {"": (6, 2), "complex": (45, 2)},
    "logistic": {"": (3, 1), "complex": (18, 4)},
    "sqrt": {"": TRANSCENDENTAL, "complex": (86, 7)},
}


def per_element(eqn: JaxprEqn) -> Work:
    """The table's cost of one element, by the dtype of the first operand, times the elements."""
    costs = COSTS[eqn.primitive.name]
    flops, transcendentals = costs.get(kind(eqn.invars[0]), costs[""])
    n = size(eqn.outvars[0])
    return Work(elementwise=n * flops, transcendental=n * transcendentals)


def integer_pow(eqn: JaxprEqn) -> Work:
    """x^y by repeated squaring: a product for each halving and for each further bit; a division if y < 0."""
    y = eqn.params["y"]
    if y == 0:
        return Work()
    products = abs(y).bit_length() - 1 + abs(y).bit_count() - 1
    return Work(elementwise=size(eqn.outvars[0]) * (products + (y < 0)))


def power(eqn: JaxprEqn) -> Work:
    """One transcendental an element; an integer exponent is converted to the base's dtype first."""
    n = size(eqn.outvars[0])
    return Work(elementwise=n if kind(eqn.invars[1]) in ("int", "uint") else 0, transcendental=n)


def one_each(eqn: JaxprEqn) -> Work:
    """One FLOP an element of the result, for any operands."""
    return Work(elementwise=size(eqn.outvars[0]))


def select_n(eqn: JaxprEqn) -> Work:
    """One choice an element by a boolean; by an integer, a comparison and a choice for each case but one."""
    which, *cases = eqn.invars
    if kind(which) == "bool":
        return Work(elementwise=size(cases[0]))
    return Work(elementwise=(len(cases) - 1) * (size(which) + size(cases[0])))


def convert(eqn: JaxprEqn) -> Work:
    """One operation an element; two from complex to a type other than its real part's; none to the same dtype."""
    (x,), (out,) = eqn.invars, eqn.outvars
    if dtype_of(x) == dtype_of(out):
        return Work(read=0, written=0)
    takes_part = kind(x) == "complex" and kind(out) != "complex"
    same_part = kind(out) in ("float", "double") and 2 * bits(dtype_of(out)) == bits(dtype_of(x))
    return Work(elementwise=size(out) * (2 if takes_part and not same_part else 1))


def program(f: Callable[..., Array]) -> Rule:
    """A primitive that JAX lowers as the program `f` of its operands, with the equation's parameters as keywords."""

    def rule(eqn: JaxprEqn) -> Programs:
        operands = [jax.ShapeDtypeStruct(shape_of(v), dtype_of(v)) for v in eqn.invars]
        every = tuple(range(len(operands)))
        # 64-bit types may be off again by the time that a program of them is counted
        with jax.enable_x64(True), source_info_util.user_context(eqn.source_info.traceback):
            jaxpr = jax.make_jaxpr(lambda *xs: f(*xs, **eqn.params))(*operands)
        return Programs(Bodies((Body(jaxpr, every, (0,), moves=False),), Form.CALL), Work())

    return rule


def one_minus_square(x: Array) -> Array:
    """tanh's derivative since JAX 0.11: (x + 1)(1 − x)."""
    one = lax.full_like(x, 1, shape=())
    return lax.mul(lax.add(x, one), lax.sub(one, x))


def polynomial(x: Array, *coefficients: Array, unroll: int = 8) -> Array:
    """Horner's rule since JAX 0.12, coefficients from the lowest degree on; a scan of more than `unroll` of them."""
    if len(coefficients) <= unroll:
        *lower, y = coefficients
        for c in reversed(lower):
            y = lax.add(lax.mul(y, x), c)
        return y
    shape = jnp.broadcast_shapes(*(c.shape for c in coefficients))
    stacked = jnp.stack([jnp.broadcast_to(c, shape) for c in reversed(coefficients)])
    start = lax.full_like(x, 0, shape=jnp.broadcast_shapes(x.shape, shape))
    return lax.scan(lambda y, c: (lax.add(lax.mul(y, x), c), None), start, stacked, unroll=unroll)[0]


RULES: dict[str, Rule] = {
    **dict.fromkeys(COSTS, per_element),
    "integer_pow": integer_pow,
    "one_minus_square": program(one_minus_square),
    "polynomial": program(polynomial),
    "pow": power,
    "convert_element_type": convert,
    "bitcast_convert_type": one_each,
    "select_n": select_n,
}
