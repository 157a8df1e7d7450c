"""Programs: control flow, casts, no compilation, bad input, models whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.models import gpt2
from refgrad.ops import TABLE
from refgrad.verify.exact import EntryVerdict, Limits, NoMeaning, exact
from refgrad.verify.widen import widen
from tests.ops.cases import DIMS
from tests.work import compilations

X = jnp.array([0.3, 1.7, -0.4], jnp.float32)
TABLED = np.float32(np.sin(np.arange(12.0) * 1.7).reshape(4, 3) + 1.1)


def m(x):
    """A matrix (4, 3) made of x (3,)."""
    return jnp.asarray(TABLED, x.dtype) * x[None]


def positive(x):
    return m(x).T @ m(x) + jnp.eye(3, dtype=x.dtype)


def half(x):
    return lax.while_loop(lambda y: y > 1.0, lambda y: y / 2, x)


def convolved(x):
    kernel = m(x[::-1])[None, None, :2, :2]
    return lax.conv_general_dilated(m(x)[None, None], kernel, (1, 2), ((1, 0), (0, 2)), lhs_dilation=(2, 1))


def substituted(x):
    """Every kind of triangular system, of a matrix whose other triangle is not 0 and not to be read."""
    a, kinds = positive(x) + m(x)[:3], [(left, lower, flip) for left in (0, 1) for lower in (0, 1) for flip in (0, 1)]
    return [
        lax.linalg.triangular_solve(
            a, m(x).T if left else m(x), left_side=bool(left), lower=bool(lower), transpose_a=bool(flip)
        )
        for left, lower, flip in kinds
    ]


COUNTS = jnp.zeros(3, jnp.int32)
PROGRAMS = {
    "scan": lambda x: lax.scan(lambda c, y: (jnp.sin(c) * y, c), x[0], x)[1],
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, c: c * x, x),
    "while_loop": lambda x: half(jnp.abs(x[1]) * 3),
    "a while_loop per lane": lambda x: jax.vmap(half)(jnp.abs(x) * 3),
    "cond": lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
    "switch": lambda x: lax.switch(jnp.argmax(x), [jnp.sin, jnp.cos, jnp.tanh], x),
    "checkpoint": jax.checkpoint(lambda x: jnp.sin(jnp.cos(x))),
    "a solver": lambda x: jnp.linalg.solve(positive(x), x),
    "triangular systems": substituted,
    "cholesky": lambda x: jnp.linalg.cholesky(positive(x)),
    "qr": lambda x: jnp.linalg.qr(m(jnp.sin(x)) + m(x) ** 2)[1],
    "determinant": lambda x: jnp.linalg.det(positive(x)),
    "eigenvalues": lambda x: jnp.linalg.eigvalsh(positive(x)),
    "singular values": lambda x: jnp.linalg.svd(m(x), compute_uv=False),
    "gather": lambda x: m(x)[jnp.array([0, 0, 3]), jnp.array([1, 2, 1])],
    "gather of matrices": lambda x: jnp.stack([m(x), m(x) ** 2])[jnp.array([1, 0, 1])],
    "scatter": lambda x: m(x).at[jnp.array([1, 1, 2])].add(x[None]).at[0].set(x).at[3].multiply(x, unique_indices=True),
    "scatter of integers": lambda x: x[COUNTS.at[jnp.array([1, 1])].add(1).at[0].set(1).at[2].max(1)] * jnp.sin(x),
    "unsigned division": lambda x: x[(jnp.array([7, 8, 9], jnp.uint32) // 4 % 3).astype(int)] ** 2,
    "repeat": lambda x: jnp.repeat(x, 1 + COUNTS.at[2].add(1), total_repeat_length=4),
    "sorts": lambda x: (jnp.sort(m(x), axis=0), lax.top_k(m(x), 2)[0]),
    "cumulative": lambda x: (jnp.cumsum(m(x), 1), jnp.cumprod(m(x), 0), lax.cummax(m(x)), lax.cumlogsumexp(m(x))),
    "convolution": convolved,
    "windows": lambda x: lax.reduce_window(m(x), -jnp.inf, lax.max, (2, 2), (1, 1), "SAME"),
    "fft": lambda x: jnp.abs(jnp.fft.rfft(m(x), axis=0)),
    "inverse fft": lambda x: jnp.fft.irfft(jnp.fft.rfft(m(x), axis=0) ** 2, axis=0),
    "special": lambda x: lax.digamma(x + 2) + lax.lgamma(x) + lax.erf_inv(x / 2) + lax.bessel_i1e(x),
    "gradients inside": jax.grad(lambda x: jnp.sum(jnp.sin(x) * x)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_value_and_gradient_are_those_of_float64(name):
    f = PROGRAMS[name]
    truth = exact(f, X)
    with jax.enable_x64(True):
        outputs, linear = jax.linearize(lambda x: jax.tree.leaves(f(x)), X.astype(jnp.float64))
        columns = [[np.asarray(part) for part in linear(column)] for column in jnp.eye(3)]
    for value, output in zip(truth.value, outputs, strict=True):
        np.testing.assert_allclose(value.mid, output, rtol=1e-9, atol=1e-12)
    expected = [sum(float(np.sum(part)) for part in column) for column in columns]
    (gradient,) = truth.gradient()
    np.testing.assert_allclose(gradient.mid, expected, rtol=1e-9, atol=1e-12)
    along = truth.along([np.eye(3)[1]])[0]
    assert abs(sum(part.mid.sum() for part in along) - expected[1]) < 1e-9 * (1 + abs(expected[1]))


@pytest.mark.parametrize("name", [n for n in TABLE if not n.startswith("fused.")])
def test_every_operation_of_the_table(name):
    row = TABLE[name]
    op, args = row.bound(DIMS[0]), row.sample(0, DIMS[0], jnp.float32)
    truth = exact(op, *args)
    outputs = jax.tree.leaves(op(*args))
    for value, output in zip(truth.value, outputs, strict=True):
        np.testing.assert_allclose(value.mid, output, rtol=2e-5, atol=2e-6)
    assert all(g.decided.all() and np.isfinite(g.mid).all() for g in truth.gradient())


def test_nothing_is_compiled():
    gamma = jnp.full(16, 1.1)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 16)), jnp.float32)

    def layer_norm(x, gamma):
        centred = x - x.mean(-1, keepdims=True)
        return centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5) * gamma[None]

    with compilations() as compiled:
        truth = exact(layer_norm, x, gamma)
        assert truth.value and truth.gradient() and list(truth.entries(where=[(0, (1, 2))]))
        truth = exact(PROGRAMS["gather"], X)
        assert truth.value and truth.gradient()
        assert not compiled
        jax.jit(lambda x: x * 3.25)(x)
        assert compiled


def test_casts_are_ignored_or_modelled_by_name():
    def f(x):
        return jnp.sin(x.astype(jnp.bfloat16).astype(jnp.float32))

    x = jnp.float32(1.001)
    assert exact(f, x).value[0].mid == pytest.approx(np.sin(np.float64(x)), rel=1e-12)
    rounded = exact(f, x, casts=("bfloat16",))
    assert rounded.value[0].mid == pytest.approx(np.sin(1.0), rel=1e-12)
    assert rounded.gradient()[0].mid == pytest.approx(np.cos(1.0), rel=1e-12)


def test_scatters_by_a_function():  # of which JAX has no derivative
    truth = exact(lambda x: x.at[jnp.array([1, 1, 2])].apply(jnp.sin), X)
    x = np.float64(X)
    expected = [1, np.cos(np.sin(x[1])) * np.cos(x[1]), np.cos(x[2])]
    np.testing.assert_allclose(truth.value[0].mid, [x[0], np.sin(np.sin(x[1])), np.sin(x[2])], rtol=1e-14)
    np.testing.assert_allclose(truth.gradient()[0].mid, expected, rtol=1e-14)
    np.testing.assert_allclose([float(e.above.mid()) for e in truth.entries()], expected, rtol=1e-14)


def test_keyword_arguments_are_passed_on():
    truth = exact(lambda x, *, k, w: x * k * w, X, kwargs={"k": 3, "w": X})
    np.testing.assert_array_equal(truth.gradient()[0].mid, 3 * np.float64(X))


def test_random_bits_are_taken_by_their_values():
    def f(x):
        return x * jax.random.normal(jax.random.key(0), (3,))

    np.testing.assert_allclose(exact(f, X).value[0].mid, f(X), rtol=1e-6)


def test_special_functions_of_two_arguments():
    a, x = jnp.float32(1.5), jnp.float32(0.75)
    lower, upper = (exact(f, a, x) for f in (lax.igamma, lax.igammac))
    for left, right in zip(lower.gradient(), upper.gradient(), strict=True):
        assert left.mid == pytest.approx(-right.mid, rel=1e-14) and left.mid != 0
    assert lower.gradient()[1].mid == pytest.approx(0.75**0.5 * np.exp(-0.75) / 0.886226925452758, rel=1e-14)
    both = lower.along([2.0, 3.0])[0][0].mid  # in a direction that moves both
    assert both == pytest.approx(2 * lower.gradient()[0].mid + 3 * lower.gradient()[1].mid, rel=1e-14)
    zeta = exact(lax.zeta, jnp.float32(2), jnp.float32(1))
    assert zeta.value[0].mid == pytest.approx(np.pi**2 / 6, rel=1e-15)
    assert zeta.gradient()[0].mid == pytest.approx(-0.937548254315844, rel=1e-14)  # ζ'(2)


def test_constants_keep_the_value_that_the_program_has():
    assert exact(lambda x: x * 0.1, jnp.float32(1)).value[0].mid == float(np.float32(0.1))


def test_stop_gradient_holds():
    straight = lambda x: x + lax.stop_gradient(jnp.round(x) - x)  # noqa: E731
    assert [float(e.above.mid()) for e in exact(straight, X).entries()] == [0.0] * 3
    truth = exact(straight, X, stop_gradient=True)
    assert [float(e.above.mid()) for e in truth.entries()] == [1.0] * 3
    np.testing.assert_array_equal(truth.gradient()[0].mid, 1.0)


@pytest.mark.parametrize(
    "f, error, words",
    [
        (lambda x: lax.nextafter(x, x + 1), NoMeaning, "nextafter"),
        (lambda x: lax.bitcast_convert_type(x, jnp.int32).astype(x.dtype) * x, NoMeaning, "bits of a float"),
        (lambda x: jax.pure_callback(np.sin, x, x), NoMeaning, "pure_callback"),
    ],
)
def test_what_has_no_meaning_is_named_with_its_line(f, error, words):
    with pytest.raises(error, match=words) as caught:
        _ = exact(f, X).value
    message = str(caught.value)
    assert "\n" not in message and "test_programs.py" in message


def test_nan_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^x holds NaN"):
        exact(lambda x: x, jnp.array([1.0, jnp.nan]))


def test_limits_are_named():
    def flat(x):  # leading terms cancel up to x¹⁰
        return jnp.where(x == 0, 1.0, sum(x**k / k for k in range(1, 9)) * 0 + (jnp.exp(x) - 1) / x)

    (entry,) = exact(flat, jnp.zeros(1), limits=Limits(order=(1, 1))).entries()
    assert entry.verdict is EntryVerdict.UNDECIDED and "up to 2048 bits and order 1" in entry.why
    (entry,) = exact(flat, jnp.zeros(1)).entries()
    assert entry.verdict is EntryVerdict.SMOOTH


def model(config):
    params = gpt2.init(jax.random.key(0), config)
    tokens, targets = np.random.default_rng(0).integers(0, config.vocab_size, (2, 2, 24))
    return (lambda p: gpt2.loss(p, tokens, targets, config, rules="autodiff")), params


def worst(truth, got):
    return max(g.error(x).max() / np.abs(g.mid).max() for g, x in zip(truth, jax.tree.leaves(got), strict=True))


@pytest.mark.slow
def test_the_tiny_gpt2_whole():
    f, params = model(gpt2.Config())
    truth = exact(f, params)
    gradient = truth.gradient()
    assert truth.value[0].rad < 1e-15
    assert len(gradient) == 28 and sum(g.data.size for g in gradient) == 35_712
    assert all(g.decided.all() for g in gradient)
    assert worst(gradient, jax.grad(f)(params)) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{}, {"n_layer": 4, "n_embd": 128, "vocab_size": 1024}])
def test_the_true_error_of_float64_autodiff(sizes):
    f, params = model(gpt2.Config(**sizes))
    gradient = exact(f, params).gradient()
    with jax.enable_x64(True):
        program = widen(f, params)
        autodiff = jax.grad(program)(*program.args)
    assert 1e-16 < worst(gradient, autodiff) < 5e-15
