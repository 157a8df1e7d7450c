"""A run's settings: what each bad one says, and that they come back from JSON."""

import dataclasses
import json

import pytest

from refgrad.train.settings import MOST_LAYERS, Settings

BAD = {
    "section": ({"trian": {}}, ValueError, "trian is not a section: did you mean train?"),
    "key": (
        {"train": {"learning_rat": 1}},
        ValueError,
        "train.learning_rat = 1 is not a setting: did you mean",
    ),
    "model key": ({"model": {"n_lyer": 1}}, ValueError, "did you mean n_layer"),
    "steps": ({"train": {"steps": 0}}, ValueError, "train.steps is 0, but must be at least 1"),
    "integer": ({"train": {"batch": 2.0}}, TypeError, "train.batch is 2.0, but must be an integer"),
    "bool": ({"train": {"batch": True}}, TypeError, "train.batch is True, but must be an integer"),
    "number": ({"train": {"learning_rate": "x"}}, TypeError, "train.learning_rate is 'x', but must be a number"),
    "above": ({"train": {"learning_rate": 0.0}}, ValueError, "train.learning_rate is 0.0, but must be above 0"),
    "below": ({"train": {"beta1": 1.0}}, ValueError, "train.beta1 is 1.0, but must be below 1"),
    "finite": (
        {"train": {"learning_rate": float("inf")}},
        ValueError,
        "learning_rate is inf, but must be finite",
    ),
    "name": ({"train": {"rules": "fast"}}, ValueError, "train.rules is 'fast', but must be one of 'derived', 'fused'"),
    "text": ({"data": {"text": "/a"}}, TypeError, r"is '/a', but must be a list of texts: write data.text=.\W/a"),
    "texts": ({"data": {"text": [3]}}, TypeError, r"data.text is \(3,\), but must be a list of texts: write data.text"),
    "32 bits": ({"train": {"batch": 99999999999999}}, ValueError, "train.batch is 99999999999999, but must be below 2"),
    "more bits": ({"train": {"steps": 10**30}}, ValueError, "train.steps is 1000000000000000000000000000000, but"),
    "layers": ({"model": {"n_layer": 10**9}}, ValueError, "model.n_layer is 1000000000, but must be at most 1,000"),
    "model value": ({"model": {"n_head": "x"}}, TypeError, "^model.n_head is 'x', but must be an integer"),
    "flag": ({"train": {"scan": 1}}, TypeError, "train.scan is 1, but must be true or false"),
    "sequence": ({"train": {"sequence": 129}}, ValueError, "train.sequence is 129, but model.n_positions = 128"),
    "bytes": ({"model": {"vocab_size": 255}}, ValueError, "model.vocab_size is 255, but there are 256 bytes"),
    "vocabulary": ({"data": {"tokenizer": "bpe"}}, ValueError, "'bpe' needs the folder of vocab.json"),
    "parts": ({"train": {"batch": 6, "accumulate": 4}}, ValueError, "accumulate is 4, but must divide train.batch = 6"),
    "wide kernel": ({"train": {"rules": "fused-cudnn"}}, ValueError, "attention is for 16 bits: take train.dtype ="),
    "fast parts": ({"train": {"accumulate": 2, "memory": "fast"}}, ValueError, "take memory = 'plain' or"),
    "remat": ({"train": {"remat": True, "memory": "small"}}, ValueError, "train.remat is for memory = 'plain'"),
    "warmup": (
        {"train": {"steps": 9, "warmup": 9}},
        ValueError,
        "warmup is 9, but must be below train.steps = 9: lower it too, such as train.warmup=0",
    ),
    "spike": ({"train": {"spike": 0.5}}, ValueError, "train.spike is 0.5, but must be above 1, or 0"),
    "keep": ({"checkpoint": {"keep": 0}}, ValueError, "checkpoint.keep is 0, but must be at least 1"),
    "validation": ({"data": {"validation": 1.0}}, ValueError, "data.validation is 1.0, but must be below 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_named(name):
    values, error, message = BAD[name]
    with pytest.raises(error, match=message):
        Settings.from_mapping(values)


def test_they_come_back_from_json():
    settings = Settings.from_mapping({"data": {"text": ["a", "b"]}, "train": {"steps": 777}, "model": {"n_layer": 1}})
    assert settings.data.text == ("a", "b") and settings.train.steps == 777 and settings.model.n_layer == 1
    assert Settings.from_mapping(json.loads(json.dumps(settings.as_mapping()))) == settings


def test_an_update_keeps_the_rest():
    settings = Settings.from_mapping({"train": {"steps": 777}})
    assert settings.updated({"train": {"batch": 2}}).train == dataclasses.replace(settings.train, batch=2)


def test_the_largest_number_of_layers_is_allowed():
    assert Settings.from_mapping({"model": {"n_layer": MOST_LAYERS}}).model.n_layer == MOST_LAYERS


def test_the_defaults_are_those_of_published_runs():
    """Another default would change every run that does not name it."""
    train = Settings.from_mapping({}).train
    assert (train.learning_rate, train.final_rate, train.warmup) == (3e-3, 0.1, 100)
    assert (train.weight_decay, train.beta1, train.beta2, train.epsilon, train.clip_norm) == (0.1, 0.9, 0.99, 1e-8, 1)
    assert (train.steps, train.batch, train.sequence, train.accumulate, train.spike) == (2000, 8, 128, 1, 2)
