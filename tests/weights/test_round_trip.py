"""`refgrad.weights`: what is saved is loaded bit for bit, whole or in shards, and a failure leaves what was there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from refgrad import weights
from refgrad.models import gpt2
from refgrad.weights import writing
from tests.weights.folders import CONFIG, UNTIED, change_tensors, parameters, same_bits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
def test_bit_for_bit(tmp_path, config, dtype):
    params = parameters(config, dtype)
    odd = np.asarray(params["ln_f"]["bias"]).copy()
    odd[:4] = np.nan, -0.0, np.inf, jnp.finfo(dtype).smallest_subnormal
    params["ln_f"]["bias"] = jnp.asarray(odd)
    weights.save(tmp_path / "a" / "model", params, config)
    loaded, read = weights.load(tmp_path / "a" / "model")
    assert read == config
    assert same_bits(loaded, params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))


def test_float64(tmp_path, x64):
    params = parameters(CONFIG, "float64")
    weights.save(tmp_path / "m", params, CONFIG)
    assert same_bits(weights.load(tmp_path / "m")[0], params)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"wte.weight is F64, but JAX's 64-bit types are off: .*enable_x64"),
    ):
        weights.load(tmp_path / "m")


def test_stacked_layers_and_views_are_stored_as_what_they_hold(tmp_path):
    params = parameters()
    weights.save(tmp_path / "list", params, CONFIG)
    weights.save(tmp_path / "stacked", gpt2.stack(params), CONFIG)
    columns_first = jax.tree.map(lambda leaf: np.asfortranarray(leaf), params)
    weights.save(tmp_path / "fortran", columns_first, CONFIG)
    first, *others = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("list", "stacked", "fortran"))
    assert all(other == first for other in others)
    assert same_bits(weights.load(tmp_path / "stacked")[0], params)


def test_sharded_parameters(tmp_path):
    mesh = jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.P("model"))
    params = parameters()
    spread = jax.tree.map(lambda leaf: jax.device_put(leaf, split) if leaf.shape[0] % 2 == 0 else leaf, params)
    weights.save(tmp_path / "m", spread, CONFIG)
    assert same_bits(weights.load(tmp_path / "m")[0], params)


@pytest.mark.parametrize("limit", [1, 700, 2000, 3000])
def test_shards_hold_the_limit_and_every_tensor_once(tmp_path, limit):
    params = parameters()
    weights.save(tmp_path / "m", params, CONFIG, shard_bytes=limit)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == [file.name for file in files]
    assert {file.name.split("-of-")[1] for file in files} == {f"{len(files):05}.safetensors"}
    total = 0
    for file in files:
        tensors = load_file(file)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= limit or len(tensors) == 1
        assert {index["weight_map"][name] for name in tensors} == {file.name}
        total += size
    assert index["metadata"]["total_size"] == total == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert same_bits(weights.load(tmp_path / "m")[0], params)


def test_files_are_readable_like_any_other(tmp_path):
    weights.save(tmp_path / "m", parameters(), CONFIG, shard_bytes=3000)
    (tmp_path / "any").write_text("")
    assert {file.stat().st_mode for file in (tmp_path / "m").iterdir()} == {(tmp_path / "any").stat().st_mode}


def plain(tensors):
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def buffers(tensors):
    mask = {f"h.{n}.attn.bias": np.tril(np.ones((1, 1, 7, 7), bool)) for n in range(3)}
    return {**tensors, **mask, "transformer.h.0.attn.masked_bias": np.full((), -1e4, np.float32)}


def head(tensors):
    return {**tensors, "lm_head.weight": tensors["transformer.wte.weight"]}


@pytest.mark.parametrize("change", [plain, buffers, head])
def test_what_others_store_is_read(tmp_path, change):
    params = parameters()
    weights.save(tmp_path, params, CONFIG)
    change_tensors(tmp_path, change)
    loaded, config = weights.load(tmp_path)
    assert config == CONFIG and same_bits(loaded, params)


def test_a_model_is_replaced_and_its_tokenizer_stays(tmp_path):
    weights.save(tmp_path / "m", parameters(), CONFIG, shard_bytes=2000)
    (tmp_path / "m" / "vocab.json").write_text("{}")
    (tmp_path / "m" / "notes").mkdir()
    (tmp_path / "m" / "notes" / "config.json").write_text("mine")
    weights.save(tmp_path / "m", parameters(UNTIED), UNTIED)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes",
        "vocab.json",
    ]
    assert (tmp_path / "m" / "notes" / "config.json").read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    loaded, config = weights.load(tmp_path / "m")
    assert config == UNTIED and same_bits(loaded, parameters(UNTIED))


def fails(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["save_file", "write_json", "_take_over", "os.rename"])
@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, step, there):
    if there:
        weights.save(tmp_path / "m", parameters(), CONFIG)
    rename = os.rename
    if step == "os.rename":  # the second of the two
        monkeypatch.setattr(os, "rename", lambda a, b: fails() if str(a).endswith(".part") else rename(a, b))
    else:
        monkeypatch.setattr(writing, step, fails)
    with pytest.raises(OSError, match="No space left"):
        weights.save(tmp_path / "m", parameters(UNTIED), UNTIED)
    assert [file.name for file in tmp_path.iterdir()] == (["m"] if there else [])
    if there:
        loaded, config = weights.load(tmp_path / "m")
        assert config == CONFIG and same_bits(loaded, parameters())


SMALL_DISK = """
import resource, sys
import jax
from refgrad import weights
from tests.weights.folders import CONFIG as config, parameters
params = parameters()
weights.save(sys.argv[1], params, config)
resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
try:
    weights.save(sys.argv[1], jax.tree.map(lambda leaf: leaf + 1, params), config)
