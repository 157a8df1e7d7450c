"""Meshes, the rows of each process, and arguments that do not fit together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from refgrad.models import gpt2
from refgrad.train.mesh import devices
from refgrad.train.settings import Mesh, Settings, Train


def test_a_mesh_has_the_axes_that_are_shared():
    mesh = devices.make({"data": 2, "fsdp": 1, "model": 2})
    assert dict(mesh.shape) == {"data": 2, "model": 2}
    assert mesh.axis_types == (AxisType.Auto,) * 2
    assert devices.make({"fsdp": 2}, "explicit").axis_types == (AxisType.Explicit,)


@pytest.mark.parametrize(
    ("sizes", "kind", "message"),
    [
        ({"data": 8}, "auto", "mesh.data = 8 is 8 devices, but JAX sees 4 .*JAX_NUM_CPU_DEVICES=8"),
        ({"date": 2}, "auto", "date is not an axis of a mesh: did you mean data"),
        ({"data": 0}, "auto", "mesh.data is 0, but must be at least 1"),
        ({"data": 2}, "manual", "axis_types is 'manual', but must be one of 'auto', 'explicit'"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(sizes, kind, message):
    with pytest.raises(ValueError, match=message):
        devices.make(sizes, kind)


def test_a_mesh_as_text():
    assert devices.parse("data=2, model=4") == {"data": 2, "model": 4}
    for text, message in (
        ("data", "not of the form"),
        ("data=-1", "not of the form"),
        ("data=²", "not of the form"),
        ("data=٣", "not of the form"),
        ("data=2,data=2", "has data twice"),
        ("data=2,tensor=2", "tensor is not an axis"),
        ("model=0", "must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            devices.parse(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1234", None, None), "--processes and --process missing"),
        ((None, 2, 0), "--coordinator missing"),
        (("host", 2, 0), "--coordinator host: give HOST:PORT"),
        (("host:99999", 2, 0), "give HOST:PORT"),
        (("host:1234", 0, 0), "--processes is 0"),
        (("host:1234", 2, 2), "--process is 2, but must be from 0 to 1"),
        (("host:١٢", 2, 0), "give HOST:PORT"),
        (("host:2²", 2, 0), "give HOST:PORT"),
        (("detect", 2, None), "finds the processes by itself"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        devices.connect(*given)


@pytest.mark.parametrize("error", [ValueError("coordinator_address should be defined."), KeyError("SLURM_NODEID")])
def test_where_no_cluster_is_found_it_says_so(error, monkeypatch):
    def initialize(**_):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)  # JAX has started: the true one says that alone
    with pytest.raises(ValueError, match=r"--coordinator detect: JAX finds no cluster .* --process K to each process"):
        devices.connect("detect", None, None)


def test_alone_there_is_nothing_to_join():
    devices.connect(None, None, None)
    assert devices.first() and not jax.distributed.is_initialized()


def test_too_many_virtual_devices():
    with pytest.raises(RuntimeError, match="64 CPU devices are needed, but JAX has started with 4"):
        devices.simulate(64)
    with pytest.raises(ValueError, match="at most"):
        devices.simulate(10**6)
    devices.simulate(2)


def test_rows_and_a_global_batch():
    mesh = devices.make({"data": 2, "model": 2})
    assert devices.rows(mesh) == devices.rows(None) == (0, 1)
    ids = np.arange(24, dtype=np.int32).reshape(4, 6)
    array = devices.batch_array(mesh, ids)
    assert array.shape == (4, 6) and array.sharding.shard_shape(array.shape) == (2, 6)
    np.testing.assert_array_equal(array, ids)


def test_a_state_is_made_where_it_lives_and_is_the_same():
    config = gpt2.Config(n_layer=1, n_head=2, n_embd=8, n_positions=4, vocab_size=7)
    mesh = devices.make({"fsdp": 2, "model": 2})
    made = devices.make_state(mesh, lambda key: gpt2.init(key, config), jax.random.key(0))
    weight = made["h"][0]["mlp"]["c_fc"]["weight"]
    assert weight.sharding.shard_shape(weight.shape) == (4, 16)
    alone = gpt2.init(jax.random.key(0), config)
    for one, other in zip(jax.tree.leaves(devices.whole(made)), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=4 * float(jnp.finfo(jnp.float32).eps), atol=0)


def test_a_run_is_held_against_its_mesh_first():
    small = gpt2.Config(n_layer=1, n_head=2, n_embd=8, n_positions=4, vocab_size=256)

    assert devices.make_for(small, 2, 4, {"data": 1}) is None
    assert dict(devices.make_for(small, 2, 4, {"data": 2}).shape) == {"data": 2}
    with pytest.raises(ValueError, match=r"the batch is 2, which mesh\.data = 4 does not divide"):
        devices.make_for(small, 2, 4, {"data": 4})
    with pytest.raises(ValueError, match=r"^train\.memory is 'fast', .* on a mesh take memory = 'plain'"):
        Settings(model=small, train=Train(batch=4, sequence=4, memory="fast"), mesh=Mesh(data=2))
