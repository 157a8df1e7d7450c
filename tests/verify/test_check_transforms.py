"""Faults of a rule under JAX's transformations: planted by giving the transformed program another, wrong rule."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from refgrad.ops import TABLE
from refgrad.verify import case as cases
from refgrad.verify import check
from refgrad.verify.case import FunctionCase
from refgrad.verify.properties import PROPERTIES
from refgrad.verify.properties.accuracy import _off
from refgrad.verify.report import COMPILER, OK, Row
from refgrad.verify.subject import Subject
from tests.lanes import fast_if
from tests.verify.specimens import RIGHT, matmul, matmul_bwd, normal, right_sine, rule, sine

WRONG = rule(
    lambda x, w: x @ w,
    lambda x, w: (x @ w, (x, w)),
    lambda kept, g: (matmul_bwd(kept, g)[0], 1.1 * matmul_bwd(kept, g)[1]),
)


def case_of(f, *args):
    return FunctionCase(Subject.of(f, args), draws=1, seed=0, order=2)


@pytest.mark.parametrize("name", ["parts", "eager", "vmap", "scan", "checkpoint", "shard_map", "second_order"])
def test_a_rule_that_is_wrong_only_when_transformed_turns_red(name):
    case = case_of(matmul, normal(3, 4), normal(4, 2))
    assert not any(row.failed for row in PROPERTIES[name](case))
    case = case_of(matmul, normal(3, 4), normal(4, 2))
    case.rule(case.diff, case.rest, case.cotangent(0))  # the rule alone is the right one
    case.rule_wide  # noqa: B018
    case.flat = case.subject.flat(WRONG)
    failed = [row for row in PROPERTIES[name](case) if row.failed]
    assert {row.argument for row in failed} >= {"w"}
    assert "x" not in {row.argument for row in failed} or name == "second_order"


def test_vmap_reaches_every_position_of_every_argument():
    def mapped(x, g):
        return (g * jnp.cos(x),)

    seen = []

    @jax.custom_batching.custom_vmap
    def spy(x):
        return jnp.sin(x)

    @spy.def_vmap
    def batched(size, axes, x):
        seen.append(jnp.shape(x))
        return jnp.sin(x), axes[0]

    f = rule(spy, lambda x: (spy(x), x), mapped)
    assert check(f, normal(3, 4), properties=["vmap"]).ok
    assert set(seen) == {(2, 3, 4)}  # `vmap` itself brings the axis to the front; three placements asked for it
    assert len(seen) >= 3


def test_what_the_plain_forward_cannot_do_is_not_available():
    f, args = RIGHT["callback"]
    sequential = rule(
        lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        lambda x: (f.fun(x), x),
        f.bwd,
    )
    report = check(sequential, *args, properties=["vmap"])
    assert report.ok
    report = check(rule(f.fun, lambda x: (sequential.fun(x), x), f.bwd), *args, properties=["vmap"])
    assert {row.verdict for row in report.rows} == {"not available"}


def test_fwd_that_calls_the_rule_shuts_forward_mode_out():
    f, args = RIGHT["_fwd calls the rule"]
    report = check(f, *args, properties=["second_order"])
    assert report.ok
    (row,) = report.of("forward over reverse")
    staged = getattr(jax.config, "jax_custom_vjp3", False)  # then the call inside is an equation like any other
    refused = "not available", "_fwd calls the rule: let it call the plain function"
    assert (row.verdict, row.note) == (("ok", "") if staged else refused)
    assert [row.verdict for row in report.of("reverse over reverse")] == ["ok", "ok"]


def test_rule_without_psum_is_refused_by_jax_and_the_remedy_named():
    report = check(matmul, normal(3, 4), normal(4, 2), properties=["shard_map"])
    assert report.ok
    refused = [row for row in report.rows if row.verdict == "not available"]
    assert refused
    assert all("check_vma=True" in row.argument and "psum the cotangent" in row.note for row in refused)


@pytest.mark.parametrize("name", fast_if(lambda name: name == "linear", ["linear", "layer_norm"]))
def test_operations_with_psum_pass_under_check_vma(name):
    x, w, b = normal(2, 3, 4), normal(4, 4), normal(4)
    args = {"linear": (x, w, b), "layer_norm": (x, b, b, 1e-5)}[name]
    report = check(TABLE[name].op, *args, properties=["shard_map"])
    assert {row.verdict for row in report.rows} == {"ok"}, report


def test_sharding_of_a_cotangent():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(normal(8), NamedSharding(mesh, P("d")))
        assert check(right_sine, x, properties=["structure", "accuracy"]).ok

        def gathered(x, g):
            return (jax.sharding.reshard(g * jnp.cos(x), P(None)),)

        report = check(sine(gathered), x, properties=["structure"])
    assert "_bwd returns float32[8] where the primal is float32[8@d]" in report.failures[0].note


def test_a_wrong_compiler_is_blamed_and_not_the_rule():
    """A compiled program that is off where its own steps, one by one, are not: as XLA's fused reductions have been."""
    case = case_of(right_sine, normal(5))
    compiled = case.rule

    class Miscompiled:
        trace = compiled.trace

        def __call__(self, *args):
            outs, grads = compiled(*args)
            return outs, [g.at[0].add(1) for g in grads]

    case.__dict__["rule"] = Miscompiled()
    rows = list(PROPERTIES["accuracy"](case))
    assert not any(row.failed for row in rows)
    (row,) = (row for row in rows if row.property == "accuracy")
    assert row.verdict == COMPILER
    assert "XLA's compiled program is wrong, not the rule" in row.note
    eager = list(PROPERTIES["eager"](case))
    assert [row.verdict for row in eager] == [COMPILER]


