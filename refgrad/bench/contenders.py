"""Who takes part: the ways of making one training step of the same GPT-2, with AdamW and donated state.

Every contender starts from the same parameters and sees the same batch, so that the first losses must agree.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from refgrad._extras import install
from refgrad.bench import machine
from refgrad.models import gpt2
from refgrad.models.inputs import named_leaves

BASELINE = "autodiff"
ADAMW = {"lr": 1e-4, "weight_decay": 0.1}


@dataclasses.dataclass(frozen=True)
class Workload:
    """One training step's sizes: the model, the batch and the length of its sequences."""

    config: gpt2.Config
    batch: int
    sequence: int

    @classmethod
    def of(cls, work: Mapping[str, Any]) -> "Workload":
        """Return the work from the plain data that a worker is sent."""
        return cls(gpt2.Config(**work["config"]), work["batch"], work["sequence"])

    def data(self) -> dict[str, Any]:
        """Return the work as plain data, which `of` reads."""
        return {"config": dataclasses.asdict(self.config), "batch": self.batch, "sequence": self.sequence}

    def ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and targets (batch, sequence), int32, uniform below the vocabulary."""
        draw = np.random.default_rng(0).integers(0, self.config.vocab_size, (2, self.batch, self.sequence))
        return draw[0].astype(np.int32), draw[1].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way of making the step: what it is called in tables, how it is built, and the modules and the kind of device
    that it needs."""

    label: str
    make: Callable[[Workload], Any]
    dtype: str = "float32"
    needs: tuple[str, ...] = ()
    platform: str | None = None

    @property
    def missing(self) -> str:
        """Return the reason why this machine cannot run the contender; "" if it can."""
        modules = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if modules:
            return f"{', '.join(modules)} is not installed: {install('peers')}"
        if self.platform not in (None, jax.default_backend()):
            return f"it runs on a {self.platform}, and JAX's device here is a {jax.default_backend()}"
        return ""


class Compiled:
    """A jitted training step, traced and compiled apart so that both are timed."""

    def __init__(self, step: Any, state: Any, tokens: jax.Array, targets: jax.Array) -> None:
        start = time.perf_counter()
        lowered = step.lower(state, tokens, targets)
        traced = time.perf_counter()
        self._step = lowered.compile()
        compiled = time.perf_counter()
        self._state, self._batch = state, (tokens, targets)
        plan = self._step.memory_analysis()
        self.built = {
            "trace_s": traced - start,
            "compile_s": compiled - traced,
            "temporaries": plan.temp_size_in_bytes if plan else None,
        }

    def step(self) -> float:
        """One step; returns the loss before the update."""
        self._state, loss = self._step(self._state, *self._batch)
        jax.block_until_ready(self._state)
        return float(loss)

    peak = staticmethod(machine.peak_memory)


def _step(**choices: Any) -> Callable[[Workload], Compiled]:
    """A contender made of `refgrad.train.step`."""

    def make(work: Workload) -> Compiled:
        import optax

        from refgrad.train.optimiser import init_state
        from refgrad.train.step import make_step

        tx = optax.adamw(ADAMW["lr"], weight_decay=ADAMW["weight_decay"])
        params = gpt2.init(jax.random.key(0), work.config)
        params = gpt2.stack(params) if choices.get("scan") else params
        return Compiled(make_step(work.config, tx, **choices), init_state(params, tx), *map(jnp.asarray, work.ids()))

    return make


def _library(
    kernel: Literal["xla", "cudnn"] | None = None, compute_dtype: Any = None
) -> Callable[[Workload], Compiled]:
    """jax.nn and optax, as `refgrad.bench.library` composes them, attention by the kernel of that name."""

    def make(work: Workload) -> Compiled:
        import optax

        from refgrad.bench import library
        from refgrad.train.update_in_backward.layers import cast

        tx = optax.adamw(ADAMW["lr"], weight_decay=ADAMW["weight_decay"])
        params = gpt2.init(jax.random.key(0), work.config)

        @partial(jax.jit, donate_argnums=0)
        def step(state: Any, tokens: jax.Array, targets: jax.Array):
            params, inner = state

            def loss(params: Any) -> jax.Array:
                return library.loss(cast(params, compute_dtype), tokens, targets, work.config, kernel)

            value, grads = jax.value_and_grad(loss)(params)
            updates, inner = tx.update(grads, inner, params)
            return (optax.apply_updates(params, updates), inner), value

        return Compiled(step, (params, jax.jit(tx.init)(params)), *map(jnp.asarray, work.ids()))

    return make


