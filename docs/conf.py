"""Sphinx's settings. `python -m sphinx -W --keep-going docs build/site` builds the site, and runs its code."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "refgrad"
author = "The refgrad authors"
copyright = "The refgrad authors, Apache-2.0"
version = release = installed("refgrad")

extensions = ["myst_nb", "generate", "execute"]
exclude_patterns = ["extensions", "build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

html_theme = "furo"
html_title = "refgrad"
html_static_path = ["static"]
html_css_files = ["refgrad.css"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
