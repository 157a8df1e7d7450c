"""Entries judged on what they depend on: as on the whole program, at the cost of a few entries."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.models import gpt2
from refgrad.ops import TABLE
from refgrad.verify.exact import EntryVerdict, Limits, OverBudget, exact
from refgrad.verify.exact.graph import graph
from tests.ops.cases import DIMS
from tests.verify.exact.test_points import ENDS, KINKS, OTHER, SMOOTH, floats
from tests.verify.exact.test_programs import PROGRAMS, X, model
from tests.verify.exact.test_second_order import attention, layer_norm

POINTS = {**SMOOTH, **KINKS, **ENDS, **OTHER}


def agree(f, *args, cotangents=None, where=None):
    """Judge entries on slices and on the whole program, which other entries can keep from being decided."""
    truth, whole = exact(f, *args), exact(f, *args)
    whole._sliced = [None]
    pairs = list(zip(truth.entries(cotangents, where), whole.entries(cotangents, where), strict=True))
    assert pairs and truth._sliced[0] is not None
    for got, expected in pairs:
        assert (got.leaf, got.index, got.imaginary) == (expected.leaf, expected.index, expected.imaginary)
        if expected.verdict is EntryVerdict.UNDECIDED and got.verdict is EntryVerdict.SMOOTH:
            continue
        assert got.verdict is expected.verdict, (got, expected)
        for one, other in ((got.below, expected.below), (got.above, expected.above)):
            assert (one is None) == (other is None)
            assert one is None or one == other or (one - other).contains(0)
    return truth


@pytest.mark.parametrize("name", POINTS)
def test_points(name):
    f, x, _ = POINTS[name]
    agree(f, floats(x))
    if name in SMOOTH or name in KINKS:
        agree(lambda x: jnp.sum(f(x)) * 0.5, floats(x))


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name):
    agree(PROGRAMS[name], X)


@pytest.mark.parametrize("name", ["conv2d", "rnn", "dropout", "token_embedding", "causal_softmax", "hinge"])
def test_operations(name):
    row = TABLE[name]
    truth = exact(row.bound(DIMS[0]), *row.sample(0, DIMS[0], jnp.float32))
    rng = np.random.default_rng(0)
    where = [(i, tuple(rng.integers(0, x.shape))) for i, x in enumerate(truth.diff) for _ in range(2)]
    agree(row.bound(DIMS[0]), *row.sample(0, DIMS[0], jnp.float32), where=where)


def windowed(x):
    return lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "SAME")


STEPS = [
    lambda x: x[1:] * x[:-1],
    lambda x: x[np.array([0, 2, 2, 1])],
    lambda x: jnp.concatenate([x, jnp.sin(x[:1]), x[-1:]]),
    lambda x: jax.nn.softmax(x, axis=-1),
    lambda x: x @ x.T[:, :3],
    lambda x: x.T @ x,
    lambda x: jnp.arange(6.0).reshape(2, 3) @ (x.T @ x),
    windowed,
    lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 1), (1, 1), "SAME"),
    lambda x: jnp.cumsum(x, axis=0),
    lambda x: lax.cummax(x, axis=1),
    lambda x: jnp.sort(x, axis=0),
    lambda x: lax.scan(lambda c, y: (c + y * c[0], c), x[0], x)[1],
    lambda x: jnp.where(x > 0, x * x, -x / 3),
    lambda x: jnp.where(x[:1] > x[-1:], x, x[::-1]),
    lambda x: jax.nn.relu(x) + jnp.abs(x - 1),
    lambda x: x - jnp.max(x, axis=1, keepdims=True),
    lambda x: x / (1 + jnp.mean(x * x, axis=0, keepdims=True)),
    lambda x: x.at[np.array([0, 1, 0])].add(x[:3] * 0.5) if len(x) > 2 else x,
    lambda x: jnp.exp(-x) * x[0, 0],
    lambda x: jnp.full((2, 3), 2.0) * jnp.sum(x, axis=0)[None],
    lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=0), 0),
    lambda x: lax.cond(x[0, 0] > x[-1, 1], jnp.sin, lambda x: x * 2, x),
    lambda x: lax.top_k(x, 3)[0],
    lambda x: lax.dynamic_slice(x, (jnp.argmax(x[:, 0]) % 1, 0), (1, 3)),
]


@pytest.mark.parametrize("seed", range(40))
def test_random_programs(seed):
    rng = np.random.default_rng(seed)
    steps = [STEPS[i] for i in rng.integers(0, len(STEPS), rng.integers(1, 5))]
    x = np.float32(rng.integers(-2, 3, (4, 3)) / 2)  # many ties

    def f(x):
        for step in steps:
            x = step(x)
        return (x, jnp.sum(x[0])) if seed % 2 else jnp.mean(x)

    shapes = [y.shape for y in jax.tree.leaves(jax.eval_shape(f, x))]
    cotangents = [rng.integers(-1, 2, s) + 0.0 for s in shapes] if seed % 2 else None
    agree(f, x, cotangents=cotangents, where=[(0, (i, j)) for i in range(4) for j in (0, 2)])


def test_what_adds_a_constant_is_left_out():
    x = floats([-jnp.inf, 1.0, 0.0])
    first, second, third = exact(lambda x: jnp.sum(jnp.exp(x) * 2 + x), x).entries()
    assert [e.verdict for e in (second, third)] == [
        EntryVerdict.SMOOTH
    ] * 2 and first.verdict is EntryVerdict.NOT_FINITE
    assert float(second.above.mid()) == pytest.approx(2 * np.e + 1)


def test_precision_rises_for_what_stands_still():
    (entry,) = exact(lambda x: x[0] * ((jnp.exp(x[1]) + 1) - jnp.exp(x[1])), floats([2.0, 60.0])).entries(
        where=[(0, (0,))]
    )
    assert entry.verdict is EntryVerdict.SMOOTH and float(entry.above.mid()) == 1


def still(truth):
    return sum(len(at) for values in truth._still.values() for at, _ in values.entries.values())


def test_a_mean_over_four_million_entries():
    z = np.random.default_rng(0).standard_normal((4096, 1000)).astype(np.float32)
    z[7, 9] = 0.0
    truth = exact(TABLE["binary_cross_entropy_with_logits"].op, z, np.int32(z > 1))
    assert truth.operations > 1e9
    assert truth.cost(0, (7, 9)) < 2e5 and not truth._still
    (entry,) = truth.entries(where=[(0, (7, 9))])
    assert entry.verdict is EntryVerdict.SMOOTH and float(entry.above.mid()) * z.size == pytest.approx(0.5, rel=1e-6)
    assert still(truth) < 100 and "leaves" not in vars(truth)
    assert all(e.verdict is EntryVerdict.SMOOTH for e in truth.entries(where=[(0, (i, 3)) for i in range(20)]))
    assert still(truth) < 1000


def test_a_thousand_ties():
    x = np.zeros((64, 64), np.float32)
    truth = exact(lambda x: jnp.sum(jax.nn.relu(x) * 3), x)
    entries = list(truth.entries(where=[(0, (i, j)) for i in range(50) for j in range(20)]))
    assert all(e.verdict is EntryVerdict.KINK and (e.below, e.above) == (0, 3) for e in entries)


def test_rows_alone():
    rng = np.random.default_rng(0)
    shapes = [(2000, 16), (16,), (16,)]
    args = [np.float32(rng.standard_normal(s)) for s in shapes]
    truth = agree(lambda *a: jnp.mean(layer_norm(*a) ** 2), *args, where=[(0, (100, 3))])
    assert still(truth) < 1000 and truth.cost(0, (7, 7)) < truth.operations / 10
    q, k, v = (np.float32(rng.standard_normal((4, 3))) for _ in range(3))
    agree(attention, q, k, v, where=[(0, (2, 1)), (1, (2, 1)), (2, (0, 0))])
    row = np.eye(4)[:, 2:3] * np.ones(3)
    truth = agree(attention, q, k, v, cotangents=[row], where=[(0, (1, 1)), (0, (2, 1)), (2, (3, 0)), (2, (0, 2))])
    assert truth.cost(0, (1, 1), [row]) < truth.cost(0, (2, 1), [row]) / 10


def test_costs_are_near_what_they_take():
    rng = np.random.default_rng(0)
    args = [np.float32(rng.standard_normal(s)) for s in [(64, 64), (64,), (64,)]]
    truth = exact(layer_norm, *args)
    truth.cost(0, (0, 0))
    started = time.process_time()
    assert truth.at(truth.subject.diff).value
    unit = (time.process_time() - started) / truth.operations
    started = time.process_time()
    assert list(truth.entries(where=[(0, (i, i)) for i in range(20)]))
    seconds = time.process_time() - started
    assert 1 / 12 < seconds / sum(truth.cost(0, (i, i)) * unit for i in range(20)) < 12


def test_gradients_that_stop():
    def f(x):
        return jnp.sum(x * lax.stop_gradient(jnp.max(x))) + lax.cond(x[0] > 0, lax.stop_gradient, jnp.sin, x)[0]

    for stop, expected in ((False, [2.7, 3.3, 1.7]), (True, [1.7, 1.7, 1.7])):
        entries = exact(f, X, stop_gradient=stop).entries()
        np.testing.assert_allclose([float(e.above.mid()) for e in entries], expected, rtol=1e-6)


def test_a_budget_holds_for_slices():
    truth = exact(jnp.sum, X, limits=Limits(operations=1000))
    with pytest.raises(OverBudget, match=r"^arg0\[0\] takes|^a\[0\] takes"):
        list(truth.entries(where=[(0, (0,))]))


def test_complex_entries_and_casts():
    z = jnp.array([[0.0, 1 + 2j], [1.0, -1j]], jnp.complex64)
    agree(lambda z: jnp.sum(jnp.abs(z) ** 2 + jnp.real(z @ z)), z)
    x = floats([1.001, 2.0])
    truth = exact(lambda x: jnp.sum(jnp.sin(x.astype(jnp.bfloat16).astype(jnp.float32))), x, casts=("bfloat16",))
    (entry,) = truth.entries(where=[(0, (0,))])
    assert float(entry.above.mid()) == pytest.approx(np.cos(1.0), rel=1e-12)


def test_programs_of_too_many_operations_are_evaluated_whole(monkeypatch):
    monkeypatch.setattr(graph, "MOST_NODES", 2)
    truth = exact(lambda x: jnp.sin(jnp.cos(x) * 2), X)
    assert truth.cost(0, (0,)) > truth.operations
    assert [e.verdict for e in truth.entries()] == [EntryVerdict.SMOOTH] * 3 and truth._sliced == [None]


@pytest.mark.slow
def test_an_entry_of_the_tiny_gpt2():
    f, params = model(gpt2.Config())
    truth = agree(f, params, where=[(20, (0,))])
    (gradient,) = [g for i, g in enumerate(truth.gradient()) if i == 20]
    (entry,) = truth.entries(where=[(20, (0,))])
    assert abs(entry.above - gradient.data[0]) < 1e-20
