"""Operations counted from shapes alone, and the bound on them."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.models import gpt2
from refgrad.verify.exact import Limits, OverBudget, exact
from tests.verify.exact.test_programs import PROGRAMS, X, model
from tests.verify.exact.test_second_order import attention, layer_norm


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [np.float32(rng.standard_normal(s)) for s in shapes]


def looped(x):
    return lax.while_loop(lambda c: c[1] < 200, lambda c: (jnp.sin(c[0]) * 1.5, c[1] + 1), (x, 0))[0]


def scanned(x):
    return lax.scan(lambda c, _: (jnp.sin(c) * 1.5, None), x, None, length=200)[0]


CASES = {
    "layer norm": (layer_norm, *arrays((4, 16), (16,), (16,))),
    "attention": (attention, *arrays((4, 16), (4, 16), (4, 16))),
    "matmul": (jnp.matmul, *arrays((96, 96), (96, 96))),
    "scan": (scanned, *arrays((16,))),
    "GPT-2": model(gpt2.Config()),
}


def test_seconds_are_operations_by_one_unit_everywhere():
    """About 50 nanoseconds; programs are compared with each other, whatever the machine."""
    units = []
    for case in CASES.values():
        truth, seconds = exact(*case), []
        for _ in range(3):
            fresh = truth.at(truth.subject.diff)
            started = time.process_time()
            assert fresh.value
            seconds.append(time.process_time() - started)
        units.append(min(seconds) / truth.operations)
    assert max(units) < 12 * min(units)


def test_loops_count_by_their_trips_and_unknown_ones_once():
    x = arrays((16,))
    once, many = exact(looped, *x).operations, exact(scanned, *x).operations
    assert 100 < many / once < 250
    both = exact(lambda x: lax.cond(x[0] > 0, scanned, jnp.sin, x), *x).operations
    assert many < both < 1.1 * many + 10_000
    assert exact(lambda x: jax.jit(scanned)(x), *x).operations == many


def test_sizes_count():
    def count(f, *shapes):
        return exact(f, *arrays(*shapes)).operations

    assert count(jnp.matmul, (64, 64), (64, 64)) > 64**3
    assert count(jnp.exp, (1000,)) > 40_000 > 4 * count(lambda x: x * x, (1000,))
    assert count(lambda x: x.T, (100, 100)) < count(jnp.sort, (100, 100)) / 50
    assert all(0 < exact(f, X).operations < 1e6 for f in PROGRAMS.values())


def test_a_loop_that_runs_away_is_stopped():
    truth = exact(looped, *arrays((16,)), limits=Limits(operations=50_000))
    for run in (lambda: truth.value, truth.gradient):
        with pytest.raises(OverBudget, match=r"^one evaluation .* more than 5e\+04: .*operations=…") as caught:
            run()
        assert "test_operations.py" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(OverBudget, match=r"^x\[3\] takes .* more than 5e\+04: .*operations=…"):
        list(truth.entries(where=[(0, (3,))]))
    assert exact(looped, *arrays((16,)), limits=Limits(operations=1e7)).value
