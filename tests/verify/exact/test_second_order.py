"""Second order: the gradient's derivative along a direction, by one reverse sweep and by germs in two directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb
from jax import lax

from refgrad.verify.exact import EntryVerdict, exact
from tests.lanes import fast_if
from tests.verify.exact.test_points import SMOOTH, bce, floats, quotient
from tests.verify.exact.test_programs import PROGRAMS, X

V = np.array([0.7, -0.3, 1.1])
FIRST_ORDER = ("eigenvalues", "singular values")  # followed to first order alone
FLAT = ("while_loop", "a while_loop per lane", "gather", "sorts", "windows")


def total(f):
    return lambda *xs: sum(jnp.sum(y) for y in jax.tree.leaves(f(*xs)))


def float64(f, xs, vs):
    """The Hessian of the sum of f times vs, and the derivative of f along vs."""
    with jax.enable_x64(True):
        xs, vs = ([jnp.asarray(np.float64(x)) for x in part] for part in (xs, vs))
        moved = jax.jvp(jax.grad(total(f), tuple(range(len(xs)))), xs, vs)[1]
        return moved, jax.jvp(lambda *xs: jax.tree.leaves(f(*xs)), xs, vs)[1]


LONG = ("cumulative", "determinant", "a solver", "qr", "cholesky")
SECOND_ORDER = [n for n in PROGRAMS if n not in (*FIRST_ORDER, "fft", *FLAT[:2])]


@pytest.mark.parametrize("name", fast_if(lambda name: name not in LONG, SECOND_ORDER))
def test_the_hessian_is_that_of_float64(name):
    (moved,), outputs = exact(PROGRAMS[name], X).hessian([V])
    (expected,), slopes = float64(PROGRAMS[name], [X], [V])
    np.testing.assert_allclose(moved.mid, expected, rtol=1e-9, atol=1e-12)
    for output, slope in zip(outputs, slopes, strict=True):
        np.testing.assert_allclose(output.mid, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FLAT)
def test_piecewise_linear_programs_have_exactly_none(name):
    (moved,), _ = exact(PROGRAMS[name], X).hessian([V])
    assert all(x == 0 for x in moved.data)
    curvatures = exact(PROGRAMS[name], X).curvatures([V])
    assert all(e.verdict is EntryVerdict.SMOOTH and e.above == 0 for e in curvatures)


def test_what_is_followed_to_first_order_is_undecided():
    (moved,), (slopes,) = exact(PROGRAMS["eigenvalues"], X).hessian([V])
    assert not moved.decided.any() and slopes.decided.all()
    (moved,), _ = exact(jnp.linalg.eigvalsh, floats([[1.0, 0.5], [0.5, 2.0]])).hessian([np.ones((2, 2))])
    assert not moved.decided[1].any()


def layer_norm(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 2**-16) * gamma[None] + beta[None]


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T, where=np.tri(4, dtype=bool)) @ v


@pytest.mark.parametrize(
    "f, shapes",
    fast_if(
        lambda f, _: f is layer_norm,
        [(layer_norm, [(4, 16), (16,), (16,)]), (attention, [(4, 3)] * 3), (jax.nn.logsumexp, [(3, 4)])],
    ),
    ids=["layer norm", "attention", "logsumexp"],
)
def test_smooth_operations_with_cotangents(f, shapes):
    rng = np.random.default_rng(0)
    xs, vs = ([np.float32(rng.standard_normal(s)) for s in shapes] for _ in range(2))
    ct = rng.standard_normal(f(*xs).shape)
    found, _ = exact(f, *xs).hessian(vs, [ct])
    expected, _ = float64(lambda *xs: f(*xs) * ct, xs, vs)
    size = max(np.abs(x).max() for x in expected)
    for got, x in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.mid, x, rtol=0, atol=1e-13 * size)
    truth = exact(f, *xs)
    (entry,) = truth.curvatures(vs, [ct], where=[(0, (1, 2))])
    assert abs(entry.above - found[0].data[1, 2]) < 1e-15 * size and entry.verdict is EntryVerdict.SMOOTH


@pytest.mark.parametrize(
    "f, x, expected",
    [
        (quotient(jnp.sin), 0.0, -1 / 3),
        (quotient(jnp.expm1), 0.0, 1 / 3),
        (bce(1.0), 0.0, 0.25),
        (lambda x: jnp.abs(x) ** 2, 0.0, 2.0),
        (lambda x: jnp.abs(x) ** 3, 0.0, 0.0),
        (lambda x: jnp.sqrt(x**4), 0.0, 2.0),
        (lambda x: x**2.5 + x**1.5, 4.0, 15 / 4 * 2 + 3 / 4 / 2),
        (jnp.cosh, 0.0, 1.0),
    ],
)
def test_curvatures_at_a_point(f, x, expected):
    (entry,) = exact(f, floats([x])).curvatures([[1.0]])
    assert entry.verdict is EntryVerdict.SMOOTH
    assert float(entry.above.mid()) == pytest.approx(expected, rel=1e-12, abs=1e-30)


def test_curvatures_where_there_is_none():
    (entry,) = exact(lambda x: x * jnp.abs(x), floats([0.0])).curvatures([[3.0]])
    assert entry.verdict is EntryVerdict.KINK and (entry.below, entry.above) == (-6, 6)
    for f in (jax.nn.relu, lambda x: jnp.linalg.norm(x)):
        (entry,) = exact(f, floats([0.0])).curvatures([[1.0]])
        assert entry.verdict is EntryVerdict.JUMP and entry.why == "the derivative jumps"
    (entry,) = exact(lambda x: x * jnp.sqrt(jnp.abs(x)), floats([0.0])).curvatures([[1.0]])
    assert entry.verdict is EntryVerdict.KINK and (entry.below, entry.above) == (arb("-inf"), arb("inf"))


@pytest.mark.parametrize("square", [lambda z: jnp.abs(z) ** 2, lambda z: jnp.real(z * jnp.conj(z))])
def test_the_square_of_a_complex_modulus(square):
    z, v = jnp.array([0.0, 1 + 2j], jnp.complex64), np.array([1 - 3j, 2j])
    truth = exact(square, z)
    found = [(e.imaginary, float(e.above.mid())) for e in truth.curvatures([v])]
    np.testing.assert_allclose(found, [(False, 2), (True, -6), (False, 0), (True, 4)], atol=1e-30)
    (moved,), (slope,) = truth.hessian([v])
    np.testing.assert_allclose(moved.mid[moved.decided], 2 * v.conj()[moved.decided], atol=1e-30)
    np.testing.assert_allclose(slope.mid, 2 * np.real(np.conj(z) * v))


def test_the_sweep_is_right_or_undecided():
    for name, (f, x, _) in SMOOTH.items():
        truth, ones = exact(f, floats(x)), [np.ones(len(x))]
        (moved,), outputs = truth.hessian(ones)
        entries = list(truth.curvatures(ones))
        for got, decided, entry in zip(moved.mid, moved.decided, entries, strict=True):
            if decided and entry.verdict is not EntryVerdict.UNDECIDED:
                assert got == pytest.approx(float(entry.above.mid()), rel=1e-12, abs=1e-30), name
        right, left = truth.along(ones, [-ones[0]])
        for got, a, b in zip(outputs, right, left, strict=True):
            np.testing.assert_allclose(got.mid, a.mid, atol=1e-30, err_msg=name)
            np.testing.assert_allclose(got.mid, -b.mid, atol=1e-30, err_msg=name)


def test_a_tie_elsewhere_leaves_other_entries_decided():
    def f(x, y, z):  # a tie in y, whose slope nothing else must take for known
        return x * jnp.where(y == 0, 0.0, jnp.expm1(y)) + jnp.max(jnp.stack([z, z + 0.0])) * x + jnp.sin(x)

    xs = [jnp.float32(v) for v in (0.5, 0.0, 2.0)]
    moved, _ = exact(f, *xs).hessian([0.0, 1.0, 0.0])
    assert [bool(m.decided) for m in moved] == [False, False, True]
    moved, _ = exact(f, *xs).hessian([1.0, 0.0, 0.0])
    assert moved[0].mid == pytest.approx(-np.sin(0.5), rel=1e-12) and not moved[1].decided
    entries = list(exact(f, *xs).curvatures([0.0, 1.0, 0.0]))
    assert [e.verdict for e in entries] == [EntryVerdict.SMOOTH] * 3
    assert [float(e.above.mid()) for e in entries] == [1.0, 0.5, 0.0]


def test_a_tie_that_does_not_move_stays_where_it_is():
    (moved,), _ = exact(lambda x: jnp.sin(jnp.sum(jnp.maximum(x, 0.0))), floats([0.5, 0.0])).hessian([[1.0, 0.0]])
    assert moved.mid[0] == pytest.approx(-np.sin(0.5), rel=1e-12) and not moved.decided[1]


def test_a_kink_along_the_direction_spoils_no_other_entry():
    truth = exact(lambda x: jnp.sum(jnp.abs(x[:2])) + x[1] * x[2] ** 2, floats([0.0, 1.0, 3.0]))
    entries = list(truth.curvatures([[1.0, 1.0, 0.0]]))
    assert [e.verdict for e in entries] == [EntryVerdict.JUMP, EntryVerdict.SMOOTH, EntryVerdict.SMOOTH]
    assert [float(e.above.mid()) for e in entries[1:]] == [0.0, 6.0]
    (moved,), _ = truth.hessian([[1.0, 1.0, 0.0]])
    assert moved.decided.tolist() == [False, True, True] and moved.mid[1:].tolist() == [0.0, 6.0]


def test_ties_of_a_maximum_that_part_are_undecided():
    (moved,), (slope,) = exact(jnp.max, floats([1.0, 1.0, 0.0])).hessian([[1.0, 0.0, 0.0]])
    assert not moved.decided.any() and not slope.decided
    (moved,), (slope,) = exact(jnp.max, floats([1.0, 1.0, 0.0])).hessian([[0.0, 0.0, 0.0]])
    assert moved.decided.all() and slope.mid == 0


def test_the_same_program_at_other_values():
    calls = []

    def f(x):
        calls.append(x)
        return jnp.sin(x) * 2

    truth = exact(f, X)
    assert truth.gradient()[0].mid[0] == pytest.approx(2 * np.cos(float(X[0])), rel=1e-12) and truth.value
    other = truth.at([np.array([1.5, 2.5, 3.5])])
    assert other.gradient()[0].mid[0] == pytest.approx(2 * np.cos(1.5), rel=1e-12)
    assert other.value[0].mid[0] == pytest.approx(2 * np.sin(1.5), rel=1e-12)
    assert truth.value[0].mid[0] == pytest.approx(2 * np.sin(float(X[0])), rel=1e-12) and len(calls) == 1
    with pytest.raises(ValueError, match="shapes"):
        truth.at([np.zeros(4)])
    with pytest.raises(ValueError, match="NaN"):
        truth.at([np.full(3, np.nan)])


def test_one_forward_serves_several_cotangents(monkeypatch):
    truth, runs = exact(jnp.sin, X), []
    outputs = truth._outputs
    monkeypatch.setattr(truth, "_outputs", lambda xs: runs.append(1) or outputs(xs))
    for i in range(3):
        (row,) = truth.gradient([np.eye(3)[i]])
        assert row.mid[i] == pytest.approx(np.cos(float(X[i])), rel=1e-12) and np.count_nonzero(row.mid) == 1
    assert len(runs) == 1
