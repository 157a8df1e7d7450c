"""Truth: a function's program with every float in it widened to float64, and every complex to complex128.

Casts, accumulators, reduced precisions and typed constants inside the program are widened too, so that nothing on the
way rounds to less than float64. A constant keeps the value that the program has: `0.1` in a float32 program is the
float32 nearest to 0.1, exactly, because that is the function whose gradient is asked for. Integers, booleans and keys
are left as they are; random floats are made from the same bits by the same steps.

Where a primitive cannot be widened (a callback, a Pallas kernel, a foreign call, the bits of a float) it runs at the
program's own precision, its results are widened, and `Widened.limits` names it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr.avals import is_float
from refgrad.jaxpr.calls import bodies_of, retypes
from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.programs import ARRAYS, holds_programs, inside, line, located, trace

ROUNDING = {"reduce_precision"}  # exist only to round: in float64 they are the identity
OPAQUE = {"ffi_call", "io_callback", "pure_callback"}  # code that is not a program here
NARROW = OPAQUE | {"bitcast_convert_type", "nextafter", "random_gamma", "rng_uniform"}  # or a result of one width only
MUTE = {"debug_callback", "debug_print"}  # seen by a person, not by the result


def wide(dtype: Any) -> Any:
    """float64 for any real float, complex128 for any complex; every other dtype (and what is none) as it is."""
    try:
        kind = np.dtype(dtype) if not isinstance(dtype, np.dtype) else dtype
    except TypeError:
        return dtype
    if jnp.issubdtype(kind, jnp.complexfloating):
        return np.dtype(np.complex128)
    return np.dtype(np.float64) if jnp.issubdtype(kind, jnp.floating) else dtype


def widen_array(x: Any) -> Any:
    """`x` exactly, in its wide dtype, with its sharding and varying axes; call it with 64-bit types on."""
    if isinstance(x, np.ndarray | np.generic):
        return np.asarray(x, wide(x.dtype))
    if isinstance(x, jax.Array) and not isinstance(x, Tracer) and is_narrow(x) and x.is_fully_addressable:
        return jax.device_put(np.asarray(x, wide(x.dtype)), x.sharding if x.committed else None)  # compiles nothing
    return lax.convert_element_type(x, wide(x.dtype)) if is_narrow(x) else x


def is_narrow(x: Any) -> bool:
    """Return True if an array or its type has a dtype that widens."""
    return hasattr(x, "dtype") and wide(x.dtype) != x.dtype


class Widened:
    """`f` at the types of `args`, evaluated in float64 all the way inside.

    `args` and `kwargs` are the given ones, widened exactly; call the object with such values. Rules inside `f` are
    ignored: what is differentiated is the plain forward. Where it is composed with `jax.vjp`, `jax.jit` and the like,
    the whole composition belongs inside `jax.enable_x64(True)`.
    """

    def __init__(self, f: Callable, *args: Any, **kwargs: Any) -> None:
        """Trace `f` once, at the user's own dtypes and x64 setting."""
        self.program, arrays, self.out_tree = trace(f, args, kwargs)
        self.interpreter = WideningInterpreter()
        leaves, self.in_tree = jax.tree.flatten((args, kwargs))
        with jax.enable_x64(True):
            dense = iter([a if isinstance(a, jax.ShapeDtypeStruct) else widen_array(a) for a in arrays])
            leaves = [next(dense) if isinstance(leaf, ARRAYS) else leaf for leaf in leaves]
        self.args, self.kwargs = jax.tree.unflatten(self.in_tree, leaves)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs, widened. Raises ValueError where the arguments have another tree than those given first."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        if tree != self.in_tree:
            raise ValueError(f"widened for arguments {self.in_tree}, called with {tree}: call widen again for these")
        with jax.enable_x64(True):
            arrays = [widen_array(leaf) for leaf in leaves if isinstance(leaf, ARRAYS)]
            return jax.tree.unflatten(self.out_tree, self.interpreter.run(self.program, arrays))

    @property
    def limits(self) -> list[str]:
        """Each place that could not be widened, with its file and line; empty where truth is float64 throughout."""
        return list(dict.fromkeys((*limits_of(self.program), *self.interpreter.refused)))


