"""Published FLOP conventions for one set of dimensions, and model FLOPs utilisation."""

import pytest

from refgrad.cost.conventions import CONVENTIONS, Dimensions, compare, matmul_flops
from refgrad.cost.peaks import PEAKS, Peak, mfu, peak

SMALL = Dimensions(n_layer=12, n_embd=768, n_head=12, vocab_size=50257, seq_len=1024)
XL = Dimensions(n_layer=48, n_embd=1600, n_head=25, vocab_size=50257, seq_len=1024)

# GF of one training step of GPT-2 124M, B = 1, T = 1024, by each convention
FLOPS = {
    "Kaplan 6N": 522_584_064_000,
    "6ND": 764_558_180_352,
    "llm.c": 822_540_238_848,
    "MaxText": 816_962_863_104,
    "Casson (OpenAI)": 816_972_300_288,
    "matmuls, exact": 874_944_921_600,
    "nanoGPT": 875_690_459_136,
    "PaLM": 880_522_297_344,
    "ELECTRA's script": 751_871_694_848,
    "Chinchilla F": 1_113_446_154_240,
}


def test_parameters_are_the_checkpoints():
    assert SMALL.parameters == 124_439_808
    assert XL.parameters == 1_557_611_200


def test_exact_products_of_124m():
    assert matmul_flops(SMALL) == 874_944_921_600


def test_each_convention():
    assert {c.name: c.flops(SMALL) for c in CONVENTIONS} == FLOPS


def test_the_range_of_ten_formulas():
    billions = sorted(c.flops(SMALL) / 1e9 for c in CONVENTIONS)
    assert len(billions) == 10
    assert (round(billions[0]), round(billions[-1])) == (523, 1113)


def test_all_but_batch_free_terms_scale_with_the_batch():
    twice = Dimensions(**{**vars(SMALL), "batch": 2})
    assert all(c.flops(twice) == 2 * c.flops(SMALL) for c in CONVENTIONS)


def test_the_difference_between_conventions_is_what_they_say_they_leave_out():
    by = {c.name: c.flops(SMALL) for c in CONVENTIONS}
    attention = 12 * 12 * 768 * 1024**2  # both products, forward and backward
    positions = 6 * 1024 * 768 * 1024
    assert by["PaLM"] - by["6ND"] == attention
    assert by["matmuls, exact"] - by["MaxText"] == attention // 2
    assert by["llm.c"] - by["6ND"] == attention // 2
    assert by["PaLM"] - by["nanoGPT"] == positions
    assert by["6ND"] - by["Kaplan 6N"] == 6 * 50257 * 768 * 1024 + positions
    assert by["Casson (OpenAI)"] - by["MaxText"] == 3 * 4 * 768 * 1024
    assert by["Chinchilla F"] - by["matmuls, exact"] == 6 * 1024 * 50257 * 768 + 9 * 12 * 12 * 1024**2


def test_every_row_has_a_source_and_says_what_it_leaves_out(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # no cell is wrapped
    assert all(c.source and c.leaves_out and c.formula for c in CONVENTIONS)
    text = compare(SMALL)
    assert all(c.name in text for c in CONVENTIONS) and "874,944,921,600" in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_layer": 0}, "n_layer=0"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"n_head": 7}, "n_embd=768 is not divisible by n_head=7"),
        ({"seq_len": 2048}, "seq_len=2048 exceeds n_positions=1024"),
    ],
)
def test_bad_dimensions(change, says):
    with pytest.raises(ValueError, match=says):
        Dimensions(**{**vars(SMALL), **change})


def test_mfu():
    assert mfu(seconds=2.0, flops=312e12, peak=peak("A100")) == 0.5
    assert mfu(seconds=1.0, flops=5e11, peak=1e12) == 0.5
    assert mfu(seconds=1.0, flops=5e11, peak=1e12, devices=2) == 0.25
    assert mfu(seconds=1.0, flops=2e12, peak=1e12) == 2.0


@pytest.mark.parametrize(("name", "value"), [("seconds", 0.0), ("flops", -1.0), ("peak", 0.0), ("devices", 0)])
def test_mfu_of_nothing(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        mfu(**{"seconds": 1.0, "flops": 1.0, "peak": 1.0, "devices": 1, name: value})


def test_peaks():
    assert peak("h100 sxm").flops_per_second == 989.4e12
    assert peak("H100 SXM", "tf32") == Peak("H100 SXM", "tf32", 494.7e12, peak("H100 SXM", "tf32").source)
    assert all(p.source for p in PEAKS)
    with pytest.raises(ValueError, match=r"no peak known for 'abacus'.*A100"):
        peak("abacus")
