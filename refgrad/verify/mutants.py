"""Wrong versions of a right rule, to measure a test with: one that lets a mutant pass would let that mistake pass.

    >>> for mutant in mutants(my_op, x, w):
    ...     with pytest.raises(AssertionError):
    ...         assert_ok(mutant.function, x, w)

Each mutant is a `custom_vjp` like the original, with the same forward, and one cotangent wrong in one way.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from refgrad.verify.allowance import allowance, longest_reduction
from refgrad.verify.numbers import difference, draw, draws_like, generator, to_wide
from refgrad.verify.subject import Subject, pullback

SEEN_IN_FLOAT64 = 1e-6  # the relative error of a scaled cotangent where the dtype is float64
INPUTS = 3  # random ones at which a mutant must change nothing to count as equivalent

Edit = Callable[[jax.Array, Callable], jax.Array]


class Mutant(NamedTuple):
    """One wrong version: `name` as in "w: negated", and the function, called as the original is."""

    name: str
    function: Any


def mutants(f: Any, *args: Any) -> list[Mutant]:
    """The wrong versions of the `custom_vjp` function `f` that its arguments' shapes and dtypes allow.

    Per differentiated leaf: scaled by 1 + 1e-6 (float64) or 1 + 3 × allowance, negated, zeroed, one entry off, rolled
    along its last axis, transposed where square, swapped with each other of its type, its upstream cotangent
    ignored, its sum over the output's first axis missing.

    Raises TypeError where `f` is no `custom_vjp` function with its rule defined.
    """
    if not isinstance(f, jax.custom_vjp) or getattr(f, "bwd", None) is None:
        raise TypeError(f"{f!r} has no backward rule to mutate: pass a jax.custom_vjp function, after its defvjp")
    subject = Subject.of(f, args)
    lengths = longest_reduction(f, *args)
    outputs = jax.eval_shape(subject.flat(), subject.diff, subject.rest)[0]
    found = []
    for i in subject.floats:
        leaf = subject.leaves[i]
        small = SEEN_IN_FLOAT64 if to_wide(leaf).dtype == leaf.dtype else 3 * allowance(leaf.dtype, lengths[i])
        edits = dict(_edits(leaf, small, outputs))
        for j in subject.floats:
            if j != i and jax.typeof(subject.leaves[j]) == jax.typeof(leaf):
                edits[f"swapped with {subject.names[j]}"] = _swap(j)
        found += [Mutant(f"{subject.names[i]}: {name}", _mutated(f, subject, i, e)) for name, e in edits.items()]
    return found


def equivalent(mutant: Mutant, f: Callable, *args: Any, seed: int = 0) -> bool:
    """Whether the mutant changes no cotangent of `f` beyond its allowance at three random inputs.

    Inputs are normal, of the size of the given ones; where those leave the domain of `f`, the given ones stand in.
    """
    subject, rng = Subject.of(f, args), generator(seed, 8)
    right, wrong = (jax.jit(pullback(subject.flat(g))) for g in (f, mutant.function))
    lengths = longest_reduction(f, *args)
    limits = [allowance(subject.leaves[i].dtype, lengths[i]) for i in subject.floats]
    outputs = jax.eval_shape(subject.flat(), subject.diff, subject.rest)[0]
    for _ in range(INPUTS):
        diff, cts = [_like(x, rng) for x in subject.diff], draws_like(rng, outputs)
        expected = [to_wide(g) for g in right(diff, subject.rest, cts)[1]]
        if not all(np.isfinite(g).all() for g in expected):
            diff = subject.diff
            expected = [to_wide(g) for g in right(diff, subject.rest, cts)[1]]
        got = [to_wide(g) for g in wrong(diff, subject.rest, cts)[1]]
        if any(difference(g, e).error > a for g, e, a in zip(got, expected, limits, strict=True)):
            return False
    return True


def _edits(leaf: Any, small: float, outputs: list) -> Iterator[tuple[str, Edit]]:
    """What may be wrong with one cotangent. An edit takes it, and a way to run the rule again on another cotangent."""
    shape, size = np.shape(leaf), int(np.size(leaf))
    if size == 0:
        return
    yield f"scaled by 1 + {small:.2g}", lambda g, again: g * (1 + small)
    yield "negated", lambda g, again: -g
    yield "zeroed", lambda g, again: jnp.zeros_like(g)
    yield "one entry off", lambda g, again: _one_off(g, 0.1 + small)
    yield "upstream ignored", lambda g, again: again(jnp.ones_like)
    if shape and shape[-1] > 1:
        yield "rolled along its last axis", lambda g, again: jnp.roll(g, 1, -1)
    if len(shape) > 1 and shape[-1] == shape[-2] > 1:
        yield "transposed", lambda g, again: jnp.swapaxes(g, -1, -2)
    if any(a.shape and a.shape[0] > 1 for a in outputs):
        yield "sum over the output's first axis missing", lambda g, again: again(_first_alone)


def _swap(j: int) -> Edit:
    return lambda g, again: again(None, j)


def _one_off(g: jax.Array, by: float) -> jax.Array:
    """The middle entry moved by a part of the largest."""
    flat = jnp.ravel(g)
    return flat.at[flat.size // 2].add(jnp.max(jnp.abs(flat)).astype(g.dtype) * by).reshape(g.shape)


def _first_alone(ct: jax.Array) -> jax.Array:
    """A cotangent with only the first entry of its first axis left."""
    return jnp.asarray(ct).at[1:].set(0) if ct.ndim else ct


def _mutated(f: Any, subject: Subject, i: int, edit: Edit) -> Any:
    """`f` with the cotangent of leaf `i` edited: everything else about it kept."""
    places = _places(f, subject)

    def bwd(*given):
        *static, residuals, ct = given

        def again(change: Callable | None, leaf: int = i):
            """Leaf `leaf` of the rule's cotangents, after a change to the upstream one."""
            upstream = ct if change is None else jax.tree.map(_dense(change), ct, is_leaf=_is_symbolic)
            return _get(f.bwd(*static, residuals, upstream), places[leaf])

        right = f.bwd(*static, residuals, ct)
        own = _get(right, places[i])
        return right if own is None else _set(right, places[i], edit(own, again))

    mutant = jax.custom_vjp(f.fun, nondiff_argnums=f.nondiff_argnums)
    mutant.defvjp(f.fwd, bwd, symbolic_zeros=f.symbolic_zeros, optimize_remat=f.optimize_remat)
    return mutant


