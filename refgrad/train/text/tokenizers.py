"""Text ↔ token ids: bytes, which need no files, and GPT-2's byte-pair encoding from its own two files.

BPE first splits text into words by a pattern, then merges inside each word. So text can be encoded in chunks, in
bounded memory, that are cut only where every text has the end of a word (`CUT`); the ids are those of the whole text:

    pattern   '(?:[sdmt]|ll|ve|re) | ?\\p{L}+ | ?\\p{N}+ | ?[^\\s\\p{L}\\p{N}]+ | \\s+(?!\\S) | \\s+

- Between non-space c and white space w: in a word that has other characters, white space stands only at the beginning,
  so no word holds c and then w. The words before do not depend on w: only words of white space look ahead, and the last
  word before the cut is not one of them.
- Between a letter or digit c and punctuation p: no word holds a letter or digit and then another kind (a contraction
  begins with its apostrophe), and p begins the next word as it would begin a text.
"""

import codecs
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from refgrad._extras import install

END_OF_TEXT = "<|endoftext|>"
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""GPT-2's pattern as tiktoken writes it for its `gpt2` encoding: possessive, with the same words."""
CUT = re.compile(r".*(?:\S(?=\s)|[^\W_](?=[!-/:-@\[-`{-~、。，！？；：「」『』（）【】《》]))", re.DOTALL)
"""The text up to the last place where it may be cut."""
LONGEST = 2**20
"""The most characters without such a place that are read as one piece."""


class Tokenizer(Protocol):
    """A map from text to ids 0 ≤ id < vocab_size, and back."""

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        ...

    @property
    def separator(self) -> int:
        """The id that ends each document."""
        ...

    @property
    def digest(self) -> str:
        """A text that two tokenizers share exactly if they give the same ids to every text."""
        ...

    def stream(self, blocks: Iterable[bytes]) -> Iterator[np.ndarray]:
        """Yield the ids of the blocks' text, in bounded memory. Raise ValueError if it cannot be read."""
        ...

    def encode(self, text: bytes | str) -> np.ndarray:
        """Return the ids of the whole text, without a separator."""
        ...

    def decode(self, ids: Any) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD. Raise ValueError for an id out of range."""
        ...

    def data(self) -> dict[str, Any]:
        """Return plain data for JSON, from which `from_data` makes the tokenizer again."""
        ...


class Bytes:
    """The tokenizer whose tokens are bytes; documents end with a NUL, which text does not hold."""

    vocab_size = 256
    separator = 0
    digest = "bytes"

    def stream(self, blocks: Iterable[bytes]) -> Iterator[np.ndarray]:
        """Return the bytes themselves, uint8."""
        return (np.frombuffer(block, np.uint8) for block in blocks)

    def encode(self, text: bytes | str) -> np.ndarray:
        """Return the bytes (n,), uint8; a str is encoded in UTF-8."""
        return np.frombuffer(_as_bytes(text), np.uint8)

    def decode(self, ids: Any) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD. Raise ValueError for an id out of range."""
        return _checked(ids, self.vocab_size).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def data(self) -> dict[str, Any]:
        """Return the kind, which is all that `from_data` needs."""
        return {"kind": "bytes"}


BPE_FILES = {"vocab": "vocab.json", "merges": "merges.txt"}
"""The files of a BPE tokenizer in a GPT-2 folder, by the keys of its `data()`."""


