"""optax, which is an extra: without it an experiment ends with the line that says how to install it."""

import sys
from pathlib import Path

from refgrad._extras import install

try:
    import optax
except ModuleNotFoundError:
    print(f"{Path(sys.argv[0]).name}: optax is not installed: {install('train')}", file=sys.stderr)
    sys.exit(2)

__all__ = ["optax"]
