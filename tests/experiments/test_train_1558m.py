"""The experiment on GPT-2 1.5B: too little memory is refused with what is missing, before anything is compiled."""

import pytest
import train_1558m
from train_1558m import Settings, train

LARGE = Settings(model="1.5B", batch=1, sequence=1024, steps=3, learning_rate=1e-4, allowed=21.5)


def test_too_little_memory_is_refused_before_anything_is_compiled(monkeypatch):
    def compiled(*_, **__):
        raise AssertionError("compiled before the check")

    monkeypatch.setattr(train_1558m, "available", lambda: 10e9)
    monkeypatch.setattr(train_1558m, "make_step", compiled)
    monkeypatch.setattr(train_1558m.allocator, "keep_temporaries", lambda: True)
    with pytest.raises(MemoryError, match=r"alone need 19\.2 GB, but 10 GB are available: 9\.19 GB are missing"):
        train(LARGE)
    monkeypatch.setattr(train_1558m, "available", lambda: 24e9)
    with pytest.raises(AssertionError, match="compiled before the check"):
        train(LARGE)
