"""Right rules are proven, on the branch of the arguments and on others; what cannot be is named."""

import importlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.ops import TABLE
from refgrad.verify import prove
from refgrad.verify.prove import ProofVerdict, elements
from refgrad.verify.prove.evaluate import SMOOTH
from tests.verify.prove.rules import RIGHT, ruled, values

DIMS = {"b": 2, "s": 2, "h": 4, "n_h": 2, "d": 2, "V": 3, "i": 2, "o": 3, "H": 3, "W": 3, "k": 2, "l": 2}


@pytest.mark.parametrize("name", RIGHT)
def test_a_users_own_rules(name):
    f, args = RIGHT[name]
    proof = prove(f, *args)
    assert proof.verdict is ProofVerdict.PROVEN, str(proof)
    assert proof.ok and proof.counterexample is None


@pytest.mark.parametrize("name", ["maximum", "softmax_cross_entropy", "layer_norm", "gelu_erf", "fused.linear", "rnn"])
def test_operations_of_the_table(name):
    row = TABLE[name]
    proof = prove(row.bound(DIMS), *row.sample(0, DIMS, jnp.float32))
    assert proof.verdict is ProofVerdict.PROVEN, str(proof)


# but those of several arguments, those without a function in JAX, and those whose derivative JAX writes otherwise: in
# 0.12 with the bits of a float, or with two roots
UNARY = sorted({*SMOOTH} - {"pow", "atan2", "rem", "lgamma", "one_minus_square", "log2", "erf", "erfc", "acosh"})
ODD = {
    "erf": lambda x: 2 / math.sqrt(math.pi) * jnp.exp(-x * x),
    "erf_inv": lambda x: math.sqrt(math.pi) / 2 * jnp.exp(jax.lax.erf_inv(x) ** 2),
    "asin": lambda x: jax.lax.rsqrt(1 - x * x),
    "atan": lambda x: 1 / (1 + x * x),
    "sin": jnp.cos,
    "tan": lambda x: 1 + jnp.tan(x) ** 2,
    "sinh": jnp.cosh,
    "tanh": lambda x: 1 - jnp.tanh(x) ** 2,
    "cbrt": lambda x: jnp.cbrt(x) / (3 * x),
}


@pytest.mark.parametrize("name", UNARY)
def test_jaxs_derivative_of_every_function(name):
    f = getattr(jax.lax, name)
    rule = ruled(f, lambda kept, g: jax.vjp(f, *kept)[1](g))
    assert prove(rule, np.array([0.3, 0.4])).verdict is ProofVerdict.PROVEN


@pytest.mark.parametrize("name", ODD)
def test_an_odd_function_takes_a_sign_out(name):
    f, slope = getattr(jax.lax, name), ODD[name]
    rule = ruled(lambda x: x * f(-x), lambda kept, g: (-g * (f(*kept) + kept[0] * slope(*kept)),))
    assert prove(rule, np.array([0.3, 0.4])).verdict is ProofVerdict.PROVEN


def test_the_branches_are_said_and_hold_both_ways():
    f, args = RIGHT["a logarithm guarded by where"]
    proof = prove(f, *args)
    assert len(proof.branches) >= 3 and proof.branches[0].point == "given"
    mixed = [b for b in proof.branches if 0 < b.true < b.comparisons]
    assert mixed
    shown = " ".join(str(proof).split())
    assert "20 of 20 comparisons went both ways" in shown and "drawn" in shown
    few = prove(f, *args, branches=2)
    assert 2 <= len(few.branches) <= len(proof.branches) and "20 of 20" in few.facts["branches"]


def test_a_function_without_comparisons_has_one_branch():
    proof = prove(RIGHT["a norm"][0], values(3))
    assert [b.comparisons for b in proof.branches] == [0]


def test_constants_that_were_folded_are_identified_and_listed():
    f, args = RIGHT["gelu"]
    texts = " ".join(prove(f, *args).constants)
    assert "0.7978845608028654 = √2·√π^-1" in texts and "0.044715" in texts
    assert prove(RIGHT["layer norm"][0], *RIGHT["layer norm"][1]).constants == ()


def test_a_function_with_rules_inside():
    inner = RIGHT["softplus"][0]
    proof = prove(lambda x, w: jnp.sum(inner(x @ w) ** 2), values(2, 2), values(2, 2, seed=1))
    assert proof.verdict is ProofVerdict.PROVEN


