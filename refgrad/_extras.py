"""The command that installs an optional dependency here, for messages that name it."""

import re
from importlib import metadata
from pathlib import Path


def install(extra: str) -> str:
    """Return the command that installs what `extra` needs: the checkout's extra, or elsewhere the packages by name.

    No package index has refgrad itself.
    """
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '{root}[{extra}]'"
    try:
        needed = metadata.requires("refgrad") or []
    except metadata.PackageNotFoundError:
        needed = []
    names = [need.partition(";")[0].strip() for need in needed if re.search(f"extra == ['\"]{extra}['\"]", need)]
    return "pip install " + (" ".join(f"'{name}'" for name in names) or f"refgrad's extra {extra!r} from its checkout")
