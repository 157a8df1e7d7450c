"""Two programs compared: planted pairs, each with its cause and its line; nothing unexplained; bad input."""

import inspect
import json
import re
from pathlib import Path

import jax
import pytest
from jax import lax

from refgrad import cost
from refgrad.cost.comparison.items import Figures
from refgrad.models import gpt2
from tests.cost import pairs
from tests.cost.pairs import V, W, X, shape

ROOT = Path(__file__).parents[2]
SAVED = Path(__file__).parent / "saved"
BIAS = shape(32)
PAIRS = {
    "one FLOP more": (pairs.plain, pairs.one_flop_more, (X, W), "line changed", "flops"),
    "a bias": (pairs.without_bias, pairs.with_bias, (X, W, BIAS), "bias", "flops"),
    "half precision": (pairs.plain, pairs.in_half, (X, W), "cast", "bytes"),
    "layout": (pairs.plain, pairs.transposed_twice, (X, W), "layout", "bytes"),
    "the order of a product": (
        pairs.left_first,
        pairs.right_first,
        (X, W, V),
        "another algorithm for the same product",
        "flops",
    ),
    "a product by broadcasting": (
        pairs.left_first,
        pairs.by_broadcasting,
        (X, W, V),
        "another algorithm for the same product",
        "flops",
    ),
    "a line more": (pairs.plain, pairs.two_lines, (X, W), "line added", "transcendentals"),
    "another length": (pairs.three_trips, pairs.five_trips, (X, W), "another number of trips", "flops"),
    "another exponent": (pairs.squared, pairs.fifth_power, (X,), "other parameters", "flops"),
    "one exchange more": (pairs.one_exchange, pairs.two_exchanges, (X,), "line changed", "collectives"),
}
BACKWARD = {
    "jax.checkpoint": (pairs.stacked, pairs.checkpointed, (X, W), "recomputed", "flops", pairs.layer),
    "a rule that recomputes": (
        *(pairs.rule_keeps, pairs.rule_recomputes, (X,)),
        *("recomputed", "transcendentals", pairs.rule_recomputes),
    ),
    "a bias": (pairs.without_bias, pairs.with_bias, (X, W, BIAS), "bias", "flops", pairs.with_bias),
    "fan-in": (pairs.no_fan_out, pairs.fan_out, (X, W), "fan-in", "flops", pairs.fan_out),
}


def here(f) -> str:
    """The line of a planted program that ends in the mark; of one that only calls `repeat`, the line there."""
    for function in (f, pairs.repeat):
        lines, first = inspect.getsourcelines(function)
        marked = [n for n, line in enumerate(lines) if line.rstrip().endswith("# here")]
        if marked:
            break
    return f"tests/cost/pairs.py:{first + marked[0]}"


def compared(before, after, args, **options):
    found = cost.compare(cost.program(before, *args, **options), cost.program(after, *args, **options))
    assert sum_of(found) == found.change
    assert max(map(len, str(found).splitlines())) <= 100
    return found


def sum_of(found):
    total = Figures()
    for one in found.differences:
        total = total.plus(one.change)
    return total


def check(found, cause, figure, line=None):
    assert not any(found.unexplained)
    changes = {name: abs(getattr(change, figure)) for name, change in found.by_cause.items()}
    assert max(changes, key=lambda name: changes[name]) == cause, changes
    named = {one.source for one in found.differences if one.cause == cause and getattr(one.change, figure)}
    assert line is None or line in named
    assert "Unexplained: 0." in str(found)


