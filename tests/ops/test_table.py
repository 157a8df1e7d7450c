"""The table itself: found, documented, and made of plain functions all the way down."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import pytest

from refgrad import ops
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.rules import VJP, rule_of
from refgrad.ops import TABLE
from tests.ops.cases import DIMS, NAMES, floats


def rules(program):
    """The kinds of the rules that a program calls, at any depth."""
    return [rule.kind for rule in map(rule_of, equations(program)) if rule is not None]


@pytest.mark.parametrize(("package", "prefix"), [(ops, ""), (ops.fused, "fused.")])
def test_every_file_is_listed_and_every_listed_name_a_row(package, prefix):
    found = (m for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_") and not m.ispkg)
    files = {m.name for m in found}
    assert {prefix + name for name in files} == {name for name in TABLE if name.rpartition(".")[0] == prefix[:-1]}
    assert {name for name in package.__all__ if hasattr(getattr(package, name), "defvjp")} == files
    for name in files:
        assert getattr(package, name) is TABLE[prefix + name].op
        assert TABLE[prefix + name].name == prefix + name
        assert next(iter(inspect.signature(getattr(package, name)).parameters)) in TABLE[prefix + name].arguments


@pytest.mark.parametrize("name", NAMES)
def test_documentation_derives_the_rule(name):
    text = importlib.import_module(f"refgrad.ops.{name}").__doc__
    for part in ("Derivation.", "Kept:", "Cost:", "Source:"):
        assert part in text
    assert TABLE[name].op.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_hides_inside_a_rule(name):
    row, dims = TABLE[name], DIMS[0]
    arrays = row.sample(0, dims, jnp.float32)
    assert rules(jax.make_jaxpr(row.bound(dims))(*arrays)).count(VJP) == 1  # the operation itself
    backward = jax.make_jaxpr(lambda *a: jax.vjp(row.bound(dims), *a))(*arrays)  # inlines _fwd and its rule
    assert VJP not in rules(backward)


def test_an_unknown_operation_or_set_of_rules_is_named():
    with pytest.raises(AttributeError, match="no operation 'sofmax'"):
        ops.sofmax  # noqa: B018
    every = "'derived', 'fused', 'fused-cudnn', 'autodiff'"
    with pytest.raises(ValueError, match=f"rules is 'fusd', but must be one of {every}"):
        ops.operations("fusd")


def test_the_floating_arguments_are_the_differentiable_ones():
    for row in TABLE.values():
        names = list(row.arguments)
        assert row.differentiable == tuple(names[k] for k in floats(row.shapes(DIMS[0], jnp.float32))), row.name
