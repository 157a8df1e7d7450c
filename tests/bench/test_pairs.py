"""Pairs: turns alternate, first calls are discarded, and contenders that differ or die are named."""

import pytest

from refgrad.bench import pairs
from refgrad.bench.process import Process


class Fake:
    """A process that takes `slow` or `fast` seconds a call, and notes the order of the turns."""

    order: list = []  # noqa: RUF012
    seconds = {"autodiff": 1.0, "half": 0.5, "other": 0.5}  # noqa: RUF012
    losses = {"autodiff": 4.0, "half": 4.0, "other": 4.1}  # noqa: RUF012

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def ask(self, request):
        if "build" in request:
            assert request["build"]["contender"] == self.name
            return {"compile_s": None, "trace_s": None, "temporaries": 8}
        self.order.append(self.name)
        n = request["steps"]
        seconds = [9.0, *[self.seconds[self.name]] * (n - 1)]
        return {
            "seconds": seconds,
            "faults": [10 - len(self.order)] * n,
            "losses": [self.losses[self.name]] * n,
            "peak": 7,
        }


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(pairs, "Process", Fake)
    Fake.order = []


def test_ratios_are_of_calls_after_the_first_and_turns_alternate(fake):
    said = []
    pair = pairs.run_pair("half", {}, 3, "float32", said.append)
    assert pair.ratio == 0.5
    assert pair.spread == (0.5, 0.5)
    assert pair.contender.compile == 9.0 - 0.5  # what the first call took beyond the later ones
    assert Fake.order[2:] == ["autodiff", "half", "half", "autodiff", "autodiff", "half"]
    assert said[-1] == "half: round 3 of 3"
    assert (pair.baseline.faults, pair.contender.faults) == (3, 2)  # of the last call, when the heap has settled


def test_another_loss_is_refused(fake):
    with pytest.raises(ValueError, match=r"other starts at a loss of 4\.1, but autodiff at 4\.0"):
        pairs.run_pair("other", {}, 1, "float32", lambda _: None)


def test_a_failing_contender_is_named_with_its_error():
    work = {"config": {"n_embd": 7}, "batch": 1, "sequence": 4, "keep_temporaries": False}
    with Process("derived") as side, pytest.raises(ChildProcessError, match="derived: ValueError: n_embd is 7"):
        side.ask({"build": {"contender": "derived", **work}})


def test_a_killed_contender_is_named_with_its_exit_code():
    with Process("fused") as side:
        side._process.kill()
        with pytest.raises(ChildProcessError, match=r"fused: its process ended with exit code -9 \(killed"):
            side.ask({"steps": 1})
