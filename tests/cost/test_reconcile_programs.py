"""The count of programs that are not ours reconciles with XLA's, each difference found and named."""

import jax
import pytest

from refgrad.cost import UnknownCost, reconcile
from tests.cost.programs import PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
def test_reconciles(name):
    f, args = PROGRAMS[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert reconcile(f, *args, unknown="count" if name == "callback" else "raise").ok


def test_a_callback_has_no_cost_of_its_own():
    f, args = PROGRAMS["callback"]
    with pytest.raises(UnknownCost, match=r"pure_callback.*unknown='count'"):
        reconcile(f, *args)
    (step,) = [s for s in reconcile(f, *args, unknown="count").steps if s.figure == "flops"]
    assert step.before == 0 and step.after == sum(step.causes.values()) < 0
