"""Sampling: the filters' distributions on small vocabularies, and the loop against the full forward, token by token."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.models import gpt2
from refgrad.train import sampling
from refgrad.train.sampling import Sampling, generate

CONFIG = gpt2.Config(n_layer=1, n_head=3, n_embd=6, n_positions=8, vocab_size=11)
PROBABILITIES = (0.125, 0.5, 0.0625, 0.25, 0.0625)  # binary fractions: sums are exact


def parameters(config=CONFIG):
    random = np.random.default_rng(5)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), gpt2.shapes(config))


def kept(logits):
    return tuple(np.flatnonzero(np.isfinite(logits)))


@pytest.mark.parametrize(
    ("k", "ids"),
    [(1, (1,)), (2, (1, 3)), (3, (0, 1, 3)), (4, (0, 1, 2, 3, 4)), (5, (0, 1, 2, 3, 4))],  # ids 2 and 4 tie
)
def test_top_k(k, ids):
    logits = jnp.log(jnp.array([PROBABILITIES, PROBABILITIES[::-1]]))
    found = sampling.keep_top_k(logits, k)
    assert kept(found[0]) == ids
    assert kept(found[1]) == tuple(sorted(4 - i for i in ids))
    assert np.array_equal(found[0, list(ids)], logits[0, list(ids)])


@pytest.mark.parametrize(
    ("p", "ids"),
    [
        (1e-6, (1,)),
        (0.5, (1,)),
        (0.5001, (1, 3)),
        (0.75, (1, 3)),
        (0.76, (0, 1, 3)),
        (0.875, (0, 1, 3)),
        (0.9, (0, 1, 2, 3, 4)),
        (1.0, (0, 1, 2, 3, 4)),
    ],
)
def test_top_p(p, ids):
    logits = jnp.log(jnp.array([PROBABILITIES, PROBABILITIES[::-1]])) + 3.0
    found = sampling.keep_top_p(logits, p)
    assert kept(found[0]) == ids
    assert kept(found[1]) == tuple(sorted(4 - i for i in ids))


def test_top_p_keeps_the_least_set_that_reaches_p():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(50, 40)) * 3, jnp.float32)
    for p in (0.1, 0.5, 0.9, 0.99):
        found = np.asarray(sampling.keep_top_p(logits, p))
        probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
        for row, kept_row in zip(probabilities, np.isfinite(found), strict=True):
            assert row[kept_row].sum() >= p - 1e-6
            assert row[kept_row].sum() - row[kept_row].min() < p + 1e-6
            assert kept_row.all() or row[kept_row].min() > row[~kept_row].max()


@pytest.mark.parametrize("V", [1, 2])
def test_the_smallest_vocabularies(V):
    logits = jnp.zeros((1, V))
    for how in (Sampling(top_k=1), Sampling(top_p=0.3), Sampling(temperature=0.0)):
        ids = sampling.draw(jax.random.split(jax.random.key(0), 1), logits, how)
        assert 0 <= int(ids[0]) < V


@pytest.mark.parametrize(
    "how",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=2.0, top_k=3),
        Sampling(top_p=0.6),
        Sampling(temperature=0.7, top_k=4, top_p=0.9),
    ],
    ids=str,
)
def test_draws_follow_the_distribution(how):
    """Frequencies against probabilities worked out in NumPy from the definition, within 5 standard deviations."""
    logits = np.log(PROBABILITIES)
    p = np.exp(logits / how.temperature)
    p /= p.sum()
    if how.top_k:
        p = np.where(p >= np.sort(p)[-how.top_k], p, 0)
        p /= p.sum()
    for n in range(1, 6):
        nucleus = p >= np.sort(p)[-n]
        if p[nucleus].sum() >= how.top_p:
            break
    p = np.where(nucleus, p, 0) / p[nucleus].sum()
    draws = 20_000
    keys = jax.random.split(jax.random.key(7), draws)
    ids = sampling.draw(keys, jnp.tile(jnp.asarray(logits, jnp.float32), (draws, 1)), how)
    frequencies = np.bincount(ids, minlength=5) / draws
    assert np.all(np.abs(frequencies - p) <= 5 * np.sqrt(p * (1 - p) / draws))


def test_cold_and_greedy():
    logits = jnp.array([[1e4, -1e4, 1e4 - 1, 0.0], [0.0, 2.0, 2.0, 1.0]])
    keys = jax.random.split(jax.random.key(0), 2)
    assert sampling.draw(keys, logits, Sampling(temperature=0.0)).tolist() == [0, 1]  # the lowest of two
    cold = sampling.draw(keys, logits, Sampling(temperature=sampling.COLDEST))
    assert cold[0] == 0 and cold[1] in (1, 2)


SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 7), (5, 4), (8, 9), (19, 6))]


def seen(prompt, drawn, n_positions):
    """The tokens that the next one is drawn from, by the documented rule: a step at a time, no cache."""
    window = list(prompt[-n_positions:])
    for token in drawn:
        window = [*window, token] if len(window) < n_positions else [*window, token][-max(1, n_positions // 2) :]
    return window


@pytest.mark.parametrize(("prompt", "tokens"), [(3, 17), *SLOW])
def test_greedy_is_the_full_forwards_choice(prompt, tokens):
    params = parameters()
    given = np.random.default_rng(prompt).integers(0, 11, prompt)
    drawn = [int(ids[0]) for ids in generate(params, CONFIG, given, tokens, Sampling(temperature=0.0))]
    assert len(drawn) == tokens
    full = jax.jit(gpt2.logits, static_argnames="config")
    for n, token in enumerate(drawn):
        window = seen(given, drawn[:n], CONFIG.n_positions)
        padded = np.array(window + [0] * (CONFIG.n_positions - len(window)))  # what follows is not seen
        logits = full(params, padded, config=CONFIG)[len(window) - 1]
        assert token == int(np.argmax(logits)), n


def texts(**given):
    params, config = given.pop("params", parameters()), given.pop("config", CONFIG)
    return np.stack(list(generate(params, config, np.array([3, 1]), **{"tokens": 7, **given})), axis=1)


def test_a_seed_is_a_text():
    one, three = texts(seed=1), texts(seed=1, samples=3)
    assert np.array_equal(one, texts(seed=1))
    assert np.array_equal(one[0], three[0])
    assert len({tuple(row) for row in (*three, texts(seed=2)[0])}) == 4


def test_only_ids_below_vocab_size_are_drawn():
    drawn = texts(samples=99, tokens=1, vocab_size=3, how=Sampling(temperature=50.0))
    assert set(drawn.ravel().tolist()) == {0, 1, 2}


def test_a_program_for_the_prompt_and_one_for_every_token(monkeypatch):
    """Traced once for the prompt, once for a token, once where the text slides: not for every token."""
    traced = []
    extend = sampling.cached.extend
    monkeypatch.setattr(
        sampling.cached, "extend", lambda p, c, ids, config: traced.append(ids.shape) or extend(p, c, ids, config)
    )
    how = Sampling(temperature=0.0)
    texts(how=how, tokens=30, vocab_size=9)  # a program that no other test has compiled
    assert traced == [(1, 2), (1, 1), (1, 4)]
    texts(how=how, tokens=25, vocab_size=9, seed=4)
    assert len(traced) == 3


def test_damaged_parameters_are_said():
    params = parameters()
    params["ln_f"]["bias"] = params["ln_f"]["bias"].at[3].set(jnp.nan)
    with pytest.raises(ValueError, match="logits of token 0 are not all finite"):
        texts(params=params)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Sampling(temperature=-0.1), ValueError, "sampling.temperature is -0.1, but must be at least 0"),
        (lambda: Sampling(temperature=float("nan")), ValueError, "temperature is nan, but must be finite"),
        (lambda: Sampling(temperature=1e-30), ValueError, "temperature is 1e-30, but must be at least 1e-06, or 0"),
        (lambda: Sampling(top_k=-1), ValueError, "top_k is -1"),
        (lambda: Sampling(top_k=2.0), TypeError, "top_k is 2.0, but must be an integer"),
        (lambda: Sampling(top_p=0.0), ValueError, "top_p is 0.0, but must be above 0"),
        (lambda: Sampling(top_p=1.5), ValueError, "top_p is 1.5, but is a probability: take 1 for all ids"),
        (lambda: texts(how=Sampling(top_k=12)), ValueError, "top_k is 12, but must be at most 11"),
        (lambda: texts(tokens=0), ValueError, "tokens is 0, but must be at least 1"),
        (lambda: texts(samples=0), ValueError, "samples is 0"),
        (lambda: texts(seed=2**32), ValueError, "seed is 4294967296, but must be below"),
        (lambda: texts(vocab_size=12), ValueError, "vocab_size is 12, but must be at most 11"),
        (
            lambda: generate(parameters(), CONFIG, [11], 3),
            ValueError,
            r"prompt\[0\] is 11, but ids lie between 0 and 10",
        ),
        (lambda: generate(parameters(), CONFIG, np.zeros(0, int), 3), ValueError, r"prompt has shape \(0,\)"),
        (lambda: generate({}, CONFIG, [1], 3), ValueError, "params has no"),
    ],
)
def test_bad_values_are_named_before_anything_runs(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.slow
def test_one_position():
    config = gpt2.Config(n_layer=1, n_head=1, n_embd=4, n_positions=1, vocab_size=5)
    drawn = texts(params=parameters(config), config=config, how=Sampling(temperature=0.0), tokens=9)[0]
    full = gpt2.logits(parameters(config), np.arange(5)[:, None], config)[:, 0]
    assert all(b == np.argmax(full[a]) for a, b in itertools.pairwise([1, *drawn]))
