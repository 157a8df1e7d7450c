"""The training configs that come with the project are settings."""

from pathlib import Path

import pytest

from refgrad._files import read_toml
from refgrad.models import gpt2
from refgrad.train.settings import Settings

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("size", ["124M", "1.5B"])
def test_they_are_settings_of_their_model(size):
    name = {"124M": "train_124m", "1.5B": "train_1558m"}[size]
    settings = Settings.from_mapping(read_toml(CONFIGS / f"{name}.toml"))
    assert settings.model == gpt2.SIZES[size]
