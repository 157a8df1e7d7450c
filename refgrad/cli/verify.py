"""Verify every derived rule against autodiff and float64, and price it against XLA; exit code 0 only if all holds."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from refgrad import verify
from refgrad._files import write_json
from refgrad._progress import track
from refgrad.cli import target
from refgrad.cli.devices import device
from refgrad.cli.settings import add_common, load
from refgrad.jaxpr.versions import JAX
from refgrad.models import gpt2
from refgrad.models.networks import NETWORKS
from refgrad.ops import TABLE
from refgrad.report import model, networks, operations, proofs
from refgrad.report.text import standard_library_ids
from refgrad.verify.arguments import is_text, needs_x64, sized, values
from refgrad.verify.prove import Verdict

DTYPES = ("float64", "float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_common(parser)
    parser.add_argument("target", nargs="?", metavar="module.py:function", help="check this function of yours instead")
    parser.add_argument("--args", metavar='"f32[4,8] …"', help="its arguments; a dimension may have a name")
    parser.add_argument("--no-sweep", action="store_true", help="try no special values and no other sizes of them")
    parser.add_argument("--sweep", metavar="VARIANT", help='try this variant alone, such as "x: zeros"')
    parser.add_argument("--kwargs", metavar='"train=True …"', help="its keyword arguments: arrays or literals")
    parser.add_argument("--argnums", metavar="I,J", help="the positions to differentiate, instead of all")
    parser.add_argument("--tolerance", type=float, metavar="R", help="relative error up to which the rule is right")
    parser.add_argument("--intent", metavar="NAME", help='what the rule means: straight_through, "clip(-1, 1)", …')
    parser.add_argument("--reference", metavar="module.py:function", help="a function with the gradient that is meant")
    parser.add_argument("--reference-vjp", metavar="module.py:function", help="one that returns the meant cotangents")
    parser.add_argument("--seconds", type=float, metavar="S", help="budget: the most telling properties run first")
    parser.add_argument(
        "--rules", choices=("document", "fused"), default="document", help="check these rules and the model under them"
    )
    parser.add_argument("--op", action="append", metavar="NAME", help="check this operation alone (may be repeated)")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="check in this dtype alone (may be repeated)")
    parser.add_argument(
        "--prove", action="store_true", help="prove the rules for all real arguments, in exact arithmetic, instead"
    )
    parser.add_argument("--device", metavar="PLATFORM", help="cpu, gpu or tpu, with :INDEX for one of several")


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
    config, sizes = load(options.config, options.set)
    _known(options.op or (), TABLE)
    where = device(options.device)
    dtypes = [dtype for dtype in DTYPES if dtype in (options.dtype or DTYPES)]
    print(f"refgrad verify on {where.device_kind}, jax {JAX}, matmul precision: highest")
    if where.platform == "tpu" and "float64" in dtypes:
        print("float64 is left out: a TPU has none; truth is computed on the CPU")
        dtypes.remove("float64")
    with jax.default_device(where), jax.enable_x64(True):
        names = [name for name in TABLE if name.startswith("fused.") == (options.rules == "fused")]
        found = _operations(config, sizes, options.op or names, dtypes)
        if options.op is None:
            found |= _networks(dtypes) if options.rules == "document" else {}
            found |= _model(config, sizes, dtypes, options.rules)
    ok = all(part["ok"] for part in found.values())
    print("\nEverything holds." if ok else "\nNOT everything holds: look for FAIL and for unexplained other than 0.")
    if options.json:
        facts = {"device": where.device_kind, "jax": JAX, "precision": "highest"}
        write_json(options.json, {"ok": ok, **facts, **found})
    return 0 if ok else 1


# The options that say how a function of the user's is checked.
OWN = ("kwargs", "argnums", "tolerance", "intent", "reference", "reference_vjp", "seconds", "sweep")


def _user_function(options: argparse.Namespace) -> int:
    """Every property of the rules inside a function of the user's, at random arguments of the types given."""
    for option in ("config", "set", "op", "dtype"):
        if getattr(options, option):
            raise ValueError(f"--{option} is for the embedded model: leave it out when a function is named")
    if options.args is None:
        raise ValueError(f'{options.target} needs --args, such as --args "f32[4,8] f32[8]"')
    if options.prove and (given := [name for name in OWN if getattr(options, name) is not None]):
        raise ValueError(f"--{given[0].replace('_', '-')} has no meaning with --prove: a proof knows no exceptions")
    function = target.load(options.target)
    with jax.default_device(device(options.device)):
        report = _proof(function, options.args) if options.prove else _checked(function, options)
    print(report)
    if options.json:
        write_json(options.json, report.data())
    return 0 if report.ok else 1


def _proof(function: Callable, text: str) -> Any:
    specs = target.arguments(text)
    with jax.enable_x64(needs_x64(specs)):
        return verify.prove(function, *values(specs, seed=0))


