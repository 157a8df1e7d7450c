"""Rules ignored at any depth: the values and gradients of the plain forward, however wrong the rule."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.rules import rule_of
from refgrad.verify import blame, check, widen
from refgrad.verify.rules import remaining_rules, without_rules
from tests.lanes import fast_if
from tests.verify.scenes import SCENES, X, mesh, rule, trips

WRONG = rule(jnp.sin, lambda x: 7 + 0 * x)


def total(f):
    return lambda *args: sum(jnp.sum(y) for y in jax.tree.leaves(f(*args)))


@pytest.mark.parametrize("scene", SCENES)
def test_the_plain_forward_is_differentiated(scene):
    f, plain = without_rules(SCENES[scene](WRONG)), SCENES[scene](jnp.sin)
    # jax.tree.map below also holds the trees of the outputs to each other
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), f(X), plain(X))
    expected = jax.grad(total(plain))(X)
    for g in (jax.grad(total(f)), jax.grad(jax.jit(total(f)))):
        np.testing.assert_allclose(g(X), expected, rtol=2e-6)
    if scene != "within another rule":  # there the planted fault is dead code
        assert not np.allclose(jax.grad(total(SCENES[scene](WRONG)))(X), expected, rtol=1e-2)


def test_a_while_loop_keeps_its_forward_mode():
    tangent = jax.jvp(without_rules(trips(WRONG)), (X,), (X,))[1]
    np.testing.assert_allclose(tangent, jax.jvp(trips(jnp.sin), (X,), (X,))[1], rtol=1e-6)


@pytest.mark.parametrize("scene", SCENES)
def test_no_call_of_a_rule_is_left(scene):
    program = jax.make_jaxpr(without_rules(SCENES[scene](WRONG)))(X)
    assert "custom_vjp_call" not in {e.primitive.name for e in equations(program)}
    assert remaining_rules(SCENES[scene](WRONG), X) == []


def test_a_program_without_rules_is_left_as_it_is():
    def f(x):
        y = lax.scan(lambda c, a: (c * a, jax.nn.relu(c)), x, x)[1]
        return jax.checkpoint(lambda y: lax.cond(y[0, 0] > 0, jnp.cos, jnp.sin, y))(y), jax.jit(jnp.tanh)(x)

    assert str(jax.make_jaxpr(without_rules(f))(X)) == str(jax.make_jaxpr(f)(X))


@pytest.mark.parametrize(
    "around",
    [
        jax.jit,
        jax.vmap,
        lambda f: jax.jit(jax.vmap(f)),
        lambda f: jax.shard_map(f, mesh=mesh(), in_specs=P("a"), out_specs=P("a")),
        lambda f: jax.shard_map(f, mesh=mesh(), in_specs=P("a"), out_specs=P("a"), check_vma=False),
        jax.checkpoint,
        lambda f: lambda x: lax.map(f, x),
        lambda f: jax.vmap(jax.grad(f)),
        lambda f: lambda x: jax.jvp(f, (x,), (x,))[1],
    ],
)
def test_inside_every_transformation(around):
    """The stripped function is a function like any other: what stands around it sees the plain one."""

    def f(op):
        return lambda x: lax.scan(lambda c, _: (op(c) + c, None), x, None, length=2)[0]

    stripped, plain = around(without_rules(f(WRONG))), around(f(jnp.sin))
    np.testing.assert_allclose(stripped(X), plain(X), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(total(stripped))(X), jax.grad(total(plain))(X), rtol=1e-6)


def test_what_jit_would_donate_is_still_the_callers():
    x = X * 1
    without_rules(jax.jit(lambda x: WRONG(x) * 2, donate_argnums=0))(x)
    assert not x.is_deleted()


def test_second_order():
    f = without_rules(lambda x: total(WRONG)(x))
    np.testing.assert_allclose(jax.hessian(f)(X), np.diag(-np.sin(X)), rtol=1e-6)


def test_trees_keywords_statics_and_keys_pass_through():
    def f(params, mode, n, *, key, scale=2.0, act=jnp.tanh):
        assert mode == "mean" and isinstance(n, int)
        noise = jax.random.normal(key, params["w"].shape)
        y = act(WRONG(params["w"]) * scale) + noise
        return {"out": (y.reshape(n, -1), None), "ids": params["ids"] + n}

    params = {"w": X, "ids": jnp.arange(3)}
    call = partial(f, params, "mean", 2, key=jax.random.key(0), act=jnp.sin)
    got = without_rules(f)(params, "mean", 2, key=jax.random.key(0), act=jnp.sin)
    assert jax.tree.structure(got) == jax.tree.structure(call())
    jax.tree.map(np.testing.assert_array_equal, got, call())


def test_nondiff_argnums_and_integers():
    @partial(jax.custom_vjp, nondiff_argnums=(0, 2))
    def take(axis, x, mode, index):
        return jnp.take(x, index, axis, mode=mode)

    take.defvjp(lambda axis, x, mode, index: (jnp.take(x, index, axis), x), lambda axis, mode, x, ct: (x, None))
    x, index = jnp.arange(6.0).reshape(2, 3), jnp.array([2, 0])
    g = jax.grad(lambda x: without_rules(take)(1, x, "clip", index).sum())(x)
    np.testing.assert_array_equal(g, [[1, 0, 1], [1, 0, 1]])


def test_symbolic_zeros():
    @jax.custom_vjp
    def f(x, y):
        return jnp.sin(x), y * 2

    def bwd(res, cts):
        return jnp.full(4, 7.0), jnp.full(4, 7.0)

    f.defvjp(lambda x, y: ((jnp.sin(x.value), y.value * 2), None), bwd, symbolic_zeros=True)
    np.testing.assert_allclose(jax.grad(lambda x: without_rules(f)(x, X)[0].sum())(X), jnp.cos(X), rtol=1e-6)


def test_closure_over_what_is_differentiated():
    """JAX refuses such a rule; without it the closure is an ordinary one."""

    def f(w):
        @jax.custom_vjp
        def op(x):
            return w * x

        op.defvjp(lambda x: (w * x, x), lambda x, ct: (ct,))
        return op(X).sum()

    np.testing.assert_allclose(jax.grad(without_rules(f))(3.0), X.sum(), rtol=1e-6)


def test_explicit_sharding_and_varying_axes_survive():
    explicit = mesh(AxisType.Explicit)
    with jax.set_mesh(explicit):
        x = jax.device_put(X, NamedSharding(explicit, P("a")))
        f = jax.jit(without_rules(lambda x: jax.jit(WRONG)(x)))
        assert jax.typeof(f(x)).sharding == jax.typeof(x).sharding
        assert jax.typeof(jax.grad(total(f))(x)).sharding == jax.typeof(x).sharding
    varying = jax.shard_map(
        without_rules(lambda x: lax.scan(lambda c, _: (WRONG(c), None), x, None, length=2)[0]),
        mesh=mesh(),
        in_specs=P("a"),
        out_specs=P("a"),
    )
    np.testing.assert_allclose(varying(X), jnp.sin(jnp.sin(X)), rtol=1e-6)


def jvp_rule(forward, derivative):
    @jax.custom_jvp
    def op(x):
        return forward(x)

    @op.defjvp
    def op_jvp(primals, tangents):
        return op(*primals), tangents[0] * derivative(*primals)

    return op


@pytest.mark.parametrize("scene", SCENES)
def test_custom_jvp_is_dropped_on_request_only(scene):
    f, plain = SCENES[scene](jvp_rule(jnp.sin, lambda x: 7 + 0 * x)), SCENES[scene](jnp.sin)
    expected = jax.grad(total(plain))(X)
    np.testing.assert_allclose(jax.grad(total(without_rules(f, jvp=True)))(X), expected, rtol=2e-6)
    if scene == "within another rule":  # dropped, and the planted one with it comes to light
        assert not np.allclose(jax.grad(total(without_rules(f)))(X), expected)
    else:
        kept = jax.grad(total(without_rules(f)))(X)
        np.testing.assert_allclose(kept, jax.grad(total(f))(X), rtol=1e-6)
        assert not np.allclose(kept, expected, rtol=1e-2)


def test_the_rules_of_jax_itself_stay():
    f = without_rules(lambda x: jax.nn.relu(x) + jnp.sinc(x), jvp=True)
    assert jax.grad(f)(0.0) == 0.0  # autodiff of max(x, 0) would give ½ at the kink, that of sin(x)/x NaN


def test_a_users_rule_for_a_function_of_jax_is_the_users():
    by_jvp, by_jvps, by_vjp = jax.custom_jvp(jnp.sin), jax.custom_jvp(jnp.sin), jax.custom_vjp(jnp.sin)
    by_jvp.defjvp(lambda primals, tangents: (jnp.sin(*primals), tangents[0] * 7))
    by_jvps.defjvps(lambda t, y, x: t * 7)
    by_vjp.defvjp(lambda x: (jnp.sin(x), None), lambda _, ct: (ct * 7,))
    for op in (by_jvp, by_jvps, by_vjp, jax.vmap(by_jvp), jax.vmap(by_jvps), jax.vmap(by_vjp)):
        np.testing.assert_allclose(jax.grad(without_rules(total(op), jvp=True))(X), jnp.cos(X), rtol=1e-6)
        assert not rule_of(jax.make_jaxpr(op)(X).eqns[0]).of_jax


def test_a_rule_inside_a_kept_custom_jvp():
    """In its forward and in its rule, which is out of sight until it is differentiated."""
    op = jvp_rule(lambda x: WRONG(jnp.sin(x)), lambda x: 5 * WRONG(x))
    f = without_rules(total(op))
    np.testing.assert_allclose(f(X), jnp.sin(jnp.sin(X)).sum(), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(f)(X), 5 * jnp.sin(X), rtol=1e-6)
    np.testing.assert_allclose(jax.hessian(f)(X), np.diag(5 * jnp.cos(X)), rtol=1e-6)
    assert not np.allclose(jax.jacrev(jax.grad(total(op)))(X), np.diag(5 * jnp.cos(X)))


def test_a_custom_jvp_with_integers_and_symbolic_zeros():
    @jax.custom_jvp
    def op(x, i, y):
        return WRONG(x) * y, i + 1

    def jvp(primals, tangents):
        kinds = [type(t) is jax.custom_derivatives.SymbolicZero for t in tangents]
        assert kinds == [False, True, True]
        return op(*primals), (tangents[0] * 5, jax.custom_derivatives.zero_from_primal(primals[1], symbolic_zeros=True))

    op.defjvp(jvp, symbolic_zeros=True)
    f = without_rules(lambda x: op(x, jnp.int32(3), X)[0].sum())
    np.testing.assert_array_equal(jax.grad(f)(X), jnp.full(4, 5.0))


APPLIED = {
    "grad": lambda x: jax.grad(total(WRONG))(x),
    "jit of grad": lambda x: jax.jit(jax.grad(total(jax.jit(lambda x: WRONG(x)))))(x),
    "scan inside grad": lambda x: jax.grad(lambda x: lax.scan(lambda c, y: (WRONG(c), None), x, x)[0].sum())(x),
    "checkpoint inside vmap of grad": lambda x: jax.vmap(jax.grad(jax.checkpoint(lambda x: WRONG(x))))(x),
    "inside the rule of a root": lambda b: newton_inside(b),
    "custom_jvp": lambda x: jax.grad(total(jvp_rule(jnp.sin, jnp.tan)))(x),
}


def newton_inside(b):
    def solve(f, x0):
        return lax.fori_loop(0, 20, lambda i, x: x - f(x) / (3 * x**2), x0)

    return lax.custom_root(lambda x: x**3 - WRONG(b), jnp.ones_like(b), solve, lambda g, y: y / g(jnp.ones_like(y)))


@pytest.mark.parametrize("case", APPLIED)
def test_what_was_applied_already_is_named(case):
    named = remaining_rules(APPLIED[case], X)
    assert len(named) == 1 and ("test_rules.py:" in named[0] or "scenes.py:" in named[0])


def test_what_is_plain_is_not_named():
    assert remaining_rules(jax.grad(without_rules(total(WRONG))), X) == []
    assert remaining_rules(jax.grad(total(lambda x: jax.nn.relu(x) + jax.nn.silu(x))), X) == []
    abstract = jax.ShapeDtypeStruct((4,), jnp.float32)
    assert remaining_rules(jax.custom_vjp(jnp.sin).fun, abstract) == []


def test_where_a_backward_stands():
    line = "scenes.py:" + str(WRONG.bwd.__code__.co_firstlineno) + " (op_bwd)"
    for scene in ("bare", "vmap", "scan", "jit, scan, checkpoint, vmap"):
        program = jax.make_jaxpr(SCENES[scene](WRONG))(X)
        calls = [rule for rule in map(rule_of, equations(program)) if rule is not None]
        assert calls and all(rule.location.endswith(line) for rule in calls)
    (called,) = filter(None, map(rule_of, jax.make_jaxpr(jvp_rule(jnp.sin, jnp.cos))(X).eqns))
    assert "(op_jvp)" in called.location


def mapped(f):
    """`f` with a rule of its own for `vmap`."""
    op = jax.custom_batching.custom_vmap(f)
    op.def_vmap(lambda size, batched, *xs: (jax.vmap(f, [0 if b else None for b in batched])(*xs), True))
    return op


SHELLS = {
    "custom_vmap": mapped,
    "composite": lambda f: lax.composite(f, "somebody.function"),
    "named_call": lambda f: jax.named_call(f, name="part"),
    "checkpoint": jax.checkpoint,
    "optimization_barrier": lambda f: lambda x: lax.optimization_barrier(f(x)),
    "checkpoint_name": lambda f: lambda x: checkpoint_name(f(x), "y"),
}


@pytest.mark.parametrize(
    "scene", fast_if(lambda scene: scene in ("bare", "scan"), ["bare", "vmap", "scan", "jit, scan, checkpoint, vmap"])
)
@pytest.mark.parametrize("shell", SHELLS)
def test_shells_that_jax_cannot_differentiate(shell, scene):
    """Inside the forward of a rule, and around one; in float64 as well."""
    if shell == "composite" and scene != "bare":
        pytest.skip("JAX itself cannot batch it")
    for op in (rule(SHELLS[shell](jnp.sin), lambda x: 7 + 0 * x), SHELLS[shell](WRONG)):
        f = SCENES[scene](op)
        expected = jax.grad(total(SCENES[scene](jnp.sin)))(X)
        np.testing.assert_allclose(jax.grad(without_rules(total(f)))(X), expected, rtol=2e-6)
        wide = widen(total(f), X)
        with jax.enable_x64(True):
            np.testing.assert_allclose(jax.grad(wide)(*wide.args), expected, rtol=2e-6)


def test_a_shell_keeps_its_second_order(monkeypatch):
    monkeypatch.setattr("refgrad.verify.exact_oracle.BUDGET", 1)
    op = rule(mapped(lambda x: jnp.sin(x) * x), lambda x: jnp.cos(x) * x + jnp.sin(x))
    report = check(op, X, draws=1, properties=["accuracy", "second_order"])
    assert report.facts["truth"].startswith("autodiff of the plain forward") and report.ok
    assert any(row.property == "forward over reverse" and row.error is not None for row in report.rows)
    assert blame(op, X).ok
