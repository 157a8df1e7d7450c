"""The settings of a training run: sections [model], [data], [train], [checkpoint] and [mesh], with their defaults.

The defaults are a complete run: a small GPT-2 that learns the bytes of the Python standard library's source in minutes.
Everything is checked when the settings are made, before anything is compiled or written.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from refgrad._text import nearest
from refgrad.models.gpt2 import Config
from refgrad.rule_sets import RENAMED, RULE_SETS, rule_set
from refgrad.train.fields import Checked, check, errors_of, number, one_of

MEMORY = ("plain", "fast", "small")
MOST_LAYERS = 1000
DTYPES = ("float32", "bfloat16", "float16")
SMALL = Config(n_layer=4, n_head=4, n_embd=128, n_positions=128, vocab_size=256)


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """The computation of a training step: rules, memory, precision, clipping, parts of the batch.

    Raises TypeError or ValueError for an option that a step cannot have, alone or beside another.
    """

    rules: str = "derived"
    """The rules of the backward pass, as in `gpt2.loss`."""
    memory: str = "plain"
    """"plain": all gradients, then the update. "fast": the update inside the backward pass. "small": the same, with
    blocks recomputed."""
    scan: bool = False
    """Walk stacked layers by `lax.scan`; otherwise layers are a list."""
    remat: bool = False
    """Recompute the blocks of a plain step in the backward pass."""
    compute_dtype: Any = None
    """The dtype of the forward and backward pass; None for that of the parameters."""
    clip_norm: float | None = None
    """The global norm above which gradients are scaled down; None for no clipping."""
    accumulate: int = 1
    """Parts of the batch whose gradients are averaged, one after another."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", rule_set(self.rules).name)  # an old name is today's from here on
        check("memory", self.memory, str, {"names": MEMORY})
        check("accumulate", self.accumulate, int, {"least": 1})
        if self.compute_dtype is not None and not jnp.issubdtype(self.compute_dtype, jnp.floating):
            raise TypeError(
                f"compute_dtype is {self.compute_dtype!r}, but must be a floating dtype, such as jnp.bfloat16"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}, but must be above 0, or None for no clipping")
        if self.memory == "plain":
            return
        if self.remat:
            raise ValueError(f"remat is for memory = 'plain', but memory is {self.memory!r}: 'small' recomputes blocks")
        if self.accumulate > 1:
            raise ValueError(
                f"accumulate is {self.accumulate}, but memory is {self.memory!r}, which updates a layer before the "
                "next part's gradients exist: take memory = 'plain' or accumulate = 1"
            )

    def check_mesh(self) -> None:
        """Raise ValueError where a step on a mesh cannot have these options."""
        if self.memory != "plain":
            raise ValueError(
                f"memory is {self.memory!r}, whose update inside the backward pass is for one device: on a mesh take "
                "memory = 'plain', where fsdp divides parameters, gradients and the optimiser's state"
            )


@dataclasses.dataclass(frozen=True)
class Data(Checked):
    """The text, and how it becomes tokens."""

    section: ClassVar[str] = "data"
    text: tuple[str, ...] = ()
    """Files and folders of text; if empty, the source of this Python's standard library."""
    tokenizer: str = one_of("bytes", ("bytes", "bpe"))
    vocabulary: str = ""
    """The folder of GPT-2's vocab.json and merges.txt, for "bpe"."""
    validation: float = number(0.1, above=0, below=1)
    """The share of the text that is held out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tokenizer == "bpe") != bool(self.vocabulary):
            raise ValueError(
                f"data.vocabulary is {self.vocabulary!r}, but data.tokenizer is {self.tokenizer!r}: "
                "'bpe' needs the folder of vocab.json and merges.txt, 'bytes' needs none"
            )


@dataclasses.dataclass(frozen=True)
class Train(Checked):
    """The optimiser's schedule, and how a step is computed."""

    section: ClassVar[str] = "train"
    steps: int = number(2000, least=1)
    batch: int = number(8, least=1)
    """Sequences per step."""
    sequence: int = number(128, least=1)
    """Tokens per sequence."""
    accumulate: int = number(1, least=1)
    """Parts of the batch whose gradients are averaged, one after another."""
    learning_rate: float = number(3e-3, above=0)
    """The highest rate, reached after warm-up."""
    final_rate: float = number(0.1, least=0)
    """The rate at the end of the cosine, as a share of the highest."""
    warmup: int = number(100, least=0)
    """Steps of linear warm-up."""
    weight_decay: float = number(0.1, least=0)
    """Applied to matrices alone."""
    beta1: float = number(0.9, least=0, below=1)
    beta2: float = number(0.99, least=0, below=1)
    epsilon: float = number(1e-8, above=0)
    clip_norm: float = number(1.0, least=0)
    """The global norm above which gradients are scaled down; 0 disables clipping."""
    rules: str = one_of("fused", tuple(RULE_SETS), RENAMED)
    memory: str = one_of("plain", MEMORY)
    remat: bool = False
    scan: bool = False
    dtype: str = one_of("float32", DTYPES)
    """The dtype of the computation; parameters and optimiser are float32."""
    seed: int = number(0, least=0, below=2**32)
    validate_every: int = number(100, least=1)
    validation_batches: int = number(20, least=1)
    """Batches per validation on the way; the last one takes the whole held-out text."""
    spike: float = number(2.0, least=0)
    """Stop when the loss exceeds `spike` times the median of the last hundred losses; 0 disables this."""
    samples: int = number(16, least=0)
    """Texts sampled at the end of the run."""
    sample_tokens: int = number(512, least=1)
    """Tokens per sample."""

    def step_options(self) -> StepOptions:
        """Return the options of this run's step."""
        compute_dtype = None if self.dtype == "float32" else self.dtype
        clip_norm = self.clip_norm or None
        return StepOptions(self.rules, self.memory, self.scan, self.remat, compute_dtype, clip_norm, self.accumulate)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch % self.accumulate:
            raise ValueError(f"train.accumulate is {self.accumulate}, but must divide train.batch = {self.batch}")
        with errors_of(self.section):
            self.step_options()
        if self.dtype not in RULE_SETS[self.rules].dtypes:
            raise ValueError(
                f"train.rules is {self.rules!r}, but train.dtype is {self.dtype!r}, and cuDNN's attention is for 16 "
                "bits: take train.dtype = 'bfloat16' or train.rules = 'fused'"
            )
        if self.warmup >= self.steps:
            raise ValueError(
                f"train.warmup is {self.warmup}, but must be below train.steps = {self.steps}: lower it too, such as "
                f"train.warmup={self.steps // 10}, or raise train.steps"
            )
        if 0 < self.spike <= 1:
            raise ValueError(f"train.spike is {self.spike}, but must be above 1, or 0 to disable it")


