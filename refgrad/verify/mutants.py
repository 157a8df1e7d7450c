"""Wrong versions of a right rule, to measure a test with: one that lets a mutant pass would let that mistake pass.

    >>> for mutant in mutants(my_op, x, w):
    ...     with pytest.raises(AssertionError):
    ...         assert_ok(mutant.function, x, w)

Each mutant is a `custom_vjp` like the original, with the same forward, and one cotangent wrong in one way.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.jaxpr.methods import frozen, is_symbolic, value_accum
from refgrad.jaxpr.versions import custom_vjp, is_rule, nondiff_argnums, parts_of
from refgrad.verify.allowance import allowance, longest_reduction
from refgrad.verify.edits import Edit, cotangent_edits, dense, swap
from refgrad.verify.hiprim_mutants import hiprim_mutants
from refgrad.verify.mutant import Mutant
from refgrad.verify.numbers import difference, draw, draws_like, generator, to_wide
from refgrad.verify.subject import Flat, Subject, pullback

INPUTS = 3  # random ones at which a mutant must change nothing to count as equivalent


def mutants(f: Any, *args: Any) -> list[Mutant]:
    """Return the wrong versions of the rule of `f` that its arguments' shapes and dtypes allow.

    Per differentiated leaf: scaled by 1 + 1e-6 (float64) or 1 + 3 × allowance, negated, zeroed, one entry off, rolled
    along its last axis, transposed where square, swapped with each other of its type, its upstream cotangent
    ignored, its sum over the output's first axis missing. Of a HiPrim, also the values and tangents of other methods.

    Args:
      f: a `custom_vjp` function, or any function that calls rules written as HiPrim.
      *args: its arguments.

    Returns:
      A list of `Mutant`: each has a `name`, and a `function` that is called as `f` is.

    Raises:
      TypeError: where `f` is not a `custom_vjp` function with its rule defined, and calls no HiPrim.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import mutants
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> [mutant.name for mutant in mutants(square, jnp.ones(3))][1:3]
      ['x: negated', 'x: zeroed']
    """
    if not is_rule(f) and (found := hiprim_mutants(f, args)):
        return found
    if not hasattr(f, "defvjp") or parts_of(f).bwd is None:
        raise TypeError(f"{f!r} has no backward rule to mutate: pass a jax.custom_vjp function, after its defvjp")
    subject = Subject.of(f, args)
    lengths = longest_reduction(f, *args)
    outputs = jax.eval_shape(subject.flat(), subject.diff, subject.rest)[0]
    found = []
    for i in subject.floats:
        leaf = subject.leaves[i]
        edits = dict(cotangent_edits(leaf, lengths[i], outputs))
        for j in subject.floats:
            if j != i and jax.typeof(subject.leaves[j]) == jax.typeof(leaf):
                edits[f"swapped with {subject.names[j]}"] = swap(j)
        found += [Mutant(f"{subject.names[i]}: {name}", edited(f, subject, i, e)) for name, e in edits.items()]
    return found


def equivalent(mutant: Mutant, f: Callable, *args: Any, seed: int = 0) -> bool:
    """Return True if the mutant's results are those of `f`, to within its allowance, at three random inputs.

    Inputs are normal, of the size of the given ones; where those leave the domain of `f`, the given ones stand in.

    Args:
      mutant: one of `mutants(f, *args)`.
      f: the function with the right rule.
      *args: its arguments.
      seed: seed of the inputs and cotangents.

    Returns:
      A bool.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import equivalent, mutants
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> x = jnp.ones(3)
      >>> equivalent(mutants(square, x)[0], square, x)
      False
    """
    subject, rng = Subject.of(f, args), generator(seed, 8)
    right, wrong = (jax.jit(_results(mutant.property, subject.flat(g))) for g in (f, mutant.function))
    lengths = longest_reduction(f, *args)
    limits = [allowance(subject.leaves[i].dtype, lengths[i]) for i in subject.floats]
    outputs = jax.eval_shape(subject.flat(), subject.diff, subject.rest)[0]
    for _ in range(INPUTS):
        diff, cts = [_like(x, rng) for x in subject.diff], draws_like(rng, outputs)
        expected = [to_wide(g) for g in right(diff, subject.rest, cts)]
        if not all(np.isfinite(g).all() for g in expected):
            diff = subject.diff
            expected = [to_wide(g) for g in right(diff, subject.rest, cts)]
        got = [to_wide(g) for g in wrong(diff, subject.rest, cts)]
        allowed = limits if len(limits) == len(got) else [max(limits)] * len(got)
        if any(difference(g, e).error > a for g, e, a in zip(got, expected, allowed, strict=True)):
            return False
    return True


def _results(property: str, flat: Flat) -> Callable:
    """`(floats, others, cotangents) →` what a mutant that this property is to catch may change."""
    if property in ("jvp", "lin"):
        push = jax.jvp if property == "jvp" else lambda f, xs, ts: jax.linearize(f, *xs)[1](*ts)

        def pushed(diff, rest, cts):
            out = push(lambda *d: flat(d, rest)[0], tuple(diff), tuple(map(jnp.asarray, diff)))
            return jax.tree.leaves(out)

        return pushed
    kept = 0 if property == "vjp" else 1  # the outputs, or the cotangents
    return lambda diff, rest, cts: pullback(flat)(diff, rest, cts)[kept]


def edited(f: Any, subject: Subject, i: int, edit: Edit) -> Any:
    """`f` with the cotangent of leaf `i` edited: everything else about it kept."""
    places, parts, backward = _places(f, subject), parts_of(f), _returning(f, subject)

    def bwd(*given):
        *static, residuals, ct = given

        def again(change: Callable | None, leaf: int = i):
            """Leaf `leaf` of the rule's cotangents, after a change to the upstream one."""
            upstream = ct if change is None else jax.tree.map(dense(change), ct, is_leaf=is_symbolic)
            return _get(backward(*static, residuals, upstream), places[leaf])

        right = backward(*static, residuals, ct)
        own = _get(right, places[i])
        return right if own is None else _set(right, places[i], edit(own, again))

    mutant = custom_vjp(parts.fun, nondiff_argnums=parts.nondiff_argnums)
    mutant.defvjp(parts.fwd, bwd, symbolic_zeros=parts.symbolic_zeros, optimize_remat=parts.optimize_remat)
    return mutant


