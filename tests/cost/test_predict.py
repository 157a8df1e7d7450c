"""`cost.predict`: FLOPs are the count's, bytes follow the fusion model, time and memory follow from both."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from refgrad import cost
from refgrad.cost.collectives import Collective
from refgrad.cost.predict import DEVICES, Efficiency, fusion
from refgrad.cost.predict.devices import Allocation
from refgrad.cost.predict.fusion import XLA_CPU
from refgrad.cost.predict.links import Links
from refgrad.cost.predict.regions import regions
from refgrad.cost.predict.steps import schedule_of

H100 = DEVICES["H100"]


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def norm(x, w, b):
    m = x.mean(-1, keepdims=True)
    v = ((x - m) ** 2).mean(-1, keepdims=True)
    return (x - m) * lax.rsqrt(v + 1e-5) * w + b


def mlp(x, w, b, v, c):
    return jax.nn.gelu(x @ w + b) @ v + c


def adam(p, m, v, g):
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    return p - 1e-3 * m / (jnp.sqrt(v) + 1e-8), m, v


def backward(f):
    return lambda cotangent, *args: jax.vjp(f, *args)[1](cotangent)


MLP = (f32(32, 16), f32(16, 64), f32(1, 64), f32(64, 16), f32(1, 16))
PROGRAMS = {
    "layer norm": (norm, (f32(512, 768), f32(1, 768), f32(1, 768))),
    "layer norm, backward": (backward(norm), (f32(512, 768), f32(512, 768), f32(1, 768), f32(1, 768))),
    "GELU, backward": (backward(jax.nn.gelu), (f32(64, 64), f32(64, 64))),
    "softmax": (jax.nn.softmax, (f32(64, 512, 512),)),
    "softmax of few rows": (jax.nn.softmax, (f32(512, 512),)),
    "attention": (partial(jax.nn.dot_product_attention, is_causal=True), (f32(8, 256, 2, 16),) * 3),
    "MLP, backward": (backward(mlp), (f32(32, 16), *MLP)),
    "Adam": (adam, (f32(4096),) * 4),
}


def scanned(x, w):
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), x.sum()), x, w)


def branched(x, w):
    return lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: x + 1, x)


CONTROL = {
    "scan": (scanned, (f32(8, 8), f32(5, 8, 8))),
    "cond": (branched, (f32(8, 8), f32(8, 8))),
    "checkpoint": (jax.grad(jax.checkpoint(lambda x, w: jnp.tanh(x @ w).sum())), (f32(8, 8), f32(8, 8))),
    **PROGRAMS,
}


@pytest.mark.parametrize("name", CONTROL)
def test_flops_are_those_of_the_count(name):
    f, args = CONTROL[name]
    found, counted = cost.predict(f, *args, device="H100"), cost.count(f, *args)
    assert found.matmul_flops == counted.matmul
    if name not in ("cond", *PROGRAMS):  # elsewhere, equal equations are computed once, or again in each region
        assert sum(part.elementwise for part in found.parts) == counted.elementwise


MEASURED = H100._replace(
    fusion=XLA_CPU, launch=0.0, turned=(1e9, 1e8), allocation=Allocation(call=1.0, block=2**20, first_touch=2.0**20)
)


def test_a_softmax_is_computed_in_its_results_place():
    compiled = jax.jit(jax.nn.softmax).lower(f32(512, 512)).compile().memory_analysis()
    found = cost.predict(jax.nn.softmax, f32(512, 512), device=MEASURED).memory
    assert found.temporaries <= compiled.temp_size_in_bytes + 2 * 4 * 512


def test_a_host_pays_for_the_call_and_for_large_new_blocks():
    small, large = (cost.predict(jnp.tanh, f32(n), device=MEASURED).seconds for n in (2**16, 2**19))
    assert small == pytest.approx(1.0, abs=1e-3)
    assert large == pytest.approx(1.0 + 2.0, abs=1e-2)


@pytest.mark.parametrize(("width", "rate"), [(768, 1e9), (1024, 1e8)])
def test_columns_that_become_rows_are_read_one_element_at_a_time(width, rate):
    plain = cost.predict(lambda x: x + 1.0, f32(64, width), device=MEASURED)
    turned = cost.predict(lambda x: x.T + 1.0, f32(64, width), device=MEASURED)
    assert plain.seconds == pytest.approx(1.0, abs=1e-5)
    assert turned.seconds == pytest.approx(1.0 + 64 * width / rate, rel=1e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_bytes_are_those_that_xla_compiles_to(name):
    f, args = PROGRAMS[name]
    program, _ = schedule_of(jax.make_jaxpr(f)(*args))
    moved = sum(region.read + region.written for region in regions(program, XLA_CPU))
    compiled = jax.jit(f).lower(*args).compile().cost_analysis()["bytes accessed"]
    assert moved == pytest.approx(compiled, rel=0.1)


def test_a_region_takes_the_larger_time():
    product = cost.predict(jnp.matmul, f32(4096, 4096), f32(4096, 4096), device="H100")
    (part,) = product.parts
    assert part.bound == "matmul"
    assert part.seconds == pytest.approx(2 * 4096**3 / (494.7e12 * H100.sustained * H100.efficiency.matmul), rel=0.01)
    (part,) = cost.predict(jnp.add, f32(1 << 24), f32(1 << 24), device="H100").parts
    assert part.bound == "memory"
    assert part.seconds == pytest.approx(3 * 4 * 2**24 / (3.35e12 * H100.efficiency.memory), rel=0.05)


def test_efficiencies_scale_what_they_are_for():
    halved = H100._replace(efficiency=Efficiency(H100.efficiency.matmul / 2, H100.efficiency.memory), launch=0.0)
    before = cost.predict(jnp.matmul, f32(4096, 4096), f32(4096, 4096), device=H100._replace(launch=0.0))
    after = cost.predict(jnp.matmul, f32(4096, 4096), f32(4096, 4096), device=halved)
    assert after.seconds == pytest.approx(2 * before.seconds)


def test_one_kernel_reads_and_writes_what_crosses_its_scope():
    def f(x):
        with jax.named_scope("attention"):
            return jax.nn.softmax(x @ x.T) @ x

    whole = cost.predict(f, f32(64, 8), device="H100", kernels=("attention",))
    assert whole.bytes == 2 * 64 * 8 * 4
    assert whole.bytes < cost.predict(f, f32(64, 8), device="H100").bytes
    assert whole.matmul_flops == cost.count(f, f32(64, 8)).matmul


def test_donated_arguments_and_temporaries_make_the_peak():
    def f(p, g):
        return p - jnp.tanh(g @ g)

    plain = cost.predict(f, f32(256, 256), f32(256, 256), device="H100").memory
    assert (plain.arguments, plain.outputs, plain.aliased) == (2 * 2**18, 2**18, 0)
    given = cost.predict(f, f32(256, 256), f32(256, 256), device="H100", donate_argnums=(0,)).memory
    own = cost.predict(jax.jit(f, donate_argnums=0), f32(256, 256), f32(256, 256), device="H100").memory
    assert given == own
    assert given.peak == plain.peak - 2**18


def test_collectives_of_a_shard_map_are_read_off_it():
    mesh = AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,))

    @jax.shard_map(mesh=mesh, in_specs=P("data"), out_specs=P())
    def f(x):
        return lax.psum(x.sum(0), "data")

    found = cost.predict(f, f32(8, 1024), device="H100")
    (exchange,) = (part for part in found.parts if part.kind == "collective")
    assert exchange.bytes == 2 * 3 * 4 * 1024 // 4
    assert found.link_seconds == pytest.approx(exchange.bytes / H100.link)
    assert found.arguments["argument 0"] == 8 * 1024 * 4 // 4
    assert found.mesh == {"data": 4}


def test_what_overlaps_is_hidden():
    reduce = [Collective("all-reduce", ("data",), 8, 10**9, 1, "gradients")]
    args = jnp.matmul, f32(8192, 8192), f32(8192, 8192)
    ways = [
        cost.predict(*args, device="H100", mesh={"data": 8}, collectives=reduce, overlap=share)
        for share in (0.0, 1.0, {"data": 0.5})
    ]
    assert ways[0].seconds == pytest.approx(ways[0].compute_seconds + ways[0].link_seconds)
    assert ways[1].seconds == pytest.approx(max(ways[1].compute_seconds, ways[1].link_seconds))
    assert ways[2].seconds == pytest.approx(ways[0].seconds - ways[0].link_seconds / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "H1000"}, "device 'H1000' is not in the table"),
        ({"device": "H100", "mesh": {"data": 0}}, "mesh axis data is 0"),
        ({"device": "H100", "mesh": {"data": 8}}, "f exchanges nothing between devices"),
        ({"device": "H100", "overlap": 1.5}, "overlap is 1.5"),
        ({"device": "H100", "overlap": "all"}, "overlap is 'all'"),
        ({"device": "H100", "mesh": {"data": True}}, "mesh axis data is True"),
        ({"device": "H100", "mesh": [8]}, r"mesh=\[8\] is not a mapping"),
        ({"device": "H100", "kernels": "attention"}, "kernels='attention' is one name"),
        ({"device": "H100", "collectives": ["all-reduce"]}, "collectives holds 'all-reduce'"),
        ({"device": "H100", "donate_argnums": 2}, "donate_argnums holds 2, but f is given 2 arguments"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        cost.predict(jnp.add, f32(4), f32(4), **options)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_said():
    found = cost.predict(jnp.add, f32(1 << 33), f32(1 << 33), device="H100")
    assert not found.fits and "does NOT fit" in str(found)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_a_topology_names_the_extra():
    with pytest.raises(ImportError, match=r"needs libtpu: pip install -e .*\[tpu\]"):
        cost.xla(jnp.add, f32(4), f32(4), stage="compiled", topology="v5e:2x2")


@pytest.mark.slow
def test_xla_tpu_compiles_ahead_of_time():
    pytest.importorskip("libtpu")
    found = cost.xla(jnp.matmul, f32(8, 16), f32(16, 4), stage="compiled", topology="v5e:2x2")
    assert (found.flops, found.platform) == (2 * 8 * 16 * 4, "tpu")
    with pytest.raises(ValueError, match="topology 'v5e:3x5x7'"):
        cost.xla(jnp.matmul, f32(8, 16), f32(16, 4), stage="compiled", topology="v5e:3x5x7")


@pytest.mark.parametrize(
    ("left", "right", "dimensions", "turned", "copied"),
    [
        (f32(3, 5), f32(3, 7), (((0,), (0,)), ((), ())), False, {}),
        (f32(2, 3, 5), f32(2, 3, 7), (((0, 1), (0, 1)), ((), ())), False, {0: True}),
        (f32(2, 3, 5), f32(2, 3, 7), (((0, 1), (0, 1)), ((), ())), True, {1: True}),
        (f32(5, 2, 3), f32(7, 2, 3), (((1, 2), (1, 2)), ((), ())), False, {1: True}),
        (f32(2, 3, 5), f32(2, 3, 7), (((1,), (1,)), ((0,), (0,))), False, {}),
        (f32(3, 2, 5), f32(2, 7, 3), (((0,), (2,)), ((1,), (0,))), False, {0: True}),
    ],
)
def test_operands_of_a_product_that_are_copied(left, right, dimensions, turned, copied):
    program, _ = schedule_of(jax.make_jaxpr(partial(jax.lax.dot_general, dimension_numbers=dimensions))(left, right))
    assert fusion.copied(program.steps[-1], turned) == copied


def test_a_transpose_is_an_array_of_its_own_unless_strides_turn_it():
    program, _ = schedule_of(jax.make_jaxpr(lambda x: jnp.sin(x.T))(f32(3, 4)))
    assert len(Links(program, XLA_CPU).steps) == 2
    assert len(Links(program, XLA_CPU._replace(strided=True)).steps) == 1


def test_a_measured_rate_is_linear_between_its_points():
    device = H100._replace(streams=((10.0, 1.0), (20.0, 3.0), (40.0, 2.0)))
    assert [device.stream(moved) for moved in (5, 10, 15, 20, 30, 50)] == [1, 1, 2, 3, 2.5, 2]
