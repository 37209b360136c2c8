"""How Sphinx builds the site: strictly, and so that its pages load nothing from another host."""

import os
import re
import sys
from pathlib import Path

from jupyter_client import KernelManager
from sphinx.application import Sphinx
from sphinx.util import logging
from traitlets.log import get_logger

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # or JAX looks for other devices, and says what it lacks

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))  # where `docstrings`, `sections` and `explore` lie
SERVER = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
REPOSITORY = f"{SERVER}/{os.environ.get('GITHUB_REPOSITORY', 'd3pm-jax/d3pm-jax')}"

project = "d3pm_jax"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "docstrings",
    "sections",
]
html_theme = "furo"
html_title = project
html_favicon = "images/favicon.svg"
templates_path = ["templates"]
html_copy_source = False
html_search_scorer = str(ROOT / "docs" / "search.js")
smartquotes_action = "D"  # dashes, but no quotes: "d3pm" is a value
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

# The tutorials are executed at each build; other pages have no cells.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
KernelManager.transport_encryption.default_value = "auto"  # or each kernel warns that others may listen
get_logger().setLevel("WARNING")  # that a page is executed stands there already

# What is in single backticks is code, and a link where it is a name of the reference.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # `docstrings` has them, as they are written
autodoc_default_options = {"members": True, "show-inheritance": True}

nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # code in backticks need not be a name
    ("py:class", r"(?!(d3pm_jax|torch_ref)\.).*"),  # types of others, whose pages are on other hosts
]


def link_to_repository(app: Sphinx, page: str, text: list[str]) -> None:
    """Makes links to files outside of docs/, such as ../README.md, lead to the repository."""
    docs = ROOT / "docs"
    folder = (docs / page).parent

    def link(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match["path"]))
        if target.is_relative_to(docs):
            return match[0]
        if not target.exists():
            logging.getLogger(__name__).warning("there is no %s", match["path"], location=page)
        return f"]({REPOSITORY}/blob/main/{target.relative_to(ROOT)}"

    text[0] = re.sub(r"\]\((?P<path>\.\./[^)#]+)", link, text[0])


def write_explorer(app: Sphinx, error: Exception | None) -> None:
    """Writes the page that explore.md shows in a frame."""
    from explore import build_page, compute_cases

    if error is None and app.builder.format == "html":
        (app.outdir / "explorer.html").write_text(build_page(compute_cases()))


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_to_repository)
    app.connect("build-finished", write_explorer)
