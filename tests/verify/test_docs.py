"""The how-to's code, run as a reader would run it: from top to bottom."""

import pathlib
import re

import pytest
from jax.experimental import hijax

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "verify-your-rule.md"


@pytest.mark.slow
def test_the_how_to_runs(capsys):
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    assert len(code) >= 10
    code = [block for block in code if "my_op" not in block]  # the opening line, with a reader's own names
    if not hasattr(hijax, "HiPrim"):
        code = [block for block in code if not block.startswith("# where JAX has HiPrim")]
    exec(compile("\n".join(code), str(PAGE), "exec"), {"__name__": "how_to"})
    shown = capsys.readouterr().out
    assert "forward mode ⟨cotangent, J·v⟩" in shown
    assert "accuracy  x" in shown
    assert "w: negated" in shown