class BPE:
    """GPT-2's byte-pair encoding from `vocab.json` and `merges.txt`, by tiktoken; `<|endoftext|>` ends documents.

    `<|endoftext|>` within a text is text, not the separator.
    """

    def __init__(self, vocab: str | Path, merges: str | Path) -> None:
        """Read the two files.

        Raises:
            ImportError: tiktoken is not installed.
            OSError: A file cannot be read.
            ValueError: The files do not hold a vocabulary of GPT-2's kind.
        """
        try:
            import tiktoken
            from tiktoken.load import data_gym_to_mergeable_bpe_ranks
        except ImportError as error:
            raise ImportError(f"BPE needs tiktoken: {install('bpe')}") from error
        self._paths = tuple(str(Path(path).resolve()) for path in (vocab, merges))
        # by hash, since tiktoken caches files by name and would not notice a change
        hashes = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self._paths]
        try:
            ranks = data_gym_to_mergeable_bpe_ranks(self._paths[1], self._paths[0], hashes[1], hashes[0])
        except (AssertionError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{vocab} and {merges} are not a vocabulary of GPT-2's kind: ids must be those of 256 bytes, then "
                "those of the merges in order, which follow a line with their version, each with a newline"
            ) from error
        self._encoding = tiktoken.Encoding(
            "gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
        )
        self.vocab_size = self._encoding.n_vocab
        self.separator = self._encoding.eot_token
        self.digest = hashlib.sha256("".join(hashes).encode()).hexdigest()

    def stream(self, blocks: Iterable[bytes]) -> Iterator[np.ndarray]:
        """Yield ids in pieces (n,), uint32.

        Raises ValueError if the blocks are not UTF-8, naming the byte, or cannot be cut for `LONGEST` characters.
        """
        kept = ""
        for text in _decoded(blocks):
            # `kept` has no cut inside, but its last character and the next may make one
            place = CUT.match(kept[-1:] + text)
            before = len(kept[:-1])
            kept += text
            if place:
                cut = before + place.end()
                yield self._ids(kept[:cut])
                kept = kept[cut:]
            elif len(kept) > LONGEST:
                raise ValueError(
                    f"{len(kept)} characters beginning {kept[:20]!r} hold no white space or punctuation at which words "
                    f"could end, and at most {LONGEST} are read in one piece: take bytes, or leave the file out"
                )
        if kept:
            yield self._ids(kept)

    def encode(self, text: bytes | str) -> np.ndarray:
        """Return the ids (n,), uint32. Raises ValueError as `stream` does."""
        data = _as_bytes(text)
        pieces = [data[start : start + 2**20] for start in range(0, len(data), 2**20)]
        return np.concatenate([np.empty(0, np.uint32), *self.stream(pieces)])

    def decode(self, ids: Any) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD. Raise ValueError for an id out of range."""
        return self._encoding.decode(_checked(ids, self.vocab_size).tolist(), errors="replace")

    def data(self) -> dict[str, Any]:
        """Return the two files, and the digest that they must still have."""
        return {"kind": "bpe", "vocab": self._paths[0], "merges": self._paths[1], "digest": self.digest}

    def _ids(self, text: str) -> np.ndarray:
        return self._encoding.encode_to_numpy(text, disallowed_special=())


def from_data(data: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that `data()` describes.

    Raises ValueError if the kind is unknown or the files have changed since, OSError if they are gone.
    """
    if data.get("kind") == "bytes":
        return Bytes()
    if data.get("kind") != "bpe":
        raise ValueError(f"a tokenizer's kind is {data.get('kind')!r}, but must be 'bytes' or 'bpe'")
    if missing := {"vocab", "merges", "digest"} - data.keys():
        raise ValueError(f"a tokenizer of the kind 'bpe' has no {min(missing)}")
    tokenizer = BPE(data["vocab"], data["merges"])
    if tokenizer.digest != data["digest"]:
        raise ValueError(
            f"{data['vocab']} and {data['merges']} have changed: their digest is {tokenizer.digest}, but was "
            f"{data['digest']}: put the original files back"
        )
    return tokenizer


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


def _checked(ids: Any, vocab_size: int) -> np.ndarray:
    """Return the ids as a flat array. Raise ValueError if one is out of range, TypeError if they are not integers."""
    ids = np.asarray(ids).reshape(-1)
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"ids are {ids.dtype}, but must be integers")
    bad = ids[(ids < 0) | (ids >= vocab_size)]
    if bad.size:
        raise ValueError(f"id {bad[0]} is out of range: this tokenizer has ids from 0 to {vocab_size - 1}")
    return ids.astype(np.int64)


def _decoded(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield the blocks' text. Raise ValueError with the first byte that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    for block, last in itertools.chain(((block, False) for block in blocks), [(b"", True)]):
        pending = len(decoder.getstate()[0])
        try:
            yield decoder.decode(block, last)
        except UnicodeDecodeError as error:
            raise ValueError(f"byte {position - pending + error.start} is not UTF-8 ({error.reason})") from error
        position += len(block)
