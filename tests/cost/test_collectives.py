"""Collectives read off compiled modules: kinds, groups in each of XLA's forms, loops, and programs priced by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from refgrad.cost import collectives as c

MESH = {"a": 2, "b": 2}
MODULE = """HloModule t, num_partitions=4

sum {{
  x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT z = f32[] add(x, y)
}}
body {{
  t = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  v = f32[8] get-tuple-element(t), index=1
  one = s32[] constant(1)
  j = s32[] add(i, one)
  w = f32[8] all-reduce(v), replica_groups={{{{0,1}},{{2,3}}}}, to_apply=sum
  ROOT u = (s32[], f32[8]) tuple(j, w)
}}
cond {{
  t = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  n = s32[] {limit}
  ROOT lt = pred[] compare(i, n), direction=LT
}}
ENTRY main {{
  p = f32[8] parameter(0)
  q = bf16[3,5] parameter(1)
  {entry}
}}
"""
LOOP = """zero = s32[] constant(0)
  start = (s32[], f32[8]) tuple(zero, p)
  ROOT loop = (s32[], f32[8]) while(start), condition=cond, body=body"""


def read(entry, mesh=MESH, limit="constant(7)"):
    return c.collectives(MODULE.format(entry=entry, limit=limit), mesh)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("f32[8] all-reduce(p), replica_groups={{0,1},{2,3}}, to_apply=sum", ("all-reduce", ("b",), 2, 32)),
        ("f32[8] all-reduce(p), replica_groups={}, to_apply=sum", ("all-reduce", ("a", "b"), 4, 32)),
        (
            "(f32[8], bf16[3,5]) all-reduce(p, q), replica_groups={{0,2},{1,3}}, to_apply=sum",
            ("all-reduce", ("a",), 2, 62),
        ),
        ("f32[16] all-gather(p), replica_groups=[2,2]<=[4], dimensions={0}", ("all-gather", ("b",), 2, 64)),
        ("f32[16] all-gather(p), replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}", ("all-gather", ("a",), 2, 64)),
        (
            "(f32[8], f32[32]) all-gather-start(p), replica_groups=[1,4]<=[4], dimensions={0}",
            ("all-gather", ("a", "b"), 4, 128),
        ),
        (
            "f32[4] reduce-scatter(p), replica_groups=mesh['x'=2,'y'=2] {'y'}, dimensions={0}, to_apply=sum",
            ("reduce-scatter", ("b",), 2, 32),
        ),
        (
            "f32[4] reduce-scatter(p), replica_groups=mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}, to_apply=sum",
            ("reduce-scatter", ("a",), 2, 32),
        ),
        ("f32[8] all-to-all(p), replica_groups={{0,1},{2,3}}, dimensions={0}", ("all-to-all", ("b",), 2, 32)),
        (
            "f32[8] collective-permute(p), source_target_pairs={{0,2},{2,0},{1,3},{3,1}}",
            ("collective-permute", ("a",), 2, 32),
        ),
    ],
)
def test_kinds_and_groups(instruction, expected):
    (found,) = read(f"ROOT r = {instruction}")
    assert found[:4] == expected and found.times == 1


def test_a_group_of_one_moves_nothing():
    assert read("ROOT r = f32[8] all-reduce(p), replica_groups={{0},{1},{2},{3}}, to_apply=sum") == []


SLICED = """a = (f32[8], f32[4]) all-reduce(p, s), replica_groups={{0,1},{2,3}}, to_apply=sum
  x = f32[8] get-tuple-element(a), index=0
  y = f32[4] get-tuple-element(a), index=1
  i = s32[] partition-id()
  u = f32[4] dynamic-slice(x, i), dynamic_slice_sizes={4}
  v = f32[SHARE] dynamic-slice(y, i), dynamic_slice_sizes={SHARE}
  ROOT r = (f32[4], f32[SHARE]) tuple(u, v)"""


@pytest.mark.parametrize(("share", "kind"), [(2, "reduce-scatter"), (3, "")])
def test_an_all_reduce_of_which_each_device_keeps_its_part(share, kind):
    (found,) = read("s = f32[4] parameter(2)\n" + SLICED.replace("SHARE", str(share)))
    assert (found.kind, found.payload, found.stands_for) == ("all-reduce", 48, kind)
    assert c.totals([found]) == {(kind or "all-reduce", ("b",)): 48}


def test_a_loop_counts_with_its_trips():
    found = read(LOOP)
    assert [one.times for one in found] == [7]
    assert c.totals(found) == {("all-reduce", ("b",)): 7 * 32}


@pytest.mark.parametrize(
    ("entry", "limit", "message"),
    [
        (LOOP, 'custom-call(), custom_call_target="n"', "runs in a loop of unknown trips"),
        ("ROOT r = f32[8] all-reduce(p), replica_groups={{0,1,2},{3}}, to_apply=sum", "constant(7)", "along no axes"),
        ("ROOT r = f32[8] all-reduce(p), to_apply=sum", "constant(7)", "no groups of devices"),
        ("ROOT r = f32[8] all-reduce(p), replica_groups=mesh['x'=4] {'x':(1)2}", "constant(7)", "a part of an axis"),
        ("ROOT r = f32[8] collective-broadcast(p), replica_groups={{0,1}}", "constant(7)", "does not know"),
    ],
)
def test_what_cannot_be_read_is_named(entry, limit, message):
    with pytest.raises(ValueError, match=message):
        read(entry, limit=limit)


@pytest.mark.parametrize(
    ("kind", "devices", "factor"),
    [("all-reduce", 4, 1.5), ("all-gather", 4, 0.75), ("reduce-scatter", 2, 0.5), ("collective-permute", 2, 1)],
)
def test_what_a_device_sends_around_a_ring(kind, devices, factor):
    assert c.sent(kind, devices, 1000) == 1000 * factor


def test_a_program_by_hand():
    """Each kind once or in a loop, over either axis or both, as XLA compiles it here."""
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def local(x):  # (4, 8) on each device
        x, _ = lax.scan(lambda x, _: (lax.pcast(lax.psum(jnp.sin(x), "b"), "b", to="varying"), None), x, None, 3)
        y = lax.all_gather(x, "a", axis=0, tiled=True) * 2  # (8, 8)
        y = lax.psum_scatter(jnp.cos(y), ("a", "b"), scatter_dimension=0, tiled=True)  # (2, 8)
        y = lax.all_to_all(y, "b", 1, 0, tiled=True)  # (4, 4)
        return lax.ppermute(jnp.tanh(y), "a", [(0, 1), (1, 0)])

    f = jax.jit(partial(jax.shard_map, mesh=mesh, in_specs=P("a", "b"), out_specs=P("a", "b"))(local))
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("a", "b")))
    assert c.totals(c.collectives(f.lower(x).compile().as_text(), mesh.shape)) == {
        ("all-reduce", ("b",)): 3 * 4 * 32,
        ("all-gather", ("a",)): 4 * 64,
        ("reduce-scatter", ("a", "b")): 4 * 64,
        ("all-to-all", ("b",)): 4 * 16,
        ("collective-permute", ("a",)): 4 * 16,
    }
