"""Hypothesis draws arguments of the types that a text or examples give, special values among them."""

import builtins
import importlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, find, given, settings

from refgrad.verify import check, strategies
from tests.verify.corpus import rows
from tests.verify.corpus.family import Specimen

QUICK = {"order": 1, "draws": 1, "properties": ("structure", "accuracy")}
FEW = settings(max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def specimen(name, kind, what) -> Specimen:
    family = next(f for f in rows.FAMILIES if f.name == name)
    return next(family.specimens({what: getattr(family, kind)[what]}))


@FEW
@given(strategies.arguments("f32[b,h] bf16[h] i32[b]<3 bool[] c64[2] 'text'"))
def test_types_and_bounds(args):
    x, w, ids, flag, z, text = args
    assert (x.dtype, w.dtype, ids.dtype, flag.dtype, z.dtype) == ("float32", "bfloat16", "int32", "bool", "complex64")
    assert x.shape == ids.shape + w.shape and z.shape == (2,) and text == "text"
    assert ((ids >= 0) & (ids < 3)).all() and all(bool(jnp.isfinite(v).all()) for v in (x, w, z))


@FEW
@given(strategies.arguments({"w": jnp.ones((6, 7)), "n": 3}, np.array([0, 4])))
def test_types_of_examples(args):
    params, ids = args
    assert params["w"].shape == (6, 7) and params["n"] == 3 and ids.shape == (2,) and (np.asarray(ids) <= 4).all()


def test_large_arrays_have_special_values():
    zeros = find(
        strategies.arguments("f32[8,8]"), lambda args: not np.any(args[0]), settings=settings(FEW, max_examples=500)
    )
    assert zeros[0].shape == (8, 8)


@pytest.mark.slow
def test_a_right_rule_passes():
    right = specimen("norm", "right", "0 at zeros")

    @FEW
    @given(strategies.arguments("f32[b,h]"))
    def passes(args):
        assert check(right.function, *args, **QUICK).ok

    passes()


def test_a_wrong_rule_shrinks_to_zeros():
    wrong = specimen("norm", "wrong", "0/0 at a row of zeros")
    bad = lambda args: not check(wrong.function, *args, **QUICK).ok  # noqa: E731
    (x,) = find(strategies.arguments("f32[1,2]"), bad, settings=settings(FEW, max_examples=30))
    assert not np.any(x)


def test_without_hypothesis_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("hypothesis"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "refgrad.verify.strategies")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install -e '\S+\[hypothesis\]'"):
        importlib.import_module("refgrad.verify.strategies")
