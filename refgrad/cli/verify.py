"""Verify every derived rule against autodiff and float64, and price it against XLA; exit code 0 only if all holds."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from refgrad import _machine, verify
from refgrad._files import write_json
from refgrad._progress import track, verdict
from refgrad._text import fitted, nearest, wrapped
from refgrad._workers import workers
from refgrad.cli import faults, target
from refgrad.cli.devices import device
from refgrad.cli.options import DTYPES
from refgrad.cli.settings import load
from refgrad.jaxpr.scaffold import scaffold_everything
from refgrad.jaxpr.versions import JAX
from refgrad.models import gpt2
from refgrad.models.networks import NETWORKS
from refgrad.ops import TABLE
from refgrad.report import model, networks, operations, proofs
from refgrad.report.text import standard_library_ids
from refgrad.rule_sets import rule_set
from refgrad.verify.arguments import is_text, needs_x64, sized
from refgrad.verify.draws import values
from refgrad.verify.prove import ProofVerdict

QUICK = ("input.batch=1", "input.sequence=8")
DRAWS, QUICK_DRAWS = 8, 2  # cotangents
BYTES = 48  # of a parameter in float64: itself, its gradients twice, and what is alive between


def run(options: argparse.Namespace) -> int:
    """Check, print and write; returns 0 if everything holds, else 1. Raises ValueError for bad options."""
    if options.target is not None:
        return _user_function(options)
    if options.prove:
        return _proofs(options)
    if options.args is not None:
        raise ValueError("--args are the arguments of path/to/module.py:function: name it first")
    if given := [name for name in OWN if getattr(options, name) is not None]:
        raise ValueError(f"--{given[0].replace('_', '-')} is for path/to/module.py:function: name it first")
    config, sizes = load(options.config, [*options.set, *(QUICK if options.quick else ())])
    _known(options.op or (), TABLE)
    dtypes = _dtypes(options)
    if (needed := BYTES * config.parameters) > (there := _machine.memory()):
        raise ValueError(
            f"{config.parameters:,} parameters take some {needed / 1e9:,.0f} GB to be verified, but this machine has "
            f"{there / 1e9:,.0f}: take a smaller model"
        )
    where = device(options.device)
    print(f"refgrad verify on {where.device_kind}, jax {JAX}, matmul precision: highest", flush=True)
    if where.platform == "tpu" and "float64" in dtypes:
        print("float64 is left out: a TPU has none; truth is computed on the CPU")
        dtypes.remove("float64")
    rules = rule_set(options.rules)
    names = options.op or [name for name, spec in TABLE.items() if spec.package == rules.packages[-1]]
    compared = [dtype for dtype in dtypes if dtype in model.BOUNDS]
    whole = options.op is None
    dims = operations.dimensions(config, sizes["batch"], sizes["sequence"])
    ids = standard_library_ids(sizes["batch"], sizes["sequence"])
    setup = partial(_as_here, options.quick)
    alone = 1 if where.platform != "cpu" else None  # an accelerator is not shared between processes
    with jax.default_device(where), jax.enable_x64(True), workers(len(names), setup, alone) as each:
        drawn = {"seed": options.seed, "draws": QUICK_DRAWS if options.quick else DRAWS}
        check = partial(operations.verify_operation, dims=dims, dtypes=dtypes, **drawn)
        checked = each(check, names, "operations")
        small = list(NETWORKS) if whole and not rules.fused else []
        trained = each(partial(_network, dtypes=compared), small, "networks")
        gradients = partial(model.gradient_errors, config, *ids, rules=options.rules)
        errors = each(gradients, compared if whole else [], "model")
        totals = each(partial(_total, rules=options.rules), list(gpt2.SIZES) if whole else [], "totals")
        found = _operations(checked, dims)
        if whole:
            found |= _networks(list(trained)) if small else {}
            found |= _model(config, sizes, dict(zip(compared, errors, strict=True)), list(totals), options.rules)
    ok = all(part["ok"] for part in found.values())
    if options.json:
        facts = {"device": where.device_kind, "jax": JAX, "precision": "highest", "seed": options.seed}
        write_json(options.json, {"ok": ok, **facts, **found})
    print("\nEverything holds." if ok else "\nNOT everything holds: look for FAIL and for unexplained other than 0.")
    return 0 if ok else 1


def _dtypes(options: argparse.Namespace) -> list[str]:
    """The dtypes to check in. Raises ValueError for those of another kind of run than `--quick`."""
    if not options.quick:
        return [dtype for dtype in DTYPES if dtype in (options.dtype or DTYPES)]
    for name in ("config", "set", "dtype"):
        if getattr(options, name):
            raise ValueError(f"--quick is the tiny model in float32: leave --{name} out, or --quick")
    scaffold_everything()
    return ["float32"]


# The options that say how a function of the user's is checked.
OWN = ("kwargs", "argnums", "tolerance", "intent", "reference", "reference_vjp", "seconds", "sweep")


def _user_function(options: argparse.Namespace) -> int:
    """Every property of the rules inside a function of the user's, at random arguments of the types given."""
    for option in ("config", "set", "op", "dtype", "quick"):
        if getattr(options, option):
            raise ValueError(f"--{option} is for the embedded model: leave it out when a function is named")
    if options.args is None:
        raise ValueError(f'{options.target} needs --args, such as --args "f32[4,8] f32[8]"')
    if options.prove and (given := [name for name in OWN if getattr(options, name) is not None]):
        raise ValueError(f"--{given[0].replace('_', '-')} has no meaning with --prove: a proof knows no exceptions")
    function = target.load(options.target)
    with jax.default_device(device(options.device)), faults.named(target.file_of(options.target), function):
        report = _proof(function, options) if options.prove else _checked(function, options)
    if options.json:
        write_json(options.json, report.data())
    print(report)
    return 0 if report.ok else 1


