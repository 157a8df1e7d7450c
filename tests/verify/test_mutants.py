"""Mutants of right rules: all of them wrong, all of them caught, equivalents named."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from refgrad.verify import check, equivalent, mutants, mutation_score
from tests.lanes import fast_if
from tests.verify.specimens import RIGHT, matmul, normal, right_sine, rule, sine, softsign

ACCURACY = {"properties": ["accuracy"], "draws": 2}


def names(f, *args):
    return [mutant.name for mutant in mutants(f, *args)]


def test_every_kind_that_the_shapes_allow():
    found = names(matmul, normal(3, 3), normal(3, 3))
    assert len(found) == len(set(found)) == 18
    for kind in (
        "negated",
        "zeroed",
        "one entry off",
        "upstream ignored",
        "rolled along its last axis",
        "transposed",
        "sum over the output's first axis missing",
        "swapped with w",
    ):
        assert f"x: {kind}" in found
    assert not any("transposed" in name for name in names(matmul, normal(3, 4), normal(4, 2)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_scaled_by_thrice_the_allowance(dtype):
    scaled = names(right_sine, normal(4, dtype=dtype))[0]
    assert float(scaled.split()[-1]) == pytest.approx(12 * float(jnp.finfo(dtype).eps), rel=0.05)


@pytest.mark.parametrize(
    "dtype", fast_if(lambda dtype: dtype == jnp.bfloat16, [jnp.float32, jnp.bfloat16, jnp.float16])
)
def test_all_are_caught(dtype):
    args = normal(3, 2, dtype=dtype), normal(2, 2, dtype=dtype, seed=1)
    f, args = (matmul, args) if dtype == jnp.float32 else (right_sine, args[1:])
    assert set(mutation_score(f, *args).values()) == {"caught"}


@pytest.mark.slow
def test_all_are_caught_in_float64(x64):
    args = normal(3, 3, dtype=jnp.float64), normal(3, 3, dtype=jnp.float64, seed=1)
    verdicts = mutation_score(matmul, *args)
    assert next(iter(verdicts)) == "x: scaled by 1 + 1e-06"
    assert set(verdicts.values()) == {"caught"}


SPECIAL = [
    "nondiff_argnums",
    "integer argument, None cotangent",
    "symbolic zeros",
    "key argument",
    "pytrees in and out",
]


@pytest.mark.parametrize("name", fast_if(lambda name: name == "nondiff_argnums", SPECIAL))
def test_signature_and_forward_are_kept(name):
    f, args = RIGHT[name]
    for mutant in mutants(f, *args):
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), f(*args), mutant.function(*args)))
        assert mutant.function.nondiff_argnums == f.nondiff_argnums
    assert set(mutation_score(f, *args).values()) == {"caught"}


def test_check_and_tally_agree():
    args = normal(3, 4), normal(4, 2)
    for mutant in mutants(matmul, *args)[::4]:
        assert not check(mutant.function, *args, **ACCURACY).ok, mutant.name


def test_a_wrong_rule_has_no_tally():
    with pytest.raises(ValueError, match="itself fails"):
        mutation_score(sine(lambda x, g: (-g * jnp.cos(x),)), normal(3))


def test_equivalent_mutants_are_told_apart():
    """A cotangent that is zero everywhere may be negated or zeroed unseen."""
    flat = rule(lambda x: 0 * x, lambda x: (0 * x, None), lambda _, g: (0 * g,))
    x = normal(4)
    verdicts = {m.name: equivalent(m, flat, x) for m in mutants(flat, x)}
    assert verdicts["x: negated"]
    assert verdicts["x: zeroed"]
    assert not any(equivalent(m, right_sine, x) for m in mutants(right_sine, x))


def test_equivalence_where_random_inputs_leave_the_domain():
    root = rule(jnp.sqrt, lambda x: (jnp.sqrt(x), x), lambda x, g: (g / (2 * jnp.sqrt(x)),))
    x = jnp.array([1.0, 2.0, 3.0], jnp.float32)
    assert not any(equivalent(m, root, x) for m in mutants(root, x))


@pytest.mark.parametrize("f", [jnp.sin, softsign, jax.custom_vjp(jnp.sin)])
def test_only_rules_can_be_mutated(f):
    with pytest.raises(TypeError, match=r"pass a jax.custom_vjp function, after its defvjp"):
        mutants(f, normal(3))


def test_a_weak_test_is_measured():
    """The purpose of mutants: a check at loose tolerance lets some of them pass."""
    from jax.test_util import check_vjp

    x = normal(4)

    def passes(f):
        try:
            check_vjp(f, lambda x: jax.vjp(f, x), (x,), atol=1e-2, rtol=1e-2)
        except AssertionError:
            return False
        return True

    survivors = [m.name for m in mutants(right_sine, x) if passes(m.function)]
    assert survivors == ["x: scaled by 1 + 1.4e-06"]


def test_static_arguments_that_are_left_to_their_defaults():
    @partial(jax.custom_vjp, nondiff_argnums=(1, 2))
    def scaled(x, by=2.0, more=1.0):
        return x * by * more

    scaled.defvjp(lambda x, by, more: (x * by * more, None), lambda by, more, _, g: (g * by * more,))
    assert names(scaled, jnp.ones(3))[1] == "x: negated"
