"""Price GPT-2 or a function of yours, or compare two programs; exit code 0 only if no FLOP is unexplained or grows."""

import argparse
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad._files import write_json, write_text
from refgrad._progress import track
from refgrad._text import fitted, one_line, wrapped
from refgrad.cli import compare
from refgrad.cli.settings import load
from refgrad.cli.target import bind, keywords, only_for_functions, positions, running, sized_arguments
from refgrad.cli.target import load as load_function
from refgrad.cost.predict import device
from refgrad.jaxpr.versions import JAX
from refgrad.models import gpt2, gpt2_costs
from refgrad.report import conventions, memory, mesh, model, prediction, shares, uses
from refgrad.report.cost import Pass, csv_text, price, trap_text, tree_table
from refgrad.symbols import evaluate
from refgrad.train.mesh import devices

DEPTH = {"model": 3, "function": 5}  # levels of scopes that the trees show
OWN = ("args", "sizes", "kwargs", "argnums")  # the options that say how a function of the user's is called
COMPILED_BELOW = 10**9  # FLOPs of a backward pass that XLA compiles in seconds on any machine


def run(options: argparse.Namespace) -> int:
    """Count, print and write; returns 0 if nothing is unexplained, else 1. Raises ValueError for bad options."""
    if compare.is_asked(options):
        return compare.run(options)
    if options.device is not None:
        return _predict(options)
    if options.mesh is not None:
        found, passes = _mesh(options), []
    elif options.target is None:
        only_for_functions(options, OWN)
        found, passes = _model(options)
    else:
        if options.config or options.set:
            raise ValueError(f"--config and --set are GPT-2's, but {options.target} is priced: use --args")
        found, passes = _function(options)
    over = found["unexplained"]
    print(f"\nUnexplained: {over:,}." + (" Every FLOP and byte is accounted for." if found["ok"] else ""))
    if options.csv:
        write_text(options.csv, csv_text(passes))
    if options.json:
        write_json(options.json, {**found, "jax": JAX, "passes": [p.data() for p in passes]})
    return 0 if found["ok"] else 1


def _function(options: argparse.Namespace) -> tuple[dict[str, Any], list[Pass]]:
    """A user's function: both passes by scope, by source line, and against XLA."""
    target, given = options.target, " ".join(filter(None, (options.args, options.sizes, options.kwargs)))
    function, keyed = load_function(target), keywords(options.kwargs)
    specs = sized_arguments(options.args or "", options.sizes)
    f, arrays, argnums = bind(function, specs, positions(options.argnums))
    passes: list[Pass] = []
    problem = ""
    every = jax.tree.leaves((arrays, keyed))
    with running(target, function, (arrays, keyed)):
        for name in track(["forward", "backward"], "counting"):
            if name == "forward":
                passes.append(price(name, f, *arrays, kwargs=keyed))
            elif any(jnp.issubdtype(value.dtype, jnp.inexact) for value in every if hasattr(value, "dtype")):
                passes, problem = _backward(passes, f, arrays, keyed, argnums)
    print(wrapped(f"refgrad cost of {target}, jax {JAX}: {one_line(given)}"))
    for priced in passes:
        _show_pass(priced, DEPTH["function"])
        _show(f"{priced.name.capitalize()} by source line")
        print(priced.count.by_source)
    if problem:
        print(f"\nNo backward pass: {problem}")
    elif len(passes) == 1:
        print("\nNo backward pass: no argument is floating-point or complex.")
    over = sum(priced.unexplained for priced in passes)
    return {
        "target": target,
        "args": given,
        "unexplained": over,
        "problem": problem,
        "ok": not (over or problem),
    }, passes


