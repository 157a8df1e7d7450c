"""The experiment on gradients over time: it holds in small, and says so where a derived gradient is wrong."""

import dataclasses

import rnn_gradients
from rnn_gradients import Settings, run

from refgrad.models import rnn

SMALL = Settings(
    radii=[0.5, 2.0],
    drawn=[0.5],
    amplitudes=[0.01, 1.0],
    steps=6,
    hidden=5,
    inputs=2,
    outputs=3,
    batch=4,
    close=10.0,
    seed=0,
)


def test_holds_and_finds_a_step_that_is_wrong(monkeypatch):
    result = run(SMALL)
    assert not result.failures
    assert len(result.table.rows) == 4 and result.data is not None and len(result.data.rows) == 4 * 5
    right = rnn.gradient_norms
    monkeypatch.setattr(rnn_gradients.rnn, "gradient_norms", lambda *args: right(*args).at[2].mul(1.001))
    failures = run(dataclasses.replace(SMALL, steps=7)).failures  # another length is traced anew
    assert all(f"radius {radius:g}, inputs of {size:g}" in str(failures) for radius in (0.5, 2) for size in (0.01, 1))
    assert "from autodiff's" in failures[0]
