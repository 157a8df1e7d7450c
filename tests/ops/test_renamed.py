"""Names of 0.1 that answer for one release, each with a warning that gives the new one."""

import sys

import pytest

from refgrad import models, ops, verify
from refgrad.models import gpt2_costs

SPEC = ops.TABLE["gelu"]
PROVE = sys.modules["refgrad.verify.prove"]
OLD = {
    "a class": (ops, "Row", "refgrad.ops.Row is now refgrad.ops.OpSpec", lambda: ops.OpSpec),
    "another class": (ops, "Cost", "refgrad.ops.Cost is now refgrad.ops.OpCost", lambda: ops.OpCost),
    "a module": (models, "tally", "models.tally is now refgrad.models.gpt2_costs", lambda: gpt2_costs),
    "a function": (gpt2_costs, "ahead", "gpt2_costs.ahead is now", lambda: gpt2_costs.fwd_extra),
    "of a folder": (PROVE, "Verdict", "verify.prove.Verdict is now", lambda: PROVE.ProofVerdict),
    "of verify": (verify, "tally", "verify.tally is now", lambda: verify.mutation_score),
    "published": (SPEC, "document", "OpSpec.document is now OpSpec.published_flops", lambda: SPEC.published_flops),
    "adjustments": (SPEC, "causes", "OpSpec.causes is now OpSpec.adjustments", lambda: SPEC.adjustments),
    "extra": (SPEC, "ahead", "OpSpec.ahead is now OpSpec.fwd_extra", lambda: SPEC.fwd_extra),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_warns_and_is_the_new_one(name):
    owner, old, message, new = OLD[name]
    with pytest.warns(DeprecationWarning, match=message) as caught:
        assert getattr(owner, old) is new()
    assert caught[0].filename == __file__


@pytest.mark.parametrize("owner", [ops, models, gpt2_costs, SPEC])
def test_any_other_name_is_missing(owner):
    with pytest.raises(AttributeError, match="'documents'"):
        owner.documents  # noqa: B018
