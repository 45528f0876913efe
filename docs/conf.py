"""Settings of Sphinx. ``make docs`` builds the pages; generated ones are written first (``docs/generate``)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sphinx.application import Sphinx

import kdkit
from docs.generate import write

write(Path(__file__).parent)

project = "kdkit"
release = version = kdkit.__version__
copyright = "the kdkit authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline", "deflist"]
suppress_warnings = ["myst.header"]
smartquotes = False
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
python_use_unqualified_type_names = True
napoleon_use_rtype = False
nitpicky = True
DOCUMENTED = r"kdkit\.(core\.(contracts|base\.errors|evaluation\.(metrics|zero_shot))|[A-Z])"
nitpick_ignore_regex = [("py:.*", rf"(?!{DOCUMENTED}).*")]
"""Other libraries and internals of kdkit are on no page."""

html_theme = "pydata_sphinx_theme"
html_title = "kdkit"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_nav_level": 2,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def escape_stars(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Shapes such as ``(B, *shape)`` are no emphasis."""
    lines[:] = [re.sub(r"(?<=[ (])(\*+)(?=\w)", lambda stars: stars[0].replace("*", r"\*"), line) for line in lines]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", escape_stars)