@dataclasses.dataclass(frozen=True)
class Checkpoint(Checked):
    """The times at which the state is written, and how many checkpoints are kept."""

    section: ClassVar[str] = "checkpoint"
    every: int = number(200, least=1)
    """Steps between checkpoints."""
    keep: int = number(2, least=1)
    """The number of newest checkpoints that stay on disk."""
    asynchronous: bool = True
    """Write while training goes on, which holds a second copy of the state until it is written."""


@dataclasses.dataclass(frozen=True)
class Mesh(Checked):
    """The number of devices along each axis of the mesh (`mesh/sharding.py`)."""

    section: ClassVar[str] = "mesh"
    data: int = number(1, least=1)
    fsdp: int = number(1, least=1)
    model: int = number(1, least=1)
    axes: str = one_of("auto", ("auto", "explicit"))
    """"auto": XLA's partitioner finds shardings. "explicit": shardings are part of every array's type."""

    @property
    def sizes(self) -> dict[str, int]:
        """The number of devices by axis."""
        return {"data": self.data, "fsdp": self.fsdp, "model": self.model}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run, checked against each other."""

    model: Config = SMALL
    data: Data = Data()
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    mesh: Mesh = Mesh()

    def __post_init__(self) -> None:
        if self.train.sequence > self.model.n_positions:
            raise ValueError(
                f"train.sequence is {self.train.sequence}, but model.n_positions = {self.model.n_positions}: lower the "
                "first, or raise the second"
            )
        if self.model.n_layer > MOST_LAYERS:
            raise ValueError(
                f"model.n_layer is {self.model.n_layer}, but must be at most {MOST_LAYERS:,}: layers are traced one by "
                "one"
            )
        if any(size > 1 for size in self.mesh.sizes.values()):
            with errors_of("train"):
                self.train.step_options().check_mesh()
        if self.data.tokenizer == "bytes" and self.model.vocab_size < 256:
            raise ValueError(f"model.vocab_size is {self.model.vocab_size}, but there are 256 bytes: take at least 256")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Mapping[str, Any]]) -> "Settings":
        """Return settings from sections of keys, such as a TOML file's, with defaults for the rest.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A section or key is unknown (the message names the nearest), or a key cannot have its value.
        """
        return cls().updated(values)

    def updated(self, values: Mapping[str, Mapping[str, Any]]) -> "Settings":
        """Return these settings with other values for some keys. Raises as `from_mapping` does."""
        for section in values:
            if section not in SECTIONS:
                raise ValueError(f"{section} is not a section: {nearest(section, SECTIONS)}")
        now = self.as_mapping()
        return Settings(**{s: _section(s, {**now[s], **values.get(s, {})}) for s in SECTIONS})

    def as_mapping(self) -> dict[str, dict[str, Any]]:
        """Return the settings as plain data, which `from_mapping` reads again."""
        return dataclasses.asdict(self)


SECTIONS: dict[str, Any] = {"model": Config, "data": Data, "train": Train, "checkpoint": Checkpoint, "mesh": Mesh}


def _section(name: str, values: Mapping[str, Any]) -> Any:
    """Return a section from its keys. The model's config names the key alone in its errors."""
    with errors_of(name) if name == "model" else contextlib.nullcontext():
        return SECTIONS[name].from_mapping(values)
