"""A fault planted in any one rule turns verification red: at that operation and argument, and in its composites."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import pytest

from refgrad import verify
from refgrad.cli import main
from refgrad.ops import TABLE
from tests.ops.cases import DIMS, LONG, LONG_CHECKS, floats, weighted

DIMS = DIMS[1]
PARTS = {
    "causal_softmax": {"softmax"},
    "cross_entropy": {"log_softmax", "nll"},
    "multi_head_attention": {"attention_scaling", "attn_value", "causal_softmax", "linear", "query_key", "softmax"},
    "fused.block": {"fused.attention", "fused.layer_norm", "fused.linear", "fused.mlp"},
    "fused.head_loss_by_vocabulary": {"fused.head_loss"},
    "fused.mlp": {"fused.linear"},
}
"""The rules that each composite's rule calls, directly or through another."""


def missing_reduction(x):
    """The last term of the sum over the leading axis in the sum's place."""
    return jnp.broadcast_to(x[-1:], x.shape) if x.ndim else x * 2


FAULTS = {
    "sign": jnp.negative,
    "factor": lambda x: x * 1.001,
    "missing reduction": missing_reduction,
    "wrong axis": lambda x: jnp.flip(x, -1) if x.ndim else -x,
}


@contextlib.contextmanager
def planted(name, faults):
    """The operation with the cotangents of some arguments made wrong, each by its fault, while the block runs."""
    row = TABLE[name]
    fwd, bwd = row.op.fwd, row.op.bwd

    def wrong(*args):
        changed = zip(row.arguments, bwd(*args), strict=True)
        return tuple(FAULTS[faults[argument]](ct) if argument in faults else ct for argument, ct in changed)

    row.op.defvjp(fwd, wrong)
    try:
        yield
    finally:
        row.op.defvjp(fwd, bwd)


def failing(name):
    """The arguments that fail when the operation is verified in float64."""
    row = TABLE[name]
    arrays = row.sample(0, DIMS, jnp.dtype("float64"))
    report = verify.check(row.bound(DIMS), *arrays, properties=("structure", "accuracy"))
    return {row.argument for row in report.rows if row.failed}


def each_half():
    """Every other argument of every operation with a fault, then the rest; the kinds take turns.

    What is tested is `verify`, not the rule: half of every third operation is fast.
    """
    kinds = itertools.cycle(FAULTS)
    for number, (name, row) in enumerate(TABLE.items()):
        faults = list(zip(row.differentiable, kinds, strict=False))
        for n, half in enumerate((faults[::2], faults[1::2])):
            if half:
                slow = n or number % 3 or name in LONG_CHECKS
                yield pytest.param(name, dict(half), id=f"{name}-{n}", marks=[pytest.mark.slow] if slow else [])


def each_part():
    """Every part of every composite; of each composite the first is fast, long ones apart."""
    for whole, parts in PARTS.items():
        for n, part in enumerate(sorted(parts)):
            yield pytest.param(whole, part, marks=[pytest.mark.slow] if n or whole in LONG else [])


@pytest.mark.parametrize(("name", "faults"), list(each_half()))
def test_is_found_at_its_operation_and_arguments(name, faults, x64):
    with planted(name, faults):
        assert failing(name) == set(faults)


@pytest.mark.parametrize("fault", FAULTS)
def test_of_every_kind_is_found(fault, x64):
    with planted("linear", {"w": fault}):
        assert failing("linear") == {"w"}


@pytest.mark.parametrize(("whole", "part"), list(each_part()))
def test_is_found_in_every_composite(whole, part, x64):
    with planted(part, {TABLE[part].differentiable[0]: "factor"}):
        assert failing(whole)


def test_every_composite_is_listed(monkeypatch):
    called = set()
    for name, row in TABLE.items():

        def record(*args, name=name, bwd=row.op.bwd):
            called.add(name)
            return bwd(*args)

        monkeypatch.setattr(row.op, "bwd", record)
    found = {}
    for name, row in TABLE.items():
        called.clear()
        shapes = row.shapes(DIMS, jnp.float32)
        jax.eval_shape(jax.grad(weighted(row.bound(DIMS)), floats(shapes)), *shapes)
        assert name in called
        found[name] = called - {name}
    assert {name: parts for name, parts in found.items() if parts} == PARTS


def test_nothing_fails_where_nothing_is_planted(x64):
    assert not failing("linear")


def test_turns_the_command_red(capsys):
    arguments = ["verify", "--op", "softmax", "--op", "causal_softmax", "--op", "nll", "--dtype", "float32"]
    with planted("softmax", {"x": "sign"}):
        assert main(arguments) == 1
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith(("softmax  ", "causal_softmax  ", "nll  "))]
    verdicts = {line[0]: line[-1] for line in lines if line[1] in ("x", "p")}
    assert verdicts == {"softmax": "FAIL", "causal_softmax": "FAIL", "nll": "ok"}
    assert "softmax.py" in out
