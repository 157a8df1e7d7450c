"""The settings of a training run: sections [model], [data], [train], [checkpoint] and [mesh], with their defaults.

The defaults are a run by themselves: a small GPT-2 that learns the bytes of the Python standard library's source in
minutes. Everything is checked when the settings are made, before anything is compiled or written.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from refgrad._text import nearest
from refgrad.models.gpt2 import Config
from refgrad.rule_sets import RENAMED, RULE_SETS
from refgrad.train.fields import Checked, number, one_of

MEMORY = ("plain", "fast", "small")
MOST_LAYERS = 1000
DTYPES = ("float32", "bfloat16", "float16")
SMALL = Config(n_layer=4, n_head=4, n_embd=128, n_positions=128, vocab_size=256)


@dataclasses.dataclass(frozen=True)
class Data(Checked):
    """Which text, and as which tokens."""

    section: ClassVar[str] = "data"
    text: tuple[str, ...] = ()
    """Files and folders of text; none: the source of this Python's standard library."""
    tokenizer: str = one_of("bytes", ("bytes", "bpe"))
    vocabulary: str = ""
    """For "bpe": the folder of GPT-2's vocab.json and merges.txt."""
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
    """The optimisation, and how a step is computed."""

    section: ClassVar[str] = "train"
    steps: int = number(2000, least=1)
    batch: int = number(8, least=1)
    """Sequences a step."""
    sequence: int = number(128, least=1)
    """Tokens a sequence."""
    accumulate: int = number(1, least=1)
    """Parts of the batch whose gradients are summed one after another."""
    learning_rate: float = number(3e-3, above=0)
    """The highest, after warm-up."""
    final_rate: float = number(0.1, least=0)
    """What the cosine ends at, as a share of the highest."""
    warmup: int = number(100, least=0)
    """Steps of linear warm-up."""
    weight_decay: float = number(0.1, least=0)
    """Of matrices alone."""
    beta1: float = number(0.9, least=0, below=1)
    beta2: float = number(0.99, least=0, below=1)
    epsilon: float = number(1e-8, above=0)
    clip_norm: float = number(1.0, least=0)
    """The global norm beyond which gradients are scaled down; 0: no clipping."""
    rules: str = one_of("fused", tuple(RULE_SETS), RENAMED)
    memory: str = one_of("plain", MEMORY)
    remat: bool = False
    scan: bool = False
    dtype: str = one_of("float32", DTYPES)
    """Of the computation; parameters and optimiser are float32."""
    seed: int = number(0, least=0, below=2**32)
    validate_every: int = number(100, least=1)
    validation_batches: int = number(20, least=1)
    """Batches of a validation on the way; at the end it is the whole held-out text."""
    spike: float = number(2.0, least=0)
    """Stop where the loss exceeds so many medians of the last hundred losses; 0: never."""
    samples: int = number(16, least=0)
    """Texts sampled at the end."""
    sample_tokens: int = number(512, least=1)
    """Tokens of each."""

    @property
    def compute_dtype(self) -> str | None:
        """What `make_step` casts to; None where nothing is."""
        return None if self.dtype == "float32" else self.dtype

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch % self.accumulate:
            raise ValueError(f"train.accumulate is {self.accumulate}, but must divide train.batch = {self.batch}")
        if self.accumulate > 1 and self.memory != "plain":
            raise ValueError(
                f"train.accumulate is {self.accumulate}, but train.memory is {self.memory!r}, which updates each layer "
                "before the next gradients exist: take train.memory = 'plain' or train.accumulate = 1"
            )
        if self.remat and self.memory != "plain":
            raise ValueError(
                f"train.remat is for train.memory = 'plain', but that is {self.memory!r}: 'small' recomputes blocks"
            )
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
            raise ValueError(f"train.spike is {self.spike}, but must be above 1, or 0 for never")


@dataclasses.dataclass(frozen=True)
class Checkpoint(Checked):
    """When the state is written, and how much of it is kept."""

    section: ClassVar[str] = "checkpoint"
    every: int = number(200, least=1)
    """Steps from one checkpoint to the next."""
    keep: int = number(2, least=1)
    """The newest so many stay on disk."""
    asynchronous: bool = True
    """Write while training goes on, holding the state a second time until it is written."""


@dataclasses.dataclass(frozen=True)
class Mesh(Checked):
    """How many devices share each of the three ways to divide the work (`sharding.py`)."""

    section: ClassVar[str] = "mesh"
    data: int = number(1, least=1)
    fsdp: int = number(1, least=1)
    model: int = number(1, least=1)
    axes: str = one_of("auto", ("auto", "explicit"))
    """Shardings found by XLA's partitioner, or part of every array's type."""

    @property
    def sizes(self) -> dict[str, int]:
        """Devices by axis."""
        return {"data": self.data, "fsdp": self.fsdp, "model": self.model}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that a run is told."""

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
        if self.train.memory != "plain" and any(size > 1 for size in self.mesh.sizes.values()):
            raise ValueError(
                f"train.memory is {self.train.memory!r}, which is for one device: on a mesh take train.memory = "
                "'plain', where fsdp divides parameters, gradients and the optimiser's state"
            )
        if self.data.tokenizer == "bytes" and self.model.vocab_size < 256:
            raise ValueError(f"model.vocab_size is {self.model.vocab_size}, but there are 256 bytes: take at least 256")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Mapping[str, Any]]) -> "Settings":
        """Settings from sections of keys, such as a TOML file's, the rest by default.

        Raises ValueError or TypeError for an unknown section or key, naming the nearest, and for a value that a key
        cannot have.
        """
        return cls().updated(values)

    def updated(self, values: Mapping[str, Mapping[str, Any]]) -> "Settings":
        """These settings with other values for some keys. Raises as `from_mapping`."""
        for section in values:
            if section not in SECTIONS:
                raise ValueError(f"{section} is no section: {nearest(section, SECTIONS)}")
        now = self.as_mapping()
        return Settings(**{s: _section(s, {**now[s], **values.get(s, {})}) for s in SECTIONS})

    def as_mapping(self) -> dict[str, dict[str, Any]]:
        """As plain data, which `from_mapping` reads again."""
        return dataclasses.asdict(self)


SECTIONS: dict[str, Any] = {"model": Config, "data": Data, "train": Train, "checkpoint": Checkpoint, "mesh": Mesh}


def _section(name: str, values: Mapping[str, Any]) -> Any:
    """Return a section from its keys. Errors name it; those of the model's config say the key alone."""
    try:
        return SECTIONS[name].from_mapping(values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}.{error}" if name == "model" else str(error)) from None


FREE = ("checkpoint", "mesh")
FIXED = ("batch", "sequence", "scan", "seed")


def check_resumable(before: Settings, now: Settings) -> None:
    """Raise ValueError for a key that cannot change within a run.

    Those are the keys of [model] and [data], and what decides which tokens a step sees or how the state is laid out.
    """
    old, new = before.as_mapping(), now.as_mapping()
    for section in new:
        for key in new[section] if section not in FREE else ():
            if new[section][key] != old[section][key] and (section != "train" or key in FIXED):
                raise ValueError(
                    f"{section}.{key} is {new[section][key]!r}, but the run began with {old[section][key]!r}, and that "
                    "cannot change within a run: leave it as it was, or start another run with another --out"
                )
