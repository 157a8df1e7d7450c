"""Random bits flipped and files cut short, in all that a run reads again: never silently wrong.

Fifty of each kind in the slow lane, a few of each in the fast one.
"""

import json
import random
import shutil
import warnings

import numpy as np
import pytest

from refgrad import weights
from refgrad.train.run import folder as run_folder
from refgrad.train.run.checkpoints import Checkpoints
from refgrad.train.run.folder import Run
from refgrad.train.run.metrics import Metrics
from refgrad.train.run.restore import CheckpointError
from refgrad.train.run.resumed import EXACTLY, resumed
from refgrad.train.run.storage import ABOUT, seal
from refgrad.train.settings import Settings
from refgrad.train.text.tokenizers import Bytes
from refgrad.train.text.tokens import build
from tests.train.run.test_checkpoints import shapes, state
from tests.weights.folders import CONFIG, parameters, same_bits

RUN = Run(Settings(), Bytes().data(), "tokens")
FACTS = {"cores": 2}


class Checkpoint:
    """Two checkpoints, of which the older is good."""

    def write(self, folder):
        saved = Checkpoints(folder)
        for step in (1, 2):
            saved.save(step, state(step), {"run": RUN.data()})
        saved.finish()

    def read(self, folder):
        """(what was read is right, what was said)."""
        said = []
        got, found = Checkpoints(folder).restore(shapes(), said.append)
        return Run.from_data(found.about["run"]) == RUN and same_bits(got, state(found.step)), said or found.step == 2

    def damaged(self, folder):
        """The files that can be."""
        return files(folder / "2")


class Tokens:
    """Token files, which are built again from their text."""

    def write(self, folder):
        texts = folder.with_name("texts")
        texts.mkdir(exist_ok=True)
        for n in range(30):
            (texts / f"{n}.txt").write_text(f"{n} " * 50)
        self.texts, self.made = texts, build(texts, Bytes(), folder, progress=False)
        self.ids = np.concatenate([self.made.train, self.made.validation])

    def read(self, folder):
        made = build(self.texts, Bytes(), folder, progress=False)
        return np.array_equal(np.concatenate([made.train, made.validation]), self.ids), made.digest == self.made.digest

    def damaged(self, folder):
        return files(folder)


class Weights:
    """A GPT-2 folder, in shards."""

    def write(self, folder):
        weights.save(folder, parameters(), CONFIG, shard_bytes=9000)

    def read(self, folder):
        params, config = weights.load(folder)
        return config == CONFIG and same_bits(params, parameters()), True

    def damaged(self, folder):
        return files(folder)


class Record:
    """run.json and metrics.jsonl beside a checkpoint that says what they were."""

    def write(self, folder):
        about = folder / run_folder.CHECKPOINTS / "39" / "about" / ABOUT
        about.parent.mkdir(parents=True)
        run_folder.write(folder, RUN)
        with Metrics(folder / run_folder.METRICS, 0) as log:
            for n in range(1, 40):
                log.add(n, loss=1 / n, grad_norm=2.0)
        self.about = {"machine": FACTS, "run": RUN.data(), "metrics": log.digest}
        about.write_text(json.dumps({**self.about, "sha256": seal(self.about)}))
        self.lines = (folder / run_folder.METRICS).read_bytes()

    def read(self, folder):
        before = run_folder.record(folder)
        with Metrics(folder / run_folder.METRICS, 39) as log:
            line = resumed(39, self.about, before, before.run, FACTS, log.digest)
        return before.run == RUN, (folder / run_folder.METRICS).read_bytes() == self.lines or EXACTLY not in line

    def damaged(self, folder):
        return [folder / run_folder.RUN, folder / run_folder.METRICS]


SLOW = ("Checkpoint",)  # test_checkpoints.py damages a few in the fast lane
KINDS = {kind.__name__: kind for kind in (Checkpoint, Tokens, Weights, Record)}


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def damage(paths, chance):
    """Flip a bit of a random file, or cut it short; returns which."""
    path = chance.choice(paths)
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    if chance.random() < 0.25:
        data = data[:place]
    else:
        data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"{path.name}, byte {place}"


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS])
@pytest.mark.parametrize(("times", "seed"), [(3, 1), pytest.param(20, 2, marks=pytest.mark.slow)])
def test_never_silently_wrong(kind, times, seed, tmp_path):
    made, chance, seen = KINDS[kind](), random.Random(seed), 0
    made.write(tmp_path / "whole")
    assert all(made.read(tmp_path / "whole"))
    for _ in range(times):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "copy")
        where = damage(made.damaged(tmp_path / "copy"), chance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tokens that are built again
            try:
                right, said = made.read(tmp_path / "copy")
            except (ValueError, CheckpointError):
                seen += 1
                continue
        assert right and said, where
    assert times < 10 or kind in ("Checkpoint", "Tokens") or seen > times // 2
