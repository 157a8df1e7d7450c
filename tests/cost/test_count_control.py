"""Loops, branches, calls, custom rules, rematerialisation, dead code, shard_map, kernels."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from refgrad.cost import UnknownCost, count, count_backward
from tests.cost.lax_samples import INDEX, X, spec

N = 35  # elements of X
ONE = spec(dtype=jnp.bool_)


@jax.custom_vjp
def cube(x):
    """x³, with a rule that keeps x²."""
    return x * x * x


cube.defvjp(lambda x: (x * x * x, x * x), lambda xx, ct: (ct * xx * 3.0,))


@jax.custom_jvp
def sine(x):
    """sin, with a rule."""
    return jnp.sin(x)


sine.defjvp(lambda x, t: (jnp.sin(x[0]), t[0] * jnp.cos(x[0])))


def scan(x, length=5):
    return lax.scan(lambda c, _: (jnp.tanh(c * c), None), x, None, length=length)[0]


def unrolled(x, length=5):
    for _ in range(length):
        x = jnp.tanh(x * x)
    return x


EXACT = {
    "jit": (jax.jit(lambda x: jnp.sin(x) * x), (N, N)),
    "nested jit, called twice": (lambda x: jax.jit(jax.jit(jnp.tanh))(jax.jit(jnp.tanh)(x)), (0, 2 * N)),
    "vmap": (jax.vmap(lambda x: jnp.sum(x * x)), (5 * (7 + 6), 0)),
    "custom_jvp": (sine, (0, N)),
    "custom_vjp": (cube, (2 * N, 0)),
    "checkpoint": (jax.checkpoint(lambda x: jnp.sin(x) * x), (N, N)),
    "scan": (scan, (5 * N, 5 * N)),
    "scan of none": (lambda x: scan(x, 0), (0, 0)),
    "nested scan": (lambda x: lax.scan(lambda c, _: (scan(c), None), x, None, length=3)[0], (15 * N, 15 * N)),
    "fori": (lambda x: lax.fori_loop(2, 9, lambda i, x: x * x, x), (7 * N, 0)),
    "cond, same branches": (lambda p, x: lax.cond(p, jnp.sin, jnp.cos, x), (1, N)),
    "dead code": (lambda x: (jnp.sin(x), x * x)[1], (N, 0)),
    "dead code in jit": (lambda x: jax.jit(lambda x: (jnp.sin(x), x * x))(x)[1], (N, 0)),
    "dead carry": (
        lambda x: lax.scan(lambda c, _: ((jnp.sin(c[0]), c[1] * c[1]), None), (x, x), None, length=3)[0][1],
        (3 * N, 0),
    ),
    "carry that lives through the other": (
        lambda x: lax.scan(lambda c, _: ((c[1], jnp.sin(c[0])), None), (x, x), None, length=3)[0][0],
        (0, 3 * N),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(name):
    f, expected = EXACT[name]
    cost = count(f, ONE, X) if name.startswith("cond") else count(f, X)
    assert (cost.flops, cost.transcendental) == expected
    assert cost.bytes > 0 or cost.flops == 0


def test_scan_is_the_loop_forward_and_backward():
    for one, other in ((count(scan, X), count(unrolled, X)), (count_backward(scan, X), count_backward(unrolled, X))):
        assert one.total[:3] == other.total[:3]
        assert one.flops > 0


@pytest.mark.parametrize(
    ("start", "stop", "step", "test", "trips"),
    [
        (0, 10, 1, "lt", 10),
        (0, 10, 3, "lt", 4),
        (0, 10, 1, "le", 11),
        (0, 9, 3, "le", 4),
        (10, 0, -2, "gt", 5),
        (10, 0, -2, "ge", 6),
        (5, 5, 1, "lt", 0),
    ],
)
def test_while_with_literal_bounds_counts_its_trips(start, stop, step, test, trips):
    def f(x):
        body = lambda c: (c[0] + step, c[1] * c[1])  # noqa: E731
        return lax.while_loop(lambda c: getattr(lax, test)(c[0], stop), body, (start, x))[1]

    cost = count(f, X)
    seen = 0
    with jax.disable_jit():
        i = start
        while bool(getattr(lax, test)(i, stop)):
            i, seen = i + step, seen + 1
    assert seen == trips
    assert cost.flops == trips * (1 + N) + (trips + 1)  # counter and product; one comparison more
    assert not cost.notes and not cost.per_trip


NOT_DERIVED = {
    "the bound is an argument": (lambda i, n: i < n, lambda i: i + 1),
    "the step is not a literal": (lambda i, n: i < 9, lambda i: i * 2),
    "it never ends": (lambda i, n: i < 9, lambda i: i - 1),
    "another condition too": (lambda i, n: (i < 9) & (n > i), lambda i: i + 1),
}


@pytest.mark.parametrize("name", NOT_DERIVED)
def test_trips_that_the_program_does_not_tell(name):
    test, step = NOT_DERIVED[name]
    f = lambda n: lax.while_loop(lambda c: test(c[0], c[1]), lambda c: (step(c[0]), c[1]), (1, n))[0]  # noqa: E731
    assert count(f, INDEX).per_trip and count(f, INDEX).notes


def test_a_step_may_stand_on_either_side():
    f = lambda x: lax.while_loop(lambda c: lax.gt(9, c[0]), lambda c: (2 + c[0], c[1] * c[1]), (0, x))[1]  # noqa: E731
    assert count(f, X).flops == 5 * (1 + N) + 6


def test_while_with_unknown_trips_is_reported_per_trip():
    def f(n, x):
        return lax.fori_loop(0, n, lambda i, x: jnp.tanh(x * x), x) + x

    cost = count(f, INDEX, X)
    (where,) = cost.per_trip
    assert cost.per_trip[where].flops == N + 2  # the product, i + 1, i < n
    assert cost.flops == 2 * N + 2 and cost.transcendental == N
    assert where.rsplit(":", 1)[0].endswith("test_count_control.py")
    assert any(where in note and "ONE trip" in note for note in cost.notes)
    assert "ONE trip" in str(cost)
    assert (3 * cost).per_trip[where].flops == 3 * (N + 2)


def test_a_search_for_convergence_is_per_trip():
    assert count(lax.igamma, X, X).per_trip
    assert count(lambda x: lax.while_loop(lambda x: x.sum() > 3.0, lambda x: x * x, x), X).per_trip
    assert not count(lax.lgamma, X).per_trip


def test_cond_counts_its_costliest_branch_and_says_so():
    branches = (jnp.sin, lambda x: x * x * x + x, lambda x: x * 2.0)
    cost = count(lambda i, x: lax.switch(i, branches, x), INDEX, X)
    assert (cost.flops, cost.transcendental) == (3 * N + 1, 0)  # and the index clamped
    (note,) = cost.notes
    assert "branch 1 of 3" in note


def test_backward_of_a_custom_rule_is_the_rule():
    assert count_backward(cube, X).flops == 2 * N
    assert count_backward(lambda x: x * x * x, X).flops == 6 * N  # two products of two cotangents, two sums


def test_backward_is_with_respect_to_every_inexact_leaf():
    def loss(params, tokens):
        return (params["w"] @ params["x"])[tokens].sum() * 2.0

    params = {"w": spec(5, 7), "x": spec(7, 3)}
    assert count_backward(loss, params, spec(4, dtype=jnp.int32)).matmul == 2 * 2 * 5 * 7 * 3
    with pytest.raises(TypeError, match="none of the 1 argument leaves is floating-point"):
        count_backward(lambda i: i * 2, INDEX)


def test_backward_accepts_integer_outputs():
    assert count_backward(lambda x: (jnp.sin(x), jnp.argmax(x)), X).flops == N


def block(x, w):
    with jax.named_scope("block"):
        return jnp.tanh(x @ w) @ w


POLICIES = {
    None: 2 * (2 * 5 * 7 * 7) // 2,  # the first product
    "everything_saveable": 0,
    "dots_saveable": 0,
    "nothing_saveable": 2 * 5 * 7 * 7,
}


@pytest.mark.parametrize("policy", POLICIES)
def test_recomputation_is_shown_apart(policy):
    rule = getattr(jax.checkpoint_policies, policy) if policy else None
    remat = jax.checkpoint(block, policy=rule)
    w = spec(7, 7)
    plain, again = count_backward(block, X, w), count_backward(remat, X, w)
    assert not plain.recomputed.sites
    assert again.recomputed.matmul == POLICIES[policy]
    assert again.matmul - again.recomputed.matmul == plain.matmul
    assert count(remat, X, w).recomputed.flops == 0


def test_backward_of_remat_is_plain_and_what_no_cotangent_reaches():
    """`.recomputed` against another way to see it: what is left when the cotangents are constants."""
    remat, w = jax.checkpoint(lambda x, w: jnp.sum(block(jnp.sin(block(x, w)), w))), spec(7, 7)
    plain = count_backward(lambda x, w: jnp.sum(block(jnp.sin(block(x, w)), w)), X, w)
    cost = count_backward(remat, X, w)
    assert cost.flops - cost.recomputed.flops == plain.flops
    assert cost.transcendental - cost.recomputed.transcendental == plain.transcendental
    assert cost.recomputed.transcendental > 0
    assert set(cost.by_scope) == {"", "block"} and set(plain.by_scope) <= {"", "block"}


def test_scopes_of_forward_and_backward_match():
    def f(x, w):
        with jax.named_scope("attn"):
            y = x @ w
            with jax.named_scope("inner"):
                y = cube(jax.jit(jnp.tanh)(y))
        with jax.named_scope("loop"):
            return lax.scan(lambda c, _: (named(c), None), y, None, length=3)[0]

    def named(c):
        with jax.named_scope("body"):
            return jnp.sin(c)

    forward, backward = count(f, X, spec(7, 7)), count_backward(f, X, spec(7, 7))
    assert set(forward.by_scope) == {"attn", "attn/inner", "loop/body"}
    assert {path for path, part in backward.by_scope.items() if part.flops} == set(forward.by_scope)
    assert backward.by_scope["attn"].matmul == 2 * forward.by_scope["attn"].matmul
    assert forward.within("attn").transcendental == N
    step = count(lambda x, w: jax.grad(lambda x: f(x, w).sum())(x), X, spec(7, 7))
    assert {path for path, part in step.by_scope.items() if part.flops} == set(forward.by_scope)


def test_nested_remat_of_a_scan():
    body = jax.checkpoint(lambda c, w: (jnp.tanh(c @ w), None))
    f = lambda x, w: lax.scan(body, x, w)[0]  # noqa: E731
    plain = lambda x, w: lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, w)[0]  # noqa: E731
    w, product = spec(3, 7, 7), 3 * 2 * 5 * 7 * 7
    cost = count_backward(f, X, w)
    assert cost.recomputed.matmul == product and cost.recomputed.transcendental == 3 * N
    assert cost.flops - cost.recomputed.flops == count_backward(plain, X, w).flops


MESH = AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def on_shards(f, specs, out, **options):
    return jax.shard_map(f, mesh=MESH, in_specs=specs, out_specs=out, **options)


def test_shard_map_counts_all_devices_and_one():
    P = PartitionSpec
    f = on_shards(lambda x, w: lax.psum(x @ w, "model"), (P("data", "model"), P("model", None)), P("data", None))
    cost = count(f, spec(8, 6), spec(6, 5))
    assert cost.matmul == 2 * 8 * 6 * 5
    assert cost.per_device.matmul == 2 * 2 * 3 * 5
    assert cost.elementwise == 8 * (2 * 5)  # the sum over "model", on each of 8 devices
    assert cost.per_device.elementwise == 2 * 5
    partly = on_shards(lambda x: x * x, P("data"), P("data"), axis_names={"data"})
    assert count(jax.jit(partly), spec(8, 6)).flops == 48


def test_shardings_of_explicit_axes_reach_shard_map():
    """JAX 0.11 refuses arguments that are sharded otherwise than the in_specs say."""
    explicit = AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    x = jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=NamedSharding(explicit, PartitionSpec("data", "model")))
    f = jax.shard_map(jnp.sin, mesh=explicit, in_specs=x.sharding.spec, out_specs=x.sharding.spec)
    assert (count(f, x).transcendental, count(f, x).per_device.transcendental) == (8 * 6, 2 * 3)


@pytest.mark.parametrize("name", ("psum", "pmax", "pmean"))
def test_a_collective_over_a_vmapped_axis_is_a_reduction(name, lowered):
    f = jax.vmap(lambda x: getattr(lax, name)(x, "rows"), axis_name="rows")
    assert count(f, X).flops == lowered(f, X)[0] >= (5 - 1) * 7


def test_a_collective_over_both_kinds_of_axis():
    P = PartitionSpec
    f = on_shards(
        jax.vmap(lambda x: lax.psum(x, ("data", "rows")), axis_name="rows", spmd_axis_name=None),
        P(None, "data"),
        P(),
        check_vma=False,
    )
    assert count(f, spec(5, 8)).per_device.flops == 4 * 2 + 2  # five rows to one, then across devices


def kernel(x, y, out):
    @pl.when(pl.program_id(1) == 0)
    def _():
        out[...] = jnp.zeros_like(out)

    out[...] += jnp.sin(x[...]) * y[...]


def test_a_kernel_is_its_body_times_its_grid():
    blocks = pl.BlockSpec((8, 4), lambda i, j: (i, 0))
    call = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((16, 4), jnp.float32),
        grid=(2, 3),
        in_specs=[blocks, blocks],
        out_specs=blocks,
    )
    cost = count(call, spec(16, 4), spec(16, 4))
    assert cost.transcendental == 6 * 32
    assert cost.flops == 6 * (2 * 32 + 2)  # product, sum; the test of program_id and its conversion
    assert cost.bytes == 3 * 16 * 4 * 4  # one fused kernel: operands and results
    assert cost.once.transcendental == 32


def test_unknown_primitives_are_named():
    def f(x):
        return jax.pure_callback(lambda x: x, x, x * x)

    with pytest.raises(UnknownCost, match=r"'pure_callback' at .*test_count_control\.py:\d+.*unknown='count'"):
        count(f, X)
    cost = count(lambda x: f(jnp.sin(x)), X, unknown="count")
    assert set(cost.unknown) == {"pure_callback"}
    assert (cost.flops, cost.transcendental) == (N, N)
    assert cost.unknown["pure_callback"].bytes == 2 * 4 * N
    assert any("pure_callback" in note for note in cost.notes)
    with pytest.raises(ValueError, match="'raise' or 'count', not 'ignore'"):
        count(f, X, unknown="ignore")  # type: ignore[arg-type]


def test_keys_of_another_generator_are_unknown():
    key = jax.eval_shape(lambda: jax.random.key(0, impl="philox4x32"))
    with pytest.raises(UnknownCost, match="'random_bits'"):
        count(lambda k: jax.random.bits(k, (3,)), key)


def test_threefry_in_its_old_order_is_unknown():
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.threefry_partitionable(False), pytest.raises(UnknownCost, match="'random_bits'"):
        count(lambda k: jax.random.bits(k, (3,)), key)


def test_platform_dependent_counts_the_default_backend():
    f = lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=lambda x: x * x * x)  # noqa: E731
    on_cpu = jax.default_backend() == "cpu"
    assert count(f, X).transcendental == (N if on_cpu else 0)
    assert not count(f, X).notes


def test_nothing_is_allocated():
    """10¹² elements: shapes are enough."""
    big = spec(10**6, 10**6)
    assert count(lambda x: x * x, big).flops == 10**12
    assert count_backward(lambda x: x @ x, big).matmul == 4 * 10**18
