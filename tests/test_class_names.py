"""One name for one class: a reader who finds `Row` in a message knows which."""

import re
from collections import defaultdict
from pathlib import Path

import refgrad

ROOT = Path(refgrad.__file__).parent
SAME = {"Residuals"}  # of an operation, in its file; `cost.residuals` lists the bytes of them


def shared(files):
    """Return the names that more than one class has, with the files: (name of a file, its source) → names."""
    places = defaultdict(list)
    for name, source in files:
        for found in re.findall(r"^class (\w+)[:(]", source, re.MULTILINE):
            places[found].append(name)
    return {name: found for name, found in places.items() if len(found) > 1 and name not in SAME}


def test_no_two_classes_share_a_name():
    assert shared((str(path.relative_to(ROOT)), path.read_text()) for path in sorted(ROOT.rglob("*.py"))) == {}


def test_a_shared_name_is_seen():
    assert shared([("a", "class Row: ..."), ("b", "class Row:\n    ...\nclass Residuals: ...")]) == {"Row": ["a", "b"]}
