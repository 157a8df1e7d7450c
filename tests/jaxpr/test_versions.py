"""Rows with a version beside them: the newest that is not above the installed JAX."""

import pytest

from refgrad.jaxpr import versions


@pytest.mark.parametrize(
    ("running", "expected"),
    [((0, 10, 2), "first"), ((0, 11, 0), "second"), ((0, 11, 2), "second"), ((0, 12, 0), "third"), ((1, 0), "third")],
)
def test_the_newest_row_applies(monkeypatch, running, expected):
    monkeypatch.setattr(versions, "RUNNING", running)
    assert versions.newest({(0, 10): "first", (0, 12): "third", (0, 11): "second"}) == expected


def test_no_row_is_old_enough(monkeypatch):
    monkeypatch.setattr(versions, "RUNNING", (0, 10, 2))
    with pytest.raises(ValueError, match="oldest is of"):
        versions.newest({(0, 11): 1})


def test_the_running_version_is_a_tuple_of_numbers():
    assert versions.at_least((0, 10, 2)) and not versions.at_least((99,))
    assert all(isinstance(part, int) for part in versions.RUNNING)
