"""Wrong versions of the rules that a package's uses call: each changes a rule in place and must turn `check` red."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from refgrad import verify
from world.measure import inexact, split
from world.use import Use

EDITS: dict[str, Callable] = {
    "scaled": lambda x: x * 1.01,
    "negated": lambda x: -x,
    "zero": lambda x: x * 0,
    "one entry off": lambda x: x.ravel().at[0].multiply(1.1).reshape(x.shape),
    "rolled": lambda x: jnp.roll(x, 1, -1) if x.ndim and x.shape[-1] > 1 else x,
    "doubled": lambda x: x * 2,
}
CAUGHT, SURVIVED, NOT_RUN = "caught", "survived", "not run"
EQUIVALENT = "equivalent"  # the same gradient at these arguments
TOLERATED = "tolerated"  # a gradient within the tolerance that the use states
SEED = 17
ROUNDING = 1e-5  # relative


class Rule(NamedTuple):
    """A rule by its code, since a `custom_gradient` makes a new object in every call."""

    kind: Any
    name: str
    places: tuple[tuple[str, int], ...]
    """File and line of the function, and of those that it closes over."""


def drawn(uses: Sequence[Use], most: int) -> dict[str, list[tuple[Rule, str]]]:
    """Return at most `most` (rule, edit) of all that the uses have, drawn with one seed, by use."""
    every = [(use.name, rule, edit) for use in uses for rule in called(use) for edit in EDITS]
    chosen = sorted(np.random.default_rng(SEED).permutation(len(every))[:most])
    return {use.name: [every[i][1:] for i in chosen if every[i][0] == use.name] for use in uses}


def score(use: Use, mutants: Sequence[tuple[Rule, str]]) -> dict[str, str]:
    """Return the verdict on each mutant of a use."""
    with jax.enable_x64(use.x64):
        return {f"{rule.name}: {edit}": verdict(use, rule, EDITS[edit]) for rule, edit in mutants}


def called(use: Use) -> list[Rule]:
    """Return the rules that a use calls, JAX's own left out where a package's are."""
    seen: dict[Rule, Any] = {}
    with jax.enable_x64(use.x64), calling(lambda kind, rule: seen.setdefault(located(kind, rule.fun), rule)):
        flat, arrays = split(use.f, use)
        jax.make_jaxpr(flat)(*arrays)
    own = [key for key, rule in seen.items() if not getattr(rule.fun, "__module__", "").startswith("jax.")]
    return own or list(seen)


def located(kind: Any, function: Callable) -> Rule:
    """Return the place of a rule's function; objects without code count by their names."""
    closed = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if holds(cell)]
    codes = [getattr(f, "__code__", None) for f in (function, *closed)]
    places = tuple((code.co_filename, code.co_firstlineno) for code in codes if code)
    return Rule(kind, getattr(function, "__qualname__", type(function).__name__), places)


def holds(cell: Any) -> bool:
    """Return True for a cell of a closure with a value."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


@contextlib.contextmanager
def calling(seen: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Call `seen(kind, rule)` before each call of a `custom_vjp` or `custom_jvp` object."""
    kinds: dict[Any, Callable] = {kind: kind.__call__ for kind in (jax.custom_vjp, jax.custom_jvp)}

    def watched(kind: Any, call: Callable) -> Callable:
        def watching(self, *args, **kwargs):
            seen(kind, self)
            return call(self, *args, **kwargs)

        return watching

    for kind, call in kinds.items():
        kind.__call__ = watched(kind, call)
    jax.clear_caches()
    try:
        yield
    finally:
        for kind, call in kinds.items():
            kind.__call__ = call
        jax.clear_caches()


def verdict(use: Use, rule: Rule, edit: Callable) -> str:
    """Return the verdict on a use while a rule is edited: the whole check's where accuracy alone sees nothing."""
    settings = {key: value for key, value in use.settings.items() if key != "seconds"}
    try:
        right = gradients(use)
        with edited(rule, edit):
            moved = distance(gradients(use), right)
            if moved <= ROUNDING:
                return EQUIVALENT
            if moved <= 2 * (settings.get("tolerance") or 0):  # the right rule itself may be off by one
                return TOLERATED
            quick = {"properties": ("accuracy",), "order": 1, "draws": 2}
            whole = verify.check(use.f, *use.args, **settings | quick).ok and verify.check(use.f, *use.args, **settings)
    except Exception as error:
        return f"{NOT_RUN}: {type(error).__name__}"
    return SURVIVED if whole and whole.ok else CAUGHT


@contextlib.contextmanager
def edited(rule: Rule, edit: Callable) -> Iterator[None]:
    """Edit what a rule gives, in place: the first floating cotangent, or the tangents."""
    method = "bwd" if rule.kind is jax.custom_vjp else "jvp"
    originals: dict[int, tuple[Any, Callable]] = {}

    def moved(x: Any) -> Any:
        return edit(jnp.asarray(x)) if inexact(x) and not isinstance(x, SymbolicZero) else x

    def wrong(own: Callable) -> Callable:
        def changed(*args):
            result = own(*args)
            if method == "jvp":
                return result[0], jax.tree.map(moved, result[1])
            leaves, tree = jax.tree.flatten(result)
            for i in [i for i, x in enumerate(leaves) if inexact(x)][:1]:
                leaves[i] = edit(jnp.asarray(leaves[i]))
            return jax.tree.unflatten(tree, leaves)

        return changed

    def change(kind: Any, called: Any) -> None:
        if kind is rule.kind and id(called) not in originals and located(kind, called.fun) == rule:
            originals[id(called)] = called, getattr(called, method)
            setattr(called, method, wrong(getattr(called, method)))

    with calling(change):
        try:
            yield
        finally:
            for changed, own in originals.values():
                setattr(changed, method, own)


def gradients(use: Use) -> list[np.ndarray]:
    """Return the cotangents of a use for one drawn cotangent."""
    flat, arrays = split(use.f, use)
    outputs, back = jax.vjp(flat, *arrays)
    rng = np.random.default_rng(2)
    cotangents = [jnp.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for y in outputs]
    return [np.asarray(g) for g in back(cotangents)]


def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """Return the largest difference of two gradients, relative to the largest entry of its leaf."""
    found = [0.0]
    for x, y in zip(a, b, strict=True):
        with np.errstate(all="ignore"):
            gap = np.abs(np.asarray(x, np.complex128) - np.asarray(y, np.complex128))
            gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, np.where(np.isnan(gap), np.inf, gap))
        size = np.abs(np.asarray(y, np.complex128)).max(initial=0, where=np.isfinite(y))
        found.append(float(gap.max(initial=0) / (size or 1.0)))
    return max(found)
