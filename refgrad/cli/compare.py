"""The options of `refgrad cost` that compare two programs, save one, or draw one as a flame graph."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from refgrad import cost
from refgrad._files import write_json
from refgrad._progress import track
from refgrad.cli import settings
from refgrad.cli.options import STAGES
from refgrad.cli.target import bind, keywords, load, only_for_functions, positions, running, sized_arguments
from refgrad.cost import speedscope
from refgrad.cost.comparison import allowances
from refgrad.models import gpt2
from refgrad.report import comparison
from refgrad.rule_sets import current

LOSS = {"rules": "derived", "scan": False, "remat": False}
_AGAINST = ("against", "against_set", "against_args", "against_stage")
_OPTIONS = (*_AGAINST, "stage", "backward", "allow", "save", "figure", "speedscope")
_OTHERS = ("csv", "mesh", "device")


class Named(NamedTuple):
    """A function at its arguments, as the command line names it."""

    target: str
    name: str
    f: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    argnums: tuple[int, ...] | None
    stage: str

    def program(self, backward: bool) -> cost.Program:
        """Return the program, with 64-bit types where its arguments have them."""
        with running(self.target, self.f, (self.args, self.kwargs)):
            made = cost.program(
                self.f,
                *self.args,
                kwargs=self.kwargs,
                argnums=self.argnums,
                stage=self.stage,  # pyright: ignore[reportArgumentType]
                backward=backward,
            )
        return dataclasses.replace(made, name=self.name)


def is_asked(options: argparse.Namespace) -> bool:
    """Return True where one of these options is given."""
    return any(getattr(options, name) for name in _OPTIONS)


def run(options: argparse.Namespace) -> int:
    """Count, compare, print and write; returns 0 unless a figure grows by more than is allowed.

    Raises ValueError for bad options, before anything is counted.
    """
    compares = any(getattr(options, name) for name in _AGAINST)
    _check(options, compares)
    allowances.parse(options.allow)
    first = _first(options)
    second = _second(options) if compares else None
    given = [one for one in (first, second) if one is not None]
    programs = [one.program(options.backward) if isinstance(one, Named) else one for one in track(given, "counting")]
    if options.save:
        programs[0].save(options.save)
    if options.speedscope:
        graphs = [graph for one in programs for graph in speedscope.profiles(one.stages[one.stage], one.name)]
        speedscope.write(options.speedscope, graphs)
    if not compares:
        print(programs[0])
        if options.json:
            write_json(options.json, programs[0].json())
        return 0
    found = cost.compare(*programs, allow=options.allow)
    print(found)
    if options.json:
        write_json(options.json, found.json())
    if options.figure:
        comparison.draw(options.figure, found)
    return 0 if found.ok else 1


def _check(options: argparse.Namespace, compares: bool) -> None:
    for name in _OTHERS:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} belongs to the report on one program: leave it out to compare or save programs")
    for name in ("allow", "figure"):
        if getattr(options, name) and not compares:
            raise ValueError(f"--{name} is of a comparison: give --against, --against-set, --against-args or …-stage")


def _first(options: argparse.Namespace) -> Named | cost.Program:
    return _named(options, options.target, options.args, options.set, options.stage)


def _second(options: argparse.Namespace) -> Named | cost.Program:
    """The program that --against names, or the first one under the other options."""
    target = options.against or options.target
    if options.against_set and (options.against or options.target):
        raise ValueError(f"--against-set is GPT-2's, but the program compared with is {target}: use --against-args")
    args = options.args if options.against_args is None else options.against_args
    stage = options.against_stage or options.stage
    return _named(options, target, args, [*options.set, *options.against_set], stage)


def _named(
    options: argparse.Namespace, target: str | None, args: str | None, changes: Sequence[str], stage: str | None
) -> Named | cost.Program:
    if target is None:
        return _gpt2(options, changes, stage or STAGES[0])
    if ":" not in target and target.endswith(".json"):
        return cost.load(target)
    if options.config or options.set:
        raise ValueError(f"--config and --set are GPT-2's, but {target} is counted: use --args")
    specs, keyed = sized_arguments(args or "", options.sizes), keywords(options.kwargs)
    f, arrays, argnums = bind(load(target), specs, positions(options.argnums))
    return Named(target, target.rpartition("/")[2], f, arrays, keyed, argnums, stage or STAGES[0])


def _gpt2(options: argparse.Namespace, changes: Sequence[str], stage: str) -> Named:
    """GPT-2's loss, with the settings of [loss] beside those of the model and the input."""
    only_for_functions(options, ("args", "sizes", "kwargs", "argnums", "against_args"))
    own = [change for change in changes if change.startswith("loss.")]
    loss = {**LOSS, **settings.read(None, own, ("loss",), words=True)["loss"]}
    for key, value in loss.items():
        if key not in LOSS or type(value) is not type(LOSS[key]):
            raise ValueError(f"loss.{key} = {value!r}: known are loss.rules=NAME, loss.scan=true and loss.remat=true")
    current(str(loss["rules"]), "loss.rules")
    rest = [change for change in changes if change not in own]
    config, sizes = settings.load(options.config, rest, whole_sequence=options.config is not None)
    f, *args = gpt2.abstract_loss(config, sizes["batch"], sizes["sequence"], **loss)
    return Named("", " ".join(["GPT-2", *changes]), f, tuple(args), {}, None, stage)
