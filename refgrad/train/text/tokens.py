"""Documents → memory-mapped files of token ids for training and validation, built once and reused while unchanged.

    folder/NAME/train.bin, validation.bin   ids, little-endian, in the smallest unsigned type that holds the vocabulary
    folder/NAME/tokens.json                 their sources, and the SHA-256 of each

NAME is a hash of the recipe: the paths given, the tokenizer, the share of validation. `splits.py` assigns documents to
splits.

**Reuse.** Tokens are reused while every source file has the same size, mtime and ctime, the criterion of git and make:
reading the contents would take as long as building bytes again, and ctime changes even if a copy is given the old
mtime. Reused tokens are read once and their SHA-256 compared: damaged ones are built again, with a warning.

**Atomicity.** A folder beside the final one is filled and then renamed, under a lock that the system releases when a
process dies. A killed process leaves nothing that is used, and two processes at once build once.
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
"""File format version. Bump it to invalidate existing files."""


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """Both splits of a corpus as token ids, memory-mapped."""

    train: np.ndarray
    """Ids (n,), unsigned and read-only."""
    validation: np.ndarray
    """Ids (n,), unsigned and read-only."""
    vocab_size: int
    digest: str
    """A hash of the tokenizer and all ids."""
    corpus: str
    """A hash of the documents' contents and order."""
    about: dict[str, Any]
    """The contents of `tokens.json`."""

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
    """Return the tokens of a corpus, from `folder` if they have been built there before.

    Args:
        paths: Files and folders of text; None for the standard library.
        tokenizer: The tokenizer.
        folder: The folder of token files, of any number of corpora.
        validation: The share of the text that is held out.
        progress: Show a progress bar.

    Raises:
        OSError: A file cannot be read, or the disk is full. Nothing is left behind.
        ValueError: The paths hold no text, a split would be empty, or a file changes meanwhile or cannot be read by the
            tokenizer. Nothing is left behind.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation is {validation}, but must be a share between 0 and 1, such as 0.1")
    paths = [paths] if isinstance(paths, str | Path) else None if paths is None else list(paths)
    sources = documents(paths)
    recipe = {
        "format": FORMAT,
        "paths": None if paths is None else [_name(Path(path).resolve()) for path in paths],
        "tokenizer": tokenizer.digest,
        "validation": validation,
    }
    stamps = [[_name(each.path), *each.stamp] for each in sources]
    home = Path(folder) / _hash(recipe)[:16]
    with _locked(Path(folder)):
        ready = _reused(home, stamps)
        if ready is None:
            about = {
                "source": f"Python {platform.python_version()}'s standard library" if paths is None else "text",
                "tokenizer": tokenizer.data(),
                "vocab_size": tokenizer.vocab_size,
                "recipe": recipe,
                "sources": stamps,
            }
            with _replacing(home) as part:
                about |= write(part, sources, tokenizer, validation, progress)
                write_json(part / ABOUT, {**about, "sha256": _hash(about)})
            ready = _opened(home, about)
    return ready


def _reused(home: Path, stamps: list[Any]) -> TokenFile | None:
    """Return the tokens in `home` if they are whole and were made from these files in their present state."""
    if not home.exists():
        return None
    try:
        about = json.loads((home / ABOUT).read_text(encoding="utf-8"))
        whole = {ABOUT: about.pop("sha256") == _hash(about)}
        for split in SPLITS:
            with open(home / f"{split}.bin", "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole[f"{split}.bin"] = digest == about["splits"][split]["sha256"]
        damaged = [name for name, holds in whole.items() if not holds]
    except FileNotFoundError as error:
        damaged = [Path(error.filename).name]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        damaged = [ABOUT]
    if damaged:
        warnings.warn(f"{', '.join(damaged)} in {home} is damaged: the tokens are built again", stacklevel=3)
        return None
    return _opened(home, about) if about["sources"] == stamps else None


def _opened(home: Path, about: dict[str, Any]) -> TokenFile:
    train, validation = (np.memmap(home / f"{split}.bin", about["dtype"], "r") for split in SPLITS)
    made = [about["recipe"]["tokenizer"], *(about["splits"][split]["sha256"] for split in SPLITS)]
    return TokenFile(train, validation, about["vocab_size"], _hash(made), about["corpus"], about)


def _name(path: Path) -> str:
    """Return the path in a form that JSON in UTF-8 can hold, for any bytes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder's builder; the system releases it when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _replacing(home: Path) -> Iterator[Path]:
    """Yield a folder to fill, which then replaces `home`; remove it if filling fails."""
    part, old = home.with_name(f"{home.name}.part"), home.with_name(f"{home.name}.old")
    for left in (part, old):  # of a process that was killed: no other builds while we hold the lock
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