BRANCHING = {
    "a pool": lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), "VALID"),
    "a sort": lambda x: jnp.sort(x),
    "top k": lambda x: jax.lax.top_k(x, 2)[0],
    "a remainder": lambda x: jnp.fmod(x, 0.3) + jnp.round(x),
    "a clip": lambda x: jnp.clip(x, -0.5, 0.5) + jnp.sign(x) * x,
    "a mask": lambda x: jnp.exp(jnp.where(jnp.arange(4) < 2, x, -jnp.inf)),
    "a loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, y: jnp.where(y > 0, y * y, -y) * (i + 1.0), x),
    "a cube root": lambda x: jnp.cbrt(x),
    "a triangular solve": lambda x: jax.scipy.linalg.solve_triangular(x.reshape(2, 2), x[:2], lower=True),
    "a Cholesky factor": lambda x: jnp.linalg.cholesky(jnp.diag(x * x + 1)),
    "hyperbolic functions": lambda x: jnp.sinh(x) * jnp.arcsinh(x) + jnp.log1p(jnp.cosh(x)) + jnp.expm1(x),
    "an inverse and an angle": lambda x: jax.lax.erf_inv(x / 3) + jnp.arctan2(x, x * x + 1),
    "powers": lambda x: jnp.abs(x) ** (x * x) + x**-2 + 2.0**x,
}


@pytest.mark.parametrize("name", BRANCHING)
def test_rules_that_autodiff_would_make(name):
    """The rule is JAX's own derivative, run as a program: another way to the same thing."""
    f = BRANCHING[name]
    proof = prove(ruled(f, lambda kept, g: jax.vjp(f, *kept)[1](g)), values(4))
    assert proof.verdict is ProofVerdict.PROVEN, str(proof)
    wrong = prove(ruled(f, lambda kept, g: (jax.vjp(f, *kept)[1](g)[0] * (1 + 2.0**-40),)), values(4))
    assert wrong.verdict is ProofVerdict.REFUTED


def test_arguments_of_any_dtype_and_others_that_are_not_differentiated():
    @jax.custom_vjp
    def pick(x, i):
        return x[i] * x[i]

    pick.defvjp(
        lambda x, i: (x[i] * x[i], (x, i)),
        lambda kept, g: (jnp.zeros_like(kept[0]).at[kept[1]].add(2 * g * kept[0][kept[1]]), None),
    )
    x = jnp.asarray(values(3), jnp.bfloat16)
    assert prove(pick, x, jnp.array([0, 0, 2])).verdict is ProofVerdict.PROVEN


def test_a_primitive_without_a_symbolic_form_is_named():
    f = ruled(lambda x: jax.pure_callback(np.sin, x, x), lambda kept, g: (g * jnp.cos(kept[0]),))
    proof = prove(f, values(2))
    assert proof.verdict is ProofVerdict.UNDECIDED and not proof.ok
    assert "pure_callback at" in proof.why and len(proof.branches) == 1
    bessel = ruled(lambda x: jax.scipy.special.i0e(x), lambda kept, g: (g,))
    assert "bessel_i0e" in prove(bessel, values(2)).why


def test_a_constant_that_is_not_identified_refutes_nothing():
    f = ruled(lambda x: x * 0.123456789 + x * 0.987654321, lambda kept, g: (g * (0.123456789 + 0.987654321),))
    proof = prove(f, values(2))
    assert proof.verdict is ProofVerdict.UNDECIDED and "the rounding of a constant" in proof.why
    wrong = ruled(f.fun, lambda kept, g: (g * (0.123456789 + 0.987654321) * (1 + 2.0**-40),))
    assert prove(wrong, values(2)).verdict is ProofVerdict.REFUTED


def test_what_swells_is_tested(monkeypatch):
    f, args = RIGHT["layer norm"]
    monkeypatch.setattr(elements, "PRODUCTS", 1)
    proof = prove(f, *args)
    assert proof.verdict is ProofVerdict.TESTED and proof.ok
    assert "too large" in proof.why


def test_a_large_program_is_tested_with_its_bound(monkeypatch):
    f, args = RIGHT["layer norm"]
    monkeypatch.setattr(importlib.import_module("refgrad.verify.prove.prove"), "SCALARS", 10)
    proof = prove(f, *args)
    assert proof.verdict is ProofVerdict.TESTED and len(proof.branches) == 3
    assert "above 5.7e-14" in proof.facts["bound"]
    wrong = ruled(f.fun, lambda kept, g: tuple(ct * (1 + 2.0**-40) for ct in jax.vjp(f.fun, *kept)[1](g)))
    assert prove(wrong, *args).verdict is ProofVerdict.REFUTED


def test_a_proof_prints_in_a_hundred_columns_and_as_json():
    proof = prove(RIGHT["layer norm"][0], *RIGHT["layer norm"][1])
    assert max(map(len, str(proof).splitlines())) <= 100
    assert json.loads(proof.json())["verdict"].startswith("proven: all real arguments on this branch, at these shapes")
