"""Generate text with a model: a training run's newest checkpoint, or a GPT-2 folder; exit code 0 once it is written."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refgrad._files import write_json
from refgrad.models.gpt2 import Config, Params
from refgrad.train.fields import check
from refgrad.train.sampling import Sampling, generate, window
from refgrad.train.text.tokenizers import BPE, BPE_FILES, Bytes, Tokenizer, from_data

RUN, CONFIG, VOCABULARY = "run.json", "config.json", tuple(BPE_FILES.values())
COUNTS = {"tokens": {"least": 1}, "samples": {"least": 1}, "seed": {"least": 0, "below": 2**32}}
UNKNOWN = "\ufffd"


class TextModel(NamedTuple):
    """A model, and the text that its ids stand for."""

    params: Params
    config: Config
    tokenizer: Tokenizer
    name: str


def run(options: argparse.Namespace) -> int:
    """Read the model, write its text on standard output as it comes; returns 0.

    Raises ValueError or TypeError for bad options before anything is read, and for a folder that is not a model.
    """
    how = Sampling(options.temperature, options.top_k, options.top_p)
    for name, bounds in COUNTS.items():
        check(f"--{name}", getattr(options, name), int, bounds)
    _say(f"reading {options.folder}")
    model = _model(Path(options.folder))
    tokenizer, config = model.tokenizer, model.config
    prompt = np.asarray(tokenizer.encode(options.prompt) if options.prompt else [tokenizer.separator], np.int32)
    _say(f"{model.name}, prompt of {prompt.size} tokens")
    if prompt.size + options.tokens - 1 > config.n_positions:
        _say(
            f"longer than n_positions = {config.n_positions}: the text goes on from its last "
            f"{window(config.n_positions)} tokens, read anew, whenever the positions are used up"
        )
    steps = generate(
        model.params, config, prompt, options.tokens, how, options.seed, options.samples, tokenizer.vocab_size
    )
    began = time.perf_counter()
    texts = _write(options.prompt, steps, tokenizer, options.samples)
    seconds = time.perf_counter() - began
    _say(f"{options.samples} × {options.tokens} tokens in {seconds:.1f} s, compiling included")
    if options.json:
        asked = {name: getattr(options, name) for name in ("prompt", "tokens", "temperature", "top_k", "top_p", "seed")}
        write_json(options.json, {"model": model.name, **asked, "texts": texts})
    return 0


def _model(folder: Path) -> TextModel:
    """The model in a folder and its tokenizer. Raises ValueError for a folder that lacks one of them."""
    if (folder / RUN).is_file():
        model = _of_run(folder)
    elif (folder / CONFIG).is_file():
        model = _of_gpt2(folder)
    else:
        raise ValueError(f"{folder} is neither a run of refgrad train (no {RUN}) nor a GPT-2 (no {CONFIG})")
    if model.tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{folder}: its tokenizer has {model.tokenizer.vocab_size} ids, but vocab_size is "
            f"{model.config.vocab_size}: put the {' and '.join(VOCABULARY)} there that the model was trained with"
        )
    return model


def _of_run(folder: Path) -> TextModel:
    """The newest good checkpoint; `refgrad.train.run.folder` is imported here, since it needs the `train` extra."""
    from refgrad.train.run.folder import load_model
    from refgrad.train.run.restore import CheckpointError

    try:
        loaded = load_model(folder, _say)
    except CheckpointError as error:
        raise ValueError(str(error)) from error
    return TextModel(loaded.params, loaded.config, from_data(loaded.tokenizer), f"{folder}, step {loaded.step}")


def _of_gpt2(folder: Path) -> TextModel:
    """A GPT-2 in the format of `transformers`; `refgrad.weights` is imported here, since it needs the `train` extra."""
    from refgrad import weights

    there = [(folder / name).is_file() for name in VOCABULARY]
    tokenizer: Tokenizer | None = BPE(*(folder / name for name in VOCABULARY)) if all(there) else None
    params, config = weights.load(folder)
    if tokenizer is None and config.vocab_size == Bytes.vocab_size and not any(there):
        tokenizer = Bytes()
    if tokenizer is None:
        raise ValueError(
            f"{folder} has no {VOCABULARY[there.index(False)]}, so that its {config.vocab_size} ids stand for no text: "
            f"put GPT-2's {' and '.join(VOCABULARY)} there (256 ids without either are bytes)"
        )
    return TextModel(params, config, tokenizer, str(folder))


def _write(prompt: str, steps: Iterator[np.ndarray], tokenizer: Tokenizer, samples: int) -> list[str]:
    """Print the texts: the first as it comes, the others after it. Returns each with its prompt."""
    rows: list[np.ndarray] = []

    def first() -> Iterator[int]:
        for ids in steps:
            rows.append(ids)
            yield int(ids[0])

    texts = []
    for n in range(samples):
        if samples > 1:
            print(f"{'' if n == 0 else chr(10)}── text {n + 1} of {samples}")
        parts = [prompt]
        print(prompt, end="", flush=True)
        for part in pieces(first() if n == 0 else [int(ids[n]) for ids in rows], tokenizer):
            print(part, end="", flush=True)
            parts.append(part)
        print()
        texts.append("".join(parts))
    return texts


def pieces(ids: Iterator[int] | Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of the ids bit by bit, each as soon as its last character is complete."""
    pending: list[int] = []
    for one in ids:
        pending.append(one)
        text = tokenizer.decode(pending)
        if not text.endswith(UNKNOWN):  # else it may be the beginning of a character in UTF-8
            yield text
            pending = []
    if pending:
        yield tokenizer.decode(pending)


def _say(text: Any) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)