def _backward(
    passes: list[Pass], f: Any, arrays: tuple[Any, ...], keyed: dict[str, Any], argnums: tuple[int, ...] | None
) -> tuple[list[Pass], str]:
    """`passes` and the backward pass, or JAX's message for a function without one."""
    try:
        return [*passes, price("backward", f, *arrays, kwargs=keyed, argnums=argnums)], ""
    except cost.UnknownCost:
        raise
    except (TypeError, ValueError, NotImplementedError) as error:
        return passes, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _model(options: argparse.Namespace) -> tuple[dict[str, Any], list[Pass]]:
    """GPT-2: its operations, both passes, the tally, the shares, the ratios, the conventions, the bytes kept."""
    config, sizes = load(options.config, options.set, whole_sequence=options.config is not None)
    batch, sequence = sizes["batch"], sizes["sequence"]
    dims = config.dims(batch, sequence)
    print(fitted(f"refgrad cost of {config}\ninput: {batch} × {sequence} ids, float32, from shapes alone; jax {JAX}"))
    used = [uses.price_use(use, dims) for use in track([*gpt2_costs.LAYER, *gpt2_costs.ENDS], "operations")]
    _show("Operations: backward FLOPs and bytes of each use; × is how often the model has it; unexplained: both passes")
    print(uses.use_table(used))
    passes = [model.model_pass(name, config, batch, sequence) for name in track(["forward", "backward"], "model")]
    for priced in passes:
        _show_pass(priced, DEPTH["model"])
    _show("The tally as polynomials")
    print(fitted(f"{model.polynomial_text(config)}\n{shares.polynomial_text()}"))
    again = model.recomputation(config, batch, sequence)
    for what, (derived, counted) in again.items():
        print(f"recomputed {what}: derived {derived:,}, counted {counted:,}")
    _shares_and_ratios(config)
    products = _conventions(config, batch, sequence, passes)
    blocks = _bytes(config, batch, sequence, dims)
    over = {
        "operations": sum(result.unexplained for result in used),
        "model": sum(priced.unexplained for priced in passes),
        "products": products,
        "recomputed": sum(abs(derived - counted) for derived, counted in again.values()),
        "blocks": sum(block.unexplained for block in blocks),
    }
    found = {
        "config": vars(config),
        "input": sizes,
        "unexplained": sum(over.values()),
        "ok": not any(over.values()),
        "operations": [result.data() for result in used],
        "shares": [s | {"formula": str(s["formula"])} for s in shares.shares(gpt2.SIZES, config.tie_word_embeddings)],
        "ratios": shares.ratio_data(gpt2.SIZES),
        "blocks": [block.data() for block in blocks],
        "conventions": conventions.convention_data(conventions.dimensions(config, batch, sequence)),
    }
    return found, passes


def _mesh(options: argparse.Namespace) -> dict[str, Any]:
    """GPT-2 on a mesh: what its devices exchange, derived and compiled."""
    for name in ("target", *OWN, "csv"):
        if getattr(options, name) is not None:
            option = "a function" if name == "target" else f"--{name}"
            raise ValueError(f"--mesh prices what GPT-2's devices exchange: leave {option} out")
    config, sizes = load(options.config, options.set, whole_sequence=options.config is not None)
    batch, sequence = sizes["batch"], sizes["sequence"]
    axes = devices.parse(options.mesh)
    (result,) = [mesh.moved(config, axes, batch, sequence) for _ in track([options.mesh], "compiling")]
    head = (
        f"refgrad cost of {config}\non {options.mesh}: {batch} × {sequence} ids of all devices, float32, forward and "
        f"backward, derived rules, layers scanned, compiled for virtual CPU devices; jax {JAX}"
    )
    print(fitted(head))
    _show("What is moved: payloads, the array that a collective is about, for one device")
    print(mesh.term_table(result))
    _show("By collective: derived, and read off the compiled module, loops with their trips; bytes of one step")
    print(mesh.total_table(result))
    over = result.unexplained
    return {"config": vars(config), "input": sizes, "ok": not over, "unexplained": over, **result.data()}


