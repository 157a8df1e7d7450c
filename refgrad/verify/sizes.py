"""Sizes of named dimensions: those of the check itself, and a small set that holds every odd one."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from refgrad.verify import arguments
from refgrad.verify.oracle import first_line
from refgrad.verify.subject import Subject

SIZES = (1, 2, 3, 17, 128)
BASES = ((3, 2, 5, 7, 11), (4, 2, 6, 8, 10), (8, 4, 16, 32, 64), (1,), (128,))  # the first that the function takes

Sizes = Mapping[str, int]


def base(f: Callable, text: str, seed: int) -> Sizes:
    """Return sizes that `f` takes, all different if it can be. Raises what `f` raises at the first choice."""
    names = arguments.dimensions(text)
    choices = [dict(zip(names, itertools.cycle(sizes), strict=False)) for sizes in BASES]
    error = None
    for sizes in choices:
        try:
            _run(f, arguments.sized(text, sizes), seed)
        except Exception as refused:  # whatever a function raises at sizes that it does not take
            error = error or refused
        else:
            return sizes
    assert error is not None
    raise error


def others(names: tuple[str, ...], given: Sizes) -> Iterator[Sizes]:
    """Yield combinations in which each dimension has each of `SIZES` once, beside unlike ones; all 1; each 0."""
    turned = (SIZES[k:] + SIZES[:k] for k in range(len(SIZES)))
    found: list[Sizes] = [dict(zip(names, itertools.cycle(sizes), strict=False)) for sizes in turned]
    found += [dict.fromkeys(names, 1), *({**given, name: 0} for name in names)]
    for k, sizes in enumerate(found):
        if sizes != given and sizes not in found[:k]:
            yield sizes


def refusal(f: Callable, text: str, seed: int) -> str:
    """Return the reason why `f` does not take these arguments, "" if it does."""
    try:
        _run(f, text, seed)
    except Exception as error:  # as in `base`
        return first_line(error)
    return ""


def _run(f: Callable, text: str, seed: int) -> Any:
    subject = Subject.of(f, arguments.values(arguments.arguments(text), seed))
    return jax.eval_shape(subject.flat(), subject.diff, subject.rest)


def shown(sizes: Sizes) -> str:
    """Return `b=3, s=2`."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())
