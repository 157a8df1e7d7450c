"""The longest reduction that feeds each cotangent, read from traced programs, and the allowance that it earns."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from refgrad.verify import allowance, longest_reduction
from refgrad.verify.allowance import C
from tests.verify.specimens import RIGHT, matmul, normal


def looped(x, w):
    return lax.scan(lambda total, row: (total + jnp.sum(row * w), None), jnp.zeros((), x.dtype), x)[0]


def narrow_inside(x):
    return (x.astype(jnp.bfloat16) * 3).astype(x.dtype)


def wide_inside(x):
    x32 = x.astype(jnp.float32)
    return (x32 * lax.rsqrt(jnp.sum(x32 * x32))).astype(x.dtype)


CASES = {
    "element-wise": (jnp.sin, (normal(5),), (1,)),
    "dot": (matmul, (normal(3, 4), normal(4, 2)), (2, 3)),
    "broadcast": (lambda x, b: x * b[None], (normal(6, 2), normal(2)), (1, 6)),
    "forward residual": (lambda x: jnp.tanh(jnp.sum(x)), (normal(7),), (7,)),
    "cumulative": (lambda x: jnp.cumsum(x), (normal(9),), (9,)),
    "gather": (lambda e, t: e[t], (normal(5, 3), jnp.array([1, 1, 0, 2], jnp.int32)), (4, 1)),
    "scan": (looped, (normal(8, 3), normal(3)), (1, 8)),
    "integers and static": (*RIGHT["nondiff_argnums"], (1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_length(name):
    f, args, lengths = CASES[name]
    assert longest_reduction(f, *args) == lengths


def test_a_loop_and_the_same_sum_outside_one_earn_the_same():
    x, w = normal(8, 3), normal(3)
    plain = longest_reduction(lambda x, w: jnp.sum(x * w[None]), x, w)
    assert longest_reduction(looped, x, w)[1] == plain[1] == 8


def test_another_precision_counts_as_what_it_does():
    eps = float(jnp.finfo(jnp.bfloat16).eps) / float(jnp.finfo(jnp.float32).eps)
    assert longest_reduction(narrow_inside, normal(4)) == (eps**2,)
    assert longest_reduction(wide_inside, normal(1000, dtype=jnp.bfloat16)) == (1,)
    assert longest_reduction(wide_inside, normal(1000)) == (1000,)


def test_abstract_arguments():
    shape = jax.ShapeDtypeStruct((1 << 20, 1 << 10), jnp.float32)
    assert longest_reduction(lambda x: jnp.sum(x**2) ** 2, shape) == (1 << 30,)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_allowance(dtype):
    assert C <= 4
    assert allowance(dtype, 100) == pytest.approx(10 * C * float(jnp.finfo(dtype).eps))