def _predict(options: argparse.Namespace) -> int:
    """A function, or GPT-2's training step, on a device: exit code 0 where it fits into the device's memory."""
    if options.csv is not None:
        raise ValueError("--device predicts one program: leave --csv out, --json holds every region")
    target = device(options.device)
    if options.target is not None:
        if options.config or options.set or options.mesh:
            raise ValueError(f"--config, --set and --mesh are GPT-2's, but {options.target} is predicted: use --args")
        if options.argnums is not None:
            raise ValueError("--device predicts the function itself: leave --argnums out")
        function, keyed = load_function(options.target), keywords(options.kwargs)
        f, arrays, _ = bind(function, sized_arguments(options.args or "", options.sizes))
        with running(options.target, function, (arrays, keyed)):
            found = cost.predict(f, *arrays, kwargs=keyed, device=target)
        print(f"refgrad cost of {options.target} on {target.name}, predicted, nothing compiled; jax {JAX}\n")
    else:
        only_for_functions(options, OWN)
        config, sizes = load(options.config, options.set, whole_sequence=options.config is not None)
        axes = {} if options.mesh is None else devices.parse(options.mesh)
        batch, sequence = sizes["batch"], sizes["sequence"]
        found = prediction.step(config, target, axes, batch, sequence)
        print(
            f"refgrad cost of {config}\na training step of {batch} × {sequence} ids on {target.name}, predicted, "
            f"nothing compiled: {prediction.ASSUMED}; jax {JAX}\n"
        )
    print(f"{found}\n\nrates: {target.source}")
    if options.json:
        write_json(options.json, {**found.data(), "jax": JAX})
    return 0 if found.fits else 1


def _shares_and_ratios(config: gpt2.Config) -> None:
    _show("What the document's tally leaves out: share of the exact backward FLOPs, 1 × 1024 tokens")
    print(shares.share_table(gpt2.SIZES, config.tie_word_embeddings))
    _show("Backward over forward, 1 × 1024 tokens")
    print(shares.ratio_table(gpt2.SIZES))
    _show("Backward over forward as s/h grows, at this model's sizes")
    print(shares.sweep_table(config))
    print(f"\n{fitted(shares.ratio_text())}")


def _conventions(config: gpt2.Config, batch: int, sequence: int, passes: list[Pass]) -> int:
    """Print the conventions; returns the difference of the exact products to the traced ones."""
    d = conventions.dimensions(config, batch, sequence)
    traced = sum(priced.count.matmul for priced in passes)
    _show("FLOPs of a training step by published conventions, forward and backward")
    print(conventions.convention_table(d))
    print(f"products in the traced program: {traced:,}\n")
    print(conventions.convention_notes())
    _show("Model FLOPs utilisation")
    print(fitted(conventions.mfu_text(d)))
    return abs(traced - conventions.matmul_flops(d))


def _bytes(config: gpt2.Config, batch: int, sequence: int, dims: Mapping[str, int]) -> list[memory.BlockResult]:
    """Print the bytes kept from forward to backward."""
    blocks = [memory.block_residuals(way, config, batch, sequence) for way in track(list(memory.WAYS), "bytes kept")]
    _show("Bytes kept from forward to backward, float32, beyond parameters and ids")
    print(memory.block_table(blocks))
    if evaluate(gpt2_costs.backward(config.tie_word_embeddings).flops, dims) < COMPILED_BELOW:
        print(f"\n{fitted(str(memory.plan(config, batch, sequence)))}")
    else:
        print(
            f"\nXLA's own plan is shown for backward passes below {COMPILED_BELOW:.0e} FLOPs, which compile in seconds."
        )
    _show("An explicit Jacobian (D3.13)")
    print(fitted(memory.jacobian_text()))
    return blocks


def _show_pass(priced: Pass, depth: int) -> None:
    _show(f"{priced.name.capitalize()} by scope, {depth} levels deep; loops with their trips, bytes unfused")
    print(tree_table(priced, depth))
    print(wrapped(f"first instruction at which they part: {priced.first_divergence}"))
    print(f"\n{priced.reconciliation}")
    if text := trap_text(priced):
        print(f"\n{fitted(text)}")


def _show(title: str) -> None:
    print(f"\n{wrapped(title)}\n")
