"""n-gram models: the formula by hand, probabilities that sum to 1, samples that follow them, refusals."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from refgrad.train.text import ngrams
from refgrad.train.text.corpus import documents
from refgrad.train.text.ngrams import NGram

RNG = np.random.default_rng(0)
TEXT, OTHER = (np.minimum(RNG.geometric(0.4, n), 5).astype(np.uint8) for n in (300, 80))


def by_hand(text, vocab_size, order):
    """Witten and Bell's p(word, context), from dictionaries."""
    counts = defaultdict(Counter)
    for n in range(order):
        for place in range(n, len(text)):
            counts[tuple(text[place - n : place])][text[place]] += 1

    def p(word, context):
        shorter = p(word, context[1:]) if context else 1 / vocab_size
        seen = counts[context]
        if not seen:
            return shorter
        return (seen[word] + len(seen) * shorter) / (sum(seen.values()) + len(seen))

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_formula(order, monkeypatch):
    monkeypatch.setattr(ngrams, "CHUNK", 7)
    model = NGram(TEXT, 8, order)
    text, other = TEXT.tolist(), OTHER.tolist()
    p = by_hand(text, 8, order)
    losses = [-math.log(p(other[n], tuple(other[n - order + 1 : n]))) for n in range(order - 1, len(other))]
    assert model.loss(OTHER) == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    np.testing.assert_allclose(model.probabilities.sum(-1), 1, atol=1e-6)
    assert model.probabilities.min() > 0


def test_on_real_text_more_context_helps():
    data = np.frombuffer(b"".join(each.path.read_bytes() for each in documents()[:60]), np.uint8)
    split = len(data) * 9 // 10
    losses = [NGram(data[:split], 256, order).loss(data[split:]) for order in (1, 2)]
    assert math.log(256) > losses[0] > losses[1] + 0.3


def test_samples_follow_the_probabilities():
    model = NGram(TEXT, 8, 2)
    ids = model.sample(20_000, seed=0, start=1)
    assert ids.shape == (20_000,)
    assert ids.tolist() == model.sample(20_000, seed=0, start=1).tolist()
    assert ids.tolist() != model.sample(20_000, seed=1, start=1).tolist()
    for context in (1, 2):
        after = ids[1:][ids[:-1] == context]
        share = np.bincount(after, minlength=8) / len(after)
        assert np.abs(share - model.probabilities[context]).max() < 4 / np.sqrt(len(after))
    # The model's own samples are as likely as it says: loss = entropy.
    fresh = NGram(ids, 8, 2)
    assert model.loss(ids) == pytest.approx(fresh.loss(ids), abs=0.01)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: NGram(TEXT, 50257, 2), "50257 ids to the power 2 .*fit it to bytes"),
        (lambda: NGram(TEXT, 8, 0), "order is 0"),
        (lambda: NGram(TEXT[:2], 8, 3), "2 tokens are too few for order 3"),
        (lambda: NGram(TEXT, 4, 2), "id 5 is out of range: ids must be below 4"),
        (lambda: NGram(TEXT, 8, 2).loss(TEXT[:1]), "1 tokens are too few for order 2"),
        (lambda: NGram(TEXT, 8, 2).loss(np.array([1, 9])), "id 9 is out of range"),
    ],
)
def test_bad_input(call, error):
    with pytest.raises(ValueError, match=error):
        call()
