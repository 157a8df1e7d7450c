"""Integers in exact programs: every operation has XLA's values, signed and unsigned, at the ends of its range too."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.verify.exact.primitives.integers import INTEGERS

BITWISE = {"and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor, "not": lax.bitwise_not}
UNARY = ("neg", "abs", "sign", "square", "not", "population_count", "clz")
ELSEWHERE = {"clamp", "pow", "mulhi"}  # of three operands, of static ones, of Pallas


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_every_operation_has_xlas_values(dtype):
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 0, 1, 2, 5, 100, info.max - 1], dtype)
    y = np.array([1, 2, 3, 7, 8, 9, 4, 3], dtype)  # shifts beyond eight bits among them
    for name, exact in INTEGERS.items():
        if name not in ELSEWHERE and (dtype == "int8" or name not in ("neg", "abs")):
            operands = (x,) if name in UNARY else (x, y)
            want = BITWISE.get(name, getattr(lax, name, None))(*map(jnp.asarray, operands))
            assert np.array_equal(exact(*operands), want), name
