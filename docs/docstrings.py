"""Reads docstrings and signatures as the source has them: Google style, code in backticks, [B, *S, K]."""

import ast
import copy
import dataclasses
import functools
import inspect
import re
import sys
import textwrap
from typing import Any

from docutils.nodes import Node
from public_names import home, module_of
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

PACKAGES = ("d3pm_jax", "torch_ref")
PROSE = ("module", "class", "exception", "function", "method")  # what has Args, Returns and Raises
FIELD = re.compile(
    r"(?m)^(?:    # (?P<above>.*)\n)?    (?P<name>[a-zA-Z]\w*): [^#\n]*?(?:  # (?P<beside>.*))?$"
)


def to_rst(text: str) -> str:
    """Escapes the stars and bars of a docstring, as in [B, *S, K], and makes code of its indented blocks."""

    def escape(match: re.Match[str]) -> str:
        return f"\\{match[0]}" if match[0] in ("*", "|") else match[0]

    text = re.sub(r"(?m)^\|-.*\n", "", text)  # of a table, whose other lines stay lines
    text = re.sub(r"(?m)`[^`]*`|(?<!\S)\*\w+\*|^\| |[*|]", escape, text)
    code = re.compile(r"(?m)(^\S.*\n\n)(?= {4})((?: {4}.*\n|\n)+)")
    return code.sub(lambda match: f"{match[1]}::\n\n" + re.sub(r"\\([*|])", r"\1", match[2]), text)


class Docstring(GoogleDocstring):
    """Args, Returns and Raises, where returns are prose: a colon there ends no type."""

    def _consume_returns_section(self, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
        return [("", "", self._dedent(self._consume_to_next_section()))]


def described_fields(cls: type) -> list[str]:
    """Returns the fields of a named tuple, each with the comment above or beside it."""
    matches = [match for match in FIELD.finditer(inspect.getsource(cls)) if match["above"] or match["beside"]]
    return [f"    {match['name']}: {match['above'] or match['beside']}" for match in matches]


def read_docstring(app: Sphinx, what: str, name: str, x: Any, options: object, lines: list[str]) -> None:
    """Turns a docstring into reStructuredText."""
    fields = described_fields(x) if inspect.isclass(x) and issubclass(x, tuple) else []
    lines += ["", "Attributes:", *fields] if fields else []
    lines[:] = to_rst("\n".join(lines)).split("\n")
    if what in PROSE:
        sections = [("Args, Returns", "returns_style"), ("Args, Raises", "returns_style")]
        config = Config(
            napoleon_use_ivar=True, napoleon_attr_annotations=False, napoleon_custom_sections=sections
        )
        lines[:] = Docstring(lines, config, app, what, name, x, options).lines()


def skip_undescribed(app: Sphinx, what: str, name: str, x: Any, skip: bool, options: object) -> bool | None:
    """Skips fields of named tuples, which the signature has and Python describes by their number."""
    return True if (inspect.getdoc(x) or "").startswith("Alias for field number") else None


@functools.cache
def parsed(x: Any) -> Any:
    """Returns the syntax tree of a function or a class."""
    return ast.parse(textwrap.dedent(inspect.getsource(x))).body[0]


class Qualified(ast.NodeTransformer):
    """Writes names of ours in full after a ~, with which Sphinx links them and shows their last part."""

    def __init__(self, module: str):
        self.module = module

    def visit_arguments(self, node: ast.arguments) -> ast.arguments:
        for argument in (x for x in ast.walk(node) if isinstance(x, ast.arg)):
            self.visit(argument)  # and no default, which is not linked
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.qualified(node, self.module, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        module = module_of(self.module, ast.unparse(node.value))
        return self.qualified(node, module, node.attr) if module else node

    def qualified(self, node: ast.expr, module: str, name: str) -> ast.expr:
        module, name = home(module, name)
        return ast.Name(f"~{module}.{name}") if hasattr(sys.modules[module], name) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.slice, ast.Tuple) and ast.unparse(node.value) == "Annotated":
            return self.visit(node.slice.elts[0])  # without what is allowed
        return self.generic_visit(node)


def written(node: ast.AST, module: str) -> str:
    """Returns an annotation or the arguments of a function of a module as text."""
    text = ast.unparse(Qualified(module).visit(copy.deepcopy(node)))
    return text.replace("Array, ' ", "Array, '")  # jaxtyping lets one axis have a space before it


def written_fields(cls: type) -> str:
    """Returns the arguments of a dataclass or a named tuple, as its body and those of its bases have them."""
    ours = [c for c in reversed(cls.__mro__) if c.__module__.startswith(PACKAGES)]
    nodes = [(node, c) for c in ours for node in parsed(c).body if isinstance(node, ast.AnnAssign)]
    texts = {}
    for node, c in nodes:
        name = ast.unparse(node.target)
        default = f" = {ast.unparse(node.value)}" if node.value else ""
        texts[name] = f"{name}: {written(node.annotation, c.__module__)}{default}"
    return ", ".join(texts[name] for name in inspect.signature(cls).parameters)


def write_signature(
    app: Sphinx, what: str, name: str, x: Any, options: object, arguments: str | None, returns: str | None
) -> tuple[str, str] | None:
    """Returns a signature with its annotations as the source has them: `denoise: Denoise`."""
    if arguments is None:
        return None
    if inspect.isclass(x) and (dataclasses.is_dataclass(x) or issubclass(x, tuple)):
        return f"({written_fields(x)})", ""
    f = inspect.unwrap(x.__init__ if inspect.isclass(x) else getattr(x, "__func__", x))
    if not inspect.isfunction(f) or not f.__module__.startswith(PACKAGES):
        return None
    node = parsed(f)
    arguments = re.sub(r"^(self|cls)(, |$)", "", written(node.args, f.__module__))
    if inspect.isclass(x) or node.returns is None:
        return f"({arguments})", ""
    return f"({arguments})", written(node.returns, f.__module__)


def link_exactly(app: Sphinx, page: Node) -> None:
    """Has Sphinx link the type of an argument only by its full name, not to whatever ends like it."""
    for link in page.findall(pending_xref):
        if link.get("refspecific") is False:
            del link["refspecific"]


def show_without_link(app: Sphinx, env: object, node: Any, text: Node) -> Node | None:
    """Shows a type that exists and has no entry, such as a private base, by its name."""
    module, _, name = node["reftarget"].rpartition(".")
    is_type = node["reftype"] == "class" and hasattr(sys.modules.get(module), name)
    return text if is_type else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-skip-member", skip_undescribed)
    app.connect("doctree-read", link_exactly)
    app.connect("missing-reference", show_without_link)
