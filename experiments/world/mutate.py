"""Wrong versions of the rules that a use calls: each changes the rule in place and must turn `check` red."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
CAUGHT, EQUIVALENT, SURVIVED, NOT_RUN = "caught", "equivalent", "survived", "not run"


def score(use: Use, most: int) -> dict[str, str]:
    """Return the verdict on each mutant of each rule that a use calls, at most so many of each rule."""
    found: dict[str, str] = {}
    with jax.enable_x64(use.x64):
        for rule in called(use):
            for name, edit in list(EDITS.items())[:most]:
                found[f"{rule.fun.__qualname__}: {name}"] = verdict(use, rule, edit)
        jax.clear_caches()
    return found


def called(use: Use) -> list[Any]:
    """Return the `custom_vjp` and `custom_jvp` objects that a use calls, JAX's own left out where a package's are."""
    seen: dict[int, Any] = {}
    with contextlib.ExitStack() as stack:
        for kind in (jax.custom_vjp, jax.custom_jvp):
            stack.enter_context(recorded(kind, seen))
        jax.clear_caches()
        flat, arrays = split(use.f, use)
        jax.make_jaxpr(flat)(*arrays)
    rules = list(seen.values())
    own = [rule for rule in rules if not getattr(rule.fun, "__module__", "").startswith("jax.")]
    return own or rules


@contextlib.contextmanager
def recorded(kind: Any, seen: dict[int, Any]) -> Iterator[None]:
    """Record each object of a class that is called."""
    call = kind.__call__

    def recording(self, *args, **kwargs):
        seen[id(self)] = self
        return call(self, *args, **kwargs)

    kind.__call__ = recording
    try:
        yield
    finally:
        kind.__call__ = call


def verdict(use: Use, rule: Any, edit: Callable) -> str:
    """Return the verdict on a use while its rule is edited."""
    settings = {key: value for key, value in use.settings.items() if key != "seconds"}
    settings |= {"properties": ("accuracy",), "order": 1, "draws": 2}
    try:
        right = gradients(use)
        with edited(rule, edit):
            if same(gradients(use), right, 10 * (settings.get("tolerance") or 0)):
                return EQUIVALENT
            report = verify.check(use.f, *use.args, **settings)
    except Exception as error:
        return f"{NOT_RUN}: {type(error).__name__}"
    return SURVIVED if report.ok else CAUGHT


@contextlib.contextmanager
def edited(rule: Any, edit: Callable) -> Iterator[None]:
    """Edit what a rule gives, in place: the first floating cotangent, or the tangent."""
    method = "bwd" if isinstance(rule, jax.custom_vjp) else "jvp"
    own = getattr(rule, method)

    def wrong(*args):
        result = own(*args)
        if method == "jvp":
            return result[0], jax.tree.map(lambda x: edit(x) if inexact(x) else x, result[1])
        leaves, tree = jax.tree.flatten(result)
        places = [i for i, x in enumerate(leaves) if inexact(x)]
        for i in places[:1]:
            leaves[i] = edit(jnp.asarray(leaves[i]))
        return jax.tree.unflatten(tree, leaves)

    setattr(rule, method, wrong)
    jax.clear_caches()
    try:
        yield
    finally:
        setattr(rule, method, own)
        jax.clear_caches()


def gradients(use: Use) -> list[np.ndarray]:
    """Return the cotangents of a use for one drawn cotangent."""
    flat, arrays = split(use.f, use)
    outputs, back = jax.vjp(flat, *arrays)
    rng = np.random.default_rng(2)
    drawn = [jnp.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for y in outputs]
    return [np.asarray(g) for g in back(drawn)]


def same(a: list[np.ndarray], b: list[np.ndarray], tolerance: float) -> bool:
    """Return True where no entry differs by more than rounding, or a tolerance, relative to the largest."""
    for x, y in zip(a, b, strict=True):
        size = np.abs(y).max(initial=0)
        if not np.allclose(x, y, rtol=0, atol=max(1e-5, tolerance) * float(size), equal_nan=True):
            return False
    return True
