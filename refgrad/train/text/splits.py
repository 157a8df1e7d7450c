"""The division of a corpus into training and validation, written as token ids block by block.

A document goes whole to one split, by the hash of its contents: adding a file moves none of the others, and two equal
files never end up in different splits. A file above `WHOLE` bytes, or a file alone, is divided: its end, from the
beginning of a line, is for validation. So one file is a corpus too. Every document, or part of one, ends with the
tokenizer's separator.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from refgrad._files import DISK_FULL
from refgrad._progress import track
from refgrad.train.text.corpus import ListedFile, document
from refgrad.train.text.tokenizers import Tokenizer

SPLITS = ("train", "validation")
WHOLE = 256 * 2**10
"""Bytes up to which one of several files goes whole to one split."""
LEAST = 16
"""The fewest bytes of a file that can be divided."""
BLOCK = 2**20
"""Bytes that are read at once."""


def write(
    folder: Path, documents: Sequence[ListedFile], tokenizer: Tokenizer, validation: float, progress: bool
) -> dict[str, Any]:
    """Write train.bin and validation.bin into a folder; return their facts as plain data for JSON.

    Raises ValueError and OSError as `tokens.build` does.
    """
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1).newbyteorder("<")
    steps = [each for each in documents for _ in range(0, each.size, BLOCK)]
    bar = track(steps, "tokens") if progress else iter(steps)
    corpus = hashlib.sha256()
    with _space_for(folder), contextlib.ExitStack() as stack:
        writers = {
            split: Writer(stack.enter_context(open(folder / f"{split}.bin", "wb")), dtype, tokenizer)
            for split in SPLITS
        }
        whole = WHOLE if len(documents) > 1 else LEAST - 1
        for each in documents:
            corpus.update(_write_document(each, validation, whole, writers, bar))
        next(bar, None)  # end the bar
    size = sum(each.size for each in documents)
    for split, writer in writers.items():
        if not writer.documents:
            raise ValueError(
                f"none of {len(documents)} documents, {size:,} bytes in all, fell to {split}: "
                f"data.validation is {validation}; give more text, or join the files to one, which is divided"
            )
    return {
        "documents": len(documents),
        "bytes": size,
        "corpus": corpus.hexdigest(),
        "dtype": dtype.str,
        "splits": {split: writer.facts() for split, writer in writers.items()},
    }


class Writer:
    """The writer of one split's file of ids."""

    def __init__(self, file: BinaryIO, dtype: np.dtype, tokenizer: Tokenizer) -> None:
        """Write ids of `dtype` to an open file."""
        self._file, self._dtype, self._tokenizer, self._hash = file, dtype, tokenizer, hashlib.sha256()
        self.documents = self._tokens = 0

    def add(self, text: Iterable[bytes]) -> None:
        """Append a document. Raise ValueError if the tokenizer cannot read it."""
        for ids in self._tokenizer.stream(text):
            self._write(ids)
        self._write(np.array([self._tokenizer.separator]))
        self.documents += 1

    def facts(self) -> dict[str, Any]:
        """Return the number of tokens and documents, and the SHA-256."""
        return {"tokens": self._tokens, "documents": self.documents, "sha256": self._hash.hexdigest()}

    def _write(self, ids: np.ndarray) -> None:
        data = ids.astype(self._dtype, copy=False).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._tokens += len(ids)


def _write_document(
    each: ListedFile, validation: float, whole: int, writers: dict[str, Writer], bar: Iterator[Any]
) -> bytes:
    """Write the document's ids into its split's file, or into both; return the hash of its contents."""
    contents = hashlib.sha256()

    def blocks(start: int, stop: int) -> Iterator[bytes]:
        file.seek(start)
        while start < stop:
            if start % BLOCK == 0:
                next(bar)
            block = file.read(min(BLOCK - start % BLOCK, stop - start))
            if not block:
                return  # the file has shrunk: its stamp is checked below
            contents.update(block)
            start += len(block)
            yield block

    with open(each.path, "rb") as file:
        try:
            if each.size > whole:
                middle = _line_after(file, each.size, validation)
                writers["train"].add(blocks(0, middle))
                writers["validation"].add(blocks(middle, each.size))
            else:
                text = b"".join(blocks(0, each.size))
                lot = int.from_bytes(contents.digest()[:8]) / 2**64
                writers["validation" if lot < validation else "train"].add([text])
        except ValueError as error:
            raise ValueError(f"{each.path}: {error}") from error
    if document(each.path).stamp != each.stamp:
        raise ValueError(f"{each.path} changed while it was read: run again when nothing writes to it")
    return contents.digest()


def _line_after(file: BinaryIO, size: int, validation: float) -> int:
    """Return the start of a file's last share: the next line nearby, or else a character of UTF-8."""
    start = min(max(int(size * (1 - validation)), 4), size - 1)
    file.seek(start - 3)
    near = file.read(2**16)
    line = near.find(b"\n", 3) + 1
    if line and start - 3 + line < size:
        return start - 3 + line
    return start - next((back for back in range(4) if near[3 - back] & 0xC0 != 0x80), 0)


@contextlib.contextmanager
def _space_for(folder: Path) -> Iterator[None]:
    """Add the folder and the way out to the error of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OSError(
            error.errno,
            f"no space left for token files ({error.strerror}): free some, or take a folder on another disk",
            str(folder.parent),
        ) from error
