"""`dce`: each output alone, and all but each, under `jit`, which asks the rule for no more than is used."""

from collections.abc import Callable, Iterator

import jax

from refgrad.verify.method_case import Job, MethodCase
from refgrad.verify.report import Row

GRADIENT = ("dce", "vjp_bwd")


def dce(case: MethodCase) -> Iterator[Row]:
    """Rows of `dce`: the values of the outputs that are used, and their cotangents."""
    if "dce" not in case.methods:
        return
    n = len(case.outputs)
    everything = tuple(range(n))
    singles = [(k,) for k in everything]
    others = [tuple(j for j in everything if j != k) for k in everything if n > 2]
    chosen = list(dict.fromkeys((everything, *singles, *others)))
    cts = case.cotangents()
    values, limits = case.values(case.diff, case.rest), case.allowed()[0]
    jobs = [Job(_used(case, used), (case.diff, case.rest), _note(case, used)) for used in chosen]
    for used, job, (found, failed) in zip(chosen, jobs, case.run_each(("dce",), jobs), strict=True):
        pick = lambda xs, used=used: [xs[k] for k in used]  # noqa: E731
        given = pick(case.labels), found, pick(values), pick(limits), pick(case.outputs)
        yield from failed or case.compare("dce", ("dce",), *given, job.note)
    if not case.sound:
        return
    jobs = [Job(_pull(case, u), (case.diff, case.rest, cts), f"gradient, {_note(case, u)}") for u in chosen]
    for used, job, (found, failed) in zip(chosen, jobs, case.run_each(GRADIENT, jobs), strict=True):
        alone = [c if k in used else 0 * c for k, c in enumerate(cts)]
        yield from failed or case.compare_cotangents(GRADIENT, found, alone, job.note)


def _note(case: MethodCase, used: tuple[int, ...]) -> str:
    return f"used: {', '.join(case.labels[k] for k in used)}"


def _used(case: MethodCase, used: tuple[int, ...]) -> Callable:
    """The outputs that are used."""

    def program(diff, rest):
        outputs = case.ruled(diff, rest)[0]  # one call, of which some outputs are used
        return [outputs[k] for k in used]

    return program


def _pull(case: MethodCase, used: tuple[int, ...]) -> Callable:
    """The gradient of the same, through the rule that `dce` returned."""
    program = jax.jit(_used(case, used))
    return lambda diff, rest, cts: jax.vjp(lambda *d: program(list(d), rest), *diff)[1]([cts[k] for k in used])
