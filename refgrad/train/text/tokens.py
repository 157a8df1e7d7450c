"""Documents → two memory-mapped files of token ids, training and validation, built once and reused while unchanged.

    folder/NAME/train.bin, validation.bin   ids, little-endian, in the smallest unsigned type that holds the vocabulary
    folder/NAME/tokens.json                 what they were made from, and the SHA-256 of each

NAME is a hash of the recipe: the paths given, the tokenizer, the share of validation.

Which document goes to which split: `splits.py`.

**Reused** while every file has its size, mtime and ctime of then, as git and make ask: to read the contents takes as
long as to build anew with bytes, and ctime changes even where a copy has been given the old mtime. What is reused is
read once and its SHA-256 compared: damaged tokens are built again, with a warning.

**Atomic.** A folder beside it is filled and then renamed, under a lock that the system releases when a process dies: a
process that is killed leaves nothing that is used, two that build at once build once.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from refgrad._files import write_json
from refgrad.train.text.corpus import documents
from refgrad.train.text.splits import SPLITS, write
from refgrad.train.text.tokenizers import Tokenizer

ABOUT = "tokens.json"
FORMAT = 1
"""Of the files: another number, and none that lies there is reused."""


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """Both splits of a corpus as token ids, in memory only where they are read."""

    train: np.ndarray
    """(n,) unsigned, memory-mapped and read-only, as is `validation`."""
    validation: np.ndarray
    vocab_size: int
    digest: str
    """The same exactly if tokenizer and ids are."""
    corpus: str
    """The same exactly if the documents' contents and order are."""
    about: dict[str, Any]
    """What `tokens.json` says."""

    def __str__(self) -> str:
        return (
            f"{self.about['documents']:,} documents, {self.about['bytes']:,} bytes of {self.about['source']}, corpus "
            f"{self.corpus[:12]}: {len(self.train):,} tokens for training, {len(self.validation):,} for validation"
        )


def build(
    paths: Iterable[str | Path] | str | Path | None,
    tokenizer: Tokenizer,
    folder: str | Path,
    validation: float = 0.1,
    progress: bool = True,
) -> TokenFile:
    """The tokens of these files and folders (None: the standard library), from `folder` where they lie there already.

    Raises ValueError where there is no text, where a split would be empty, where a file is none that the tokenizer
    reads or changes meanwhile, and OSError where a file cannot be read or the disk is full; nothing is left then.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation is {validation}, but must be a share between 0 and 1, such as 0.1")
    paths = [paths] if isinstance(paths, str | Path) else None if paths is None else list(paths)
    found = documents(paths)
    recipe = {
        "format": FORMAT,
        "paths": None if paths is None else [_name(Path(path).resolve()) for path in paths],
        "tokenizer": tokenizer.digest,
        "validation": validation,
    }
    sources = [[_name(each.path), *each.stamp] for each in found]
    home = Path(folder) / _hash(recipe)[:16]
    with _locked(Path(folder)):
        ready = _reused(home, sources)
        if ready is None:
            about = {
                "source": f"Python {platform.python_version()}'s standard library" if paths is None else "text",
                "tokenizer": tokenizer.data(),
                "vocab_size": tokenizer.vocab_size,
                "recipe": recipe,
                "sources": sources,
            }
            with _replacing(home) as part:
                about |= write(part, found, tokenizer, validation, progress)
                write_json(part / ABOUT, {**about, "sha256": _hash(about)})
            ready = _opened(home, about)
    return ready


def _reused(home: Path, sources: list[Any]) -> TokenFile | None:
    """What lies there, if it was made from these files as they are now and is whole."""
    if not home.exists():
        return None
    try:
        about = json.loads((home / ABOUT).read_text(encoding="utf-8"))
        whole = {ABOUT: about.pop("sha256") == _hash(about)}
        for split in SPLITS:
            with open(home / f"{split}.bin", "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            whole[f"{split}.bin"] = found == about["splits"][split]["sha256"]
        damaged = [name for name, holds in whole.items() if not holds]
    except FileNotFoundError as error:
        damaged = [Path(error.filename).name]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        damaged = [ABOUT]
    if damaged:
        warnings.warn(f"{', '.join(damaged)} in {home} is damaged: the tokens are built again", stacklevel=3)
        return None
    return _opened(home, about) if about["sources"] == sources else None


def _opened(home: Path, about: dict[str, Any]) -> TokenFile:
    train, validation = (np.memmap(home / f"{split}.bin", about["dtype"], "r") for split in SPLITS)
    made = [about["recipe"]["tokenizer"], *(about["splits"][split]["sha256"] for split in SPLITS)]
    return TokenFile(train, validation, about["vocab_size"], _hash(made), about["corpus"], about)


def _name(path: Path) -> str:
    """The path as JSON in UTF-8 can hold it, whatever bytes it is of."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """While no other process builds there. The lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _replacing(home: Path) -> Iterator[Path]:
    """A folder to fill, which then takes the place of `home`; removed where filling it fails."""
    part, old = home.with_name(f"{home.name}.part"), home.with_name(f"{home.name}.old")
    for left in (part, old):  # by a process that was killed: no other builds while we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        if home.exists():
            os.rename(home, old)
        os.rename(part, home)
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
