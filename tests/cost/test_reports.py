"""Programs of the kinds that people report as miscounted: every FLOP of both passes has a cause."""

import functools

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.extend.core import Primitive
from jax.interpreters import mlir

from refgrad.cost import UnknownCost, count, count_backward, reconcile
from tests.cost.lax_samples import spec

X, EMPTY = spec(4, 5), spec(0, 5)
SCALED = lambda c, r: (c * r, jnp.sin(c + r))  # noqa: E731

NO_ELEMENTS = {
    "associative scan": (lambda x: lax.associative_scan(jnp.multiply, x), X),
    "associative scan of matrices": (lambda x: lax.associative_scan(jnp.matmul, x), spec(3, 2, 2)),
    "sum": (lambda x: x + jnp.sum(x[:0], axis=0), X),
    "maximum": (lambda x: jnp.maximum(x, jnp.max(x[:0], axis=0, initial=2.0)), X),
    "product": (lambda x: x * jnp.prod(x[:, :0], axis=1, keepdims=True), X),
    "all": (lambda x: jnp.where(jnp.all(x[:0] > 0), x, x * 2), X),
    "padded": (lambda x: x + jnp.pad(x[:, :0], ((0, 0), (0, 5))), X),
    "dot": (lambda x: x[:, :0] @ x[:0] + x @ x, spec(5, 5)),
    "joined": (lambda x: 3 * jnp.concatenate([x[:0], x * 2, x[4:]]), X),
    "split": (lambda x: jnp.split(x, [0, 2])[1] * jnp.split(x, [0, 2])[0].sum(), X),
    "indexed": (lambda x: x.at[jnp.zeros(0, int)].add(x[:0]) + x[jnp.zeros(0, int)].sum(), X),
    "argument": (lambda x, e: (jnp.concatenate([x, e]) ** 2).mean() + jax.nn.softmax(e).sum(), X, EMPTY),
    "no trips": (lambda x: lax.scan(SCALED, x[0] * 2, x[:0])[0] * 2, X),
    "results of no trips": (lambda x: x + lax.scan(SCALED, x[0], x[:0])[1].sum(0), X),
}


@pytest.mark.parametrize("name", NO_ELEMENTS)
def test_no_elements(name):
    f, *args = NO_ELEMENTS[name]
    with jax.numpy_rank_promotion("allow"):
        assert reconcile(f, *args).ok and reconcile(f, *args, backward=True).ok


def test_what_is_made_of_no_elements_counts():
    """The program says x + 0, so the count has it; only what has no elements costs nothing."""
    assert count(lambda x: x + jnp.sum(x[:0]), X).flops == 20
    assert count(lambda x, e: e * 2 + e @ jnp.ones((5, 5)), X, EMPTY).flops == 0


S, N = spec(4, 4), 16
PRODUCT = 2 * 4 * N
FLAG, FLAGS = jnp.array(False), jnp.array([True, False, False])


def dear(x, w):
    return jnp.tanh(x @ w) @ w


def cheap(x, w):
    return x * w


def either(flag):
    return lambda x, w: lax.cond(flag(x) if callable(flag) else flag, dear, cheap, x, w)


@functools.partial(jax.jit, static_argnames="which")
def switched(x, w, which):
    return lax.switch(which, [dear, lambda x, w: x + w + 1, cheap], x, w)


@jax.jit
def traced(x, w, flag):
    return lax.cond(flag, dear, cheap, x, w)


def each_trip(step, xs):
    return lambda x, w: lax.scan(lambda c, i: (step(c, w, i), None), x, xs)[0]


def by_turns(x, w):
    step = lambda c, _: ((~c[0], lax.cond(c[0], dear, cheap, c[1], w)), None)  # noqa: E731
    return lax.scan(step, (True, x), None, length=5)[0][1]


