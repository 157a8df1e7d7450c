"""XLA's own counts, for comparison."""

import re

import jax
import pytest

from refgrad.cost.programs import is_sharding_mark


@pytest.fixture
def lowered():
    """(flops, transcendentals) of the lowered program by XLA, without the −1 of each custom call that only marks a
    sharding; `platform` lowers for a machine that is absent."""

    def counts(f, *args, platform="cpu"):
        lowering = jax.jit(f).trace(*args).lower(lowering_platforms=(platform,))
        analysis = lowering.cost_analysis() or {}
        targets = re.findall(r'custom_call_target="([^"]*)"', lowering.as_text(dialect="hlo"))
        marks = sum(map(is_sharding_mark, targets))
        return int(analysis.get("flops", 0)) + marks, int(analysis.get("transcendentals", 0))

    return counts
