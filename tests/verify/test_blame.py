"""One planted fault among many calls of rules: it is named, with its place, and nothing else is."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from refgrad import ops
from refgrad.models import gpt2
from refgrad.verify import check
from refgrad.verify.blame import blame
from refgrad.verify.report import KINK, OK
from refgrad.verify.verdicts import INHERITED, SILENT, WRONG
from tests.verify.scenes import SCENES, X, mesh, rule, trips

GOOD = rule(jnp.sin, jnp.cos, "good")
BAD = rule(jnp.sin, lambda x: jnp.cos(x) * 1.001, "bad")
PLACES = {**SCENES, "while": trips}


@pytest.mark.parametrize("scene", PLACES)
def test_the_wrong_rule_is_named_wherever_it_is_called(scene):
    """Between right ones, in every place of a program."""
    found = blame(lambda x: GOOD(PLACES[scene](BAD)(GOOD(x))) * 2, X)
    assert {r.rule for r in found.guilty} == {"bad"}
    assert [r.rule for r in found].count("bad") == len(found.guilty) + sum(r.verdict == SILENT for r in found)
    assert [r.verdict for r in found if r.rule in ("good", "op")] == [OK] * sum(r.rule != "bad" for r in found)
    assert all("tests/verify/" in r.place and "(op_bwd)" in r.backward for r in found.guilty)
    assert (found[0].rule, found[-1].rule) == ("good", "good")  # in the order of execution
    assert found.unseen == () and found.limits == () and not found.ok


@pytest.mark.parametrize("scene", PLACES)
def test_right_rules_are_not_blamed(scene):
    found = blame(lambda x: GOOD(PLACES[scene](GOOD)(GOOD(x))), X)
    assert found.ok and len(found) >= 3 and found.guilty == ()


@pytest.mark.parametrize("k", range(5))
def test_only_the_one_call_among_equals(k):
    """A wrong rule spoils neither the calls before it, whose cotangents pass through it, nor those after it."""

    def chain(x):
        for i in range(5):
            x = (BAD if i == k else GOOD)(x) + x
        return x.sum()

    found = blame(chain, X)
    assert [r.verdict == WRONG for r in found] == [i == k for i in range(5)]
    assert found.guilty[0].error == pytest.approx(1e-3, rel=1e-3)


def test_loop_trips_are_told_apart():
    """A rule that is wrong for large arguments only is blamed for the trips in which it meets them."""
    op = rule(jnp.sin, lambda x: jnp.where(x > 2, 0, jnp.cos(x)), "op")
    for reverse, order in ((False, (0, 1, 2, 3)), (True, (3, 2, 1, 0))):
        loop = partial(lax.scan, lambda c, _: (c + 0.5, op(c)), length=4, reverse=reverse)
        found = blame(lambda x: loop(x, None)[1], X)  # noqa: B023
        assert [r.trips for r in found] == [f"scan[{i}]" for i in order]
        assert [r.verdict for r in found] == [OK, OK, OK, WRONG]


FAULTS = {
    "sign": lambda x, ct: (-ct * jnp.cos(x),),
    "factor": lambda x, ct: (ct * jnp.cos(x) * (1 + 1e-5),),
    "zero": lambda x, ct: (0 * ct,),
    "cotangent ignored": lambda x, ct: (jnp.cos(x),),
    "one entry": lambda x, ct: ((ct * jnp.cos(x)).at[2].multiply(1.01),),
    "NaN": lambda x, ct: (ct * jnp.cos(x) / jnp.where(x > 0.8, 0, 1),),
    "None": lambda x, ct: (None,),
    "shape": lambda x, ct: (ct[:2],),
    "tree": lambda x, ct: (ct, ct),
    "raises": lambda x, ct: (_ for _ in ()).throw(KeyError("lost")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault(fault):
    op = jax.custom_vjp(jnp.sin)
    op.defvjp(lambda x: (jnp.sin(x), x), FAULTS[fault])
    found = blame(lambda x: (GOOD(op(GOOD(x))) * jnp.arange(4.0)).sum(), X)
    assert [r.verdict for r in found] == [OK, WRONG, OK]
    assert "test_blame.py:" in found[1].place
    assert ("raises" in found[1].note) == (fault in ("shape", "tree", "raises"))


def test_a_forward_that_differs_from_the_primal():
    op = jax.custom_vjp(jnp.sin)
    op.defvjp(lambda x: (jnp.sin(x) * 1.001, x), lambda x, ct: (ct * jnp.cos(x),))
    (row,) = blame(lambda x: op(x), X).guilty
    assert row.leaf == "value 0" and row.error == pytest.approx(1e-3, rel=1e-3)


def test_a_wrong_rule_inside_a_right_one():
    """The outer rule is its own: only the inner one is wrong."""
    outer = rule(lambda x: BAD(x) * 2, lambda x: 2 * jnp.cos(x), "outer")
    found = blame(lambda x: outer(x).sum(), X)
    assert [(r.rule, r.within, r.verdict) for r in found] == [("outer", None, OK), ("bad", 0, WRONG)]


def test_a_rule_that_inherits_the_fault_of_another():
    outer = jax.custom_vjp(lambda x: BAD(x) * 2)
    outer.defvjp(lambda x: (BAD(x) * 2, x), lambda x, ct: jax.vjp(lambda x: BAD(x) * 2, x)[1](ct))
    found = blame(lambda x: outer(x).sum(), X)
    assert [r.verdict for r in found] == [INHERITED, WRONG]
    assert [r.call for r in found.guilty] == [1]


def test_cotangents_are_those_that_flow():
    """A rule that is wrong for one output only is blamed only where a cotangent reaches that output."""

    @jax.custom_vjp
    def op(x):
        return x * 2, x * 3

    op.defvjp(lambda x: ((x * 2, x * 3), None), lambda _, cts: (cts[0] * 2,))
    assert blame(lambda x: op(x)[0].sum(), X).ok
    assert not blame(lambda x: op(x)[1].sum(), X).ok
    assert not blame(op, X).ok
    assert blame(op, X, cotangent=(jnp.ones(4), jnp.zeros(4))).ok
    assert blame(lambda x: (op(x), x.sum())[1], X)[0].verdict == SILENT
    with pytest.raises(ValueError, match="the cotangent has the tree"):
        blame(op, X, cotangent=jnp.ones(4))


def test_a_rule_inside_a_solver_is_unseen_and_the_others_are_judged():
    def f(b):
        factor = BAD(b) * 0 + 2
        solve = lambda _, y: GOOD(y) * 0 + y / factor  # noqa: E731
        return lax.custom_linear_solve(lambda x: factor * x, b, solve, solve)

    found = blame(f, X)
    assert [r.rule for r in found] == ["bad"] and "inside custom_linear_solve" in found.unseen[0]


def test_real_values_are_needed():
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda x: len(blame(GOOD, x)))(X)
    with pytest.raises(ValueError, match="outside jit"):
        blame(GOOD, jax.ShapeDtypeStruct((4,), jnp.float32))


def test_trees_keys_integers_statics_and_symbolic_zeros():
    @partial(jax.custom_vjp, nondiff_argnums=(3,))
    def op(params, key, ids, scale):
        noise = jax.random.normal(key, params["w"].shape)
        return {"y": params["w"] * noise * scale, "n": ids + 1}

    def op_fwd(params, key, ids, scale):
        noise = jax.random.normal(key.value, params["w"].value.shape)
        return {"y": params["w"].value * noise * scale, "n": ids.value + 1}, noise

    def op_bwd(factor, scale, noise, ct):
        return {"w": ct["y"] * noise * scale * factor}, None, None

    for factor, verdict in ((1.0, OK), (1.01, WRONG)):
        op.defvjp(op_fwd, partial(op_bwd, factor), symbolic_zeros=True)
        args = {"w": X}, jax.random.key(0), jnp.arange(3), 2.0
        (row,) = blame(lambda *args: op(*args)["y"].sum(), *args)
        assert row.verdict == verdict and "(op_bwd)" in row.backward
        assert row.shapes == "f32[4] key<fry>[] i32[3]"


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64])
def test_every_dtype(dtype, x64):
    x = X.astype(dtype)
    eps = float(jnp.finfo(dtype).eps)
    off = rule(jnp.sin, lambda x: jnp.cos(x) * jnp.asarray(1 + 16 * eps, x.dtype), "off")
    found = blame(lambda x: off(GOOD(x)), x)
    assert [r.verdict for r in found] == [OK, WRONG]


def test_custom_jvp_rules_are_judged_too_but_those_of_jax():
    @jax.custom_jvp
    def op(x):
        return jnp.sin(x)

    @op.defjvp
    def op_jvp(primals, tangents):
        return op(*primals), tangents[0] * jnp.cos(*primals) * 1.001

    (row,) = blame(lambda x: jax.nn.relu(op(x)).sum(), X)
    assert row.verdict == WRONG and row.rule == "op" and "(op_jvp)" in row.backward


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("reduced", [True, False])
def test_a_replicated_weight_inside_shard_map(check_vma, reduced):
    """The cotangent of a weight that every device shares is a sum over the devices: JAX's, or the rule's."""

    @jax.custom_vjp
    def scale(x, w):
        return x * w

    def bwd(res, ct):
        x, w = res
        dw = (ct * x).sum()
        return ct * w, lax.psum(dw, "a") if reduced and check_vma else dw

    scale.defvjp(lambda x, w: (x * w, (x, w)), bwd)
    body = lambda x, w: scale(GOOD(x), w)  # noqa: E731
    f = jax.shard_map(body, mesh=mesh(), in_specs=(P("a"), P()), out_specs=P("a"), check_vma=check_vma)
    found = blame(f, X, jnp.float32(2.0))
    assert [r.rule for r in found] == ["good", "scale"]
    assert found.ok == (reduced or not check_vma)


def test_what_cannot_be_seen_is_named():
    body = lambda x: lax.cond(x[0] > 0.5, BAD, lambda x: x, x)  # noqa: E731
    found = blame(jax.shard_map(body, mesh=mesh(), in_specs=P("a"), out_specs=P("a")), X)
    assert len(found) == 0 and len(found.unseen) == 1 and "inside cond" in found.unseen[0]
    found = blame(lambda x: jax.grad(lambda x: BAD(x).sum())(x), X)
    assert len(found) == 0 and "applied before it could be seen" in found.unseen[0]
    assert "unseen: " in str(found)


def pallas(x):
    def kernel(x, y):
        y[...] = jnp.sin(x[...])

    return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)


def callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")


@pytest.mark.parametrize("forward", [pallas, callback, lambda x: trips(jnp.sin)(x) * 0 + jnp.sin(x)])
def test_forwards_without_reverse_mode(forward):
    """Cotangents pass through the rules of such forwards, there being no other way."""
    right, wrong = rule(forward, jnp.cos, "right"), rule(forward, lambda x: jnp.cos(x) * 1.01, "wrong")
    inner = rule(lambda x: GOOD(right(x)), lambda x: jnp.cos(jnp.sin(x)) * jnp.cos(x), "inner")
    found = blame(lambda x: GOOD(right(wrong(inner(GOOD(x))))), X)
    assert [r.rule for r in found] == ["good", "inner", "right", "good", "wrong", "right", "good"]
    assert [r.rule for r in found.guilty] == ["wrong"]
    assert [(r.rule, r.within) for r in blame(inner, X)] == [("inner", None), ("right", 0), ("good", 0)]


def test_a_kernels_rule_that_fails_is_named_in_one_line():
    broken = rule(pallas, lambda x: jnp.cos(x)[:2], "broken")
    with pytest.raises(ValueError, match=r"the forward of broken \(.*\(op_bwd\)\) has no reverse mode"):
        blame(lambda x: broken(GOOD(x)), X)


def test_prints_as_a_table_and_as_json():
    found = blame(lambda x: GOOD(BAD(x)), X)
    text = str(found)
    assert text.startswith("2 calls of rules, 1 wrong\nWRONG: bad, called at ")
    assert all(word in text for word in ("worst leaf", "argument 0", "f32[4]"))
    data = json.loads(found.json())
    assert [row["verdict"] for row in data["rows"]] == [WRONG, OK] and data["ok"] is False


CONFIG = gpt2.Config(n_layer=2, n_head=2, n_embd=8, n_positions=6, vocab_size=11)


@pytest.mark.slow
@pytest.mark.parametrize(("op", "looped"), [("gelu", {}), ("layer_norm", {"scan": True, "remat": True})])
def test_a_whole_gpt2(op, looped, monkeypatch):
    """A dozen calls of rules a layer; the backward of one operation is off by a thousandth."""
    right = getattr(ops, op)
    params = gpt2.init(jax.random.key(0), CONFIG)
    tokens, targets = jax.random.randint(jax.random.key(1), (2, 2, 5), 0, CONFIG.vocab_size)
    f = lambda p: gpt2.loss(p, tokens, targets, CONFIG, **looped)  # noqa: E731
    assert (clean := blame(f, params)).ok and len(clean) > 28
    backward = right.bwd
    monkeypatch.setattr(right, "bwd", lambda *args: jax.tree.map(lambda ct: ct * 1.001, backward(*args)))
    found = blame(f, params)
    assert {r.rule for r in found.guilty} == {op}
    assert len(found.guilty) == sum(r.rule == op for r in clean)


def test_a_kink_is_not_guilt():
    """At the hinge any value between the one-sided derivatives will do, and no other."""
    x = jnp.array([0.2, 1.7, -3.0], jnp.float32)
    rounded = rule(jnp.round, lambda x: jnp.zeros_like(x), "rounded")
    for slope, verdict in ((0.0, KINK), (1.0, KINK), (7.0, WRONG)):
        derivative = lambda x: jnp.where(x > 0, 1, jnp.where(x == 0, slope, 0)).astype(x.dtype)  # noqa: B023, E731
        hinge = rule(lambda x: jnp.maximum(x, 0), derivative, "hinge")
        found = blame(lambda x: hinge(rounded(x) * 2).sum(), x)  # noqa: B023
        assert [r.verdict for r in found] == [OK, verdict], found
        assert "slopes 0 and 1" in found[1].note


def test_a_fault_beside_a_kink_is_guilt():
    hinge = rule(lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x > 0, 1.01, 0).astype(x.dtype), "hinge")
    (row,) = blame(lambda x: hinge(x), jnp.array([0.0, 1.0], jnp.float32)).guilty
    assert row.leaf == "argument 0" and 1e-3 < row.error < 0.02


def test_the_drawn_cotangent_is_not_the_users_own_array():
    """Along itself a normalised vector has no gradient: such a draw would clear any rule."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal(4), jnp.float32)
    normalise = lambda x: x / jnp.sqrt((x * x).sum())  # noqa: E731
    zero = rule(lambda x: normalise(x), lambda x: jnp.zeros_like(x), "zero")
    assert not blame(zero, x).ok


def test_arrays_that_a_rule_closes_over_are_constants():
    w = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4)), jnp.float32)

    def forward(x):
        return jnp.sin(w @ x)

    with_vjp, with_jvp = jax.custom_vjp(forward), jax.custom_jvp(forward)
    with_vjp.defvjp(lambda x: (forward(x), x), lambda x, g: (w.T @ (g * jnp.cos(w @ x)),))
    with_jvp.defjvp(lambda p, t: (forward(*p), jnp.cos(w @ p[0]) * (w @ t[0])))
    for f in (with_vjp, with_jvp):
        assert blame(lambda x: f(x).sum(), X).ok and blame(jax.vmap(f), jnp.stack([X, X])).ok  # noqa: B023
        assert check(f, X, order=1, draws=2).ok


def test_only_the_chosen_arguments_are_judged():
    scaled = jax.custom_vjp(lambda x, w: x * w)
    scaled.defvjp(lambda x, w: (x * w, (x, w)), lambda kept, g: (g * kept[1], 2 * g * kept[0]))
    assert blame(scaled, X, X + 1, argnums=0).ok and not blame(scaled, X, X + 1, argnums=1).ok
