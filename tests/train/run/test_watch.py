"""What stops a run, and what is kept of its metrics."""

import json
import math

import pytest

from refgrad.train.run.metrics import Metrics, read
from refgrad.train.run.watch import FEWEST, Watch


def test_numbers_that_are_not_finite():
    watch = Watch(0, [])
    assert watch.wrong(1.0, 2.0) is None
    assert watch.wrong(math.nan, 2.0) == "the loss is nan"
    assert watch.wrong(1.0, math.inf) == "the loss is 1.0000, but the gradients' norm is inf"


def test_a_spike_is_of_the_median_of_enough_losses():
    watch = Watch(2.0, [])
    for n in range(FEWEST):
        assert watch.wrong(100.0 if n == 3 else 1.0, 1.0) is None
    assert watch.wrong(1.9, 1.0) is None
    assert "more than 2 times the median of the last 21, 1.0000" in (watch.wrong(2.1, 1.0) or "")
    assert Watch(0, [1.0] * 50).wrong(1e9, 1.0) is None
    assert Watch(2.0, [5.0] * 500 + [1.0] * 100).wrong(2.1, 1.0)  # those of long ago do not count


DAMAGED = {
    "bit": b'{"step": 2, "loss" 1.0}\n',
    "list": b"[2]\n",
    "no step": b'{"loss": 1.0}\n',
    "step": b'{"step": "2"}\n',
    "value": b'{"step": 2, "loss": "1.0"}\n',
    "bytes": b"\xff\xfe\n",
    "empty": b"\n",
    "brackets": b"[" * 200_000 + b"\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metrics_are_named(name, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n' + DAMAGED[name])
    for reading in (read, lambda path: Metrics(path, 2)):
        with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is damaged: .* back .* or remove it"):
            reading(path)


def test_metrics_are_cut_and_go_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Metrics(path, 0) as log:
        for n in range(1, 6):
            log.add(n, loss=1 / n)
        with pytest.raises(ValueError, match="another process trains in"):
            Metrics(path, 5)
    with open(path, "ab") as file:
        file.write(b'{"step": 6, "lo')  # killed while it wrote
    assert [line["step"] for line in read(path)] == [1, 2, 3, 4, 5]
    with Metrics(path, 3) as log:
        assert [line["step"] for line in log.lines] == [1, 2, 3]
        log.add(4, loss=9.0)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        *({"step": n, "loss": 1 / n} for n in (1, 2, 3)),
        {"step": 4, "loss": 9.0},
    ]