@pytest.mark.parametrize("name", PAIRS)
def test_a_planted_difference_is_named(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    before, after, args, cause, figure = PAIRS[name]
    check(compared(before, after, args), cause, figure, here(after))


@pytest.mark.parametrize("name", BACKWARD)
def test_a_planted_difference_of_backward_passes_is_named(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    before, after, args, cause, figure, place = BACKWARD[name]
    check(compared(before, after, args, backward=True), cause, figure, here(place))


@pytest.mark.parametrize("name", ["one FLOP more", "a bias", "half precision", "the order of a product", "a line more"])
def test_lowered_programs_have_the_same_causes(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    before, after, args, cause, figure = PAIRS[name]
    check(compared(before, after, args, stage="lowered"), cause, figure, here(after))


def test_a_loop_is_counted_once_by_xla():
    found = compared(pairs.three_trips, pairs.unrolled, (X, W), stage="lowered")
    check(found, "loop counted once", "flops")
    assert not any(compared(pairs.three_trips, pairs.unrolled, (X, W)).change[:2])


def test_one_flag_of_the_compiler():
    """Without excess precision, what bfloat16 rounds is rounded in the compiled program too."""
    flags = [{"xla_allow_excess_precision": allowed} for allowed in (True, False)]
    before, after = (cost.program(pairs.twice_in_half, X, stage="compiled", flags=one) for one in flags)
    found = cost.compare(before, after)
    assert set(found.by_cause) <= {"fused away", "rewritten by the compiler"} and found.change.flops > 0
    assert sum_of(found) == found.change


SLICES = {
    "a slice": (lambda x, part, i: lax.slice(x, (1,), (4,)), 24),
    "a slice at an index": (lambda x, part, i: lax.dynamic_slice(x, (i,), (3,), allow_negative_indices=False), 28),
    "an update": (lambda x, part, i: lax.dynamic_update_slice(x, part, (i,), allow_negative_indices=False), 28),
}


@pytest.mark.parametrize(("program", "moved"), SLICES.values(), ids=SLICES)
def test_a_slice_moves_its_part_and_its_index(program, moved):
    arguments = shape(8), shape(3), jax.ShapeDtypeStruct((), "int32")
    assert cost.program(program, *arguments, stage="lowered").figures.bytes == moved


def test_stages_of_one_program_are_told_apart():
    counted, lowered, compiled = (
        cost.program(pairs.three_trips, X, W, stage=stage) for stage in ("counted", "lowered", "compiled")
    )
    found = cost.compare(counted, lowered)
    assert not any(found.unexplained) and any("loop counted once" in cause for cause in found.by_cause)
    assert cost.compare(lowered, counted).change == found.change.times(-1)
    assert "fused away" in cost.compare(lowered, compiled).by_cause


def test_one_function_under_two_versions_of_jax():
    before, after = (cost.load(SAVED / f"gated_jax_{version}.json") for version in ("0.10", "0.12"))
    found = cost.compare(before, after)
    check(found, "cost of a primitive in another JAX version", "bytes")
    assert set(found.by_cause) == {"cost of a primitive in another JAX version"}
    assert {one.text for one in found.differences} == {"return jnp.sum(jnp.tanh(x))  # here"}


def test_the_same_program_costs_the_same():
    found = compared(pairs.plain, pairs.plain, (X, W))
    assert found.ok and not found.differences and found.json()["ok"]


def test_other_sizes_are_other_shapes():
    found = cost.compare(cost.program(pairs.plain, X, W), cost.program(pairs.plain, shape(16, 16), W))
    check(found, "other shapes", "flops")


def test_allowances():
    before, after = cost.program(pairs.plain, X, W), cost.program(pairs.one_flop_more, X, W)
    assert cost.compare(before, after).exceeded == ["flops", "bytes"]
    assert cost.compare(before, after, allow="flops=1,bytes=0.2%").ok
    assert cost.compare(before, after, allow={"flops": "0.001%", "bytes": 12}).exceeded == ["flops"]
    assert cost.compare(after, before).ok


def test_a_saved_program_is_the_program(tmp_path):
    program = cost.program(pairs.stacked, X, W, backward=True, stage="lowered")
    program.save(tmp_path / "saved.json")
    assert cost.load(tmp_path / "saved.json") == program
    cost.count(pairs.plain, X, W).save(tmp_path / "count.json")
    assert cost.compare(cost.load(tmp_path / "count.json"), cost.count(pairs.plain, X, W)).ok
    assert not list(tmp_path.glob("*.part"))


def damaged(path, change):
    cost.program(pairs.plain, X, W).save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


BAD = {
    "another format": (
        lambda p: cost.load(damaged(p, lambda d: d.update(format=99))),
        "is of format 99, but this version of refgrad reads format 1: save it again",
    ),
    "damaged": (lambda p: cost.load(damaged(p, lambda d: d.pop("items"))), "is damaged or not a saved program"),
    "cut off": (lambda p: (p.write_text('{"format": 1'), cost.load(p)), "is damaged or not a saved program"),
    "another figure": (
        lambda p: cost.load(damaged(p, lambda d: d["figures"].update(flops=1))),
        "is damaged: its items add up to",
    ),
    "no file": (lambda p: cost.load(p), "no such file: save one with cost.program"),
    "no folder": (lambda p: cost.program(pairs.plain, X, W).save(p / "x" / "y.json"), "no folder"),
    "a stage": (lambda p: cost.program(pairs.plain, X, W, stage="lowerd"), "stage='lowerd': one of counted"),
    "flags": (lambda p: cost.program(pairs.plain, X, W, flags={"a": 1}), "need stage='compiled', not 'counted'"),
    "a flag": (
        lambda p: cost.program(pairs.plain, X, W, stage="compiled", flags={"xla_no_such": 1}),
        "xla_no_such.*XLA's compiler says",
    ),
    "other outputs": (
        lambda p: compared(pairs.plain, lambda x, w: (x, w), (X, W)),
        "plain returns an array of rank 0.*but .*compare functions with the same outputs",
    ),
    "two passes": (
        lambda p: cost.compare(cost.program(pairs.plain, X, W), cost.program(pairs.plain, X, W, backward=True)),
        "a forward pass and a backward pass",
    ),
    "no program": (lambda p: cost.compare(pairs.plain, pairs.plain), "is not a program: give cost.program"),
    "a figure": (lambda p: compare_allowing("flop=1%"), "'flop' is not a figure: did you mean flops"),
    "an allowance": (lambda p: compare_allowing("flops=little"), "flops=little must be a number of at least 0"),
    "no allowance": (lambda p: compare_allowing("flops"), "'flops' must be figure=number"),
    "no bound": (lambda p: cost.assert_cost(pairs.plain, X, W), "bounds nothing: give at least one of flops"),
    "a bound": (lambda p: cost.assert_cost(pairs.plain, X, W, flops=-1), "flops=-1: a bound is an integer of at"),
    "a graph": (lambda p: cost.count(pairs.plain, X, W).speedscope(p, of="time"), "of='time' is not a figure"),
}


def compare_allowing(allow):
    return cost.compare(cost.program(pairs.plain, X, W), cost.program(pairs.plain, X, W), allow=allow)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, tmp_path):
    act, message = BAD[name]
    with pytest.raises((ValueError, TypeError, OSError), match=message) as caught:
        act(tmp_path / "file.json")
    assert "\n" not in str(caught.value)


def test_a_budget_holds_or_says_what_costs_most():
    kept = cost.residuals(pairs.plain, X, W).bytes
    cost.assert_cost(pairs.plain, X, W, flops=8703, transcendentals=256, residuals=kept)
    with pytest.raises(AssertionError, match="plain costs more than allowed: flops, residuals") as caught:
        cost.assert_cost(pairs.plain, X, W, flops=8702, residuals=kept - 1)
    assert "h = jnp.tanh(x @ w)" in str(caught.value)


def test_a_snapshot_holds_until_it_is_updated(tmp_path, monkeypatch):
    snapshot = tmp_path / "plain.json"
    with pytest.raises(AssertionError, match="no snapshot yet: run this test once with REFGRAD_UPDATE=1"):
        cost.assert_unchanged(pairs.plain, X, W, snapshot=snapshot)
    cost.assert_unchanged(pairs.plain, X, W, snapshot=snapshot, update=True)
    cost.assert_unchanged(pairs.plain, X, W, snapshot=snapshot)
    cost.assert_unchanged(pairs.one_flop_more, X, W, snapshot=snapshot, allow="flops=1,bytes=12")
    with pytest.raises(AssertionError, match="line changed"):
        cost.assert_unchanged(pairs.one_flop_more, X, W, snapshot=snapshot)
    monkeypatch.setenv("REFGRAD_UPDATE", "1")
    cost.assert_unchanged(pairs.one_flop_more, X, W, snapshot=snapshot)
    monkeypatch.delenv("REFGRAD_UPDATE")
    with pytest.raises(AssertionError, match="flops, bytes"):  # less than the snapshot is not the snapshot either
        cost.assert_unchanged(pairs.plain, X, W, snapshot=snapshot)


def test_a_flame_graph_adds_up(tmp_path):
    count = cost.count(pairs.stacked, X, W)
    count.speedscope(tmp_path / "graph.json", of="flops")
    data = json.loads((tmp_path / "graph.json").read_text())
    (profile,) = data["profiles"]
    assert sum(profile["weights"]) == profile["endValue"] == count.flops
    names = [frame["name"] for frame in data["shared"]["frames"]]
    assert {"layer", "dot_general"} <= set(names)
    assert all(0 <= frame < len(names) for sample in profile["samples"] for frame in sample)
    assert any(frame.get("file", "").endswith("pairs.py") and frame["line"] for frame in data["shared"]["frames"])


def test_the_page_runs(capsys):
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "compare-and-predict.md").read_text(), re.S | re.M)
    code = [block for block in code if not block.startswith("# with your own names")]
    assert len(code) >= 4
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # a reader's settings
        exec(compile("\n".join(code), "compare-and-predict.md", "exec"), {"__name__": "page"})
    assert "recomputed" in capsys.readouterr().out


@pytest.mark.slow
def test_derived_against_fused_rules_of_the_124m_backward():
    programs = [
        cost.program(*gpt2.abstract_loss(gpt2.SIZES["124M"], 1, 1024, rules=rules, scan=True), backward=True)
        for rules in ("derived", "fused")
    ]
    found = cost.compare(*programs)
    assert not any(found.unexplained) and sum_of(found) == found.change
    assert found.change.residuals < 0
    assert found.by_cause["done in the forward pass"].flops == -4 * 1024 * 50257 * 768  # the loss's two products
    assert "recomputed" in found.by_cause
