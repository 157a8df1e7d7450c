"""Folders that `refgrad.weights` refuses: every error names the file, the tensor or key, its value and the bound."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad import weights
from tests.weights.folders import CONFIG, UNTIED, change_config, change_tensors, parameters


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    weights.save(folder / "tied", parameters(), CONFIG)
    weights.save(folder / "untied", parameters(UNTIED), UNTIED)
    weights.save(folder / "sharded", parameters(), CONFIG, shard_bytes=3000)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """Makes a copy of a saved folder to damage."""

    def of(name):
        folder = tmp_path / name
        folder.mkdir()
        for file in (saved / name).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return of


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activation_function": "relu"}, r'config.json: activation_function is "relu", but .* "gelu_new" alone'),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true, but .* false"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is true"),
        ({"scale_attn_weights": False}, "scale_attn_weights is false, but .* true"),
        ({"add_cross_attention": True}, "add_cross_attention is true"),
        ({"model_type": "gpt_neo"}, r'model_type is "gpt_neo", but .* "gpt2"'),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"n_inner": 24}, r"n_inner is 24, but .* 4·n_embd = 48"),
        ({"n_head": ...}, "config.json has no n_head"),
        ({"n_head": 5}, "n_embd is 12, which n_head = 5 does not divide"),
        ({"n_head": "3"}, "config.json: n_head is '3', but must be an integer"),
        ({"n_embd": None}, "n_embd is None, but must be an integer"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, but must be true or false"),
        ({"tie_word_embeddings": False}, r"has no tensor lm_head.weight of shape \(11, 12\).*set tie_word_embeddings"),
        ({"n_layer": 10**12}, r"config.json: n_layer is 1000000000000, but the folder has 40 tensors in all: correct"),
        ({"layer_norm_epsilon": 1e-5}, r"layer_norm_epsilon is 1e-05, but .*model.safetensors was written with 2e-05"),
        ({"n_head": 4}, r"config.json: n_head is 4, but .*model.safetensors was written with 3: put that back"),
        ({"n_layer": 4}, r"has no tensor h.3.attn.c_attn.bias of shape \(36,\).* \(and 11 more like it\)"),
        ({"n_layer": 2}, r"transformer.h.2.attn.c_attn.bias of shape \(36,\) is not a parameter.* \(and 11 more"),
        ({"vocab_size": 12}, r"wte.weight has shape \(11, 12\), but config.json means \(12, 12\)"),
        ({"n_positions": 8}, r"wpe.weight has shape \(7, 12\), but config.json means \(8, 12\)"),
    ],
)
def test_a_config_that_is_not_the_tensors_or_not_this_model(copy, values, message):
    folder = copy("tied")
    change_config(folder, **values)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


@pytest.mark.parametrize(
    "values",
    [{"n_inner": 48}, {"resid_pdrop": 0.1, "n_ctx": 7, "summary_type": "cls_index"}, {"tie_word_embeddings": ...}],
)
def test_a_config_that_means_the_same(copy, values):
    folder = copy("tied")
    change_config(folder, **values)
    assert weights.load(folder)[1] == CONFIG


def put(**changes):
    """A change of the tensors called so ("h_1_x" for "transformer.h.1.x"), None to take one out."""

    def change(tensors):
        tensors = dict(tensors)
        for short, make in changes.items():
            name = "transformer." + short.replace("__", "\0").replace("_", ".").replace("\0", "_")
            tensor = tensors.pop(name)
            if make is not None:
                tensors[name] = make(tensor)
        return tensors

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(h_1_mlp_c__fc_bias=None), r"has no tensor h.1.mlp.c_fc.bias of shape \(48,\)"),
        (put(h_0_mlp_c__fc_weight=lambda w: w.T.copy()), r"h.0.mlp.c_fc.weight has shape \(48, 12\).*: transpose it"),
        (put(ln__f_bias=lambda x: x.astype(np.int32)), "transformer.ln_f.bias is I32, but parameters are F64, F32"),
        (put(ln__f_bias=lambda x: x.astype(np.float16)), "ln_f.bias is F16, but transformer.wte.weight is F32"),
        (lambda t: {**t, "score.weight": np.ones((2, 12))}, r"score.weight of shape \(2, 12\) is not a parameter"),
        (lambda t: {**t, "ln_f.bias": np.ones(12)}, "transformer.ln_f.bias and .*ln_f.bias are the same parameter"),
        (lambda t: {**t, "h.0.attn.biases": np.ones(3)}, "h.0.attn.biases"),
        (
            lambda t: {**t, "lm_head.weight": t["transformer.wte.weight"] * np.float32(1.001)},
            "lm_head.weight is not transformer.wte.weight, but config.json says tie_word_embeddings = true",
        ),
    ],
)
def test_tensors_that_are_not_the_models(copy, change, message):
    folder = copy("tied")
    change_tensors(folder, change)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"model.safetensors is cut short or .* \d+ bytes\): fetch it again"),
        (lambda data: data + b"\0", "is cut short or no safetensors file"),
        (lambda data: data[:50], "is cut short"),
        (lambda data: b"", r"\(.*; 0 bytes\)"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "no safetensors file"),
        (lambda data: data.replace(b"F32", b"F33", 1), "no safetensors file"),
        (lambda data: data.replace(b"[12,36]", b"[11,36]", 1), "no safetensors file"),
        (lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], r"transformer\.\S+ is not what was written"),
    ],
)
def test_a_damaged_file(copy, damage, message):
    folder = copy("tied")
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not JSON"),
        ("\xff\xfe", "config.json is not JSON"),
        ("[1]", "holds a list, but must hold an object"),
        ("[" * 200_000, "config.json is not JSON that can be read"),
        ('{"n_layer": ' + "1" * 5000 + "}", "config.json is not JSON that can be read"),
        (None, "has no config.json"),
    ],
)
def test_a_damaged_config(copy, text, message):
    folder = copy("tied")
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


def test_no_weights(copy, tmp_path):
    folder = copy("tied")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"neither model.safetensors nor model.safetensors.index.json: fetch"):
        weights.load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"pytorch_model.bin is a pickle: convert it"):
        weights.load(folder)
    with pytest.raises(ValueError, match=r"gpt2 is not a folder"):
        weights.load("gpt2")


def index(change):
    """A change of the sharded folder's map from names to files."""

    def damage(folder):
        path = folder / "model.safetensors.index.json"
        found = json.loads(path.read_text())
        path.write_text(json.dumps(change(found)))

    return damage


