"""Checkpoints: what is damaged is named and passed over, what cannot be written is said, the last good one stays."""

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from refgrad.models import gpt2
from refgrad.models.inputs import named_leaves
from refgrad.train.optimiser import init_state
from refgrad.train.run import checkpoints, restore
from refgrad.train.run.checkpoints import Checkpoints
from refgrad.train.run.restore import CheckpointError

CONFIG = gpt2.Config(n_layer=1, n_head=2, n_embd=32, n_positions=8, vocab_size=256)


def state(n):
    """A state with nothing but noise in it."""
    zeros = init_state(gpt2.init(jax.random.key(n), CONFIG), optax.adamw(1e-3))
    leaves, tree = jax.tree.flatten(zeros)
    keys = jax.random.split(jax.random.key(n), len(leaves))
    noise = [x + (jax.random.normal(key, x.shape) if x.ndim else n) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noise)


def shapes(sharding=None):
    here = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), state(0))


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the checkpoints of steps 1 to 3, of which 2 and 3 were kept."""
    folder = tmp_path_factory.mktemp("written") / "checkpoints"
    written = Checkpoints(folder, keep=2)
    for step in (1, 2, 3):
        written.save(step, state(step), {"position": 10 * step})
    written.finish()
    assert written.steps() == [2, 3]
    return folder


@pytest.fixture
def copy(written, tmp_path):
    """A copy to damage."""
    target = tmp_path / "checkpoints"
    subprocess.run(["cp", "-r", written, target], check=True)
    return target


def test_what_was_written_comes_back_and_donation_does_not_touch_it(tmp_path):
    add = jax.jit(lambda state: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state), donate_argnums=0)
    written, now = Checkpoints(tmp_path / "checkpoints"), state(7)
    want = jax.tree.map(np.array, now)
    written.save(7, now, {"position": 3})
    for _ in range(3):
        now = add(now)  # while it is written
    written.finish()
    said = []
    got, found = written.restore(shapes(), said.append)
    chex.assert_trees_all_equal(got, want)
    assert (found.step, found.about["position"], said) == (7, 3, [])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "bit": (flipped, lambda folder: largest(folder / "3" / "params"), r"params\.\S+ (is not what was|cannot be read)"),
    "moments": (flipped, lambda folder: largest(folder / "3" / "opt_state"), r"opt_state\.0\.(mu|nu)\.\S+ "),
    "truncated": (halved, lambda folder: largest(folder / "3" / "params"), r"params\.\S+ cannot be read"),
    "gone": (lambda path: path.unlink(), lambda folder: largest(folder / "3" / "params"), "params"),
    "form": (flipped, lambda folder: folder / "3" / "opt_state" / "_METADATA", "opt_state cannot be read"),
    "about": (flipped, lambda folder: folder / "3" / "about" / "metadata", "about (is not what was|cannot be read)"),
    "no about": (
        lambda path: path.unlink(),
        lambda folder: folder / "3" / "about" / "metadata",
        "about cannot be read",
    ),
}


RARER = ("moments", "gone", "no about", "form", "about", "truncated")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in RARER)) for name in DAMAGE])
def test_a_damaged_one_is_named_and_the_one_before_taken(name, copy):
    damage, path, message = DAMAGE[name]
    damage(path(copy))
    said = []
    got, found = Checkpoints(copy).restore(shapes(), said.append)
    assert found.step == 2
    chex.assert_trees_all_equal(got, state(2))
    (text,) = said
    assert str(copy / "3") in text and text.endswith("the one before is taken")
    with pytest.raises(CheckpointError, match=message):
        restore.read(copy / "3", named_leaves(shapes()))


@pytest.mark.slow
def test_all_damaged(copy):
    flipped(largest(copy / "2" / "params"))
    halved(largest(copy / "3" / "params"))
    said = []
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole"):
        Checkpoints(copy).restore(shapes(), said.append)
    assert len(said) == 2


def test_a_damaged_one_is_written_anew(copy):
    flipped(largest(copy / "3" / "params"))
    again = Checkpoints(copy, keep=1)
    assert again.restore(shapes(), print)[1].step == 2
    again.save(3, state(3), {})
    assert 2 in again.steps()  # it is the last good one until the other is complete
    again.finish()
    got, found = again.restore(shapes(), print)
    assert (again.steps(), found.step) == ([3], 3)
    chex.assert_trees_all_equal(got, state(3))


def test_names_that_are_no_steps(copy):
    for name in ("²", "٣", "notes", "7.tmp"):
        (copy / name).mkdir()
    assert restore.complete(copy) == [2, 3]


def test_none_and_another_model(written, tmp_path):
    assert Checkpoints(tmp_path / "nothing").restore(shapes(), print) is None
    other = shapes()._replace(params={"wte": {"weight": jax.ShapeDtypeStruct((3, 2), jnp.float32)}})
    with pytest.raises(ValueError, match=r"params\.wte\.weight of shape \(256, 32\), but this run's is .*\(3, 2\)"):
        Checkpoints(written).restore(other, print)


def test_what_reads_back_otherwise_does_not_count(written, tmp_path, monkeypatch):
    saved = Checkpoints(tmp_path / "checkpoints")
    saved.save(1, state(1), {})
    saved.finish()
    true = checkpoints.digests
    monkeypatch.setattr(checkpoints, "digests", lambda leaves: dict.fromkeys(true(leaves), "0" * 16))
    saved.save(2, state(2), {})
    monkeypatch.setattr(checkpoints, "digests", true)
    with pytest.raises(CheckpointError, match=r"step 2 .* something else than was written; .* step 1"):
        saved.finish()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


@pytest.mark.slow
def test_restored_on_a_mesh(written):
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def sharding(leaf):
        return NamedSharding(mesh, PartitionSpec("fsdp") if leaf.ndim and leaf.shape[0] % 4 == 0 else PartitionSpec())

    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(x)), shapes())
    got, _ = Checkpoints(written).restore(like, print)
    assert got.params["wte"]["weight"].sharding == like.params["wte"]["weight"].sharding
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, got), jax.tree.map(np.asarray, state(3)))


FULL = """
import resource, signal, sys
from pathlib import Path
from refgrad.train.run.checkpoints import Checkpoints
from refgrad.train.run.restore import CheckpointError
from tests.train.run.test_checkpoints import shapes, state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
saved = Checkpoints(Path(sys.argv[1]))
saved.save(1, state(1), {})
saved.finish()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    saved.save(2, state(2), {})
    saved.finish()
except CheckpointError as error:
    print(error)
    print(sorted(path.name for path in Path(sys.argv[1]).iterdir()), saved.restore(shapes(), print)[1].step)
"""


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    """A file may not grow beyond 20 kB: the system's error is that of a full disk but for its number."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "checkpoints")], capture_output=True, text=True, timeout=120
    )
    said, left = done.stdout.splitlines()[-2:]
    assert "step 2 could not be written" in said and "the disk has no space left" in said
    assert said.endswith("the last good one is that of step 1")
    assert left == "['1'] 1"
