"""The walk over HLO text equals XLA's own count bit for bit, on programs that are not ours."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from refgrad.cost import hlo
from refgrad.cost.hlo import walk
from refgrad.cost.hlo.rules import RULES
from tests.cost.programs import PROGRAMS, X, nested, scanned, shape

# Programs whose compiled count the walk does not reproduce on jaxlib 0.10.2: none.
COMPILED_DIFFERS: set[str] = set()


def lower(f, *args):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.jit(f).lower(*args)


def walked(f, *args):
    return hlo.cost(lower(f, *args).as_text(dialect="hlo", debug_info=True))


def asked(stage):
    """XLA's (flops, transcendentals), read without any help of ours."""
    answer = stage.cost_analysis()
    return answer.get("flops", 0.0), answer.get("transcendentals", 0.0)


def test_there_are_enough_programs():
    assert len(PROGRAMS) >= 100 and set(PROGRAMS) >= COMPILED_DIFFERS


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_xla(name):
    f, args = PROGRAMS[name]
    lowered = lower(f, *args)
    cost = hlo.cost(lowered.as_text(dialect="hlo", debug_info=True))
    assert cost.replayed == asked(lowered)
    assert sum(row.flops for row in cost.rows) == cost.flops
    assert sum(row.transcendentals for row in cost.rows) == cost.transcendentals
    compiled = lowered.compile()
    text = hlo.cost(compiled.as_text())
    assert (text.replayed == asked(compiled)) is (name not in COMPILED_DIFFERS)
    assert sum(row.flops for row in text.rows) == text.flops


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["top_k", "erf_inv", "svd", "normal", "scan, grad", "bf16 softmax, grad"])
def test_equals_xla_for_platforms_that_are_not_here(name, platform):
    f, args = PROGRAMS[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        lowered = jax.jit(f).trace(*args).lower(lowering_platforms=(platform,))
    assert hlo.cost(lowered.as_text(dialect="hlo", debug_info=True)).replayed == asked(lowered)


def test_equals_xla_with_64_bits(x64):
    for name in ("erf_inv", "quantile", "jnp.argsort over an axis", "normal"):
        f, args = PROGRAMS[name]
        lowered = lower(f, *args)
        assert hlo.cost(lowered.as_text(dialect="hlo", debug_info=True)).replayed == asked(lowered)


def test_integers_stay_exact_where_float32_does_not():
    n = 4097 * 4097
    cost = walked(lambda a: a + 1.0, shape(4097, 4097))
    assert cost.flops == n
    assert cost.replayed[0] == n - 1


def test_the_order_of_the_additions_matters(monkeypatch):
    """Planted: adding in the order of the text instead of XLA's gives another float32 sum, which the test sees."""

    def program(a, b):
        small = b
        for _ in range(9):
            small = small + b
        return small, a + 1.0

    lowered = lower(program, shape(4097, 4097), shape(3))
    text = lowered.as_text(dialect="hlo", debug_info=True)
    assert hlo.cost(text).replayed == asked(lowered)
    backwards = walk.visit_order
    monkeypatch.setattr(walk, "visit_order", lambda c: list(reversed(backwards(c))))
    assert hlo.cost(text).replayed != asked(lowered)


@pytest.mark.parametrize("opcode", ["add", "dot", "reduce", "tanh"])
def test_a_rule_wrong_by_one_is_seen(opcode, monkeypatch):
    """Planted: one row of the table of opcodes says one FLOP too many."""

    def program(a):
        return jnp.tanh(a @ a + a).sum()

    lowered = lower(program, shape(8, 8))
    text = lowered.as_text(dialect="hlo", debug_info=True)
    assert hlo.cost(text).replayed == asked(lowered)
    true = RULES[opcode]

    def wrong(instruction, computation):
        w = true(instruction, computation)
        return replace(w, flops=w.flops + 1, calls=tuple((n + 1, name) for n, name in w.calls))

    monkeypatch.setitem(RULES, opcode, wrong)
    assert hlo.cost(text).replayed != asked(lowered)


@pytest.mark.parametrize(
    ("program", "args", "trips"),
    [
        (scanned, (X,), [6]),
        (nested, (X,), [6, 5]),
        (lambda a: lax.fori_loop(3, 17, lambda i, z: z * 2.0, a), (X,), [14]),
        (lambda a: lax.fori_loop(-4, 3, lambda i, z: z + a, a, unroll=2), (X,), [3]),
        (lambda a: lax.scan(lambda c, t: (c + t, c), a[0], a, reverse=True), (X,), [6]),
        (lambda a: lax.scan(lambda c, t: (c + t, c), a[0], a, unroll=3), (X,), [2]),
        (lambda a: lax.while_loop(lambda s: s[1] > 2, lambda s: (s[0] * a, s[1] - 3), (a, 20)), (X,), [6]),
        (lambda a: lax.while_loop(lambda s: s[1] <= 8, lambda s: (s[0] * a, s[1] + 4), (a, 0)), (X,), [3]),
        (lambda a: lax.while_loop(lambda s: s[1] != 8, lambda s: (s[0] * a, s[1] + 4), (a, 0)), (X,), [2]),
        (lambda a: lax.while_loop(lambda s: s[1] != 7, lambda s: (s[0] * a, s[1] + 4), (a, 0)), (X,), [None]),
        (lambda a: lax.while_loop(lambda s: s[0].sum() < 9.0, lambda s: (s[0] * 2.0, s[1] + 1), (a, 0)), (X,), [None]),
        (lambda a, n: lax.fori_loop(0, n, lambda i, z: z * 2.0, a), (X, shape(dtype=jnp.int32)), [None]),
    ],
)
def test_trip_counts(program, args, trips):
    assert [loop.trips for loop in walked(program, *args).loops] == trips


def test_trips_multiply_the_integers():
    once, loop = walked(jnp.tanh, shape(10)), walked(scanned, X)
    assert once.executed == (0, 10)
    # Body: + and × on 10 elements, the counter; condition: one comparison more than there are trips.
    assert (loop.flops, loop.executed.flops) == (22, 6 * 21 + 7)
    assert (loop.transcendentals, loop.executed.transcendentals) == (10, 60)
    # Inner body: × on 10 elements and its counter, 30 times; 36 inner comparisons.
    assert walked(nested, X).executed.flops == 6 * 11 + 30 * 11 + 36 + 7


def test_a_compiled_loop_knows_its_trips():
    assert [loop.trips for loop in hlo.cost(lower(scanned, X).compile().as_text()).loops] == [6]


def test_scopes_reach_into_called_functions():
    @jax.jit
    def inner(a):
        with jax.named_scope("deep"):
            return jnp.tanh(a)

    def outer(a):
        with jax.named_scope("left"):
            b = inner(a)
        with jax.named_scope("right"):
            return inner(b) * 2.0

    by = walked(outer, shape(5)).by("scope")
    left = [name for name, cost in by.items() if "/left/" in name and cost.transcendentals]
    right = [name for name, cost in by.items() if "/right/" in name and cost.transcendentals]
    assert len(left) == len(right) == 1
    assert left[0].endswith("/deep/tanh") and right[0].endswith("/deep/tanh")
    assert sum(cost.transcendentals for cost in by.values()) == 10
    assert walked(outer, shape(5)).by("opcode")["multiply"].flops == 5


def test_branches_each_figure_from_its_own_costliest():
    cost = walked(*(PROGRAMS["cond"][0], *PROGRAMS["cond"][1]))
    assert (cost.flops, cost.transcendentals) == (121, 60)
    (conditional,) = cost.conditionals
    assert set(conditional.branches) == {(120, 0), (0, 60)}


def test_custom_calls_count_minus_one():
    cost = walked(jnp.linalg.cholesky, shape(8, 8))
    ((target, row),) = cost.custom_calls()
    assert "potrf" in target and row.flops == -1
