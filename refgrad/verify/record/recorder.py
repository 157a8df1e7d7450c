"""Recording: `__call__` of JAX's rule classes, patched for a while."""

import contextlib
import functools
import inspect
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray, Tracer

from refgrad.jaxpr.avals import is_array, is_float
from refgrad.jaxpr.methods import HiPrim, is_hiprim
from refgrad.jaxpr.versions import nondiff_argnums
from refgrad.verify.record.call import Key, RecordedRule
from refgrad.verify.record.identity import STATIC, Identity, closes_over_tracers, identify, static
from refgrad.verify.record.outcome import Seen
from refgrad.verify.record.tap import allow_transposition, tap

VARIANTS = 16  # rules of one place in the source that are told apart by what they close over
SHORTCUTS = 1_000  # signatures of one rule that are found again without a text of them
LARGEST = 2**26  # bytes of the arguments that are kept of one call
# A callback costs about 0.1 ms, and compiling the programs of a test anew about a second. Callbacks whose values have
# arrived are removed between tests once they have cost half as much, and at once when they have cost twice as much.
SETTLED, AT_ONCE = 5_000, 20_000
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the text of an object, another one in every process


@contextlib.contextmanager
def record() -> Iterator[Seen]:
    """Record every call of a `custom_vjp`, `custom_jvp`, `custom_gradient` or HiPrim rule, JAX's own excepted.

    No result is changed, and nothing is raised in a call. Traced values are taken by callbacks. They are inserted until
    values have arrived, and leave no trace: JAX's caches of compiled programs are cleared at the end.

    Yields:
      The calls, a sequence that fills while the block runs; its `check()` checks each rule at its recorded values.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import record
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> with record() as seen:
      ...     _ = jax.grad(square)(3.0)
      >>> [call.calls for call in seen]
      [1]
    """
    recorder = Recorder()
    try:
        with recorder.patched():
            yield recorder.seen
    finally:
        recorder.close()