KNOWN = {  # name → (function, how often the dear branch runs)
    "a Python bool": (either(False), 0),
    "a NumPy bool": (either(np.bool_(True)), 1),
    "a closed-over array": (either(FLAG), 0),
    "an entry of one": (either(lambda x: FLAGS[0]), 1),
    "made of one": (either(lambda x: FLAGS.all()), 0),
    "a static argument": (lambda x, w: switched(x, w, which=2), 0),
    "an argument of a call": (lambda x, w: traced(x, w, False) + traced(x, w, True), 1),
    "compared": (either(lambda x: jnp.asarray(x.shape[0]) > 10), 0),
    "compared remainder": (either(lambda x: jnp.asarray(7) % x.shape[0] == 3), 1),
    "inside scan": (each_trip(lambda c, w, i: either(FLAG)(c, w), jnp.arange(3)), 0),
    "inside a known branch": (lambda x, w: lax.cond(True, either(False), dear, x, w), 0),
    "beside an unknown one": (lambda x, w: lax.cond(x[0, 0] > 0, jnp.add, jnp.subtract, x, w) + traced(x, w, False), 0),
    "by the trip": (each_trip(lambda c, w, i: lax.cond(i % 3 == 1, dear, cheap, c, w), jnp.arange(7)), 2),
    "by the counter": (lambda x, w: lax.fori_loop(2, 6, lambda i, c: lax.cond(i > 3, dear, cheap, c, w), x), 2),
    "a clamped index": (lambda x, w: lax.switch(7, [dear, dear, cheap], x, w), 0),
    "a maximum's place": (lambda x, w: lax.switch(jnp.argmax(jnp.array([1, 5, 2])), [cheap, dear, cheap], x, w), 1),
    "made again": (jax.checkpoint(lambda x, w: lax.cond(False, dear, cheap, x * 2, w)), 0),
    "backwards": (
        lambda x, w: lax.scan(lambda c, i: (lax.cond(i < 2, dear, cheap, c, w), None), x, jnp.arange(5), reverse=True)[
            0
        ],
        2,
    ),
    "by turns": (by_turns, 3),
    "a triangle of loops": (
        lambda x, w: lax.fori_loop(
            0, 3, lambda i, c: lax.fori_loop(0, 4, lambda j, c: lax.cond(j > i, dear, cheap, c, w), c), x
        ),
        3 + 2 + 1,
    ),
    "two alike in a loop": (
        each_trip(lambda c, w, i: lax.cond(i > 0, dear, cheap, lax.cond(i > 1, dear, cheap, c, w), w), jnp.arange(3)),
        3,
    ),
    "by a flag of the layer": (each_trip(lambda c, w, f: lax.cond(f, dear, cheap, c, w), FLAGS), 1),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_branch_that_runs(name):
    f, times = KNOWN[name]
    cost = count(f, S, S)
    assert (cost.matmul, cost.transcendental) == (2 * PRODUCT * times, N * times)
    assert name.startswith("beside") or not cost.notes
    assert reconcile(f, S, S).ok and reconcile(f, S, S, backward=True).ok


def test_branches_that_hang_on_data_are_still_the_costliest():
    f = each_trip(lambda c, w, i: lax.cond(c[0, 0] > i.astype(c.dtype), dear, cheap, c, w), jnp.arange(3))
    assert count(f, S, S).matmul == 3 * 2 * PRODUCT and "the costliest" in count(f, S, S).notes[0]


def in_a_while(x, w):
    step = lambda c: (c[0] + 1, lax.cond(c[0] % 2 == 0, dear, cheap, c[1], w))  # noqa: E731
    return lax.while_loop(lambda c: c[0] < 6, step, (0, x))[1]


def to_the_diagonal(x, w):
    return lax.fori_loop(0, 4, lambda i, c: lax.fori_loop(0, i + 1, lambda j, c: jnp.tanh(c @ w), c), x)


@pytest.mark.parametrize(("f", "products"), [(in_a_while, 2 * 3), (to_the_diagonal, 1 + 2 + 3 + 4)])
def test_loops_whose_trips_differ(f, products):
    cost = count(f, S, S)
    assert cost.matmul == products * PRODUCT and not cost.notes
    assert reconcile(f, S, S).ok


def blocks(body, grid):
    """A kernel on blocks of 16×16, each with a product of 8,192 FLOPs at the points where `body` computes it."""

    def kernel(q, k, out):
        body(lambda: q[...] @ k[...].T, out)

    block = lambda index: pl.BlockSpec((16, 16), index)  # noqa: E731
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=[block(lambda i, j: (i, 0)), block(lambda i, j: (j, 0))],
        out_specs=block(lambda i, j: (i, j)),
        out_shape=spec(16 * grid[0], 16 * grid[1]),
        interpret=True,
    )


def when(condition):
    def body(product, out):
        @pl.when(condition(pl.program_id(0), pl.program_id(1)))
        def _():
            out[...] = product()

    return body


