"""A stranger's arguments: NumPy arrays, leaked tracers, infinities, functions with nothing to check, other devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from refgrad.verify import blame, check, equivalent, mutants, mutation_score, oracle, widen
from tests.verify.scenes import mesh
from tests.verify.specimens import RIGHT, hinge, normal, right_sine, rule, sine, softsign, wrong_softsign

MOST = {"properties": ["structure", "accuracy", "linearity", "scan"]}


@pytest.mark.parametrize("x", [np.ones(2) * 1.5, np.float64(1.5)], ids=["array", "number"])
def test_numpy_arguments_are_what_jax_makes_of_them(x):
    """float64 by birth, float32 as soon as JAX takes them."""
    report = check(hinge, x, **MOST)
    assert report.ok, report
    assert "x: f32[" in report.subject
    assert blame(hinge, x).ok
    assert set(mutation_score(hinge, x).values()) <= {"caught", "equivalent"}
    assert not equivalent(mutants(hinge, x)[1], hinge, x)
    assert widen(hinge, x)(x).dtype == np.float64


def test_a_numpy_number_keeps_the_value_that_jax_gives_it():
    assert float(widen(lambda x: x, np.float64(0.1)).args[0]) == float(np.float32(0.1))


def _stored(where):
    """A rule whose `_fwd` or `_bwd` uses a tracer that it stored when it was traced before."""
    kept = []

    def stale(x):
        kept.append(x)
        return kept[0]

    fwd = (lambda x: (jnp.sin(stale(x)), x)) if where == "fwd" else (lambda x: (jnp.sin(x), x))
    bwd = (lambda x, g: (stale(g) * jnp.cos(x),)) if where == "bwd" else (lambda x, g: (g * jnp.cos(x),))
    return rule(jnp.sin, fwd, bwd)


@pytest.mark.parametrize("where", ["fwd", "bwd"])
def test_a_stored_tracer_is_one_clear_line(where):
    report = check(_stored(where), normal(4))
    (row,) = report.failures
    assert row.property == "structure" and "a tracer leaks" in row.note and "test_check_input.py" in report.where[0]


def test_shapes_are_told_whole():
    (row,) = check(rule(lambda x: x.sum(0), lambda x: (x.sum(0), None), lambda _, g: (g,)), normal(4, 3)).failures
    assert row.note == "_bwd returns float32[3] where the primal is float32[4,3] (cotangent[0])"


@pytest.mark.parametrize(
    "f",
    [
        lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: c * 2, x),
        lambda x: jax.pure_callback(np.sin, x, x),
    ],
    ids=["unknown trips", "callback"],
)
def test_neither_a_rule_nor_a_reverse_mode(f):
    with pytest.raises(TypeError, match=r"\(x: f32\[3\]\) holds no rule and has no reverse mode of its own"):
        check(f, jnp.ones(3))


def test_infinite_and_missing_numbers():
    """0 · ∞ in a rule is not a fault of linearity; NaN for a zero cotangent at a finite slope is."""
    x = jnp.array([1.0, jnp.inf, jnp.nan], jnp.float32)
    assert check(right_sine, x, **MOST).ok
    wrong = sine(lambda x, g: (jnp.where(g == 0, jnp.nan, g * jnp.cos(x)),))
    assert [row.property for row in check(wrong, x, **MOST).failures] == ["linearity"]


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_mesh_that_the_argument_is_not_on(check_vma):
    f = jax.shard_map(right_sine, mesh=mesh(), in_specs=P("a"), out_specs=P("a"), check_vma=check_vma)
    report = check(f, normal(4), properties=["structure"])
    assert report.ok, report


@pytest.mark.parametrize(("inner", "right"), [(softsign, True), (wrong_softsign, False)])
def test_custom_jvp_beside_custom_vjp_is_checked_exactly(inner, right):
    report = check(lambda x: inner(right_sine(x)), normal(4), properties=["accuracy"])
    assert report.ok == right, report
    assert all(row.allowed < 1e-13 for row in report.of("float64"))


def test_truth_moves_to_the_cpu_where_the_device_has_no_float64(monkeypatch):
    callback, args = RIGHT["callback"]
    assert check(callback, *args, properties=["repeat"]).facts["truth computed on"] == "cpu"
    asked = []
    cpu = jax.devices("cpu")[2]
    monkeypatch.setattr(oracle, "FLOAT64", set())
    monkeypatch.setattr(oracle, "elsewhere", lambda device: asked.append(device) or cpu)
    report = check(callback, *args, properties=["accuracy"])
    assert report.ok and asked
    assert "has no float64" in report.facts["truth computed on"]
    program = oracle.Float64Program(lambda x: jnp.sin(x), normal(4))
    assert program.device == cpu
    bound = jax.shard_map(jnp.sin, mesh=mesh(), in_specs=P("a"), out_specs=P("a"))
    assert oracle.Float64Program(bound, normal(4)).device is None
