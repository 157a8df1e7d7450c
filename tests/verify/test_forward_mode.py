"""Forward mode of every `custom_jvp`: J·v against truth, and linear in the tangent, whatever stands around the rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.verify import check
from refgrad.verify.report import FAIL
from tests.lanes import fast_if

X, Y = jnp.array([0.4, 1.7, 2.5]), jnp.array([1.2, 0.3, -0.8])
FAST = {"draws": 2, "order": 1, "properties": ["structure", "jvp"]}


def ruled(forward, tangent, name="soft"):
    """`forward` with a jvp rule: `tangent(primals, tangents)`."""
    forward.__name__ = name
    op = jax.custom_jvp(forward)

    def soft_jvp(primals, tangents):
        return forward(*primals), tangent(primals, tangents)

    op.defjvp(soft_jvp)
    return op


def root(slope):
    """√x with a tangent of x and t."""
    return ruled(lambda x: jnp.sqrt(x), lambda p, t: slope(*p, *t))


def true_slope(x, t):
    return t / (2 * jnp.sqrt(x))


AROUND = {
    "bare": lambda f: f,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c) + c, jax.nn.relu(c)), x, None, length=3)[0],
    "cond": lambda f: lambda x: jax.lax.cond(x[0] > 0, f, jnp.cos, x),
    "checkpoint": jax.checkpoint,
    "sum": lambda f: lambda x: jnp.sum(f(x) ** 2),
}
NOT_LINEAR = {
    "affine": (lambda x, t: true_slope(x, t) + 0.03, "zero in gives 0.03"),
    "of a dtype's size": (lambda x, t: true_slope(x, t) + 1e-12, "zero in gives 1e-12"),
    "a square": (lambda x, t: true_slope(x, t) * t, "−2 times in gives"),
    "clipped": (lambda x, t: jnp.clip(true_slope(x, t), -0.2, 0.2), "−2 times in gives"),
    "a magnitude": (lambda x, t: jnp.abs(true_slope(x, t)), "−2 times in gives"),
    "a norm": (lambda x, t: true_slope(x, t[::-1] * jnp.sign(t[0]) * jnp.sign(t)), "in gives"),
}


@pytest.mark.parametrize("kind", NOT_LINEAR)
def test_a_rule_that_is_not_linear_is_one_sentence(kind):
    slope, words = NOT_LINEAR[kind]
    report = check(root(slope), X, **FAST)
    assert report.status == "wrong"
    (cause,) = report.causes
    assert cause.startswith("the jvp rule of soft is not linear in the tangent: ") and words in cause
    assert __file__ in report.where[0] and "(soft_jvp)" in report.where[0]


@pytest.mark.parametrize("around", fast_if(lambda around: around in ("bare", "scan", "cond"), AROUND))
def test_wherever_it_stands(around):
    wrong = AROUND[around](root(lambda x, t: true_slope(x, t) + 0.02))
    assert "zero in gives 0.02" in check(wrong, X, **FAST).causes[0]
    report = check(AROUND[around](root(true_slope)), X, **FAST)
    assert report.ok and report.of("jvp")


def test_a_term_that_reverse_mode_cannot_see():
    """A tangent that is added by forward mode alone: its transpose is 0, and so is every reverse row."""
    wrong = root(lambda x, t: true_slope(x, t) + 1e-3 * jnp.cos(x))
    report = check(wrong, X, draws=2, order=1, properties=["accuracy", "linearity", "jvp"])
    assert {row.property for row in report.failures} <= {"jvp", "structure"} and not report.ok


FACTORS = {
    "factor": lambda x, y, s, t: 1.001 * s * y + x * t,
    "forgotten": lambda x, y, s, t: s * y,
    "exchanged": lambda x, y, s, t: s * x + y * t,
}


@pytest.mark.parametrize("fault", FACTORS)
def test_tangents_against_truth(fault):
    op = ruled(lambda x, y: x * y, lambda p, t: FACTORS[fault](*p, *t))
    rows = check(op, X, Y, **FAST).of("jvp")
    assert any(row.verdict == FAIL and row.error is not None and row.error > 1e-4 for row in rows)


def slope_of_softmax(y, t):
    return y * (t - jnp.sum(y * t))


RIGHT = {
    "masked at a tie": (
        ruled(lambda x, y: jnp.where(y == 0, 0.0, x * y), lambda p, t: p[1] * t[0] + p[0] * t[1]),
        (jnp.array([1.0, 2.0]), jnp.array([0.5, 0.0])),
    ),
    "at a kink": (
        ruled(lambda x: jnp.maximum(x, 0), lambda p, t: jnp.where(p[0] > 0, t[0], 0)),
        (jnp.array([0.0, 1.0]),),
    ),
    "an infinite slope": (root(true_slope), (jnp.array([0.0, 4.0]),)),
    "cancelling": (
        ruled(lambda x, y: jnp.exp(x) - jnp.exp(y), lambda p, t: jnp.exp(p[0]) * t[0] - jnp.exp(p[1]) * t[1]),
        (X + 3, X + 3),
    ),
    "nothing left": (
        ruled(
            lambda x: jax.nn.softmax(x), lambda p, t: (lambda y: y * (t[0] - jnp.sum(y * t[0])))(jax.nn.softmax(p[0]))
        ),
        (jnp.array([0.0, 200.0, -5.0]),),
    ),
    "bfloat16": (root(true_slope), (X.astype(jnp.bfloat16),)),
    "complex": (ruled(lambda z: z * z, lambda p, t: 2 * p[0] * t[0]), (jax.lax.complex(X, Y),)),
    "many entries": (
        ruled(lambda a, b: a @ b, lambda p, t: t[0] @ p[1] + p[0] @ t[1]),
        (jnp.asarray(np.random.default_rng(3).normal(size=(6, 80)), jnp.float32), jnp.ones((80, 3))),
    ),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_rule_passes(kind):
    op, args = RIGHT[kind]
    report = check(op, *args, **FAST)
    assert report.ok and report.of("jvp"), str(report)


def test_a_tolerance_is_honoured():
    op = root(lambda x, t: 1.0003 * true_slope(x, t))
    assert not check(op, X, **FAST).ok
    assert check(op, X, tolerance=1e-3, **FAST).ok


def test_the_value_of_a_jvp_rule_is_called_its_own():
    op = jax.custom_jvp(lambda x: jnp.sqrt(x))
    op.defjvp(lambda p, t: (1.1 * jnp.sqrt(*p), true_slope(*p, *t)))
    notes = [row.note for row in check(op, X, **FAST).failures]
    assert notes and all("jvp rule" in note and "_fwd" not in note for note in notes)


def test_a_long_loop_is_not_run_to_its_end():
    seen = []

    def body(c, _):
        jax.debug.callback(lambda: seen.append(None))
        return root(true_slope)(c) + 1, None

    check(lambda x: jax.lax.scan(body, x, None, length=200)[0], X, draws=1, order=1, properties=["jvp"])
    assert len(seen) < 200 * 5


def test_a_rule_that_counts_on_its_caller():
    """It drops a tangent that, where it is called, never comes alone."""

    @jax.custom_jvp
    def second(a, b):
        return b

    def second_jvp(primals, tangents):
        still = isinstance(tangents[0], jax.custom_derivatives.SymbolicZero)
        return primals[1], jnp.zeros_like(primals[1]) if still else tangents[1]

    second.defjvp(second_jvp, symbolic_zeros=True)
    assert check(lambda x: second(x, jnp.sin(x)), X, **FAST).ok
    assert not check(second, X, Y, **FAST).ok


def test_an_output_that_nothing_reads():
    """The tangent is dropped on purpose, as that of the residual of a solver."""
    both = jax.custom_jvp(lambda x: (jnp.sin(x), x * x))
    both.defjvp(lambda p, t: (both(*p), (jnp.cos(p[0]) * t[0], 0 * t[0])))
    assert check(lambda x: both(x)[0], X, **FAST).ok
    assert not check(lambda x: both(x)[0] + 1e-3 * both(x)[1], X, **FAST).ok
    assert not check(both, X, **FAST).ok


def own_backward(f):
    """`f` with a backward of its own that differentiates it, so that it has no forward mode."""
    op = jax.custom_vjp(f)
    op.defvjp(lambda *args: jax.vjp(f, *args), lambda pull, ct: pull(ct))
    return op


@pytest.mark.parametrize("fault", ["", "the tangent that counts", "read"])
def test_an_output_that_nothing_reads_inside_a_backward(fault):
    """The logsumexp of a softmax, kept for another kernel: there the cotangents tell that nothing reads it."""
    both = jax.custom_jvp(lambda x: (jax.nn.softmax(x), jax.nn.logsumexp(x)))
    factor = 1.01 if fault == "the tangent that counts" else 1.0

    def tangents(primals, moves):
        y, total = both(*primals)
        return (y, total), (factor * slope_of_softmax(y, moves[0]), 0 * total)

    both.defjvp(tangents)
    f = own_backward(lambda x, v: both(x)[0] @ v + (both(x)[1] if fault == "read" else 0))
    assert check(f, X, Y, draws=2, order=1, properties=["structure", "jvp"]).ok == (not fault)


def test_a_rule_of_integers_alone():
    count = jax.custom_jvp(lambda n: 2 * n)
    count.defjvp(lambda p, t: (count(*p), t[0]))
    assert check(lambda x, n: x * count(n).astype(x.dtype), X, jnp.arange(3), **FAST).ok