def _checked(function: Callable, options: argparse.Namespace) -> verify.Report:
    """The check, swept unless that is declined; its failures are repeated by the commands in it."""
    target.arguments(sized(options.args, dict.fromkeys(target.dimensions(options.args), 1)))
    given = (options.args,) if is_text(options.args) else values(target.arguments(options.args), seed=0)
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
    )
    return dataclasses.replace(report, replays=tuple(_command(options, variant) for variant in report.variants))


def _drawn(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments with an array for each `Spec`, each from a seed of its own."""
    drawn = (values((value,), seed=1 + n)[0] for n, value in enumerate(keywords.values()))
    return dict(zip(keywords, drawn, strict=True))


def _command(options: argparse.Namespace, variant: str) -> str:
    args = ["--args", variant] if is_text(variant) else ["--args", options.args, "--sweep", variant]
    kept = {name: getattr(options, name) for name in OWN if name not in ("seconds", "sweep")}
    more = [f"--{name.replace('_', '-')}={value}" for name, value in kept.items() if value is not None]
    return shlex.join(["refgrad", "verify", options.target, *args, *more])


def _proofs(options: argparse.Namespace) -> int:
    """Every operation and small network proven, a block and the tiny GPT-2 tested; or the operations named."""
    for option in ("config", "set", "dtype"):
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
    refuted = any(result.proof.verdict is Verdict.REFUTED for result in results)
    if options.json:
        write_json(options.json, {"ok": not refuted, "jax": JAX, "rows": [result.data() for result in results]})
    return 1 if refuted else 0


def _known(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for an operation that does not exist."""
    for name in names:
        if name not in known:
            raise ValueError(f"--op {name}: no such operation; there are {', '.join(known)}")


def _operations(
    config: gpt2.Config, sizes: Mapping[str, int], names: Sequence[str], dtypes: Sequence[str]
) -> dict[str, Any]:
    """Every operation at the model's widths: accuracy and cost."""
    dims = operations.dimensions(config, sizes["batch"], sizes["sequence"])
    results = [operations.verify_operation(TABLE[name], dims, dtypes) for name in track(names, "operations")]
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
            print(f"\n{result.row.name}\n{result.priced.reconciliation}")
    ok = all(result.ok for result in results)
    return {"operations": {"ok": ok, "rows": [result.data() for result in results]}}


def _networks(dtypes: Sequence[str]) -> dict[str, Any]:
    """The documents' small networks: every gradient, and both passes from their operations' rows to XLA."""
    compared = [dtype for dtype in dtypes if dtype in model.BOUNDS]
    results = [networks.verify_network(name, NETWORKS[name], compared) for name in track(list(NETWORKS), "networks")]
    _show("Small networks: largest relative difference of a gradient to autodiff's, and FLOPs from the rows to XLA")
    print(networks.network_table(results))
    for result in results:
        for priced in result.passes.values():
            if priced.unexplained:
                print(f"\n{result.name}\n{priced.reconciliation}")
    return {"networks": {"ok": all(result.ok for result in results), "rows": [result.data() for result in results]}}


def _model(config: gpt2.Config, sizes: Mapping[str, int], dtypes: Sequence[str], rules: str) -> dict[str, Any]:
    """The whole model on real text: every parameter's gradient, and its cost from the document to XLA."""
    batch, sequence = sizes["batch"], sizes["sequence"]
    ids = standard_library_ids(batch, sequence)
    compared = [dtype for dtype in dtypes if dtype in model.BOUNDS]
    errors = {dtype: model.gradient_errors(config, *ids, dtype, rules) for dtype in track(compared, "model")}
    parameters = model.parameter_results(config, errors)
    _show("Model: gradient of each parameter by the rules, relative difference to autodiff")
    print(f"{config}\ninput: {batch} × {sequence} bytes of the Python standard library's source\n")
    print(model.parameter_table(parameters))
    _show("Model: backward pass, from the document's total to XLA's count of the lowered module")
    reconciliation = model.model_pass("backward", config, batch, sequence, rules, scan=False).reconciliation
    print(reconciliation)
    _show("The tally as polynomials")
    print(model.polynomial_text(config, rules))
    _show("Totals for one sequence of 1024 tokens, from abstract values")
    totals = [model.total(name, gpt2.SIZES[name], rules) for name in track(list(gpt2.SIZES), "totals")]
    print(model.total_table(totals))
    return {
        "parameters": {"ok": all(p.ok for p in parameters), "rows": [p.data() for p in parameters]},
        "model": {"ok": reconciliation.ok, **reconciliation.json()},
        "totals": {"ok": not any(t.unexplained for t in totals), "rows": [t.data() for t in totals]},
    }


def _show(title: str) -> None:
    print(f"\n{title}\n")
