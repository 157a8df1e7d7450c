"""The command that installs an extra: one that works, since no index has refgrad."""

from pathlib import Path

import refgrad
from refgrad import _extras


def test_from_a_checkout_it_is_the_extra():
    root = Path(refgrad.__file__).parents[1]
    assert _extras.install("train") == f"pip install -e '{root}[train]'"


def test_elsewhere_it_is_the_packages(monkeypatch, tmp_path):
    needs = ["jax>=0.10", 'optax>=0.2; extra == "train"', "safetensors>=0.5 ; extra == 'train'", 'x; extra == "trains"']
    monkeypatch.setattr(_extras, "__file__", str(tmp_path / "site-packages" / "refgrad" / "_extras.py"))
    monkeypatch.setattr(_extras.metadata, "requires", lambda name: needs)
    assert _extras.install("train") == "pip install 'optax>=0.2' 'safetensors>=0.5'"
