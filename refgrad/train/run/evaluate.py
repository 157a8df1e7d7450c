"""The evaluation of a finished run: its loss on all held-out text beside that of n-gram models, and samples.

Bigram and trigram are fitted to the run's training tokens and measured on the same held-out tokens as the model, if
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
class Evaluation:
    """Losses in nats per token, and the lines of each text that Python's tokenizer accepts."""

    source: str
    corpus: str
    tokens: int
    """Held-out tokens that were predicted."""
    loss: float
    ngrams: dict[str, float]
    """Losses by name; empty if the vocabulary is too large for n-gram models."""
    samples: tuple[str, ...]
    lines: dict[str, Accepted]
    """Lines of the model's samples, and of as much text drawn from each n-gram model and from the held-out text."""


def evaluate(trained: Trained) -> Evaluation:
    """Return the held-out loss of a finished run and of n-gram models, and samples of all."""
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
    return Evaluation(
        text.about["source"],
        text.corpus,
        len(validation.tokens) - 1,
        loss,
        {name: model.loss(validation.tokens) for name, model in models.items()},
        samples,
        lines if count else {},
    )


def draw(trained: Trained) -> tuple[str, ...]:
    """Return texts drawn from the model's own distribution, each from the beginning of a document."""
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
