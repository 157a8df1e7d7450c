"""What XLA itself counts, for comparison."""

import jax
import pytest


@pytest.fixture
def lowered():
    """(flops, transcendentals) of the lowered program by XLA; `platform` lowers for a machine that is absent."""

    def counts(f, *args, platform="cpu"):
        lowering = jax.jit(f).trace(*args).lower(lowering_platforms=(platform,))
        analysis = lowering.cost_analysis() or {}
        return int(analysis.get("flops", 0)), int(analysis.get("transcendentals", 0))

    return counts
