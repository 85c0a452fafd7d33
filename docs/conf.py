"""Sphinx settings; the documentation builds without a network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from pman import __version__  # noqa: E402  # found through the line above

project = "pman"
copyright = "2016-2026 the pman authors"  # the name is Sphinx's
release = __version__
extensions = ["pman_tables"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px"}
html_show_sourcelink = False
highlight_language = "none"
nitpicky = True
