"""Later draws of a long gradient: float64 autodiff judges them where exact arithmetic has confirmed it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.verify import check, exact_oracle
from refgrad.verify.exact_oracle import ExactOracle

DRAWS = 4
X = np.linspace(1, 2, 6, dtype=np.float32) * 1e-5


def op(forward, derivative):
    """`forward`, entry by entry, with a rule that multiplies the cotangent by `derivative`."""
    f = jax.custom_vjp(forward)
    f.defvjp(lambda x: (forward(x), x), lambda x, dy: (dy * derivative(x),))
    return f


def steep(x):
    """Autodiff of it has no digits where x is small: 1 − cos x cancels, and is divided by x²."""
    return (1 - jnp.cos(x)) / (x * x)


@pytest.fixture
def asked(monkeypatch):
    """The gradients in exact arithmetic that a check asks for, though these are short."""
    monkeypatch.setattr(exact_oracle, "LONG", 0)
    gradient, calls = ExactOracle.gradient, []
    monkeypatch.setattr(ExactOracle, "gradient", lambda self, *given: calls.append(given) or gradient(self, *given))
    return calls


def checked(f, x, **settings):
    return check(f, x, properties=["structure", "accuracy"], draws=DRAWS, **settings)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_rule_is_held_to_exact_arithmetic_in_the_first_draw(asked, dtype):
    with jax.enable_x64(True):
        assert checked(op(jnp.sin, jnp.cos), X.astype(dtype)).ok
    assert len(asked) < DRAWS


def test_a_wrong_rule_is_held_to_exact_arithmetic_in_every_draw(asked):
    report = checked(op(jnp.sin, lambda x: jnp.cos(x) * (1 + 1e-5)), X)
    assert {row.property for row in report.rows if row.failed} >= {"accuracy", "float64"}
    assert len(asked) >= DRAWS


def test_autodiff_without_digits_judges_nothing(asked):
    report = checked(op(steep, lambda x: -x / 12), X * np.float32(1e-3))
    assert not any(row.failed for row in report.of("float64")), report
    assert len(asked) >= DRAWS


def test_a_fault_of_later_draws_alone_is_seen(asked):
    first = X.copy()
    spoilt = lambda x: jnp.cos(x) * jnp.where(jnp.all(x == first), 1.0, 1.001)  # noqa: E731
    assert not checked(op(jnp.sin, spoilt), X).ok