class Recorder:
    """The calls that were seen, and the callbacks that are out for values."""

    def __init__(self) -> None:
        self.calls: dict[str, RecordedRule] = {}
        self.seen = Seen(self.calls)
        self._open = True
        self._paused = 0  # traces under way that are left alone
        self._missed = False  # a signature that awaits values was met in one of them
        self._tapped = False  # callbacks were inserted since the caches were cleared
        self._stale = 0  # callbacks run since then whose values had arrived before
        self._identities: weakref.WeakKeyDictionary[Any, Identity | None] = weakref.WeakKeyDictionary()
        self._known: weakref.WeakKeyDictionary[Any, dict[tuple, RecordedRule | None]] = weakref.WeakKeyDictionary()
        self._variants: dict[str, set[str]] = {}

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Patch the rules' classes, and `jax.export.export`, whose traces are left alone."""
        allow_transposition()
        with contextlib.ExitStack() as stack:
            for owner in filter(None, (jax.custom_vjp, jax.custom_jvp, HiPrim)):
                stack.enter_context(_attribute(owner, "__call__", self._seeing(owner.__call__)))
            stack.enter_context(_attribute(jax.export, "export", self._exporting(jax.export.export)))
            yield

    def settle(self) -> None:
        """Remove the callbacks that cost more than compiling again. Call it where nothing is being traced."""
        if self._stale >= SETTLED:
            self._clear()

    def close(self) -> None:
        """Wait for the values that are under way, and remove the callbacks."""
        with contextlib.suppress(Exception):  # an error of the caller's own callbacks, who meets it again
            jax.effects_barrier()
        self._open = False
        if self._tapped:
            self._clear()

    def _clear(self) -> None:
        self._stale, self._tapped = 0, False
        jax.clear_caches()

    def _seeing(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def call(rule, *args, **kwargs):
            try:
                self._see(rule, args, kwargs)
            except Exception as error:  # a fault of the recorder must not become one of the caller
                self.seen.errors.append(error)
            return original(rule, *args, **kwargs)

        return call

    def _see(self, rule: Any, args: tuple, kwargs: dict) -> None:
        if (identity := self._identity(rule)) is None:
            return
        if kwargs:
            args = inspect.signature(rule).bind(*args, **kwargs).args
        leaves, tree = jax.tree.flatten(args)
        if (call := self._call_of(rule, identity, args, leaves, tree)) is None:
            return
        call.calls += 1
        if not call.awaits:
            return
        traced = [i for i, x in enumerate(leaves) if isinstance(x, Tracer)]
        if not traced:
            call.keep([_frozen(x) for x in leaves])
        elif self._paused:
            self._missed = True
        elif call.calls <= 4 or call.calls & (call.calls - 1) == 0:  # a program of 1,000 layers needs few callbacks
            impls = {i: jax.random.key_impl(leaves[i]) for i in traced if _is_key(leaves[i])}
            sent = [jax.random.key_data(leaves[i]) if i in impls else leaves[i] for i in traced]
            rest = [None if i in traced else _frozen(x) for i, x in enumerate(leaves)]
            self._tapped = True
            tap(functools.partial(self._deliver, call, rest, traced, impls), sent)

    def _call_of(self, rule: Any, identity: Identity, args: tuple, leaves: Sequence, tree: Any) -> RecordedRule | None:
        """Return the call of this rule and signature, a new one where it is first met; None for integers alone."""
        x64 = jnp.dtype("float64") == jax.dtypes.canonicalize_dtype("float64")
        known = {} if is_hiprim(rule) else self._known.setdefault(rule, {})
        short = (x64, tree, *(jax.typeof(x) if is_array(x) else (type(x), x) for x in leaves))
        with contextlib.suppress(TypeError, ValueError):  # a static value that cannot be hashed or compared
            if short in known:
                return known[short]
        call = None
        if any(is_float(x) for x in leaves):
            types, structure = _signature(rule, args)
            key = "\n".join((*identity[:4], types, structure, f"x64={x64}"))
            if (call := self.calls.get(key)) is None:
                obstacle = _obstacle(identity, leaves)
                kept = None if obstacle else rule
                call = self.calls[key] = RecordedRule(key, identity, types, kept, tree, x64, obstacle=obstacle)
        if len(known) < SHORTCUTS and all(is_array(x) or isinstance(x, STATIC) for x in leaves):
            with contextlib.suppress(TypeError, ValueError):
                known[short] = call
        return call

    def _deliver(self, call: RecordedRule, rest: Sequence, places: Sequence[int], impls: dict, *values: Any) -> None:
        try:
            if not self._open:
                return
            if call.awaits:
                leaves = list(rest)
                for i, value in zip(places, values, strict=True):
                    leaves[i] = Key(np.array(value), impls[i]) if i in impls else np.array(value)
                call.keep(leaves)
            else:
                self._stale += 1
                if self._stale >= AT_ONCE:
                    self._clear()
        except Exception as error:  # raised in a callback, it would end the caller's program
            self.seen.errors.append(error)

    def _identity(self, rule: Any) -> Identity | None:
        """Return what `identify` says, with closures beyond `VARIANTS` of one place taken as one."""
        if is_hiprim(rule):
            return identify(rule)  # equal HiPrims are not the same
        if rule not in self._identities:
            identity = identify(rule)
            if identity is not None:
                known = self._variants.setdefault(identity.place, set())
                if len(known) < VARIANTS:
                    known.add(identity.variant)
                elif identity.variant not in known:
                    identity = identity._replace(variant="others")
            self._identities[rule] = identity
        return self._identities[rule]

    def _untapped(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def untapped(*args, **kwargs):
            self._paused += 1
            try:
                return original(*args, **kwargs)
            finally:
                self._paused -= 1

        return untapped

    def _exporting(self, original: Callable) -> Callable:
        """Wrap `jax.export.export`: a program with a callback inside cannot be serialized."""

        @functools.wraps(original)
        def export(*args, **kwargs):
            exporting = self._untapped(original(*args, **kwargs))

            @functools.wraps(exporting)
            def clean(*args, **kwargs):
                if self._tapped:
                    self._clear()
                try:
                    return exporting(*args, **kwargs)
                finally:
                    if self._missed:  # JAX would run the traces of the export again, without callbacks
                        self._missed = False
                        self._clear()

            return clean

        return export


@contextlib.contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _signature(rule: Any, args: tuple) -> tuple[str, str]:
    """Return the types of the arrays and the static values among `args`, and the trees that hold them."""
    fixed = {i % len(args) for i in nondiff_argnums(rule)} if args else set()
    texts, trees = [], []
    for i, arg in enumerate(args):
        leaves, tree = jax.tree.flatten(arg)
        texts += [static(x) if i in fixed and not is_array(x) else _type(x) for x in leaves]
        trees.append(ADDRESS.sub("", str(tree)))
    return ", ".join(texts), "; ".join(trees)


def _type(x: Any) -> str:
    try:
        return jax.typeof(x).str_short(short_dtypes=True)
    except TypeError:
        return static(x)


def _obstacle(identity: Identity, leaves: Sequence) -> str:
    """Return the reason for which a call cannot be repeated outside its trace; empty where it can."""
    if identity.traced or closes_over_tracers(x for x in leaves if not isinstance(x, Tracer)):
        return "it closes over traced values of its caller"
    avals = [jax.typeof(x) for x in leaves if is_array(x)]
    if any(not isinstance(a, ShapedArray) or not all(isinstance(n, int) for n in a.shape) for a in avals):
        return "an argument is not an array of a known shape"
    if sum(a.size * getattr(a.dtype, "itemsize", 8) for a in avals) > LARGEST:
        return f"its arguments are larger than {LARGEST >> 20} MiB"
    return ""


def _is_key(x: Any) -> bool:
    return is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _frozen(x: Any) -> Any:
    """Return a value that neither the caller nor a trace can change."""
    if _is_key(x):
        with jax.ensure_compile_time_eval():  # it may be a constant of a trace
            return Key(np.array(jax.random.key_data(x)), jax.random.key_impl(x))
    return np.array(x) if isinstance(x, jax.Array | np.ndarray) else x