def keys_until(product, out):
    def add(j, total):
        return total + product()

    out[...] = lax.fori_loop(0, pl.program_id(0) + 1, add, jnp.zeros((16, 16)))


def nested(product, out):
    @pl.when(pl.program_id(0) > 0)
    def _():
        when(lambda i, j: j % 2 == 0)(product, out)


def first_and_last(product, out):
    i, j = pl.program_id(0), pl.program_id(1)
    pl.when(j == 0)(lambda: out.__setitem__(..., jnp.zeros((16, 16))))
    pl.when(16 * j <= 16 * i + 15)(lambda: out.__setitem__(..., out[...] + product()))
    pl.when(j == pl.num_programs(1) - 1)(lambda: out.__setitem__(..., out[...] * 2))


def window_of_keys(product, out):
    i = pl.program_id(0)
    out[...] = lax.fori_loop(jnp.maximum(i - 2, 0), i + 1, lambda _, a: a + product(), jnp.zeros((16, 16)))


def every_other_key(product, out):
    i = pl.program_id(0)
    add = lambda j, a: lax.cond((i + j) % 2 == 0, lambda: a + product(), lambda: a)  # noqa: E731
    out[...] = lax.fori_loop(0, i + 1, add, jnp.zeros((16, 16)))


def by_kind(product, out):
    write = lambda x: out.__setitem__(..., x)  # noqa: E731
    cases = [lambda: write(product()), lambda: None, lambda: write(product() + product())]
    lax.switch(pl.program_id(0) % 3, cases)


def until_twice(product, out):
    step = lambda c: (c[0] + 1, c[1] + product())  # noqa: E731
    start = 0, jnp.zeros((16, 16))
    out[...] = lax.while_loop(lambda c: c[0] < 2 * pl.program_id(0), step, start)[1]


