"""The least memory of a run, held against what there is: by formula, and answered at once at any size."""

import jax
import pytest

from refgrad.cli import main
from refgrad.models import gpt2
from refgrad.train.run import memory
from refgrad.train.settings import Settings


@pytest.mark.parametrize("tied", [True, False])
def test_the_formula_counts_what_there_is(tied):
    config = gpt2.Config(3, 2, 10, 7, 11, tie_word_embeddings=tied)
    assert config.parameters == sum(leaf.size for leaf in jax.tree.leaves(gpt2.shapes(config)))


def test_a_default_run_fits():
    memory.check(Settings().model, Settings().train, 1)


TOO_LARGE = {
    "width": ("model.n_embd=1000000000", "n_embd = 1000000000, vocab_size = 256"),
    "vocabulary": ("model.vocab_size=9999999999999", "whose training state takes"),
    "positions": ("model.n_positions=9999999999999", "take a smaller model"),
    "batch": ("train.batch=2000000000", "train.batch = 2000000000 of train.sequence = 128 takes 133 TB at least, but"),
    "samples": (
        "train.samples=2000000000",
        "train.samples = 2000000000 texts take 1.05 PB for their keys",
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_run_that_cannot_fit_is_refused_at_once(name, tmp_path, capsys):
    change, message = TOO_LARGE[name]
    assert main(["train", "--out", str(tmp_path / "out"), "--set", change]) == 2
    said = capsys.readouterr().err
    assert message in said and " of memory: " in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
