"""Token files: splits disjoint and complete, reused only while nothing changed, whole after a kill at any moment."""

import errno
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from refgrad.train.text import splits
from refgrad.train.text.tokenizers import BPE, Bytes
from refgrad.train.text.tokens import build
from tests.lanes import fast_if
from tests.train.text.cases import texts, vocabulary


@pytest.fixture
def corpus(tmp_path):
    """A folder of 60 different documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for n, text in enumerate(texts(60, seed=4)):
        (folder / f"{n:02}.txt").write_text(f"{n} {text}", encoding="utf-8", newline="")
    return folder


def contents(ids, separator=0):
    """The documents of a split, which ends with a separator."""
    ends = np.flatnonzero(ids == separator)
    assert ends[-1] == len(ids) - 1
    return [part[part != separator] for part in np.split(ids, ends + 1)[:-1]]


def as_bytes(split):
    return [part.tobytes() for part in contents(split)]


def test_splits_are_disjoint_and_complete(corpus, tmp_path):
    made = build(corpus, Bytes(), tmp_path / "out", 0.3)
    train, validation = as_bytes(made.train), as_bytes(made.validation)
    files = [file.read_bytes() for file in sorted(corpus.iterdir())]
    assert sorted(train + validation) == sorted(files)
    assert 5 < len(validation) < 35
    assert train == [text for text in files if text in train]  # in their order
    assert made.train.dtype == np.uint8
    assert not made.train.flags.writeable


def test_words(corpus, tmp_path):
    bpe = BPE(*vocabulary())
    made, same = (build(corpus, tokenizer, tmp_path / "out", 0.3) for tokenizer in (bpe, Bytes()))
    assert made.train.dtype == np.dtype("<u2")
    for split in ("train", "validation"):
        parts = contents(getattr(made, split), bpe.separator)
        assert [bpe.decode(part).encode() for part in parts] == as_bytes(getattr(same, split))
    assert (made.vocab_size, made.corpus) == (50257, same.corpus)
    assert made.digest != same.digest


def test_another_file_moves_none(corpus, tmp_path):
    before = set(as_bytes(build(corpus, Bytes(), tmp_path / "out").validation))
    (corpus / "00 first.txt").write_text("another")
    after = build(corpus, Bytes(), tmp_path / "out")
    assert set(as_bytes(after.validation)) - {b"another"} == before
    assert b"another" in as_bytes(after.validation) + as_bytes(after.train)


def test_equal_files_stay_together(corpus, tmp_path):
    copied = corpus.with_name("copied")
    copied.mkdir()
    for file in corpus.iterdir():
        (copied / f"z{file.name}").write_bytes(file.read_bytes())
    made = build([corpus, copied], Bytes(), tmp_path / "out", 0.5)
    assert not set(as_bytes(made.train)) & set(as_bytes(made.validation))


@pytest.mark.parametrize("line", ["a line of text, ж\n", "жжж"])
@pytest.mark.parametrize("share", fast_if(lambda share: share in (0.1, 1e-9), [0.1, 0.5, 1e-9, 1 - 1e-9]))
def test_a_large_file_is_divided(tmp_path, line, share):
    text = (line * 10_000).encode()
    file = tmp_path / "large.txt"
    file.write_bytes(text)
    made = build(file, Bytes(), tmp_path / "out", share)
    (train,), (validation,) = as_bytes(made.train), as_bytes(made.validation)
    assert train + validation == text
    assert abs(len(validation) - share * len(text)) <= 20
    train.decode()  # no character is cut
    words = build(file, BPE(*vocabulary()), tmp_path / "out", share)
    assert BPE(*vocabulary()).decode(words.train[:-1]) == train.decode()


def test_a_file_alone_is_divided(corpus, tmp_path):
    made = build(corpus / "00.txt", Bytes(), tmp_path / "out", 0.3)
    (train,), (validation,) = as_bytes(made.train), as_bytes(made.validation)
    assert train + validation == (corpus / "00.txt").read_bytes() and train and validation


def made_when(folder):
    (manifest,) = folder.glob("*/tokens.json")
    return manifest.stat().st_mtime_ns, manifest.stat().st_ino


def test_reused_while_unchanged(corpus, tmp_path):
    out = tmp_path / "out"
    first = build(corpus, Bytes(), out)
    when = made_when(out)
    again = build([corpus], Bytes(), out)
    assert made_when(out) == when
    assert (again.digest, again.corpus, again.about) == (first.digest, first.corpus, first.about)
    np.testing.assert_array_equal(again.train, first.train)
    # Another text of the same size, under the old mtime.
    file = corpus / "07.txt"
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = build(corpus, Bytes(), out)
    assert changed.digest != first.digest
    assert changed.corpus != first.corpus
    assert file.read_bytes() in as_bytes(changed.train) + as_bytes(changed.validation)
    assert first.train.sum() > 0  # what was open before still is
    # A file less, and another share.
    file.unlink()
    assert len(as_bytes(build(corpus, Bytes(), out).train)) < 60
    build(corpus, Bytes(), out, 0.5)
    assert len(list(out.glob("*/tokens.json"))) == 2
    assert sorted(path.suffix for path in out.iterdir() if path.is_dir()) == ["", ""]


def spoil_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [spoil_byte, lambda file: os.truncate(file, 10), lambda file: os.truncate(file, 0), os.remove],
    ids=["byte", "truncated", "emptied", "removed"],
)
@pytest.mark.parametrize("name", ["train.bin", "validation.bin", "tokens.json"])
def test_damage_is_noticed(corpus, tmp_path, spoil, name):
    first = build(corpus, Bytes(), tmp_path / "out")
    train = np.array(first.train)  # a map of a file that is cut off may not be read
    (file,) = (tmp_path / "out").glob(f"*/{name}")
    spoil(file)
    with pytest.warns(UserWarning, match=rf"{name} in .* is damaged: the tokens are built again"):
        again = build(corpus, Bytes(), tmp_path / "out")
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.train, train)


KILLED = """
import os, signal, sys
from refgrad.train.text import splits, tokens
from refgrad.train.text.tokenizers import Bytes
corpus, out, where, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
module, name = {"write": (splits.Writer, "_write"), "json": (tokens, "write_json"), "rename": (os, "rename")}[where]
real, calls = getattr(module, name), 0
def killed(*args):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
setattr(module, name, killed)
tokens.build(corpus, Bytes(), out)
"""


@pytest.mark.parametrize(("where", "count"), [("write", 70), ("json", 1), ("rename", 1), ("rename", 2)])
def test_killed_at_any_moment(corpus, tmp_path, where, count):
    out = tmp_path / "out"
    build(corpus, Bytes(), out)
    (corpus / "07.txt").write_text("changed")  # so that there is a file to replace
    done = subprocess.run([sys.executable, "-c", KILLED, str(corpus), str(out), where, str(count)])
    assert done.returncode == -signal.SIGKILL
    again, undisturbed = build(corpus, Bytes(), out), build(corpus, Bytes(), tmp_path / "other")
    assert again.digest == undisturbed.digest
    assert len([path for path in out.iterdir() if path.is_dir()]) == 1  # nothing is left of the killed one


def test_two_at_once_build_once(corpus, tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys, time\nfrom refgrad.train.text import splits, tokens\nreal = splits.write\n"
        "tokens.write = lambda *args: (print('built'), time.sleep(0.5), real(*args))[2]\n"
        "print(tokens.build(sys.argv[1], tokens_of(), sys.argv[2]).digest)"
    ).replace("tokens_of()", "__import__('refgrad.train.text.tokenizers', fromlist=['Bytes']).Bytes()")
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(corpus), str(out)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0].split() for process in both]
    assert sorted(map(len, said)) == [1, 2]
    assert said[0][-1] == said[1][-1] == build(corpus, Bytes(), out).digest


def test_a_full_disk_leaves_nothing(corpus, tmp_path, monkeypatch):
    real = splits.Writer._write

    def full(writer, ids):
        if writer.documents == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(writer, ids)

    monkeypatch.setattr(splits.Writer, "_write", full)
    with pytest.raises(OSError, match=r"no space left for token files .* take a folder on another disk") as caught:
        build(corpus, Bytes(), tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def test_bad_input_leaves_nothing(corpus, tmp_path):
    out = tmp_path / "out"
    (corpus / "30 picture.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=r"30 picture\.png: byte 0 is not UTF-8"):
        build(corpus, BPE(*vocabulary()), out)
    with pytest.raises(ValueError, match=r"validation is 1\.5, but must be a share between 0 and 1"):
        build(corpus, Bytes(), out, 1.5)
    with pytest.raises(
        ValueError, match=r"none of 2 documents, \S+ bytes in all, fell to validation.* or join the files"
    ):
        build([corpus / "00.txt", corpus / "01.txt"], Bytes(), out, 1e-9)
    assert not out.exists() or not [path for path in out.iterdir() if path.is_dir()]
    assert b"\x89PNG\xff" in b"".join(as_bytes(build(corpus, Bytes(), out).train))


def test_names_of_any_bytes(corpus, tmp_path):
    with open(os.fsencode(corpus) + b"/\xff\n name", "w") as file:
        file.write("text of its own")
    for _ in range(2):
        made = build(corpus, Bytes(), tmp_path / "out")
    assert b"text of its own" in as_bytes(made.train) + as_bytes(made.validation)


def test_a_file_that_changes_meanwhile(corpus, tmp_path, monkeypatch):
    real = splits.Writer.add

    def add(writer, text):
        (corpus / "40.txt").write_text("changed")
        real(writer, text)

    monkeypatch.setattr(splits.Writer, "add", add)
    with pytest.raises(ValueError, match=r"40\.txt changed while it was read: run again"):
        build(corpus, Bytes(), tmp_path / "out")


PEAK = """
import sys
from refgrad.train.text import tokenizers, tokens
made = getattr(tokenizers, sys.argv[1])(*sys.argv[4:])
def peak(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
tokens.build(sys.argv[2], made, sys.argv[3])
print(peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
@pytest.mark.parametrize("kind", ["Bytes", pytest.param("BPE", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_text(tmp_path, kind):
    file = tmp_path / "large.txt"
    block = random.Random(0).randbytes(2**19).hex().encode()
    with open(file, "wb") as out:
        for _ in range(48):
            out.write(block if kind == "Bytes" else b"some text of many words\n" * 43690)
    files = list(map(str, vocabulary())) if kind == "BPE" else []
    run = [sys.executable, "-c", PEAK, kind, str(file), str(tmp_path / "out"), *files]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 * 1024  # KiB, of a text of 48 MiB
