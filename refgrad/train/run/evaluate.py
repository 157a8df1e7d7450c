"""What a finished run has learnt: its loss on all held-out text beside that of n-gram models, and text of its own.

Bigram and trigram are fitted to the run's training tokens and measured on the very tokens that the model is, where
their tables have a reasonable size: for bytes, not for words.
"""

import dataclasses

import numpy as np

from refgrad.models import gpt2
from refgrad.train.mesh import devices
from refgrad.train.run.loop import Trained
from refgrad.train.sampling import Sampling, generate
from refgrad.train.text.lines import Accepted, accepted
from refgrad.train.text.ngrams import LARGEST, NGram

NGRAMS = {"bigram": 2, "trigram": 3}


@dataclasses.dataclass(frozen=True)
class Learnt:
    """Losses in nats a token, and how many lines of each text Python's tokenizer accepts."""

    source: str
    corpus: str
    tokens: int
    """Held-out tokens that were predicted."""
    loss: float
    ngrams: dict[str, float]
    """By name; empty where the vocabulary is too large for them."""
    samples: tuple[str, ...]
    lines: dict[str, Accepted]
    """Of the model's samples, of as much text drawn from each n-gram model, and of as much held-out text."""


def learnt(trained: Trained) -> Learnt:
    """Measure and sample."""
    settings, validation, text = trained.settings, trained.validation, trained.text
    loss = validation.all(trained.params, trained.program.place)
    size = trained.tokenizer.vocab_size
    models = {name: NGram(text.train, size, order) for name, order in NGRAMS.items() if size**order <= LARGEST}
    samples = draw(trained)
    count = settings.train.samples * settings.train.sample_tokens
    lines = {"GPT-2": accepted(*samples)}
    for name, model in models.items():
        drawn = model.sample(count, settings.train.seed, trained.tokenizer.separator)
        lines[name] = accepted(trained.tokenizer.decode(drawn))
    lines["held-out text"] = accepted(trained.tokenizer.decode(np.asarray(validation.tokens[:count])))
    return Learnt(
        text.about["source"],
        text.corpus,
        len(validation.tokens) - 1,
        loss,
        {name: model.loss(validation.tokens) for name, model in models.items()},
        samples,
        lines if count else {},
    )


def draw(trained: Trained) -> tuple[str, ...]:
    """Texts sampled from the model's own distribution, each from the beginning of a document."""
    train, tokenizer = trained.settings.train, trained.tokenizer
    if not train.samples:
        return ()
    ids = generate(
        gpt2.unstack(devices.whole(trained.params)),
        trained.settings.model,
        np.array([tokenizer.separator]),
        train.sample_tokens,
        Sampling(),
        train.seed,
        train.samples,
        tokenizer.vocab_size,
    )
    return tuple(tokenizer.decode(row) for row in np.stack(list(ids), axis=1))
