"""A fault planted in any one rule turns verification red: at that operation and argument, and in its composites."""

import contextlib

import jax.numpy as jnp
import pytest

from refgrad.cli import main
from refgrad.ops import TABLE
from refgrad.ops.multi_head_attention import PARTS
from refgrad.report.operations import verify_operation
from tests.ops.cases import DIMS, EACH

DIMS = DIMS[1]
COMPOSITES = {
    "causal_softmax": {"softmax"},
    "cross_entropy": {"log_softmax", "nll"},
    "multi_head_attention": {part.__name__ for part in PARTS} | {"softmax"},
    "fused.block": {"fused.attention", "fused.mlp"},
    "fused.mlp": {"fused.linear"},
}


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
def planted(name, argument, fault):
    """The operation's rule with one cotangent made wrong, while the block runs."""
    row = TABLE[name]
    fwd, bwd = row.op.fwd, row.op.bwd
    at = list(row.arguments).index(argument)

    def wrong(*args):
        cotangents = list(bwd(*args))
        cotangents[at] = fault(cotangents[at])
        return tuple(cotangents)

    row.op.defvjp(fwd, wrong)
    try:
        yield
    finally:
        row.op.defvjp(fwd, bwd)


def failing(name):
    """The arguments that fail when the operation is verified in float64."""
    return {row.argument for row in verify_operation(TABLE[name], DIMS, ["float64"]).failures}


@pytest.mark.parametrize("name", EACH)
def test_is_found_at_its_operation_and_argument(name, x64):
    for argument, fault in zip(TABLE[name].differentiable, [*FAULTS.values()] * 2, strict=False):
        with planted(name, argument, fault):
            assert failing(name) == {argument}


@pytest.mark.parametrize("fault", FAULTS)
def test_of_every_kind_is_found(fault, x64):
    with planted("layer_norm", "x", FAULTS[fault]):
        assert failing("layer_norm") == {"x"}


@pytest.mark.parametrize(
    ("whole", "part"), [(whole, part) for whole, parts in COMPOSITES.items() for part in sorted(parts)]
)
def test_is_found_in_every_composite(whole, part, x64):
    with planted(part, TABLE[part].differentiable[0], FAULTS["factor"]):
        assert failing(whole)


def test_nothing_fails_where_nothing_is_planted(x64):
    assert not failing("layer_norm")


def test_turns_the_command_red(capsys):
    arguments = ["verify", "--op", "softmax", "--op", "causal_softmax", "--op", "nll", "--dtype", "float32"]
    with planted("softmax", "x", FAULTS["sign"]):
        assert main(arguments) == 1
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith(("softmax  ", "causal_softmax  ", "nll  "))]
    verdicts = {line[0]: line[-1] for line in lines if line[1] in ("x", "p")}
    assert verdicts == {"softmax": "FAIL", "causal_softmax": "FAIL", "nll": "ok"}
    assert "softmax.py" in out
    assert main(arguments) == 0