@pytest.mark.parametrize(("error", "off"), [(0.0, False), (1e-7, False), (1e-3, True)])
def test_the_compiler_is_blamed_for_rows_beyond_their_allowance_alone(error, off):
    row = Row("accuracy", "x", OK, error=error, allowed=1e-6)
    assert _off(row) is off and not _off(dataclasses.replace(row, property="float64"))


@pytest.mark.slow
def test_a_miscompiled_reduction_is_not_called_ill_conditioned():
    """jax#39103: a matrix-vector product per row, squared and summed, is wrong from row 32,769 on under jit.

    jaxlib 0.10.2 on a CPU; rule and autodiff err alike there. Where a jaxlib compiles it rightly, plain "ok" is due.
    """

    def square(s, i):
        x = jnp.stack((i, 0 * i, 0 * i), axis=1).astype(s.dtype)
        return jax.vmap(lambda row: jnp.sum((jnp.eye(3, dtype=s.dtype) @ row) ** 2))(x)

    right = rule(
        lambda s, i: s * square(s, i), lambda s, i: (s * square(s, i), (s, i)), lambda k, g: (g * square(*k), None)
    )
    args = jnp.ones(32_769, jnp.float32), jnp.arange(32_769, dtype=jnp.int32)
    miscompiled = not np.allclose(jax.jit(square)(*args), square(*args), rtol=1e-4)
    report = check(right, *args, properties=["accuracy"])
    (row,) = report.of("accuracy")
    assert report.ok and row.verdict == (COMPILER if miscompiled else "ok"), report
    wrong = rule(right.fun, right.fwd, lambda k, g: (1.01 * g * square(*k), None))
    assert not check(wrong, *args, properties=["accuracy"]).ok


def test_a_wrong_rule_is_not_excused_by_the_compiler():
    rows = list(PROPERTIES["accuracy"](case_of(sine(lambda x, g: (-g * jnp.cos(x),)), normal(5))))
    assert COMPILER not in {row.verdict for row in rows}
    assert any(row.failed for row in rows)


def test_a_long_rule_is_compiled_in_two_placements_of_an_axis(monkeypatch):
    assert case_of(right_sine, normal(4)).at_most(5) == 5
    monkeypatch.setattr(cases, "LONG", 1)
    (row,) = check(right_sine, normal(2, 3, 4), draws=1, properties=["vmap"]).of("vmap")
    assert row.note.startswith("2 of 4 placements")
