"""Special points and odd shapes: what is tried, what is left alone, and how a failure is repeated."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.cli import main
from refgrad.verify import assert_ok, check, intents, special
from refgrad.verify.subject import Subject
from tests.verify.corpus import RIGHT, WRONG
from tests.verify.specimens import normal, rule

QUICK = {"order": 1, "properties": ("structure", "accuracy")}


def _norm(x):
    return jnp.sqrt(jnp.sum(x * x, axis=-1))


norm = rule(_norm, lambda x: (_norm(x), x), lambda x, g: (x * (g / _norm(x))[..., None],))
safe_norm = rule(
    _norm,
    lambda x: (_norm(x), x),
    lambda x, g: (x * (g / jnp.where(_norm(x) == 0, 1, _norm(x)))[..., None],),
)
add = rule(lambda x, b: x + b[None], lambda x, b: (x + b[None], None), lambda _, g: (g, jnp.sum(g[:3], axis=0)))


def same(a, b):
    """Equal rows, NaN and all."""
    return repr(a) == repr(b)


def replay(call, **names):
    """The report of the one line."""
    return eval(call, {"check": check, **names})


# Values


def test_a_wrong_rule_is_caught_at_a_special_point_only():
    assert check(norm, normal(2, 3), **QUICK).ok
    report = check(norm, normal(2, 3), sweep=True, **QUICK)
    assert report.variants == ("x: zeros", "x: first zero") and not report.ok
    assert report.facts["sweep"].startswith("2 of ")
    assert_ok(safe_norm, normal(2, 3), sweep=True, **QUICK)


def test_each_variant_is_replayed_byte_for_byte():
    args = (normal(2, 3),)
    report = check(norm, *args, sweep=True, seed=3, **QUICK)
    assert report.replays == tuple(f"check(_norm, *args, sweep={v!r}, seed=3)" for v in report.variants)
    for variant, call in zip(report.variants, report.replays, strict=True):
        again = replay(call, _norm=norm, args=args)
        assert same(again.rows, tuple(row for row in report.rows if row.variant == variant))
        assert call in str(report) and call in report.summary() and call in report.data()["replays"]


def test_a_variant_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no variant 'x: purple' of these arguments: there are x: zeros, "):
        check(norm, normal(2, 3), sweep="x: purple")


def test_variants_differ_and_keep_their_types():
    args = (normal(2, 3), normal(2, 3, dtype=jnp.bfloat16), jnp.array([1, 2]), jnp.array([True, False]), 3.0)
    subject = Subject.of(lambda x, y, i, m, s: x, args)
    found = list(special.variants(subject, (0.75, -0.75)))
    labels = [v.label for v in found]
    assert len(set(labels)) == len(labels) and {"all: zeros", "arg2: equal", "arg3: false"} <= {
        label.replace("i:", "arg2:").replace("m:", "arg3:") for label in labels
    }
    for _, diff, rest in found:
        for new, old in zip((*diff, *rest), (*subject.diff, *subject.rest), strict=True):
            assert (new.shape, new.dtype) == (old.shape, old.dtype)
    (constants,) = (v for v in found if v.label == "x: constants")
    assert set(np.unique(constants.diff[0])) == {0.75, -0.75}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_magnitudes_suit_the_dtype(dtype):
    with jax.enable_x64(True):
        x = jnp.asarray([1.0, -1.5], dtype)
        changed = {name: np.asarray(special.changed(x, edit), np.float64) for name, edit in special.FLOATS.items()}
    assert all(np.isfinite(v).all() for name, v in changed.items() if "inf" not in name)
    assert 0 < changed["subnormal"][0] < float(jnp.finfo(dtype).tiny) and changed["tiny"][0] < 1e-2


def test_complex_infinities_hold_no_nan():
    changed = special.changed(jnp.array([1 + 2j, 3 - 1j], jnp.complex64), special.FLOATS["-inf"])
    assert np.isneginf(changed.real).all() and np.isneginf(changed.imag).all()
    shift = rule(lambda a, b: a + b * b, lambda a, b: (a + b * b, b), lambda b, g: (g, 2 * g * b))
    report = check(shift, *(lax.complex(normal(3), normal(3, seed=k)) for k in (1, 2)), sweep=True, **QUICK)
    assert report.ok, str(report)


def test_permutations_stay_permutations():
    put = rule(lambda x, i: x[i], lambda x, i: (x[i], i), lambda i, g: (g[jnp.argsort(i)], None))
    assert_ok(put, normal(4), jnp.array([2, 0, 3, 1]), sweep=True, **QUICK)
    assert not check(put, normal(4), jnp.arange(4), sweep=True, **QUICK).ok  # tokens, or labels, may repeat
    assert set(special.changes(np.array([[1, 0, 2], [0, 2, 1]]))) == set(special.PERMUTATIONS)


def test_scalars_have_variants():
    assert_ok(rule(jnp.sinh, lambda x: (jnp.sinh(x), x), lambda x, g: (g * jnp.cosh(x),)), 0.5, sweep=True, **QUICK)


def test_a_constant_rounded_to_the_own_dtype_is_not_blamed_far_away():
    """The forward divides by √2, the rule multiplies by its inverse, and neither takes float64."""
    root = np.float32(np.sqrt(2))

    def wave(x):
        if x.dtype != jnp.float32:
            raise TypeError("float32 only")
        return jnp.sin(x / root)

    right, wrong = (
        rule(wave, lambda x: (wave(x), x), lambda x, g, k=k: (k * g * jnp.cos(x * (1 / root)) * (1 / root),))
        for k in (1, 1.01)
    )
    assert_ok(right, normal(3), sweep=True, **QUICK)
    assert not check(wrong, normal(3), sweep="x: large", **QUICK).ok


def test_keys_and_sizes_of_nothing_are_left_alone():
    assert not special.changes(jax.random.key(0)) and not special.changes(np.zeros(2, np.uint32))
    assert not special.changes(np.zeros((0, 3), np.float32))


def test_a_function_outside_its_domain_is_not_blamed():
    log = rule(jnp.log, lambda x: (jnp.log(x), x), lambda x, g: (g / x,))
    report = check(log, jnp.array([0.5, 2.0]), sweep=True, **QUICK)
    assert report.ok and "the function is not defined at" in report.facts["sweep"]


def test_zero_times_infinity_is_not_blamed():
    layer = rule(
        lambda x, w: jnp.tanh(x @ w),
        lambda x, w: (jnp.tanh(x @ w), (x, w)),
        lambda r, g: ((g * (1 - jnp.tanh(r[0] @ r[1]) ** 2)) @ r[1].T, r[0].T @ (g * (1 - jnp.tanh(r[0] @ r[1]) ** 2))),
    )
    assert_ok(layer, normal(2, 3), normal(3, 2), sweep=True, **QUICK)


def test_what_surrounds_the_rules_is_not_blamed():
    """Autodiff of the code around a right rule is NaN at 0; of a wrong rule inside, the rule is."""
    square = rule(lambda x: x * x, lambda x: (x * x, x), lambda x, g: (2 * g * x,))
    assert_ok(lambda x: jnp.sqrt(jnp.sum(square(x))), normal(3), sweep=True, **QUICK)
    assert not check(lambda x: norm(square(x)), normal(2, 3), sweep=True, **QUICK).ok


def test_what_a_rule_means_holds_at_special_points():
    through = rule(lambda x: jnp.round(x), lambda x: (jnp.round(x), x), lambda x, g: (g,))
    broken = rule(lambda x: jnp.round(x), lambda x: (jnp.round(x), x), lambda x, g: (g * x / x,))
    meant = {"intent": intents.straight_through, "sweep": True, **QUICK}
    assert_ok(through, normal(3), **meant)
    report = check(broken, normal(3), **meant)
    assert report.replays[0] == "check(f, *args, sweep='x: zeros', intent=intents.straight_through)"
    assert not replay(report.replays[0], f=broken, args=(normal(3),), intents=intents).ok
    clipped = rule(lambda x: x * 1.0, lambda x: (x * 1.0, None), lambda _, g: (jnp.clip(g, -0.5, 0.5),))
    assert_ok(clipped, normal(3), intent=intents.clip(-0.5, 0.5), sweep=True, **QUICK)


def test_a_tie_must_add_up():
    largest = lambda x: jnp.max(x, axis=-1)  # noqa: E731
    hits = lambda x: (x == largest(x)[:, None]).astype(x.dtype)  # noqa: E731
    ties = jnp.array([[1.0, 2.0, 2.0]])
    every = rule(largest, lambda x: (largest(x), x), lambda x, g: (g[:, None] * hits(x),))
    split = rule(largest, lambda x: (largest(x), x), lambda x, g: (g[:, None] * hits(x) / hits(x).sum(-1)[:, None],))
    assert_ok(split, ties, **QUICK)
    (row,) = check(every, ties, **QUICK).failures
    assert row.property == "points" and "entries of a tie add up to" in row.note


def test_the_median_of_equal_entries_has_no_derivative():
    median = lambda x: jnp.sort(x)[1]  # noqa: E731
    one = rule(median, lambda x: (median(x), x), lambda x, g: (jnp.zeros_like(x).at[jnp.argsort(x)[1]].set(g),))
    report = check(one, jnp.ones(3), **QUICK)
    assert report.ok and [row.verdict for row in report.of("points")] == ["kink"]


def test_no_rule_or_a_failure_leaves_the_sweep_out():
    assert check(_norm, normal(2, 3), sweep=True, **QUICK).facts["sweep"].startswith("left out: it holds no rule")
    doubled = rule(_norm, lambda x: (_norm(x), x), lambda x, g: (2 * x * (g / _norm(x))[..., None],))
    report = check(doubled, normal(2, 3), sweep=True, **QUICK)
    assert not report.ok and "sweep" not in report.facts and not report.replays


def test_seconds_leave_the_sweep_out():
    report = check(safe_norm, normal(2, 3), sweep=True, seconds=1e-9)
    assert report.status == "partial" and "sweep" in report.left_out


def test_a_large_program_is_not_swept():
    sine = rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    many = lambda x: lax.fori_loop(0, 30, lambda i, y: sine(y), x)  # noqa: E731
    assert check(many, normal(400, 400), sweep=True, **QUICK).facts["sweep"].startswith("left out: ")


# Sizes


def test_sizes_find_what_one_shape_hides():
    text = "f32[b,h] f32[h]"
    assert check(add, text, **QUICK).ok
    report = check(add, text, sweep=True, **QUICK)
    assert set(report.variants) == {"f32[17,128] f32[128]", "f32[128,1] f32[1]"}
    assert report.facts["sizes"] == "b=3, h=2; 2 of 8 others fail"
    call = "check(f, 'f32[17,128] f32[128]', draws=2)"
    assert call in report.replays
    again = replay(call, f=add)
    mine = [dataclasses.replace(row, variant="") for row in report.failures if row.variant == "f32[17,128] f32[128]"]
    assert all(any(same(row, other) for other in again.failures) for row in mine)


def test_dimensions_bind_across_arguments_and_bounds():
    pick = rule(
        lambda table, ids: table[ids],
        lambda table, ids: (table[ids], (table, ids)),
        lambda r, g: (jnp.zeros_like(r[0]).at[r[1]].add(g), None),
    )
    report = check(pick, "f32[v,h] i32[b]<v", sweep=True, **QUICK)
    assert report.ok and report.facts["sizes"].startswith("v=3, h=2, b=5; ")


def test_sizes_that_the_function_refuses_are_named():
    def halves(x):
        if x.shape[0] % 2:
            raise ValueError("an even number of rows, please")
        return x * 2.0

    even = rule(halves, lambda x: (halves(x), None), lambda _, g: (2.0 * g,))
    report = check(even, "f32[b,h]", sweep=True, **QUICK)
    assert report.ok and report.facts["sizes"].startswith("b=4, h=2; ")
    (refused,) = (fact for fact, why in report.facts.items() if why == "an even number of rows, please")
    assert refused.startswith("refused at b=1, h=2; ")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_arrays_without_elements_are_no_fault_and_no_check(shape):
    report = check(safe_norm, jnp.zeros(shape), sweep=True)
    assert not report.failures and report.status == "nothing to check"


# The shell


@pytest.mark.slow
def test_the_shell_sweeps_and_prints_commands(tmp_path, capsys):
    module = tmp_path / "mine.py"
    module.write_text(
        "import jax, jax.numpy as jnp\n"
        "def norm(x):\n    return jnp.sqrt(jnp.sum(x * x))\n"
        "op = jax.custom_vjp(norm)\n"
        "op.defvjp(lambda x: (norm(x), x), lambda x, g: (x * (g / norm(x)),))\n"
    )
    target = ["verify", f"{module}:op", "--args", "f32[3]"]
    assert main([*target, "--no-sweep"]) == 0
    capsys.readouterr()
    assert main(target) == 1
    shown = capsys.readouterr().out
    command = f"refgrad verify {module}:op --args 'f32[3]' --sweep 'x: zeros'"
    assert f"replay: {command}" in shown
    assert main([*target, "--sweep", "x: zeros"]) == 1
    assert f"replay: {command}" in capsys.readouterr().out


# Rules as people write them


def swept(specimen, **settings):
    wide = jax.enable_x64(True) if specimen.dtype == "float64" else contextlib.nullcontext()
    with wide:
        return check(specimen.function, *specimen.args, sweep=True, **specimen.settings, **settings)


def marked(specimens, every):
    """One in `every` specimens in the fast lane."""
    return [pytest.param(s, id=s.name, marks=[pytest.mark.slow] * bool(k % every)) for k, s in enumerate(specimens)]


@pytest.mark.parametrize("specimen", marked(WRONG, 24))
def test_wrong_rules_are_caught(specimen):
    assert not swept(specimen, **QUICK).ok or not swept(specimen).ok


@pytest.mark.parametrize("specimen", marked(RIGHT, 24))
def test_right_rules_pass(specimen):
    report = swept(specimen, **QUICK)
    assert report.ok, report.summary()


def test_there_are_enough_of_them():
    names = [{s.name.rpartition(" (")[0] for s in specimens} for specimens in (WRONG, RIGHT)]
    assert min(map(len, names)) >= 40
