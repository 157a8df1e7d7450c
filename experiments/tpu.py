"""Compiled by XLA:TPU ahead of time, on a machine without a TPU: what becomes of the rules?

Three questions, each answered by the compiler itself (libtpu, from the extra `tpu`). Every operation, forward and
backward, compiled for each generation: its FLOPs reconciled with those of the lowered module by cause. A training step
of the 124M, its layers scanned, under each rule set: FLOPs with every difference named, bytes after fusion,
temporaries, and the seconds that `cost.predict` gives the same program. XLA counts the bytes of a loop's body once, and
so does the table. The step on meshes of a pod: its collectives' bytes beside the derived ones.

    python experiments/tpu.py
"""

import dataclasses
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, track

from refgrad import cost
from refgrad.cost import collectives as read
from refgrad.cost import topology
from refgrad.cost.causes import rewriting_causes
from refgrad.cost.predict import predict
from refgrad.cost.xla import compiled_for, of_compiled
from refgrad.models import gpt2
from refgrad.ops import TABLE
from refgrad.report.figures import series
from refgrad.rule_sets import current
from refgrad.train.mesh import collectives, devices, model, sharding
from refgrad.train.update_in_backward.layers import cast

AXES = {"b": 2, "s": 16, "h": 16, "n_h": 2, "d": 8, "V": 32, "i": 16, "o": 24, "m": 8, "c": 4, "H": 8, "W": 8}
DIMS = {**AXES, "k": 3, "l": 3, "v": 8}  # small: it is the compiler's arithmetic that is asked for
DEVICES = {"v5e": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6e"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Topologies, operations or "all", the steps by topology and sequences, the meshes by topology."""

    topologies: list[str]
    operations: list[str]
    steps: list[str]
    rules: list[str]
    layers: int
    sequence: int
    meshes: list[str]

    def __post_init__(self) -> None:
        topology.require()
        for name in self.operations:
            if name not in (*TABLE, "all"):
                raise ValueError(f"operations holds {name!r}, but must be all, or of {', '.join(TABLE)}")
        if min(self.layers, self.sequence) < 1:
            raise ValueError(f"layers and sequence are {self.layers} and {self.sequence}, but must be at least 1")
        for step in self.steps:
            where, _, batch = step.partition(";")
            if where.partition(":")[0] not in DEVICES or not batch.strip().isdecimal() or not int(batch):
                raise ValueError(f"steps holds {step!r}, but must be a topology and a number of sequences: v5e:2x2; 4")
        for rules in self.rules:
            current(rules)
        for mesh in self.meshes:
            if mesh.count(";") != 1:
                raise ValueError(f"meshes holds {mesh!r}, but must be a topology and a mesh: v5e:2x4; data=2,fsdp=4")


def operation(name: str, where: str) -> tuple[Any, ...]:
    """One operation's value and pullback on a topology: FLOPs counted, lowered and compiled, and the remainder."""
    row, dims = TABLE[name], DIMS
    arrays, op = row.shapes(dims, jnp.float32), row.bound(dims)
    inexact = [n for n, x in enumerate(arrays) if jnp.issubdtype(x.dtype, jnp.inexact)]

    def both(cotangent: Any, *arrays: Any) -> Any:
        def moving(*some: Any) -> Any:
            every = list(arrays)
            for n, x in zip(inexact, some, strict=True):
                every[n] = x
            return op(*every)

        out, pull = jax.vjp(moving, *(arrays[n] for n in inexact))
        return out, pull(cotangent)

    found = cost.reconcile(both, jax.eval_shape(op, *arrays), *arrays, topology=where)
    steps = [step for step in found.steps if step.figure == "flops"]
    rewritten = [f"{n:+,} {cause.removeprefix('compiler: ')}" for cause, n in steps[-1].causes.items()]
    left = sum(step.unexplained for step in steps)
    return name, where, found.count.flops, steps[-1].before, steps[-1].after, left, ", ".join(rewritten)


def step_row(text: str, rules: str, settings: Settings) -> tuple[Any, ...]:
    """The loss and gradients of a model of the 124M's width in bfloat16, layers scanned, compiled."""
    where, _, batch = (part.strip() for part in text.partition(";"))
    config = dataclasses.replace(gpt2.SIZES["124M"], n_layer=settings.layers)
    ids = jax.ShapeDtypeStruct((int(batch), settings.sequence), jnp.int32)

    def step(params: gpt2.Params, tokens: jax.Array, targets: jax.Array) -> Any:
        def loss(params: gpt2.Params) -> jax.Array:
            return gpt2.loss(cast(params, jnp.bfloat16), tokens, targets, config, rules, scan=True)

        return jax.value_and_grad(loss)(params)

    args = jax.eval_shape(gpt2.stack, gpt2.shapes(config)), ids, ids
    start = time.perf_counter()
    try:
        compiled = compiled_for(step, args, where)
    except jax.errors.JaxRuntimeError as error:
        if "Ran out of memory" not in str(error):
            raise
        return rules, text, None, None, None, "", None, None, None, None, "does not fit"
    seconds = time.perf_counter() - start
    counted, lowered = cost.count(step, *args), cost.xla(step, *args, platform="tpu")
    answer, plan = of_compiled(compiled, "tpu"), compiled.memory_analysis()
    before, after = lowered.hlo.executed.flops, answer.hlo.executed.flops
    causes = [cause for cause in rewriting_causes(lowered.hlo.rows, answer.hlo.rows, executed=True) if cause.flops]
    causes.sort(key=lambda cause: -abs(cause.flops))
    found = predict(step, *args, device=DEVICES[where.partition(":")[0]])
    return (
        rules,
        text,
        counted.flops,
        after,
        after - before - sum(cause.flops for cause in causes),
        ", ".join(f"{cause.flops:+,} {cause.name.removeprefix('compiler: ')}" for cause in causes[:3]),
        sum(part.bytes // part.times for part in found.parts),
        answer.bytes,
        plan.temp_size_in_bytes,
        found.seconds,
        f"{seconds:.0f} s",
    )


def mesh_row(text: str) -> tuple[Any, ...]:
    """Payloads of a small model's collectives on a topology's mesh: derived, compiled, and what is left over.

    The last figure is that of reduce-scatters which XLA:TPU does as all-reduces.
    """
    where, _, axes = (part.strip() for part in text.partition(";"))
    sizes = devices.parse(axes)
    mesh = devices.make(sizes, devices=list(topology.devices(where)))
    count = devices.count(sizes)
    config = gpt2.Config(n_layer=2, n_head=16, n_embd=512, n_positions=128, vocab_size=1024)
    params = jax.eval_shape(gpt2.stack, gpt2.shapes(config))
    sharding.check(config, sizes, count, 128)
    ids, split = jax.ShapeDtypeStruct((count, 128), jnp.int32), sharding.batch_sharding(mesh)
    places = sharding.shardings(params, mesh)
    step = jax.jit(model.value_and_grad(config, mesh), in_shardings=(places, split, split))
    with jax.default_matmul_precision("highest"):  # else XLA:TPU gathers what products read in bfloat16
        compiled = step.trace(params, ids, ids).lower().compile()
    values = collectives.dims(config, mesh.shape, count, 128)
    terms = collectives.terms(config.tie_word_embeddings)
    before = read.totals(collectives.derived(terms, mesh.shape, values))
    found = read.collectives(compiled.as_text() or "", mesh.shape)
    after = read.totals(found)
    over = sum(abs(after.get(key, 0) - before.get(key, 0)) for key in {*before, *after})
    other = sum(one.payload * one.times for one in found if one.stands_for)
    return where, axes, count, sum(before.values()), sum(after.values()), over, other


def run(settings: Settings) -> Result:
    """Compile everything, in this order: operations, steps, meshes."""
    names = list(TABLE) if "all" in settings.operations else settings.operations
    failures: list[str] = []
    rows = []
    for name, where in track([(n, w) for w in settings.topologies for n in names], "operations"):
        try:
            rows.append(operation(name, where))
        except cost.Unexplained as error:
            failures.append(f"{name} on {where}: {str(error).splitlines()[0]}")
    failures += [f"{row[0]} on {row[1]}: {row[5]:+,} FLOPs unexplained" for row in rows if row[5]]
    ways = [(text, rules) for text in settings.steps for rules in settings.rules]
    steps = [step_row(text, rules, settings) for text, rules in track(ways, "steps")]
    failures += [f"{row[0]} on {row[1]}: {row[4]:+,} FLOPs unexplained" for row in steps if row[4]]
    fitting = [row for row in steps if row[2] is not None]
    meshes = [mesh_row(text) for text in track(settings.meshes, "meshes")]
    failures += [f"{row[0]}, {row[1]}: {row[5]:,} bytes of collectives unexplained" for row in meshes if row[5]]
    answer = [
        f"{len(rows)} of {len(names) * len(settings.topologies)} operations (forward and backward) compiled by XLA:TPU "
        f"for {', '.join(settings.topologies)}; FLOPs unexplained: {sum(abs(row[5]) for row in rows):,}.",
        *(
            f"{row[0]} on {row[1]}: {row[3]:,} FLOPs compiled ({row[2]:,} counted, {row[4]:,} unexplained), "
            f"{row[8]:,} bytes of temporaries, {row[9] * 1e3:.1f} ms predicted."
            for row in fitting
        ),
        *(
            f"{axes} on {where}, {count} chips: {before:,} bytes of collectives derived, {after:,} compiled, "
            f"{other:,} of them reduce-scatters done as all-reduces; unexplained: {over:,}."
            for where, axes, count, before, after, over, other in meshes
        ),
    ]

    def paint(axes: Any) -> None:
        for n, row in enumerate(fitting):
            axes.bar(n, row[8] / 1e9, color=series(n)["color"])
        axes.set_xticks(range(len(fitting)), [f"{row[0]}\n{row[1]}" for row in fitting], fontsize=6)
        axes.set(xlabel="rules, topology; sequences", ylabel="temporaries (GB)")

    header = ("rules", "topology; sequences", "FLOPs counted", "compiled", "unexplained", "largest causes")
    table = Table((*header, "bytes predicted", "by XLA", "temporaries", "predicted (s)", "compile time"), steps)
    data = Table(("operation", "topology", "counted", "lowered", "compiled", "unexplained", "rewritten"), rows)
    alt = "Temporaries of a step by rule set: " + ", ".join(f"{row[0]} {row[8] / 1e9:.2f} GB" for row in fitting)
    return Result(answer, table, [Figure("Temporaries by XLA:TPU", alt, paint)], data=data, failures=failures)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