def widen(f: Callable, *args: Any, **kwargs: Any) -> Widened:
    """Return `f` at the types of these arguments as a float64 program, without its rules.

    Args:
      f: any function; it is traced once, at its own dtypes.
      *args: its arguments.
      **kwargs: its keyword arguments.

    Returns:
      A `Widened`: a function of widened arguments, with the given ones as `.args` and `.kwargs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import widen
      >>> wide = widen(jnp.sin, jnp.float32(1))
      >>> str(wide(*wide.args).dtype)
      'float64'
    """
    return Widened(f, *args, **kwargs)


class WideningInterpreter(Interpreter):
    """Interpreter in which every value whose type is a float in the program is a float64.

    `refused` names the equations met that take no other types than those of their trace.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

    def constant(self, value: Any, aval: Any) -> Any:
        """A literal takes the program's dtype before it is widened: the value is the program's, not the source's."""
        if not isinstance(value, jax.Array):
            value = np.asarray(value, aval.dtype)
        return widen_array(value)

    def type(self, aval: Any) -> Any:
        """The wide type of `aval`."""
        return aval.update(dtype=wide(aval.dtype)) if is_narrow(aval) else aval

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """One equation in float64, or at the program's precision where it cannot be widened."""
        name = eqn.primitive.name
        if name in ROUNDING:
            return values
        if stays_narrow(eqn):
            return self.narrow(eqn, values)
        held = holds_programs(eqn)
        if held and bodies_of(eqn) is not None:
            return self.fit(eqn, self.descend(eqn, values))
        params = {k: wide(v) for k, v in eqn.params.items() if isinstance(v, np.dtype | type)}
        if isinstance(eqn.params.get("precision"), lax.DotAlgorithm | lax.DotAlgorithmPreset):
            params["precision"] = None
        try:
            return self.fit(eqn, self.descend(eqn, values) if held else self.bind(eqn, values, **params))
        except Exception:  # whatever a package's own primitive raises that holds its types among its parameters
            self.refused.append(f"truth limited to the program's dtypes: {name} at {line(eqn) or 'an unknown line'}")
            return self.narrow(eqn, values)

    def narrow(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """The equation as the program has it: inputs rounded to its dtypes, outputs widened again."""
        avals: list[Any] = [v.aval for v in eqn.invars]
        pairs = zip(values, avals, strict=True)
        narrowed = [lax.convert_element_type(x, a.dtype) if is_narrow(a) else x for x, a in pairs]
        return [widen_array(x) for x in self.bind(eqn, narrowed)]

    def fit(self, eqn: JaxprEqn, outputs: Sequence[Any]) -> Sequence[Any]:
        """Every float output as float64, also where the primitive has a dtype of its own making."""
        return [widen_array(x) if is_float(v.aval) else x for x, v in zip(outputs, eqn.outvars, strict=True)]


def stays_narrow(eqn: JaxprEqn) -> bool:
    """Return True if the equation can only run at the program's own dtypes.

    It is so for bit casts, for what draws floats by their width, and for what holds a Python function instead of a
    program (callbacks, foreign calls) or a program that only its own compiler can run (Pallas kernels).
    """
    if eqn.primitive.name in NARROW | MUTE or not retypes(eqn):
        return True
    held = any(callable(v) and not isinstance(v, type) for v in eqn.params.values())
    return held and not holds_programs(eqn)


def limits_of(program: ClosedJaxpr | Jaxpr) -> Iterator[str]:
    """Yield the equations of a program, at any depth, that stay narrow and let a float in or out, or round one inside.

    Floats made from given bits are exact, so that a cast of integers to floats is not a limit.
    """
    for eqn, here in located(program, enters=lambda eqn: not stays_narrow(eqn)):
        if stays_narrow(eqn) and eqn.primitive.name not in MUTE:
            made = () if eqn.primitive.name == "bitcast_convert_type" else eqn.outvars
            within = (v for e in inside(eqn) for v in e.outvars)
            avals: list[Any] = [v.aval for v in (*eqn.invars, *made, *within) if is_narrow(v.aval)]
            if avals:
                least = min((a.dtype for a in avals), key=lambda d: d.itemsize)
                yield f"truth limited to {least}: {eqn.primitive.name} at {here}"
