"""Arguments for Hypothesis, at special points and odd shapes; the extra `hypothesis` installs it.

>>> @given(strategies.arguments("f32[b,h] f32[h]"))
... def test_my_op(args):
...     assert_ok(my_op, *args)
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad._extras import install
from refgrad.jaxpr.avals import is_array, is_float
from refgrad.verify import arguments as described
from refgrad.verify import draws, special
from refgrad.verify.arguments import Spec

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as arrays_of
except ImportError as error:
    raise ImportError(f"refgrad.verify.strategies needs Hypothesis: {install('hypothesis')}") from error

SIZES = (2, 3, 1, 17)  # of named dimensions, the simplest first; at size 0 there is nothing to check
FEW = 32  # entries that are drawn, and shrink, one by one
SEEDS = 100
VALUES = (*special.SIMPLE, 2.0**-10, -(2.0**-10), 2.0**7, -(2.0**7))


def arguments(*args: Any, sizes: Sequence[int] = SIZES) -> st.SearchStrategy[tuple]:
    """Return a strategy for tuples of arguments.

    One text, as `check` takes it, gives the types; a named dimension has one of `sizes`. Otherwise the types are those
    of the arguments given, pytrees with arrays; what is not an array stays as it is. Entries are zeros, ones, ties and
    other special values among ordinary ones. They shrink towards zeros in arrays of size 2.
    """
    if len(args) == 1 and described.is_text(args[0]):
        names = described.dimensions(args[0])
        return st.tuples(*(st.sampled_from(list(sizes)) for _ in names)).flatmap(
            lambda found: _tuples(described.arguments(described.sized(args[0], dict(zip(names, found, strict=True)))))
        )
    return _tuples(args)


def _tuples(args: tuple) -> st.SearchStrategy[tuple]:
    leaves, tree = jax.tree.flatten(args)
    return st.tuples(*map(_leaf, leaves)).map(lambda drawn: jax.tree.unflatten(tree, drawn))


def _bound(x: Any) -> int | None:
    """Return the bound of an integer array's own entries; None for others."""
    return None if is_float(x) or x.dtype == jnp.bool_ else int(np.max(np.asarray(x), initial=0)) + 1


def _leaf(x: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for arrays like `x`: entry by entry where they are few, changed as a whole where not."""
    if not is_array(x) or jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or x.dtype == jnp.uint32:
        return st.just(x)
    spec = x if isinstance(x, Spec) else Spec(x.shape, x.dtype, below=_bound(x))
    if np.prod(x.shape, dtype=int) > FEW:
        changes: dict[str, Callable] = {"as drawn": lambda x, _: x, **({} if spec.range else special.changes(spec))}
        return st.tuples(st.integers(0, SEEDS), st.sampled_from([c for c in changes if "inf" not in c])).map(
            lambda drawn: special.changed(draws.values((spec,), drawn[0])[0], changes[drawn[1]])
        )
    if not is_float(x):
        low, end = 0 if spec.above is None else int(spec.above) + 1, 2 if spec.below is None else int(spec.below)
        entries = st.booleans() if x.dtype == jnp.bool_ else st.integers(low, end - 1)
        return arrays_of.arrays(np.int64, x.shape, elements=entries.map(int)).map(
            lambda a: jnp.asarray(a.astype(x.dtype))
        )
    entries = st.one_of(st.sampled_from(VALUES), st.floats(-8, 8, width=16))
    if spec.range is not None:
        low, high = spec.range
        entries = entries.filter(lambda value: low < value < high)
    real = arrays_of.arrays(np.float64, x.shape, elements=entries)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return st.tuples(real, real).map(lambda parts: jnp.asarray(parts[0] + 1j * parts[1], x.dtype))
    return real.map(lambda a: jnp.asarray(a, x.dtype))