def placed(**places):
    return index(lambda found: {"weight_map": {**found["weight_map"], **places}})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: os.remove(folder / "model-00002-of-00010.safetensors"),
            "00002-of-00010.safetensors is missing",
        ),
        (placed(nothing="model-00003-of-00010.safetensors"), "00003-of-00010.safetensors: nothing: it is not there"),
        (
            placed(nothing="../tied/model.safetensors"),
            "names '../tied/model.safetensors', but shards lie in",
        ),
        (index(lambda found: {"weight_map": dict(list(found["weight_map"].items())[1:])}), "does not place it there"),
        (index(lambda found: {}), "weight_map must map names of tensors to files"),
        (index(lambda found: {"weight_map": {"wte.weight": 1}}), "weight_map must map"),
    ],
)
def test_shards_that_do_not_fit_their_index(copy, damage, message):
    folder = copy("sharded")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


def without(params, name):
    return {key: value for key, value in params.items() if key != name}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: without(parameters(), "wpe"), ValueError, "params has no wpe.weight"),
        (lambda: parameters(UNTIED), ValueError, "params has"),
        (lambda: jax.tree.map(lambda x: x.astype(jnp.float8_e4m3fn), parameters()), ValueError, "float8_e4m3fn, but"),
        (lambda: jax.tree.map(lambda x: x.astype(jnp.int32), parameters()), TypeError, "is int32"),
        (
            lambda: {**parameters(), "ln_f": {"weight": np.ones(12), "bias": np.ones(12)}},
            ValueError,
            "float32, float64, but must be one of",
        ),
    ],
)
def test_parameters_that_cannot_be_saved(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        weights.save(tmp_path / "m", make(), CONFIG)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_saved_to(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="file is a file, but a model is a folder"):
        weights.save(tmp_path / "file", parameters(), CONFIG)
    with pytest.raises(ValueError, match=r"folder holds other things than a model \(no config.json\): give a new"):
        weights.save(tmp_path / "folder", parameters(), CONFIG)
    with pytest.raises(ValueError, match="shard_bytes is 0, but a shard has at least 1 byte"):
        weights.save(tmp_path / "m", parameters(), CONFIG, shard_bytes=0)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "mine.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2
