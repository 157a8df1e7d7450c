"""Write the pages that are made from the package itself, before Sphinx reads any.

A page is written again where one of the files that it is made from is newer.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import api
import documents
import operations
from sphinx.application import Sphinx

EXTENSIONS = Path(__file__).parent


def generate(app: Sphinx) -> None:
    """Write every generated page that is missing or older than its sources."""
    folder = Path(app.srcdir)
    for name, make, sources in (*operations.pages(folder), *documents.pages(), *api.pages()):
        _write(folder / name, make, [*sources, *EXTENSIONS.glob("*.py")])


def _write(path: Path, make: Callable[[], str], sources: Iterable[Path]) -> None:
    if path.exists() and path.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return
    path.parent.mkdir(exist_ok=True)
    path.write_text(make(), encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Register the extension."""
    app.connect("config-inited", lambda app, config: generate(app))
    return {"parallel_read_safe": True}