def _places(f: Any, subject: Subject) -> dict[int, tuple[int, int]]:
    """Where the cotangent of each leaf stands in what `_bwd` returns: (which argument, which leaf of it)."""
    skipped = {k % len(subject.args) for k in f.nondiff_argnums}
    places, leaf, slot = {}, 0, 0
    for k, arg in enumerate(subject.args):
        for within in range(len(jax.tree.leaves(arg))):
            places[leaf] = (slot, within)
            leaf += 1
        slot += k not in skipped
    return places


def _get(cotangents: Any, place: tuple[int, int]) -> Any:
    """One leaf of what `_bwd` returned; None where it, or its whole argument, is None."""
    slot, within = place
    leaves = jax.tree.leaves(cotangents[slot], is_leaf=lambda x: x is None)
    return leaves[within] if within < len(leaves) else None


def _set(cotangents: Any, place: tuple[int, int], value: Any) -> tuple:
    """The same with one leaf replaced."""
    slot, within = place
    leaves, tree = jax.tree.flatten(cotangents[slot], is_leaf=lambda x: x is None)
    leaves[within] = value
    return (*cotangents[:slot], jax.tree.unflatten(tree, leaves), *cotangents[slot + 1 :])


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, SymbolicZero)


def _dense(change: Callable) -> Callable:
    """`change` on the float leaves of a cotangent, symbolic zeros made into arrays first."""

    def changed(ct):
        if ct.dtype == jax.dtypes.float0:
            return ct
        return change(jnp.zeros(ct.shape, ct.dtype) if _is_symbolic(ct) else ct)

    return changed


def _like(x: Any, rng: np.random.Generator) -> np.ndarray:
    """Normal entries of the size of those of `x`."""
    finite = np.abs(to_wide(x))[np.isfinite(to_wide(x))]
    size = float(np.sqrt(np.mean(finite**2))) if finite.size else 1.0
    return (to_wide(draw(rng, np.shape(x), x.dtype)) * (size or 1.0)).astype(x.dtype)
