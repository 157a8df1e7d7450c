"""The count of programs that are not ours reconciles with XLA's, each difference found and named."""

import jax
import pytest

from refgrad.cost import Unexplained, UnknownCost, reconcile
from tests.cost.programs import PROGRAMS

# Programs that do not reconcile yet, and what is raised: none of these differences is hidden.
RAISES = {
    "callback": (UnknownCost, "pure_callback"),
    "optax adamw": (Unexplained, r"\+2 flops"),  # pow of a float and an integer converts the integer
    "optax lamb": (Unexplained, r"\+2 flops"),
    "uniform, rbg": (Unexplained, r"\+1 flops"),  # the seed of a hardware generator
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_reconciles(name):
    f, args = PROGRAMS[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if name in RAISES:
            error, says = RAISES[name]
            with pytest.raises(error, match=says):
                reconcile(f, *args)
        else:
            assert reconcile(f, *args).ok


def test_few_programs_do_not_reconcile():
    assert set(PROGRAMS) >= set(RAISES) and len(RAISES) < 0.05 * len(PROGRAMS)
