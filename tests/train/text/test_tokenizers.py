"""Tokenizers: text comes back, chunks give the ids of the whole, other files are noticed, bad input is named."""

import json
import os
import random
import sys

import numpy as np
import pytest

from refgrad.train.text import tokenizers
from refgrad.train.text.corpus import documents
from refgrad.train.text.tokenizers import BPE, Bytes, from_data
from tests.train.text.cases import texts, vocabulary


@pytest.fixture(scope="module")
def bpe():
    return BPE(*vocabulary())


def in_blocks(data, lots):
    while data:
        size = lots.randrange(1, 9)
        yield data[:size]
        data = data[size:]


def test_bytes():
    every = bytes(range(256))
    assert Bytes().encode(every).tolist() == list(every)
    assert Bytes().decode(Bytes().encode("Ж字👍")) == "Ж字👍"
    assert Bytes().decode([0xFF]) == "\ufffd"
    assert from_data(json.loads(json.dumps(Bytes().data()))).digest == Bytes().digest


def test_ids_as_published(bpe):
    assert bpe.encode("Hello world").tolist() == [15496, 995]
    assert (bpe.vocab_size, bpe.separator) == (50257, 50256)
    assert bpe.separator not in bpe.encode("<|endoftext|>")
    assert from_data(json.loads(json.dumps(bpe.data()))).digest == bpe.digest


def test_text_comes_back(bpe):
    for text in texts(200):
        assert bpe.decode(bpe.encode(text)) == Bytes().decode(Bytes().encode(text)) == text


def test_chunks_give_the_ids_of_the_whole(bpe):
    lots, pieces = random.Random(1), 0
    for text in texts(2000, seed=2):
        parts = list(bpe.stream(in_blocks(text.encode(), lots)))
        pieces += len(parts)
        assert np.concatenate(parts).tolist() == bpe._encoding.encode(text, disallowed_special=()), repr(text)
    assert pieces > 8000  # it was cut


@pytest.mark.slow
def test_characters_where_text_is_cut(bpe):
    numbers = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]
    characters = [chr(n) for n in numbers if n < 0x3000 or n % 32 == 0]
    for after in (" x\n", ".x\n", "。x\n"):
        blocks = (block.encode() for character in characters for block in (character, after))
        whole = bpe._encoding.encode_to_numpy("".join(c + after for c in characters), disallowed_special=())
        np.testing.assert_array_equal(np.concatenate(list(bpe.stream(blocks))), whole)


def test_many_pieces_of_real_text(bpe):
    text = b"".join(each.path.read_bytes() for each in documents()[:40])
    whole = bpe._encoding.encode_to_numpy(text.decode(), disallowed_special=())
    for size in (999, 64_001):
        parts = bpe.stream(text[start : start + size] for start in range(0, len(text), size))
        np.testing.assert_array_equal(np.concatenate(list(parts)), whole)


def test_no_text_without_an_end(bpe, monkeypatch):
    monkeypatch.setattr(tokenizers, "LONGEST", 100)
    with pytest.raises(ValueError, match=r"104 characters beginning 'xxx.*at most 100.*take bytes"):
        list(bpe.stream([b"xxxx"] * 1000))
    assert sum(map(len, bpe.stream([b"xxx "] * 1000))) == 2000


def test_blocks_are_read_as_ids_are_taken(bpe):
    taken = []
    ids = bpe.stream(taken.append(n) or b"some text " for n in range(1000))
    for _ in range(10):
        next(ids)
    assert len(taken) <= 11


@pytest.mark.parametrize("blocks", [[b"abc\xffd"], [b"a", b"bc\xff"], [b"ab\xe5", b"\xad", b"."]])
def test_no_utf8_is_named_by_its_byte(bpe, blocks):
    with pytest.raises(ValueError, match=f"byte {2 if len(blocks) == 3 else 3} is not UTF-8"):
        list(bpe.stream(blocks))
    with pytest.raises(ValueError, match="byte 1 is not UTF-8"):
        bpe.encode(b"a\xe5\xad")


@pytest.mark.parametrize(
    ("ids", "error"), [([50257], "id 50257 is out of range"), ([-1], "id -1"), ([0.5], "integers")]
)
def test_ids_out_of_range(bpe, ids, error):
    with pytest.raises((ValueError, TypeError), match=error):
        bpe.decode(ids)
    with pytest.raises((ValueError, TypeError), match=r"id 256 is out of range: .* 0 to 255"):
        Bytes().decode([256])


def small(folder, merge):
    """A vocabulary of 256 bytes and one merge, in the folder."""
    visible = [chr(n) for n in range(256) if chr(n).isprintable() and chr(n) != " "]
    letters = visible + [chr(256 + n) for n in range(256 - len(visible))]
    words = [*letters, merge.replace(" ", ""), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merge}\n")
    return folder / "vocab.json", folder / "merges.txt"


def test_changed_files_are_another_tokenizer(tmp_path):
    before = BPE(*small(tmp_path, "a b"))
    assert before.encode("ab cd").tolist() == [256, 220, 66, 67]
    data = before.data()
    after = BPE(*small(tmp_path, "c d"))
    assert after.encode("ab cd").tolist() == [64, 65, 220, 256]
    assert after.digest != before.digest
    with pytest.raises(ValueError, match="have changed"):
        from_data(data)
    os.remove(tmp_path / "merges.txt")
    with pytest.raises(FileNotFoundError, match=r"merges\.txt"):
        from_data(data)


def test_no_vocabulary_of_this_kind(tmp_path):
    vocab, merges = small(tmp_path, "a b")
    for bad in ("#version\nc d\n", "#version\na b c\n", ""):
        merges.write_text(bad)
        with pytest.raises(ValueError, match="not a vocabulary of GPT-2's kind"):
            BPE(vocab, merges)
    vocab.write_text("[1]")
    with pytest.raises(ValueError, match="not a vocabulary of GPT-2's kind"):
        BPE(vocab, merges)
    with pytest.raises(ValueError, match="'bytes' or 'bpe'"):
        from_data({"kind": "words"})


def test_without_tiktoken(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(ImportError, match=r"pip install -e '\S+\[bpe\]'"):
        BPE("vocab.json", "merges.txt")


@pytest.mark.peers
def test_same_ids_as_transformers(bpe):
    import transformers

    vocab, merges = vocabulary()
    theirs = transformers.GPT2Tokenizer(str(vocab), str(merges))
    real = [each.path.read_text(encoding="utf-8") for each in documents()[:40]]
    for text in texts(500, seed=3) + real:
        assert bpe.encode(text).tolist() == theirs(text)["input_ids"], repr(text[:80])
