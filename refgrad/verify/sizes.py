"""Sizes of named dimensions: those of the check itself, and a small set that holds every odd one."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from refgrad.verify import arguments, draws
from refgrad.verify.clock import TimeBudget
from refgrad.verify.oracle import first_line
from refgrad.verify.report import Report, Row
from refgrad.verify.subject import Subject, name_of

SIZES = (1, 2, 3, 17, 128)
BASES = ((3, 2, 5, 7, 11), (4, 2, 6, 8, 10), (8, 4, 16, 32, 64), (1,), (128,))  # the first that the function takes

Sizes = Mapping[str, int]


SIZED: dict[str, Any] = {
    "order": 1,
    "draws": 2,
    "properties": ("structure", "accuracy"),
    "sweep": False,
}  # the check at each

SPELT: dict[str, Callable[[Any], str]] = {  # settings of a check as a call has them
    "kwargs": lambda value: "kwargs",
    "argnums": repr,
    "reference": name_of,
    "reference_vjp": name_of,
    "intent": lambda value: f"intents.{value!r}",
    "tolerance": repr,
    "seed": repr,
}


def at_sizes(
    check: Callable[..., Report], f: Callable, text: str, settings: dict[str, Any], seed: int, clock: TimeBudget
) -> Report:
    """Return `check` at arguments that a text describes, and with `sweep=True` at other sizes of them."""
    names = arguments.dimensions(text)

    def run(text: str, settings: dict[str, Any]) -> Report:
        specs = arguments.arguments(text)
        within = [getattr(spec, "range", None) for spec in jax.tree.leaves(specs)]
        return check(f, *draws.values(specs, seed), **settings, seed=seed, seconds=clock.left, within=within)

    with arguments.types(text):
        given = base(f, text, settings["kwargs"], seed)
        report = run(arguments.sized(text, given), settings)
        rows, left_out, where, facts = [*report.rows], [*report.left_out], [*report.where], {**report.facts}
        tried, refused = 0, {}
        swept = settings["sweep"] is True and not report.failures and not report.nothing
        for sizes in others(names, given) if swept else ():
            variant = arguments.sized(text, sizes)
            if clock.over:
                left_out.append(f"sizes {shown(sizes)}")
            elif why := refusal(f, variant, settings["kwargs"], seed):
                refused.setdefault(why, []).append(shown(sizes))
            else:
                tried += 1
                found = run(variant, {**settings, **SIZED})
                rows += [dataclasses.replace(row, variant=variant) for row in found.failures]
                where += found.where
        if names:
            facts["sizes"] = _fact(given, tried, len({row.variant for row in rows if arguments.is_text(row.variant)}))
            facts |= {f"refused at {'; '.join(those)}": why for why, those in refused.items()}
    lines = replays(f, rows, repr(arguments.sized(text, given)), settings, seed)
    places = tuple(dict.fromkeys(where))
    return Report(report.subject, tuple(rows), facts, places, tuple(left_out), lines, report.nothing)


def replays(f: Callable, rows: Sequence[Row], given: str, settings: Mapping[str, Any], seed: int) -> tuple[str, ...]:
    """Return the calls that repeat the failures of variants and sizes; `given` are the arguments as written there."""
    stated = {name: settings[name] for name in SPELT if settings.get(name) is not None} | (
        {"seed": seed} if seed else {}
    )
    more = [f"{name}={SPELT[name](value)}" for name, value in stated.items()]
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows if row.variant):
        sized = [repr(variant), f"draws={SIZED['draws']}"]
        own = sized if arguments.is_text(variant) else [given, f"sweep={variant!r}"]
        name = name_of(f)
        lines.append(f"check({', '.join((name if name.isidentifier() else 'f', *own, *more))})")
    return tuple(lines)


def base(f: Callable, text: str, kwargs: Mapping[str, Any] | None, seed: int) -> Sizes:
    """Return sizes that `f` takes, all different if it can be. Raises what `f` raises at the first choice."""
    names = arguments.dimensions(text)
    choices = [dict(zip(names, itertools.cycle(sizes), strict=False)) for sizes in BASES]
    error = None
    for sizes in choices:
        try:
            _run(f, arguments.sized(text, sizes), kwargs, seed)
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


def refusal(f: Callable, text: str, kwargs: Mapping[str, Any] | None, seed: int) -> str:
    """Return the reason why `f` does not take these arguments, "" if it does."""
    try:
        _run(f, text, kwargs, seed)
    except Exception as error:  # as in `base`
        return first_line(error)
    return ""


def _run(f: Callable, text: str, kwargs: Mapping[str, Any] | None, seed: int) -> Any:
    subject = Subject.of(f, draws.values(arguments.arguments(text), seed), kwargs)
    return jax.eval_shape(subject.flat(), subject.diff, subject.rest)


def shown(sizes: Sizes) -> str:
    """Return `b=3, s=2`."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def _fact(given: Sizes, tried: int, failed: int) -> str:
    others = f"; {failed} of {tried} others fail" if failed else f"; {tried} others hold" if tried else ""
    return shown(given) + others