def _proof(function: Callable, options: argparse.Namespace) -> Any:
    specs = target.arguments(options.args)
    with jax.enable_x64(needs_x64(specs)):
        return verify.prove(function, *values(specs, options.seed))


def _checked(function: Callable, options: argparse.Namespace) -> verify.Report:
    """The check, swept unless that is declined; its failures are repeated by the commands in it."""
    target.arguments(sized(options.args, dict.fromkeys(target.dimensions(options.args), 1)))
    given = (options.args,) if is_text(options.args) else values(target.arguments(options.args), options.seed)
    report = verify.check(
        function,
        *given,
        kwargs=_drawn(target.keywords(options.kwargs)),
        argnums=target.positions(options.argnums),
        tolerance=options.tolerance,
        intent=target.intent(options.intent),
        reference=options.reference and target.load(options.reference),
        reference_vjp=options.reference_vjp and target.load(options.reference_vjp),
        seconds=options.seconds,
        sweep=options.sweep or not options.no_sweep,
        seed=options.seed,
    )
    return dataclasses.replace(report, replays=tuple(_command(options, variant) for variant in report.variants))


def _drawn(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments with an array for each `Spec`, each from a seed of its own."""
    drawn = (values((value,), seed=1 + n)[0] for n, value in enumerate(keywords.values()))
    return dict(zip(keywords, drawn, strict=True))


def _command(options: argparse.Namespace, variant: str) -> str:
    args = ["--args", variant] if is_text(variant) else ["--args", options.args, "--sweep", variant]
    kept = {name: getattr(options, name) for name in OWN if name not in ("seconds", "sweep")}
    kept["seed"] = options.seed or None
    more = [f"--{name.replace('_', '-')}={value}" for name, value in kept.items() if value is not None]
    return shlex.join(["refgrad", "verify", options.target, *args, *more])


def _proofs(options: argparse.Namespace) -> int:
    """Every operation and small network proven, a block and the tiny GPT-2 tested; or the operations named."""
    for option in ("config", "set", "dtype", "quick"):
        if getattr(options, option):
            raise ValueError(f"--{option} has no meaning with --prove: a proof is about real numbers, at small sizes")
    known = proofs.subjects()
    _known(options.op or (), known)
    results = [proofs.prove(name) for name in track(options.op or list(known), "proofs")]
    print(proofs.proof_table(results))
    for result in results:
        if not result.proof.ok:
            print(f"\n{result.proof}")
    print(f"\n{proofs.counts(results)}.")
    refuted = any(result.proof.verdict is ProofVerdict.REFUTED for result in results)
    if options.json:
        write_json(options.json, {"ok": not refuted, "jax": JAX, "rows": [result.data() for result in results]})
    return 1 if refuted else 0


def _known(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for an operation that does not exist."""
    for name in names:
        if name not in known:
            raise ValueError(f"--op {name}: no such operation: {nearest(name, known)}")


def _as_here(quick: bool) -> None:
    """Set a worker's compilation and types as this process has them."""
    if quick:
        scaffold_everything()
    jax.config.update("jax_enable_x64", True)


def _network(name: str, dtypes: Sequence[str]) -> networks.NetworkResult:
    return networks.verify_network(name, NETWORKS[name], dtypes)


def _total(name: str, rules: str) -> model.Total:
    return model.total(name, gpt2.SIZES[name], rules)


def _operations(checked: Iterable[operations.OperationResult], dims: Mapping[str, int]) -> dict[str, Any]:
    """Every operation at the model's widths: accuracy and cost."""
    results = []
    for result in checked:
        results.append(result)
        verdict(result.name, result.ok)
    _show("Operations: largest error of each cotangent over its allowance (at most 1 holds)")
    print(operations.accuracy_table(results))
    for result in results:
        for report in result.reports.values():
            if not report.ok:
                print(f"\n{report.summary()}")
    _show(f"Operations: backward FLOPs at {', '.join(f'{k}={v}' for k, v in dims.items())}")
    print(operations.cost_table(results))
    for result in results:
        if result.priced.unexplained:
            print(f"\n{result.name}\n{result.priced.reconciliation}")
    ok = all(result.ok for result in results)
    return {"operations": {"ok": ok, "rows": [result.data() for result in results]}}


def _networks(results: Sequence[networks.NetworkResult]) -> dict[str, Any]:
    """The documents' small networks: every gradient, and both passes from their operations' rows to XLA."""
    _show("Small networks: largest relative difference of a gradient to autodiff's, and FLOPs from the rows to XLA")
    print(networks.network_table(results))
    for result in results:
        for priced in result.passes.values():
            if priced.unexplained:
                print(f"\n{result.name}\n{priced.reconciliation}")
    return {"networks": {"ok": all(result.ok for result in results), "rows": [result.data() for result in results]}}


def _model(
    config: gpt2.Config,
    sizes: Mapping[str, int],
    errors: Mapping[str, Mapping[str, float]],
    totals: Sequence[model.Total],
    rules: str,
) -> dict[str, Any]:
    """The whole model on real text: every parameter's gradient, and its cost from the document to XLA."""
    batch, sequence = sizes["batch"], sizes["sequence"]
    parameters = model.parameter_results(config, errors)
    _show("Model: gradient of each parameter by the rules, relative difference to autodiff")
    print(fitted(f"{config}\ninput: {batch} × {sequence} bytes of the Python standard library's source\n\n"))
    print(model.parameter_table(parameters))
    _show("Model: backward pass, from the document's total to XLA's count of the lowered module")
    reconciliation = model.model_pass("backward", config, batch, sequence, rules, scan=False).reconciliation
    print(reconciliation)
    _show("The tally as polynomials")
    print(fitted(model.polynomial_text(config, rules)))
    _show("Totals for one sequence of 1024 tokens, from abstract values")
    print(model.total_table(totals))
    return {
        "parameters": {"ok": all(p.ok for p in parameters), "rows": [p.data() for p in parameters]},
        "model": {"ok": reconciliation.ok, **reconciliation.json()},
        "totals": {"ok": not any(t.unexplained for t in totals), "rows": [t.data() for t in totals]},
    }


def _show(title: str) -> None:
    print(f"\n{wrapped(title)}\n")
