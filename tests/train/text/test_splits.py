"""The place at which a file alone is divided."""

from io import BytesIO

import pytest

from refgrad.train.text.splits import _line_after


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"x" * 26 + b"\n" + b"y" * 25, 27),
        (b"x" * 50 + b"\nab", 51),  # the last line starts within three bytes of the end
        (b"x" * 52 + b"\n", 26),  # no line starts after the newline that ends the file
        ("ж".encode() * 26 + b"x", 26),
    ],
)
def test_the_second_part_starts_a_line_nearby_or_a_character(text, place):
    assert _line_after(BytesIO(text), len(text), 0.5) == place
