"""The table of small networks as `refgrad verify` shows it: green as it is, red where a fault is planted."""

import dataclasses

import pytest

from refgrad.models.networks import NETWORKS
from refgrad.ops import OpCost
from refgrad.report.networks import network_table, verify_network
from tests.ops.test_planted import planted

NAME = "linear classifier"


@pytest.mark.parametrize("name", ["one hidden layer", NAME])
def test_holds(name, x64):
    result = verify_network(name, NETWORKS[name], ["float64", "float32"])
    assert result.ok
    table = network_table([result])
    assert table.rows[0][-2:] == ["0", "ok"]
    assert result.data()["errors"]["float64"].keys() >= {"x"}


def test_a_fault_in_a_rule_is_red(x64):
    with planted("hinge", {"x": "factor"}):
        result = verify_network(NAME, NETWORKS[NAME], ["float64"])
    assert not result.ok
    assert network_table([result]).rows[0][-1] == "FAIL"
    assert min(result.errors["float64"].values()) > 1e-5


def test_a_flop_too_many_is_red():
    network = NETWORKS[NAME]
    exact = network.exact | {"backward": OpCost(network.exact["backward"].flops + 1)}
    result = verify_network(NAME, dataclasses.replace(network, exact=exact), [])
    assert not result.ok
    assert network_table([result]).rows[0][-2:] == ["1", "FAIL"]
