"""Closed forms against XLA: every forward and backward, as integers, at shapes none of which is square."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
import sympy

from refgrad import cost
from refgrad.ops import TABLE
from refgrad.symbols import evaluate
from tests.lanes import fast_if
from tests.ops.cases import DIMS, NAMES


def at(expression, dims, dtype):
    item = jnp.dtype(dtype).itemsize
    return evaluate(expression, {**dims, "item": item, "a": max(4, item)})


@pytest.mark.parametrize(
    "dims", fast_if(lambda dims: dims is DIMS[1], DIMS), ids=lambda dims: f"b{dims['b']}s{dims['s']}"
)
@pytest.mark.parametrize("name", NAMES)
def test_equal_xla_and_leave_nothing_over(name, dims):
    row = TABLE[name]
    op, shapes = row.bound(dims), row.shapes(dims, jnp.float32)
    for closed, backward in ((row.forward, False), (row.backward, True)):
        derived = (evaluate(closed.flops, dims), evaluate(closed.transcendentals, dims))
        xla = (cost.xla_backward if backward else cost.xla)(op, *shapes)
        if not xla.hlo.loops:  # XLA counts a loop's body once: there, the reconciled count multiplies it by its trips
            assert (xla.flops, xla.transcendentals) == derived
        assert cost.reconcile(op, *shapes, derived=derived, backward=backward).ok


@pytest.mark.parametrize("name", NAMES)
def test_causes_lead_from_the_document_to_xla(name):
    row = TABLE[name]
    assert sympy.expand(row.published_flops + sum(row.adjustments.values()) - row.backward.flops) == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_flop_too_many_is_caught(name):
    row, dims = TABLE[name], DIMS[0]
    wrong = dataclasses.replace(row, backward=row.backward._replace(flops=row.backward.flops + 1))
    derived = (evaluate(wrong.backward.flops, dims), evaluate(wrong.backward.transcendentals, dims))
    with pytest.raises(cost.Unexplained):
        cost.reconcile(row.bound(dims), *row.shapes(dims, jnp.float32), derived=derived, backward=True)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda dtype: jnp.dtype(dtype).name)
@pytest.mark.parametrize("name", NAMES)
def test_residual_bytes(name, dtype):
    row = TABLE[name]
    for dims in DIMS[:2]:
        _, kept = jax.eval_shape(lambda *a, dims=dims: jax.vjp(row.bound(dims), *a), *row.shapes(dims, dtype))
        measured = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
        assert measured == at(row.residuals, dims, dtype)