def _returning(f: Any, subject: Subject) -> Callable:
    """The backward of `f` as a function that returns only the cotangents."""
    parts = parts_of(f)
    backward = parts.bwd
    assert backward is not None
    if parts.with_logs:
        return lambda *given: backward(*given)[0]
    if not parts.with_accums:
        return backward
    skipped = {k % len(subject.args) for k in parts.nondiff_argnums if k < len(subject.args)}
    primals = [arg for k, arg in enumerate(subject.args) if k not in skipped]

    def returning(*given):
        accums = jax.tree.map(lambda x: value_accum(jax.typeof(x)), primals)
        backward(*given, *accums)
        return tuple(jax.tree.map(frozen, accums))

    return returning


def _places(f: Any, subject: Subject) -> dict[int, tuple[int, int]]:
    """Position of each leaf's cotangent in the results of `_bwd`: (argument, leaf of it)."""
    skipped = {k % len(subject.args) for k in nondiff_argnums(f) if k < len(subject.args)}
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


def _like(x: Any, rng: np.random.Generator) -> np.ndarray:
    """Normal entries of the size of those of `x`."""
    finite = np.abs(to_wide(x))[np.isfinite(to_wide(x))]
    size = float(np.sqrt(np.mean(finite**2))) if finite.size else 1.0
    return (to_wide(draw(rng, np.shape(x), x.dtype)) * (size or 1.0)).astype(x.dtype)
