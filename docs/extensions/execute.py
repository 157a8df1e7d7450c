"""Run the Python blocks of every Markdown page while the site is built, and show below each block what it prints.

The blocks of a page share one namespace, from top to bottom, as in one script. All pages run in this process, so that
JAX is loaded once. An exception is a warning of Sphinx, which `-W` makes an error. The pages of `ELSEWHERE` are left
out, because their blocks are files that tests run, and so are blocks that begin with `HIPRIM` under a JAX without it.
"""

import contextlib
import io
import os
import re
import traceback

import jax
from jax.experimental import hijax
from sphinx.application import Sphinx
from sphinx.util import logging

BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
ELSEWHERE = ("switch-it-on", "found/")  # tests/verify/test_docs.py, experiments/found.py
HIPRIM = "# where JAX has HiPrim"
NAMES = "# with your own names"  # the block shows a call and has no definitions

os.environ["COLUMNS"] = "88"  # of what a block prints: the width of a page

logger = logging.getLogger(__name__)


def run_blocks(app: Sphinx, page: str, source: list[str]) -> None:
    """Put below each Python block of the page what it prints."""
    if page.startswith(ELSEWHERE):
        return
    namespace = {"__name__": page}
    source[0] = BLOCK.sub(lambda block: _with_output(page, block, namespace), source[0])


def _with_output(page: str, block: re.Match[str], namespace: dict) -> str:
    code = block[1]
    if code.startswith(NAMES) or (code.startswith(HIPRIM) and not hasattr(hijax, "HiPrim")):
        return block[0]
    shown = io.StringIO()
    line = block.string.count("\n", 0, block.start()) + 1
    try:
        with contextlib.redirect_stdout(shown), jax.enable_x64(False):
            exec(compile("\n" * line + code, f"{page}.md", "exec"), namespace)
    except Exception:
        logger.warning("the code fails:\n%s", traceback.format_exc(), location=(page, line))
    text = shown.getvalue().rstrip()
    return f"{block[0]}\n```text\n{text}\n```\n" if text else block[0]


def setup(app: Sphinx) -> dict:
    """Register the extension."""
    app.connect("source-read", run_blocks)
    return {"parallel_read_safe": False}