KERNELS = {
    "first and last": (first_and_last, (4, 4), 10),
    "a window of keys": (window_of_keys, (6, 1), 1 + 2 + 4 * 3),
    "every other key": (every_other_key, (4, 1), 1 + 1 + 2 + 2),
    "by kind": (by_kind, (7, 2), 2 * (3 + 2 * 2)),
    "until twice": (until_twice, (5, 1), 2 * (1 + 2 + 3 + 4)),
    "real numbers": (when(lambda i, j: i.astype(jnp.float32) / 3 < 1), (6, 1), 3),
    "causal blocks": (when(lambda i, j: j <= i), (4, 4), 10),
    "a window of blocks": (when(lambda i, j: abs(i - j) <= 1), (5, 5), 13),
    "a loop to the diagonal": (keys_until, (4, 1), 10),
    "the last block": (when(lambda i, j: j == pl.num_programs(1) - 1), (3, 4), 3),
    "branches in branches": (nested, (3, 5), 2 * 3),
    "many points": (when(lambda i, j: j <= i), (256, 256), 256 * 257 // 2),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_that_ask_where_they_are(name):
    body, grid, times = KERNELS[name]
    f, args = blocks(body, grid), (spec(16 * grid[0], 16), spec(16 * grid[1], 16))
    cost = count(f, *args)
    assert cost.matmul == 2 * 16**3 * times and not cost.notes
    if name in ("causal blocks", "a loop to the diagonal"):
        assert cost.matmul == 81_920
        assert reconcile(f, *args).ok


def test_a_kernel_of_a_batch():
    f, args = blocks(first_and_last, (4, 4)), (spec(3, 64, 16), spec(3, 64, 16))
    assert count(jax.vmap(f), *args).matmul == 3 * 81_920


def test_too_many_kinds_of_points_are_said():
    cost = count(blocks(keys_until, (2000, 1)), spec(32_000, 16), spec(16, 16))
    assert any("2,000 kinds of runs are too many to tell apart (at most 1,024)" in note for note in cost.notes)


FAR = {
    "fft": (lambda x: jnp.fft.fft2(x), spec(64, 32, dtype="complex64"), "XLA counts 491,520 for work of about 112,640"),
    "sort": (lambda x: jnp.sort(x), spec(1024, 16), "XLA counts 229,376 for work of about 65,536"),
    "top_k": (lambda x: lax.top_k(x, 4)[0], spec(8, 100), "XLA counts 0 for work of about 1,600"),
    "cumsum": (lambda x: lax.cumsum(x, 1), spec(3, 50), "XLA counts 7,350 for work of about 147"),
}


@pytest.mark.parametrize("name", FAR)
def test_figures_far_from_the_work_are_said(name):
    f, x, says = FAR[name]
    (note,) = count(f, x).notes
    assert says in note and note.startswith(f"{name} at {__file__}:")
    assert reconcile(f, x).ok


def test_a_figure_near_the_work_needs_no_note():
    assert not count(jnp.sort, spec(1000)).notes


def test_a_primitive_of_another_library_is_what_its_author_wrote():
    primitive = Primitive("square_and_add")
    implement = lambda x, y, *, times: (x * x + y) * times  # noqa: E731
    primitive.def_impl(implement)
    primitive.def_abstract_eval(lambda x, y, **_: x)
    mlir.register_lowering(primitive, mlir.lower_fun(implement, multiple_results=False))
    f = lambda x: primitive.bind(x, jnp.sin(x), times=3.0)  # noqa: E731
    cost = count(f, S)
    assert (cost.flops, cost.transcendental) == (3 * N, N) and not cost.unknown
    assert reconcile(f, S).ok
    blind = Primitive("by_value")
    blind.def_impl(lambda x: np.asarray(x))
    blind.def_abstract_eval(lambda x: x)
    with pytest.raises(UnknownCost, match="by_value"):
        count(blind.bind, S)


LIBRARY = {
    "identities": lambda x: eqxi.nonbatchable(eqxi.nontraceable(x)) * 2,
    "any of a batch": lambda x: jnp.where(eqxi.unvmap_any(x > 0), x, x * 2),
    "loop with checkpoints": lambda x: eqxi.scan(
        lambda c, _: (jnp.sin(c @ c), None), x, None, length=3, kind="checkpointed", checkpoints="all"
    )[0],
}


@pytest.mark.parametrize("name", LIBRARY)
def test_equinox(name):
    f = LIBRARY[name]
    assert count(f, S).flops > 0 and not count(f, S).unknown
    assert reconcile(f, S).ok
    assert name != "loop with checkpoints" or count_backward(f, S).matmul > 0


def attention_call(name, layout, outs):
    """The equation that JAX's cuDNN attention leaves in a jaxpr, without the library that tracing it asks for."""
    call = Primitive(name)
    call.multiple_results = True
    call.def_abstract_eval(lambda *avals, layout: outs(*avals))
    return lambda *args: call.bind(*args, layout=layout)


@pytest.mark.parametrize("layout", (0, 1))
def test_cudnn_attention_counts_as_its_products(layout):
    swap = (lambda b, t, n, h: (b, n, t, h)) if layout else (lambda *shape: shape)
    q, kv = spec(*swap(2, 64, 4, 32), dtype=jnp.bfloat16), spec(*swap(2, 128, 2, 32), dtype=jnp.bfloat16)
    product = 2 * 2 * 4 * 64 * 128 * 32
    forward = attention_call("dot_product_attention_fwd_wrapper", layout, lambda q, k, v: [q])
    backward = attention_call("dot_product_attention_bwd_wrapper", layout, lambda q, k, v, g: [q, k, v])
    assert count(forward, q, kv, kv).matmul == 2 * product
    cost = count(backward, q, kv, kv, q)
    assert cost.matmul == 5 * product and "its 5 products" in cost.notes[0]


@jax.custom_vjp
def squared(x):
    return x * x


squared.defvjp(lambda x: (x * x, x), lambda x, g: (2 * g * x,))


@pytest.mark.parametrize("f", (squared, jax.jit(squared), jax.vmap(squared)))
def test_a_rule_that_is_applied_as_it_is_has_a_line_of_its_own(f):
    backward = count_backward(f, S)
    assert backward.flops == 2 * N and {site.source.rpartition(":")[0] for site in backward.sites} == {__file__}


@pytest.mark.parametrize(
    ("left", "right"), [("float8_e4m3fn", "int4"), ("float8_e5m2", "float8_e4m3fn"), ("uint4", "int2")]
)
def test_small_types(left, right):
    """Bytes as they are packed, conversions as operations."""
    f = lambda x, w: x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)  # noqa: E731
    cost = count(f, spec(8, 64, dtype=left), spec(64, 32, dtype=right))
    assert cost.matmul == 2 * 8 * 64 * 32
    assert reconcile(f, spec(8, 64, dtype=left), spec(64, 32, dtype=right)).ok
