"""Functions that JAX expands into series: Horner's rule, unrolled or a loop, and what a setting or a mesh changes."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from refgrad.cost import count, reconcile
from refgrad.jaxpr.versions import at_least
from tests.cost.lax_samples import MESH, names, spec

horner = pytest.mark.skipif(not at_least((0, 12)), reason="lax.polynomial is of JAX 0.12")
TWO = names("igamma igammac igamma_grad_a polygamma zeta")
SERIES = [*names("bessel_i0e bessel_i1e digamma erf_inv erfc lgamma"), *TWO]


@pytest.mark.parametrize("x64", (False, True))
@pytest.mark.parametrize("name", SERIES)
def test_series_under_either_setting_of_64_bit_types(name, x64, lowered):
    """With these on, JAX 0.12 converts each coefficient of lgamma: the same program costs more."""
    f, args = getattr(lax, name), [spec(5, 7)] * (2 if name in TWO else 1)
    with jax.enable_x64(x64):
        cost = count(f, *args)
        assert (cost.flops, cost.transcendental) == lowered(f, *args)


COEFFICIENTS = {
    "scalars": lambda n, dtype: [spec(dtype=dtype)] * n,
    "arrays": lambda n, dtype: [spec(5, 7, dtype=dtype)] * n,
    "columns": lambda n, dtype: [spec(5, 1, dtype=dtype)] * (n - 1) + [spec(dtype=dtype)],
}


@horner
@pytest.mark.parametrize("dtype", ("float32", "bfloat16", "float64", "int32", "complex64"))
@pytest.mark.parametrize("coefficients", COEFFICIENTS)
@pytest.mark.parametrize(("terms", "unroll"), ((1, None), (2, None), (8, None), (11, 11), (3, 8)))
def test_polynomial_unrolled(terms, unroll, coefficients, dtype, lowered, x64):
    x, cs = spec(5, 7, dtype=dtype), COEFFICIENTS[coefficients](terms, dtype)
    f = lambda x, *cs: lax.polynomial(x, cs, unroll=unroll)  # noqa: E731
    cost = count(f, x, *cs)
    assert (cost.flops, cost.transcendental) == lowered(f, x, *cs) == (2 * (terms - 1) * 35, 0)


@horner
@pytest.mark.parametrize(("terms", "unroll"), ((9, None), (16, None), (21, None), (7, 3), (5, 1)))
@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_polynomial_of_more_terms_is_a_loop(terms, unroll, coefficients):
    """It starts at zero, so that each term costs a product and a sum; XLA counts a loop's body once."""
    args = spec(5, 7), *COEFFICIENTS[coefficients](terms, "float32")
    f = lambda x, *cs: lax.polynomial(x, cs, unroll=unroll)  # noqa: E731
    assert count(f, *args).flops == 2 * terms * 35
    assert reconcile(f, *args).ok


@horner
def test_polynomial_of_a_smaller_argument():
    """Every product and sum has the shape that its own operands have together."""
    f = lambda x, *cs: lax.polynomial(x, cs)  # noqa: E731
    args = spec(5, 1), spec(5, 1), spec(5, 7), spec(5, 1)  # the highest degree last
    assert count(f, *args).flops == 5 + 35 + 35 + 35
    assert reconcile(f, *args).ok


@horner
def test_polynomial_moves_its_operands_and_its_result():
    assert count(lambda x, *cs: lax.polynomial(x, cs), spec(5, 7), spec(), spec(5, 7), spec()).bytes == 4 * (3 * 35 + 2)


@horner
def test_gradient_of_a_polynomial():
    f = lambda x, c: (lax.polynomial(x, [c, 2.5, c, 0.3]) * x).sum()  # noqa: E731
    assert reconcile(jax.grad(f, (0, 1)), spec(5, 7), spec(5, 7)).ok


@pytest.mark.parametrize("f", (jnp.tanh, jnp.arcsin, lambda x: abs(lax.complex(x, x))), ids=("tanh", "asin", "abs"))
def test_gradients_inside_a_manual_mesh(f):
    """A primitive that is lowered as a program of its own is counted at what each device holds."""

    def whole(check):
        run = jax.shard_map(
            jax.grad(lambda x: f(x).sum()), mesh=MESH, in_specs=P("i"), out_specs=P("i"), check_vma=check
        )
        return count(run, spec(8, 12))

    assert whole(True).flops == whole(False).flops == count(jax.grad(lambda x: f(x).sum()), spec(8, 12)).flops