def _torch(which: str, bf16: bool = False) -> Callable[[Workload], Any]:
    """A contender of `refgrad.bench.peers`, its weights those of every other."""

    def make(work: Workload) -> Any:
        from refgrad.bench import peers

        params = named_leaves(gpt2.init(jax.random.key(0), work.config))
        weights = {name: np.asarray(leaf) for name, leaf in params.items()}
        if which == "transformers":
            loss, parameters = peers.transformers_model(weights, work.config, *work.ids())
        else:
            loss, parameters = peers.plain(weights, work.config, *work.ids(), compiled=which == "compile")
        return peers.TorchRunner(loss, parameters, ADAMW, bf16)

    return make


def _roofline(dtype: str) -> Callable[[Workload], Any]:
    """The floor, as a contender: its ratio is the least that any step could reach."""

    def make(work: Workload) -> Any:
        from refgrad.bench import roofline

        return roofline.RooflineRunner(work.config, work.batch, work.sequence, jnp.dtype(dtype))

    return make


BF16 = "bfloat16"
CONTENDERS: dict[str, Contender] = {
    "autodiff": Contender("autodiff, unrolled", _step(rules="autodiff")),
    "autodiff-scan": Contender("autodiff, scanned", _step(rules="autodiff", scan=True)),
    "autodiff-checkpoint": Contender("autodiff, jax.checkpoint", _step(rules="autodiff", remat=True)),
    "library": Contender("jax.nn + optax", _library()),
    "derived": Contender("derived rules", _step(rules="derived")),
    "fused": Contender("fused rules", _step(rules="fused")),
    "fused-scan": Contender("fused rules, scanned", _step(rules="fused", scan=True)),
    "fast": Contender("fused, update inside", _step(rules="fused", memory="fast")),
    "fast-scan": Contender("fused, update inside, scanned", _step(rules="fused", memory="fast", scan=True)),
    "small": Contender("fused, update inside, recomputed", _step(rules="fused", memory="small")),
    "torch": Contender("PyTorch eager", _torch("eager"), needs=("torch",)),
    "torch-compile": Contender("PyTorch compiled", _torch("compile"), needs=("torch",)),
    "transformers": Contender("transformers", _torch("transformers"), needs=("torch", "transformers")),
    "roofline": Contender("roofline", _roofline("float32"), platform="cpu"),
    "autodiff-bf16": Contender("autodiff, bf16", _step(rules="autodiff", compute_dtype=BF16), BF16),
    "library-bf16": Contender("jax.nn + optax, bf16", _library(None, BF16), BF16),
    "cudnn-bf16": Contender("jax.nn + optax, cuDNN attention, bf16", _library("cudnn", BF16), BF16, platform="gpu"),
    "fused-bf16": Contender("fused rules, bf16", _step(rules="fused", compute_dtype=BF16), BF16),
    "fused-cudnn-bf16": Contender(
        "fused rules, cuDNN attention, bf16", _step(rules="fused-cudnn", compute_dtype=BF16), BF16, platform="gpu"
    ),
    "fast-bf16": Contender("fused, update inside, bf16", _step(rules="fused", memory="fast", compute_dtype=BF16), BF16),
    "torch-bf16": Contender("PyTorch autocast bf16", _torch("eager", bf16=True), BF16, needs=("torch",)),
    "torch-compile-bf16": Contender(
        "PyTorch compiled, autocast bf16", _torch("compile", bf16=True), BF16, needs=("torch",)
    ),
    "roofline-bf16": Contender("roofline, bf16", _roofline(BF16), BF16, platform="cpu"),
}


def build(work: Mapping[str, Any]) -> Any:
    """The runner of `work["contender"]` on that work: `.built` and `.step()`."""
    return CONTENDERS[work["contender"]].make(Workload.of(work))