except OSError as error:
    print(error)
"""
KILLED = """
import os, signal, sys
import jax
from refgrad import weights
from refgrad.weights import writing
from tests.weights.folders import CONFIG as config, parameters
params = parameters()
weights.save(sys.argv[1], params, config)
save_file = writing.save_file
def last_words(*given):
    save_file(*given)
    os.kill(os.getpid(), signal.SIGKILL)
writing.save_file = last_words
weights.save(sys.argv[1], jax.tree.map(lambda leaf: leaf + 1, params), config, shard_bytes=9_000)
"""


@pytest.mark.slow
def test_a_full_disk_and_a_killed_process_leave_the_former_model(tmp_path):
    for name, source in (("full", SMALL_DISK), ("killed", KILLED)):
        command = [sys.executable, "-c", source, str(tmp_path / name)]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        if name == "full":
            assert ran.returncode == 0 and "File too large" in ran.stdout and "nothing was left" in ran.stdout
            assert [file.name for file in tmp_path.iterdir()] == ["full"]
        else:
            assert ran.returncode == -signal.SIGKILL, ran.stderr
            assert len(list(tmp_path.glob("killed.*.part"))) == 1
        assert same_bits(weights.load(tmp_path / name)[0], parameters())


WATCHED = """
import sys, threading, time
import jax, numpy as np
from refgrad import weights
from tests.weights.folders import parameters
jax.block_until_ready(jax.device_put(np.zeros(3)))
def held():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
before, most, done = held(), [0], threading.Event()
def watch():
    while not done.wait(0.001):
        most.append(held())
thread = threading.Thread(target=watch)
thread.start()
params, _ = weights.load(sys.argv[1])
jax.block_until_ready(params)
done.set()
thread.join()
print((max(most) - before) / sum(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory")
def test_a_model_is_never_in_memory_twice(tmp_path):
    config = gpt2.Config(n_layer=8, n_head=4, n_embd=512, n_positions=64, vocab_size=5000)  # 112 MB, 10 the largest
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), gpt2.shapes(config))
    weights.save(tmp_path / "m", ones, config)
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "m")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert float(ran.stdout) < 1.3
