"""XLA's own answer, and every trap in it named."""

import importlib

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from refgrad.cost import xla, xla_backward
from refgrad.cost.xla import read_answer

X = jax.ShapeDtypeStruct((6, 10), jnp.float32)
M = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def scanned(a):
    return lax.scan(lambda c, t: (jnp.tanh(c + t), c * t), a[0], a)


def names(cost):
    return {trap.name for trap in cost.traps}


def detail(cost, name):
    return " | ".join(trap.detail for trap in cost.traps if trap.name == name)


@pytest.mark.parametrize("stage", ["lowered", "compiled"])
def test_figures(stage):
    cost = xla(lambda a: jnp.tanh(a) * 2.0, X, stage=stage)
    assert (cost.flops, cost.transcendentals) == (60, 60)
    assert cost.bytes is not None and cost.bytes > 0
    assert not cost.traps
    assert "flops" in str(cost) and cost.stage == stage


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_lowers_for_platforms_that_are_not_here(platform):
    cost = xla(jax.grad(lambda a: jnp.tanh(a @ a).sum()), M, platform=platform)
    assert cost.platform == platform
    assert cost.flops == xla(jax.grad(lambda a: jnp.tanh(a @ a).sum()), M).flops


def test_absent_keys_are_zero_and_named():
    cost = xla(lambda a: a + 1.0, X)
    assert cost.transcendentals == 0 and "'transcendentals'" in detail(cost, "absent key")
    nothing = xla(lambda a: a, X)
    assert (nothing.flops, nothing.transcendentals) == (0, 0)


def test_a_loop_is_counted_once_and_said_so():
    cost = xla(scanned, X)
    assert cost.flops == 22
    assert "6 trips" in detail(cost, "loop counted once") and "133 flops, 60 trans" in detail(cost, "loop counted once")
    unknown = xla(lambda a: lax.while_loop(lambda z: z.sum() < 9.0, lambda z: z * 2.0, a), X)
    assert "unknown trips" in detail(unknown, "loop counted once")
    assert "with their trips" not in detail(unknown, "loop counted once")


def test_a_custom_call_is_minus_one_and_said_so():
    cost = xla(lambda a: jax.pure_callback(lambda z: z, X, a), X)
    assert cost.flops == -1
    assert {"custom call −1", "negative"} <= names(cost)
    assert "potrf" in detail(xla(jnp.linalg.cholesky, M), "custom call −1")


def test_float32_sums_are_named_with_their_error():
    cost = xla(lambda a: a + 1.0, jax.ShapeDtypeStruct((4097, 4097), jnp.float32))
    assert cost.flops == 4097 * 4097 - 1
    assert cost.hlo.flops == 4097 * 4097
    assert "-1 by rounding" in detail(cost, "float32 sum")


def test_branches_are_named():
    cost = xla(lambda a, p: lax.cond(p, jnp.exp, lambda z: z * z + z, a), X, jax.ShapeDtypeStruct((), jnp.bool_))
    assert "/cond" in detail(cost, "costliest branch")


def test_per_device():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("d")))
    whole, part = xla(jnp.sin, x), xla(jnp.sin, x, stage="compiled")
    assert (whole.transcendentals, part.transcendentals) == (128, 32)
    assert "4 partitions" in detail(part, "per device") and "per device" not in names(whole)
    mapped = jax.shard_map(jnp.sin, mesh=mesh, in_specs=P("d"), out_specs=P("d"))
    assert xla(mapped, x).transcendentals == 32
    assert "one device" in detail(xla(mapped, x), "per device")


@pytest.mark.parametrize(
    ("answer", "flops", "trap"),
    [
        ({"flops": 3.0, "transcendentals": 1.0, "bytes accessed": 8.0}, 3, None),
        ([{"flops": 3.0, "transcendentals": 1.0, "bytes accessed": 8.0}], 3, "list answer"),
        ([], None, "no answer"),
        (None, None, "no answer"),
        ({}, 0, "absent key"),
        ({"flops": -2.0, "transcendentals": 1.0, "bytes accessed": 8.0}, -2, "negative"),
    ],
)
def test_every_kind_of_answer(answer, flops, trap):
    figures, traps = read_answer(answer)
    assert figures["flops"] == flops
    assert [t.name for t in traps][-1:] == ([trap] if trap else [])


def test_an_answer_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="str"):
        read_answer("flops: 3")


def test_a_backend_that_does_not_count(monkeypatch):
    """Planted: the backend raises; the figures are None, and the walk's remain."""

    def refuse(self):
        raise NotImplementedError("not here")

    lowered = jax.jit(jnp.tanh).lower(X)
    monkeypatch.setattr(type(lowered), "cost_analysis", refuse)
    cost = xla(jnp.tanh, X)
    assert cost.flops is None and "no answer" in names(cost)
    assert cost.hlo.transcendentals == 60 and "no answer" in str(cost)


def test_a_disagreement_with_xla_is_a_trap(monkeypatch):
    """Planted: XLA says one FLOP more than its text holds."""
    kind = type(jax.jit(jnp.tanh).lower(X))
    true = kind.cost_analysis
    monkeypatch.setattr(kind, "cost_analysis", lambda self: {**true(self), "flops": 1.0})
    assert "XLA says 1" in detail(xla(jnp.tanh, X), "walker disagrees")


def test_backward_alone():
    w = jax.ShapeDtypeStruct((10, 4), jnp.float32)
    forward = xla(lambda a, w: a @ w, X, w)
    both = xla_backward(lambda a, w: a @ w, X, w)
    assert forward.flops == 2 * 6 * 10 * 4 and both.flops == 2 * forward.flops
    with_integers = xla_backward(lambda a, i: a[i], X, jax.ShapeDtypeStruct((3,), jnp.int32))
    assert with_integers.flops is not None and with_integers.flops > 0
    with pytest.raises(TypeError, match="no gradient"):
        xla_backward(lambda i: i + 1, jax.ShapeDtypeStruct((3,), jnp.int32))


def test_a_topology_is_counted_from_its_compiled_text(monkeypatch):
    def compiled_here(f, args, _topology, _kwargs):
        return jax.jit(f).lower(*args).compile()

    monkeypatch.setattr(importlib.import_module("refgrad.cost.xla"), "compiled_for", compiled_here)
    w = jax.ShapeDtypeStruct((10, 4), jnp.float32)
    ahead = xla(jnp.matmul, X, w, stage="compiled", topology="v5e:2x2")
    here = xla(jnp.matmul, X, w, stage="compiled")
    assert ahead.hlo.flops == here.hlo.flops > 0


def test_abstract_arguments_allocate_nothing():
    huge = jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32)
    assert xla(lambda a: a @ a, huge).hlo.flops == 2 * 2**48


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"stage": "fused"}, "'fused'"),
        ({"platform": "abacus"}, "'abacus'.*cpu, cuda"),
        ({"platform": "tpu", "stage": "compiled"}, "use stage='lowered'"),
    ],
)
def test_bad_input(how, says):
    with pytest.raises(ValueError, match=says):
        xla(jnp.tanh, X, **how)
