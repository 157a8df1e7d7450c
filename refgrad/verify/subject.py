"""The function under check, with its arguments split into what is differentiated and what is not.

Every instrument here works on the flat form `(floats, others) → (float outputs, other outputs)`, lists of arrays:
pytrees, keys, integers, static values, `nondiff_argnums` and auxiliary outputs are dealt with once, in this file.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad._given import keywords as given_keywords
from refgrad._given import positions
from refgrad._text import short_path
from refgrad.jaxpr.authors import code_location, is_library
from refgrad.jaxpr.avals import canonical, is_array, is_float
from refgrad.jaxpr.methods import is_hiprim
from refgrad.jaxpr.versions import is_rule, nondiff_argnums

Flat = Callable[[Sequence, Sequence], tuple[list, list]]


@dataclasses.dataclass(frozen=True)
class Subject:
    """`f` at `args`: `floats` and `others` index the leaves that are differentiated and those that are only passed."""

    f: Callable
    leaves: tuple[Any, ...]
    tree: Any
    floats: tuple[int, ...]
    others: tuple[int, ...]
    names: tuple[str, ...]  # of every leaf, as in "params['w']"

    @classmethod
    def of(
        cls,
        f: Callable,
        args: tuple,
        kwargs: Mapping[str, Any] | None = None,
        argnums: int | Sequence[int] | None = None,
    ) -> "Subject":
        """Split the arguments: arrays are differentiated; Python numbers only of a rule, or without arrays.

        `argnums` differentiates those positions of `args` alone, as `jax.grad` does. NumPy's arrays and numbers count
        as what JAX makes of them under the x64 setting in force.

        Raises TypeError where no argument can be differentiated, naming what was passed, and ValueError for a position
        in `argnums` that does not exist.
        """
        chosen = positions(argnums, len(args))
        numbers = is_rule(f) or is_hiprim(f)
        f, args, keywords = _bound(f, args, given_keywords(kwargs))
        skipped = {i % len(args) for i in nondiff_argnums(f) if i < len(args)} if args else set()
        skipped_only = set() if chosen is None else set(range(len(args))) - chosen
        with_paths, tree = jax.tree_util.tree_flatten_with_path(args)
        names = _names(f, args)
        numbers |= not any(is_float(x) and is_array(x) for _, x in with_paths)
        leaves, floats, others, labels = [], [], [], []
        for i, (path, leaf) in enumerate(with_paths):
            static = path[0].idx in skipped
            leaf = leaf if static else canonical(leaf)
            held = path[0].idx in skipped_only
            if is_float(leaf) and not static and not held and (is_array(leaf) or numbers):
                floats.append(i)
                leaf = leaf if is_array(leaf) else jnp.asarray(leaf)
            elif is_array(leaf) and not static:
                others.append(i)
            leaves.append(leaf)
            if keywords and path[0].idx == len(args) - 1:
                labels.append(path[1].key + jax.tree_util.keystr(path[2:]))
            else:
                labels.append(names[path[0].idx] + jax.tree_util.keystr(path[1:]))
        if not floats:
            given = ", ".join(f"{n}: {_type(x)}" for n, x in zip(labels, leaves, strict=True)) or "nothing"
            way = "pass a float or complex array" if chosen is None else f"argnums is {argnums}"
            raise TypeError(f"{name_of(f)} has no argument to differentiate ({given}): {way}")
        return cls(f, tuple(leaves), tree, tuple(floats), tuple(others), tuple(labels))

    def flat(self, f: Callable | None = None) -> Flat:
        """`f` (the function under check, where it is not given) in its flat form."""
        f = self.f if f is None else f

        def flat(diff: Sequence, rest: Sequence) -> tuple[list, list]:
            out = _arrays(f, f(*self.args_with(diff, rest)))
            return [x for x in out if is_float(x)], [x for x in out if not is_float(x)]

        return flat

    def args_with(self, diff: Sequence, rest: Sequence) -> tuple:
        """The arguments of `f`, with other arrays in the places of its floats and others."""
        leaves = list(self.leaves)
        for i, x in (*zip(self.floats, diff, strict=True), *zip(self.others, rest, strict=True)):
            leaves[i] = x
        return jax.tree.unflatten(self.tree, leaves)

    def pick(self, cotangents: Any, like: Sequence) -> list:
        """The leaves that are differentiated, out of one cotangent per positional argument; None means zero.

        Raises ValueError where there are more or fewer cotangents than arguments, or of another shape.
        """
        args = jax.tree.unflatten(self.tree, list(range(len(self.leaves))))
        cotangents = cotangents if isinstance(cotangents, tuple | list) else (cotangents,)
        if len(cotangents) != len(args):
            raise ValueError(
                f"reference_vjp gives {len(cotangents)} cotangents for {len(args)} arguments: one each, or None"
            )
        found: dict[int, Any] = {}
        for arg, ct in zip(args, cotangents, strict=True):
            if ct is not None:
                jax.tree.map(lambda i, c: found.update({i: c}), arg, ct)
        picked = [found.get(i) for i in self.floats]
        for i, ct, x in zip(self.floats, picked, like, strict=True):
            if ct is not None and np.shape(ct) != np.shape(x):
                raise ValueError(
                    f"reference_vjp gives {self.names[i]} the shape {np.shape(ct)}, but it has {np.shape(x)}"
                )
        return [jnp.zeros_like(x) if c is None else jnp.asarray(c) for c, x in zip(picked, like, strict=True)]

    def at(self, diff: Sequence, rest: Sequence) -> "Subject":
        """The same function at other arrays."""
        arrays = dict(zip((*self.floats, *self.others), (*diff, *rest), strict=True))
        return dataclasses.replace(self, leaves=tuple(arrays.get(i, x) for i, x in enumerate(self.leaves)))

    @property
    def args(self) -> tuple:
        """The arguments as given."""
        return jax.tree.unflatten(self.tree, self.leaves)

    @property
    def diff(self) -> list:
        """The leaves that are differentiated."""
        return [self.leaves[i] for i in self.floats]

    @property
    def rest(self) -> list:
        """The arrays that are not."""
        return [self.leaves[i] for i in self.others]

    @property
    def arguments(self) -> list[str]:
        """The names of the differentiated leaves."""
        return [self.names[i] for i in self.floats]

    @property
    def parameters(self) -> list[str]:
        """The names of the positional arguments."""
        return _names(self.f, self.args)

    @functools.cached_property
    def library(self) -> bool:
        """True for a function of JAX's own: it is its rule that is under check."""
        return is_library(self.f)

    @functools.cached_property
    def title(self) -> str:
        """`name(x: f32[4,8], t: i32[4]) at file.py:12`; without a place where Python knows none."""
        place = code_location(self.f).partition(" (")[0]
        return self.call + (f" at {short_path(place)}" if place else "")

    @functools.cached_property
    def call(self) -> str:
        """`name(x: f32[4,8], t: i32[4])`."""
        types = (f"{n}: {_type(x)}" for n, x in zip(self.names, self.leaves, strict=True))
        return f"{name_of(self.f)}({', '.join(types)})"


