"""Every rule is named as the user's own function, file and line, through the wrappers that make rules of functions."""

import functools

import jax
import jax.numpy as jnp
import pytest

from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.rules import rule_of
from refgrad.verify import blame, check

X = jnp.array([0.4, 1.7, 2.5])
HERE = "test_naming.py:"
FAST = {"draws": 2, "order": 1, "properties": ["structure", "accuracy"]}


@jax.custom_gradient
def squash(x):
    y = jnp.tanh(x)

    def pull(ct):
        return ct * (1 - y * y)

    return y, pull


def handed_on(f):
    """A function with its gradient, through a decorator of somebody's."""

    @jax.custom_gradient
    @functools.wraps(f)
    def wrapper(*args):
        return f(*args)

    return wrapper


@handed_on
def halved(x):
    return jnp.cos(x), lambda ct: -ct * jnp.sin(x)


@jax.custom_jvp
def product(x, y):
    return x * y


product.defjvps(lambda t, out, x, y: t * y, lambda t, out, x, y: t * x)


@jax.custom_vjp
def scaled(x):
    return 3 * x


def scaled_bwd(factor, _, ct):
    return (ct * factor,)


scaled.defvjp(lambda x: (3 * x, None), functools.partial(scaled_bwd, 3))


class Rules:
    """A backward that is a method."""

    def bwd(self, x, ct):
        return (ct * jnp.exp(x),)


bound = jax.custom_vjp(lambda x: jnp.exp(x))
bound.defvjp(lambda x: (jnp.exp(x), x), Rules().bwd)


def of_equinox(kind):
    eqx = pytest.importorskip("equinox")
    if kind == "vjp":

        @eqx.filter_custom_vjp
        def op(x):
            return jnp.log(x)

        op.def_fwd(lambda perturbed, x: (jnp.log(x), None))

        @op.def_bwd
        def op_rule(residuals, ct, perturbed, x):
            return ct / x

    else:

        @eqx.filter_custom_jvp
        def op(x):
            return jnp.log(x)

        @op.def_jvp
        def op_rule(primals, tangents):
            return jnp.log(*primals), tangents[0] / primals[0]

    return op


def of_flax():
    nn = pytest.importorskip("flax.linen")

    class Signed(nn.Module):
        @nn.compact
        def __call__(self, x):
            def f(module, x):
                return module(x)

            def f_fwd(module, x):
                return nn.vjp(f, module, x)

            def f_bwd(pull, ct):
                return pull(ct)

            return nn.custom_vjp(f, forward_fn=f_fwd, backward_fn=f_bwd)(nn.Dense(2), x)

    params = Signed().init(jax.random.key(0), X)
    return functools.partial(Signed().apply, params)


RULES = {  # the function, what makes it, and what its rule is called
    "custom_gradient": (lambda: squash, "squash", "squash"),
    "a decorator of custom_gradient": (lambda: halved, "halved", "halved"),
    "defjvps": (lambda: lambda x: product(x, x), "product", "<lambda>"),
    "partial": (lambda: scaled, "scaled", "scaled_bwd"),
    "method": (lambda: bound, "<lambda>", "bwd"),
    "equinox.filter_custom_vjp": (lambda: of_equinox("vjp"), "op", "op_rule"),
    "equinox.filter_custom_jvp": (lambda: of_equinox("jvp"), "op", "op_rule"),
    "flax.linen.custom_vjp": (of_flax, "f", "f_bwd"),
}
AROUND = {
    "bare": lambda f: f,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "checkpoint": jax.checkpoint,
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (c, f(c)), x, None, length=2)[1],
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", RULES)
def test_the_users_own_function(name, around):
    if name.startswith("flax") and around == "vmap":
        pytest.skip("a layer takes a whole row")
    make, function, rule = RULES[name]
    program = jax.make_jaxpr(AROUND[around](make()))(X)
    (found,) = {
        (call.name, call.location.rpartition(":")[0], call.location.rpartition(" ")[2])
        for call in map(rule_of, equations(program))
        if call is not None and not call.of_jax
    }
    assert found[0] == function or (name.startswith("a decorator") and found[0] == "wrapper")  # JAX 0.10 sees no more
    assert found[1:] == (__file__, f"({rule})")


@pytest.mark.parametrize("name", RULES)
def test_a_report_does_not_call_it_none(name):
    if name.startswith("flax"):
        pytest.skip("its rule is differentiated by parameters alone")
    report = check(RULES[name][0](), X, **FAST)
    assert report.ok and "rules" not in report.facts


def test_a_wrong_rule_points_at_its_author():
    @jax.custom_gradient
    def wrong(x):
        return jnp.sin(x), lambda ct: 1.01 * ct * jnp.cos(x)

    report = check(wrong, X, **FAST)
    assert not report.ok and report.where[0].endswith("(wrong)") and __file__ in report.where[0]
    (verdict,) = blame(wrong, X).guilty
    assert HERE in verdict.place and HERE in verdict.backward and verdict.rule == "wrong"


def test_a_call_at_top_level_is_placed_at_the_definition():
    for f in (scaled, jax.jit(scaled), jax.vmap(scaled)):
        assert HERE in blame(f, X)[0].place
    eqx_rule = of_equinox("vjp")
    called = blame(lambda x: 2 * eqx_rule(x), X)[0].place  # the user's line, not equinox's
    assert HERE in called and "<lambda>" in called


JAX_OWN = {
    "a function of JAX's": (jax.nn.relu, "none of yours inside; JAX's own: relu (jax/"),
    "inside a function": (lambda x: jnp.sum(jax.nn.relu(x)), "what autodiff means: relu (jax/"),
    "nothing": (jnp.sin, "none inside: what is checked is autodiff itself"),
    "applied": (lambda x: jax.grad(lambda x: scaled(x).sum())(x) * x, "applied inside already"),
}


@pytest.mark.parametrize("name", JAX_OWN)
def test_rules_of_jax_are_told_apart(name):
    f, expected = JAX_OWN[name]
    report = check(f, X, **FAST)
    assert report.ok and expected in report.facts["rules"]
    if name.startswith("a function"):
        assert len(blame(f, X)) == 1


def test_a_rule_of_jax_is_judged_where_it_is_what_is_checked():
    """`xlogy` at (0, 0): a rule that is NaN where the function has a slope."""
    report = check(jax.scipy.special.xlogy, jnp.array([0.0, 2.0]), jnp.array([0.5, 3.0]), **FAST)
    assert "JAX's own: xlogy" in report.facts["rules"]
    assert report.ok
