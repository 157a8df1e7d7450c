"""The model's parts by themselves: forward and backward of each under every set of rules, side by side.

A part is timed in one process, its rules in turn, each call after one that is discarded; what does not fit into the
memory that is free is compiled, so that its temporaries are known, and not run.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad.bench.contenders import BASELINE, Workload
from refgrad.bench.machine import memory
from refgrad.bench.process import Process
from refgrad.models import gpt2
from refgrad.models.composition import composition, queries
from refgrad.ops import fused, operations
from refgrad.rule_sets import RULE_SETS, rule_set

Arrays = tuple[Any, ...]
# Today's, which the document's model does not have: by their rule, and their own forward differentiated by JAX.
LATER = ("rms_norm", "swiglu", "rotary")
PARTS = (
    *("layer_norm", "linear", "gelu", "mlp", "attention", "block", "head and loss", "head and loss, by vocabulary"),
    *LATER,
)


@dataclasses.dataclass(frozen=True)
class PartRow:
    """One part under one set of rules, at one length. Bytes; seconds of forward and backward, None if not run."""

    part: str
    rules: str
    batch: int
    sequence: int
    seconds: float | None
    ratio: float | None
    """Median seconds over autodiff's."""
    temporaries: int
    residuals: int
    """Bytes kept from the forward to the backward pass."""


def parts_of(work: Workload) -> list[str]:
    """The parts that these sizes have: rotary positions turn columns in pairs."""
    odd = work.config.n_embd // work.config.n_head % 2
    return [name for name in PARTS if not (odd and name == "rotary")]


def rules_of(name: str) -> tuple[str, ...]:
    """The sets of rules that have the part."""
    later = name in LATER
    return tuple(
        one.name for one in RULE_SETS.values() if one.kernel is None and (one.fused or one.by_autodiff or not later)
    )


def part(name: str, work: Workload, rules: str) -> tuple[Callable[..., jax.Array], Arrays]:
    """The part as a function of its arrays, and their shapes: the stream is (batch, sequence, n_embd).

    Raises ValueError for an unknown part, or one that these rules lack.
    """
    if name not in PARTS or rules not in rules_of(name):
        raise ValueError(f"part is {name!r} under rules {rules!r}, but must be one of {', '.join(map(repr, PARTS))}")
    config, o, is_fused = work.config, operations(rules), rule_set(rules).fused
    h, V, eps = config.n_embd, config.vocab_size, config.layer_norm_epsilon
    x, wide = (_shape(work.batch, work.sequence, columns) for columns in (h, 4 * h))
    heads = _shape(work.batch, config.n_head, work.sequence, h // config.n_head)
    if name in LATER:
        op = getattr(fused, name)
        op = op.fun if rule_set(rules).by_autodiff else op
        by_name = {"rms_norm": (x, _shape(h)), "swiglu": (wide, wide), "rotary": (heads,)}
        return (lambda x, g: op(x, g, eps)) if name == "rms_norm" else op, by_name[name]
    if name.startswith("head and loss"):
        targets = jnp.zeros((work.batch, work.sequence), jnp.int32)
        chunks = {"chunks": "vocabulary"} if is_fused and name != "head and loss" else {}
        return lambda x, E: composition(rules).loss(x, E, targets, **chunks), (x, _shape(V, h))
    up, down = (_shape(h, 4 * h), _shape(4 * h)), (_shape(4 * h, h), _shape(h))
    layer = gpt2.shapes(dataclasses.replace(config, n_layer=1))["h"][0]
    return {
        "layer_norm": (lambda x, g, b: o.layer_norm(x, g, b, eps), (x, _shape(h), _shape(h))),
        "linear": (o.linear, (x, *up)),
        "gelu": (o.gelu, (wide,)),
        "mlp": (_mlp(o, is_fused), (x, *up, *down)),
        "attention": (_attention(o, is_fused), (heads,) * 3),
        "block": (lambda layer, x: gpt2.block(layer, x, config, rules), (layer, x)),
    }[name]


def _shape(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _mlp(o: Any, is_fused: bool) -> Callable[..., jax.Array]:
    """Two linear layers with a GELU between them: fused, or as the document composes it."""
    return o.mlp if is_fused else lambda x, w, b, v, c: o.linear(o.gelu(o.linear(x, w, b)), v, c)


def _attention(o: Any, is_fused: bool) -> Callable[..., jax.Array]:
    """q, k, v → o under the causal mask: fused, or as the document composes it."""
    if is_fused:
        return lambda q, k, v: o.attention(q, k, v, queries(q.shape[-2]))
    return lambda q, k, v: o.attn_value(o.causal_softmax(o.attention_scaling(o.query_key(q, k), q.shape[-1])), v)


def measure_here(name: str, work: Workload, rounds: int) -> list[dict[str, Any]]:
    """Every set of rules on one part, in this process: rows as plain data."""
    compiled, rows = {}, []
    for rules in rules_of(name):
        f, shapes = part(name, work, rules)
        out = jax.eval_shape(f, *shapes)

        def both(arrays: Arrays, ct: jax.Array, f: Callable[..., jax.Array] = f) -> Any:
            value, pullback = jax.vjp(f, *arrays)
            return value, pullback(ct)

        program = jax.jit(both).lower(shapes, out).compile()
        plan: Any = program.memory_analysis()
        needed = plan.temp_size_in_bytes + 2 * plan.output_size_in_bytes + plan.argument_size_in_bytes
        compiled[rules] = program if needed < memory()[1] else None
        rows.append([rules, plan.temp_size_in_bytes, cost.residuals(f, *shapes).bytes, out, shapes])
    seconds = _interleaved(compiled, rows[0][4], rows[0][3], rounds)
    base = seconds[BASELINE]
    return [
        dataclasses.asdict(PartRow(name, rules, work.batch, work.sequence, taken, ratio, temporaries, residuals))
        for rules, temporaries, residuals, _, _ in rows
        for taken in [seconds[rules]]
        for ratio in [taken / base if base and taken else None]
    ]


def _interleaved(compiled: dict[str, Any], shapes: Arrays, out: Any, rounds: int) -> dict[str, float | None]:
    """Median seconds of each program that fits, in turns."""

    def fill(shape: jax.ShapeDtypeStruct, seed: int) -> jax.Array:
        return jax.random.normal(jax.random.key(seed), shape.shape, shape.dtype)

    leaves, tree = jax.tree.flatten(shapes)
    arrays = jax.tree.unflatten(tree, [0.5 * fill(leaf, n) for n, leaf in enumerate(leaves)])
    ct = fill(out, len(leaves))
    taken: dict[str, list[float]] = {rules: [] for rules, program in compiled.items() if program is not None}
    for turn in range(rounds):
        for rules in list(taken)[:: 1 if turn % 2 == 0 else -1]:
            for _ in range(2):
                start = time.perf_counter()
                jax.block_until_ready(compiled[rules](arrays, ct))
                last = time.perf_counter() - start
            taken[rules].append(last)
    return {rules: statistics.median(taken[rules]) if rules in taken else None for rules in compiled}


def measure(
    work: Workload, names: Sequence[str], rounds: int, keep_temporaries: bool, report: Callable[[str], None]
) -> list[PartRow]:
    """Each named part in a process of its own. Raises ChildProcessError where one fails."""
    rows = []
    for name in names:
        report(f"{name}, {work.batch} × {work.sequence}")
        sent = {**work.data(), "part": name, "rounds": rounds, "keep_temporaries": keep_temporaries}
        with Process(name) as process:
            rows += [PartRow(**row) for row in process.ask({"measure": sent})["rows"]]
    return rows
