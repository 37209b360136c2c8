"""Builds HTML; text that is not `Html` is escaped."""

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np
from PIL import Image

LONGEST_CELL = 16  # characters of a cell that stands on one line
VOID = {"img", "input", "link", "meta"}


class Html(str):
    """Is HTML already, and is not escaped again."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Returns an element: `tag("p", "1 < 2", class_="soft")` is <p class="soft">1 &lt; 2</p>.

    Args:
        name: of the element.
        children: what is in it; text is escaped, None and "" are nothing.
        attributes: an underscore stands for a hyphen, one at the end for nothing; None leaves one out, True
            writes its name alone, and six digits of a float are enough.
    """
    start = f"<{name}"
    for key, value in attributes.items():
        if value is None:
            continue
        start += " " + key.rstrip("_").replace("_", "-")
        if value is not True:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            start += f'="{_escape(text)}"'
    if name in VOID:
        return Html(f"{start}>")
    return Html(f"{start}>{join_html(*children)}</{name}>")


def join_html(*children: object) -> Html:
    """Joins children to one piece of HTML; text is escaped, None is nothing."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif child is not None:
            parts.append(_escape(child))
    return Html("".join(parts))


def _escape(value: object) -> str:
    """Escapes text for HTML; "?" stands for halves of characters, which are no UTF-8."""
    return escape(str(value).encode("utf-8", "replace").decode())


def build_document(title: str, *body: Html, script: str = "") -> str:
    """Builds a page in the style of all pages, light or dark, that loads nothing from a network.

    Args:
        title: of the window.
        body: what is on the page.
        script: a file of this package to run, the only one that the page lets run.
    """
    folder = resources.files(__package__ or "")
    style = Html(folder.joinpath("style.css").read_text(encoding="utf-8"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    script_tag = None
    if script:
        # The page names the hash of its script, so that a browser runs no other: names and texts of users
        # are on it too.
        code = Html(folder.joinpath(script).read_text(encoding="utf-8"))
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        script_tag = tag("script", code)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )
    content = tag("body", tag("main", *body), script_tag)
    return f"<!DOCTYPE html>\n{tag('html', head, content, lang='en')}\n"


def build_table(head: Sequence[object], rows: Sequence[Sequence[object]], numbers: int | None = None) -> Html:
    """Builds a table in a box of its own that scrolls, its first column the names of the rows.

    Args:
        head: the names of the columns.
        rows: their cells.
        numbers: from which column on cells are aligned at the right.
    """

    def class_of(column: int, cell: object = "") -> str | None:
        classes = ["number"] if numbers is not None and column >= numbers else []
        if numbers is not None and len(str(cell)) > LONGEST_CELL:
            classes.append("long")
        return " ".join(classes) or None

    titles = [tag("th", cell, scope="col", class_=class_of(i)) for i, cell in enumerate(head)]
    lines = []
    for name, *values in rows:
        cells = [tag("td", cell, class_=class_of(i, cell)) for i, cell in enumerate(values, 1)]
        lines.append(tag("tr", tag("th", name, scope="row"), *cells))
    inside = tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *lines))
    return tag("div", inside, class_="scroll", tabindex="0")


def build_cards(facts: dict[str, object]) -> Html:
    """Builds a list of small boxes, a fact by its name in each."""
    boxes = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    return tag("dl", *boxes)


def encode_png(pixels: np.ndarray) -> str:
    """Encodes a picture uint8 [H, W, 3] as an address that holds its PNG, so that the page needs no file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def build_figure(content: Html, title: str, words: str = "") -> Html:
    """Builds a figure with its caption: the title in bold, and words after it."""
    return tag("figure", content, tag("figcaption", tag("b", f"{title}."), " ", words))


def build_player(content: Html, times: Sequence[int], **data: str) -> Html:
    """Builds a chain with a button and a slider, which film.js shows and plays.

    Args:
        content: the last state, which is there without a script too.
        times: the t of the states, in the order to show them.
        data: attributes of the element, data_sheet or data_texts, from which film.js draws the states.
    """
    last = len(times) - 1
    # The controls are hidden until film.js shows them: without a script they would do nothing.
    controls = tag(
        "div",
        tag("button", "Play", type="button"),
        tag("input", type="range", min=0, max=last, value=last, step=1, aria_label="state of the chain"),
        tag("output", f"t = {times[-1]}", aria_live="off"),
        class_="controls",
        hidden=True,
    )
    return tag("div", content, controls, class_="film", data_times=" ".join(map(str, times)), **data)


def note_missing(text: str, command: str | None = None) -> Html:
    """Builds a note that something is not on the page, and which command gives it, if there is one."""
    if command is None:
        return tag("p", f"{text}.", class_="soft missing")
    return tag("p", text, ": ", tag("code", command), " gives it.", class_="soft missing")