def _arrays(f: Callable, found: Any) -> list:
    """Return the leaves of a result. Raises TypeError for what is neither an array nor a number."""
    leaves = jax.tree.leaves(found)
    for x in leaves:
        if inspect.iscoroutine(x):
            x.close()
            raise TypeError(f"{name_of(f)} is async and returns a coroutine: pass a plain function")
        if not (is_array(x) or isinstance(x, bool | int | float | complex)):
            raise TypeError(f"{name_of(f)} returns a value of type {type(x).__name__}: only arrays can be checked")
    return leaves


def pullback(flat: Flat) -> Callable[[Sequence, Sequence, Sequence], tuple[list, list]]:
    """`(floats, others, cotangents of the float outputs) → (float outputs, cotangents of the floats)`."""

    def pull(diff, rest, cts):
        out, back, _ = jax.vjp(lambda *d: flat(d, rest), *diff, has_aux=True)
        return out, list(back(list(cts)))

    return pull


def name_of(f: Callable) -> str:
    """The name of `f` in a report."""
    while isinstance(f, functools.partial):
        f = f.func
    return getattr(f, "__name__", None) or type(f).__name__


def _bound(f: Callable, args: tuple, kwargs: Mapping[str, Any]) -> tuple[Callable, tuple, bool]:
    """Return `f` and its arguments with keywords by position; the last is a dict of those that have none, if True."""
    if not kwargs:
        return f, args, False
    try:
        binding = inspect.signature(f).bind(*args, **kwargs)
        args, kwargs = binding.args, binding.kwargs
    except ValueError:  # no signature: a builtin
        pass
    if not kwargs:
        return f, args, False

    @functools.wraps(f, updated=())
    def call(*given):
        return f(*given[:-1], **given[-1])

    return call, (*args, dict(kwargs)), True


def _names(f: Any, args: tuple) -> list[str]:
    """The parameter names of the positional arguments, as far as `f` tells them."""
    try:
        parameters = inspect.signature(f.expand if is_hiprim(f) else f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in positional][: len(args)]
    return names + [f"arg{i}" for i in range(len(names), len(args))]


def _type(x: Any) -> str:
    """`f32[4,8]` for an array, the value itself for what is static."""
    if not is_array(x):
        text = getattr(x, "__name__", None) or str(x)
        return type(x).__name__ if " at 0x" in text else text
    short = str(x.dtype)
    for long, brief in (("bfloat", "bf"), ("float", "f"), ("complex", "c"), ("uint", "u"), ("int", "i")):
        short = short.replace(long, brief) if short.startswith(long) else short
    return f"{short}[{','.join(map(str, np.shape(x)))}]"
