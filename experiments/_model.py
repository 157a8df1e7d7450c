"""Settings of the experiments that run a GPT-2."""

import dataclasses

from refgrad.models import gpt2


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A GPT-2's sizes by the checkpoint's names, the batch, and rounds of timing."""

    batch: int
    sequence: int
    n_layer: int
    n_head: int
    n_embd: int
    vocab_size: int
    rounds: int

    @property
    def config(self) -> gpt2.Config:
        """The model's config."""
        return gpt2.Config(self.n_layer, self.n_head, self.n_embd, self.sequence, self.vocab_size)

    def __post_init__(self) -> None:
        _ = self.config  # raises for sizes that no model can have
        if min(self.batch, self.rounds) < 1:
            raise ValueError(f"batch is {self.batch} and rounds is {self.rounds}, but each must be at least 1")
