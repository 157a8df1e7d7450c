"""`refgrad export`: a run as the GPT-2 folder that its parameters are saved as, its tokenizer's files beside them."""

import jax.numpy as jnp
import pytest

from refgrad import weights
from refgrad.cli import main
from refgrad.models import gpt2
from refgrad.train.optimiser import State
from refgrad.train.run import folder as run_folder
from refgrad.train.run.checkpoints import Checkpoints
from refgrad.train.settings import Settings
from refgrad.train.text.tokenizers import BPE, Bytes
from tests.train.text.cases import vocabulary
from tests.weights.folders import parameters, same_bits

MODEL = gpt2.Config(n_layer=2, n_head=2, n_embd=4, n_positions=16, vocab_size=256)


def a_run(folder, tokenizer, config=MODEL):
    """A run's folder with a checkpoint after step 3; run.json has been edited since."""
    settings = Settings.from_mapping({"model": vars(config), "train": {"sequence": 16, "scan": True}})
    run = run_folder.Run(settings, tokenizer.data(), "tokens")
    folder.mkdir()
    run_folder.write(folder, run)
    saved = Checkpoints(folder / run_folder.CHECKPOINTS)
    saved.save(3, State(gpt2.stack(parameters(config)), {"count": jnp.zeros((), jnp.int32)}), {"run": run.data()})
    saved.finish()
    path = folder / run_folder.RUN
    path.write_text(path.read_text().replace('"n_head": 2', '"n_head": 4'))
    return folder


def test_a_run_is_a_folder_that_loads(tmp_path, capsys):
    run = a_run(tmp_path / "run", Bytes())
    assert main(["export", str(run), str(tmp_path / "gpt2")]) == 0
    printed, said = capsys.readouterr()
    assert f"{run}, step 3: {MODEL.parameters:,} parameters written to {tmp_path / 'gpt2'}" in printed
    assert "run.json is not what the checkpoint was made with" in said and "model.n_head: 2 → 4" in said
    params, config = weights.load(tmp_path / "gpt2")
    assert config == MODEL and same_bits(params, parameters(MODEL))


@pytest.mark.slow
def test_the_tokenizers_files_come_along(tmp_path):
    run = a_run(tmp_path / "run", BPE(*vocabulary()), gpt2.Config(1, 1, 2, 16, 50257))
    assert main(["export", str(run), str(tmp_path / "gpt2")]) == 0
    assert BPE(tmp_path / "gpt2" / "vocab.json", tmp_path / "gpt2" / "merges.txt").digest == BPE(*vocabulary()).digest
    assert main(["sample", str(tmp_path / "gpt2"), "--tokens", "2"]) == 0


def test_places_that_take_no_model_and_runs_that_are_none(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for folder, message in (
        ("mine/notes.txt", "cannot be a folder"),
        ("mine/notes.txt/gpt2", "cannot be a folder"),
        ("mine", "holds other things than a model"),
        ("gpt2", "holds no run: it has no run.json"),
    ):
        assert main(["export", str(tmp_path), str(tmp_path / folder)]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
