"""Experiments are scripts: their folder comes first on the path, as when one runs them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
