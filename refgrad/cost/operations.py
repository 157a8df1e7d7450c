"""The operation that an equation does: its types, its part in the program around it, and the cost of one run.

Two programs are compared by their operations, so that what is said here must be the same for the same operation in
another program: no variable's name, no address, no position.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.primitives.rule import names
from refgrad.cost.types import Operation
from refgrad.jaxpr.avals import shape_of, size
from refgrad.jaxpr.programs import is_backward, makers, readers
from refgrad.jaxpr.versions import opened

BIAS = "bias"
FAN_IN = "fan-in"
LAYOUT = frozenset(
    names(
        "broadcast_in_dim broadcast concatenate copy copy_p expand_dims pad reshape rev slice squeeze stack transpose "
        "unstack split tile"
    )
)
"""Primitives that lay the same numbers out in another way; the opcodes of HLO have the same names."""
_SAME_NUMBERS = frozenset(names("broadcast_in_dim convert_element_type copy expand_dims reshape squeeze transpose"))
DEEPEST = 6  # products of products that are taken apart: matrix powers have exponentially many factors
_PRODUCTS = ("dot_general", "conv_general_dilated")


class EquationParts:
    """The part that each equation of one program has in it: a bias, a factor of a longer product, a fan-in."""

    def __init__(self, program: ClosedJaxpr | Jaxpr):
        self._jaxpr = opened(program)
        self._makers = makers(self._jaxpr)
        self._readers = readers(self._jaxpr)

    def operation(self, eqn: JaxprEqn) -> Operation:
        """Return the operation of an equation of this program, without its cost."""
        return Operation(*types_of(eqn), self._part(eqn), self._product(eqn), is_backward(eqn))

    def _part(self, eqn: JaxprEqn) -> str:
        if eqn.primitive.name == "add_any":
            return FAN_IN
        if self._adds_bias(eqn) or self._sums_bias(eqn):
            return BIAS
        if not eqn.outvars or not _keeps_numbers(eqn):
            return ""
        read_by = self._readers.get(eqn.outvars[0], ())
        if read_by and all(map(self._adds_bias, read_by)) and self._rank(eqn.outvars[0]) == 1:
            return BIAS
        made = self._maker(eqn.outvars[0])
        return BIAS if made is not None and self._sums_bias(made) else ""

    def _adds_bias(self, eqn: JaxprEqn) -> bool:
        """Return True for the sum of a product and of a vector that is the same for each of its rows."""
        if eqn.primitive.name != "add":
            return False
        made = [self._maker(v) for v in eqn.invars]
        products = [one is not None and one.primitive.name in _PRODUCTS for one in made]
        return any(product and self._rank(v) == 1 for product, v in zip(products, reversed(eqn.invars), strict=True))

    def _sums_bias(self, eqn: JaxprEqn) -> bool:
        """Return True for the sum over the rows of what also enters a product: the gradient of a bias."""
        if eqn.primitive.name != "reduce_sum" or _keeps_numbers(eqn) or self._lengths(eqn.outvars[0]) != 1:
            return False
        given = self._source(eqn.invars[0])
        if isinstance(given, Literal):
            return False
        found = {given}
        for v in found.copy():
            found |= {r.outvars[0] for r in self._readers.get(v, ()) if _keeps_numbers(r)}
        return any(r.primitive.name in _PRODUCTS for v in found for r in self._readers.get(v, ()))

    def _product(self, eqn: JaxprEqn) -> str:
        """Return the whole product that an equation is a part of, as its factors and its result; "" for no product."""
        if not self._multiplies(eqn):
            return ""
        result = eqn.outvars[0]
        while (reader := self._only_product(result)) is not None:
            result = reader.outvars[0]
        return f"{' · '.join(sorted(map(_bare, self._factors(result))))} → {_bare(result)}"

    def _multiplies(self, eqn: JaxprEqn) -> bool:
        """Return True for a product, a sum of products, and the products that such a sum adds."""
        if eqn.primitive.name == "dot_general" or self._summed(eqn) is not None:
            return True
        readers = self._readers.get(eqn.outvars[0], ()) if eqn.outvars else ()
        return eqn.primitive.name == "mul" and bool(readers) and all(self._summed(r) is eqn for r in readers)

    def _summed(self, eqn: JaxprEqn) -> JaxprEqn | None:
        """Return the multiplication whose result an equation sums; None where it does not."""
        if eqn.primitive.name != "reduce_sum":
            return None
        made = self._maker(eqn.invars[0])
        return made if made is not None and made.primitive.name == "mul" else None

    def _only_product(self, v: Any) -> JaxprEqn | None:
        """Return the product or the layout that alone reads a variable on its way into a product."""
        readers = self._readers.get(v, ())
        if len(readers) != 1 or v in self._jaxpr.outvars:
            return None
        (reader,) = readers
        if self._multiplies(reader):
            return reader
        if _keeps_numbers(reader) and self._only_product(reader.outvars[0]) is not None:
            return reader
        return None

    def _factors(self, v: Any, depth: int = DEEPEST) -> list[Any]:
        v = self._source(v)
        made = None if isinstance(v, Literal) else self._makers.get(v)
        if made is None or not depth:
            return [v]
        eqn = made[0] if made[0].primitive.name == "dot_general" else self._summed(made[0])
        return [v] if eqn is None else [f for operand in eqn.invars for f in self._factors(operand, depth - 1)]

    def _source(self, v: Any) -> Any:
        """Return the variable of whose numbers this one consists, before layouts and casts."""
        while not isinstance(v, Literal) and v in self._makers and _keeps_numbers(self._makers[v][0]):
            v = self._makers[v][0].invars[0]
        return v

    def _maker(self, v: Any) -> JaxprEqn | None:
        v = self._source(v)
        made = None if isinstance(v, Literal) else self._makers.get(v)
        return None if made is None else made[0]

    def _rank(self, v: Any) -> int:
        return self._lengths(self._source(v))

    @staticmethod
    def _lengths(v: Any) -> int:
        """Return how many dimensions of a variable are longer than one."""
        return sum(n != 1 for n in shape_of(v)) if hasattr(v.aval, "shape") else 0


def _keeps_numbers(eqn: JaxprEqn) -> bool:
    """Return True where the result holds the numbers of the operand, in another layout or dtype, and no others."""
    if eqn.primitive.name == "reduce_sum":
        return size(eqn.invars[0]) == size(eqn.outvars[0])
    return eqn.primitive.name in _SAME_NUMBERS


def types_of(eqn: JaxprEqn) -> tuple[str, str]:
    """The types of an equation's operands and results."""
    return " ".join(map(_type, eqn.invars)), " ".join(map(_type, eqn.outvars))


def _type(v: Any) -> str:
    """`f32[8,16]`, and the type's own text for other types."""
    aval = getattr(v.aval, "inner_aval", v.aval)
    if not (hasattr(aval, "shape") and hasattr(aval, "dtype")):
        return type(aval).__name__
    return type_text(aval.dtype, aval.shape)


@cache
def type_text(dtype: Any, shape: tuple[int, ...]) -> str:
    """An array's type as JAX abbreviates it, such as `f32[8,16]`."""
    return f"{_short(dtype)}[{','.join(map(str, shape))}]"


@cache
def _short(dtype: Any) -> str:
    name = str(dtype)
    long = next((long for long in _SHORT if name.startswith(long)), "")
    return _SHORT.get(long, "") + name.removeprefix(long)


def _bare(v: Any) -> str:
    """The type of a variable without dimensions of length one."""
    return type_text(v.aval.dtype, tuple(n for n in shape_of(v) if n != 1))


_SHORT: Mapping[str, str] = {"bfloat": "bf", "float": "f", "uint": "u", "int": "i", "complex": "c"}
