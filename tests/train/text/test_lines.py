"""Lines that Python's tokenizer accepts, and those that it does not."""

import platform

import pytest

from refgrad.train.text.corpus import documents
from refgrad.train.text.lines import accepted, accepts

GOOD = [
    "f'{x!r:>{n}}'",
    "x = 1",
    "    return x",
    "def f(a, b):",
    "# 'any (thing",
    "two words of prose",
    "'a' + \"b\"",
    "else:",
    "\tpass",
]
BAD = [
    "x = (1",
    "'unfinished",
    '"""a docstring',
    "print('a",
    "cost: 5 $",
    "a = ?",
    "x \\",
    "{[",
    "\ufffd",
    "\ufffd\r\ufffd",
    "x\xa0= 1",
]


@pytest.mark.parametrize("line", GOOD)
def test_accepted(line):
    assert accepts(line)


@pytest.mark.parametrize("line", BAD)
def test_refused(line):
    assert not accepts(line)


def test_share():
    text = "\n\n".join(GOOD + BAD) + "\0   \n\0x = 2\0y = (3\ncut of"
    found = accepted(text)
    assert (found.lines, found.accepted) == (len(GOOD) + len(BAD) + 2, len(GOOD) + 1)
    assert found.share == (len(GOOD) + 1) / (len(GOOD) + len(BAD) + 2)
    assert str(found).endswith(f"accepted by the tokenizer of Python {platform.python_version()}")
    assert accepted("").share == 0
    assert accepted("a = 1\nb = (", "c = 2\n\0d").lines == 2  # each text's last line is cut off


def test_real_source_is_mostly_accepted():
    text = next(each.path for each in documents() if each.path.name == "tokenize.py").read_text(encoding="utf-8")
    assert 0.7 < accepted(text).share < 1
