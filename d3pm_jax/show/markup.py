"""Builds HTML; text that is not `Html` is escaped."""

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np
from PIL import Image

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
    written = ""
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            written += " " + key.rstrip("_").replace("_", "-")
            written += "" if value is True else f'="{_text(text)}"'
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join_html(*children)}</{name}>")


def join_html(*children: object) -> Html:
    """Returns children one after another, those escaped that are no HTML."""
    shown = [child for child in children if child is not None]
    return Html("".join(child if isinstance(child, Html) else _text(child) for child in shown))


def _text(value: object) -> str:
    """Returns text as HTML; "?" stands for halves of characters, which are no UTF-8."""
    return escape(str(value).encode("utf-8", "replace").decode())


def build_document(title: str, *body: Html, script: str = "") -> str:
    """Returns a whole page in the one style, light or dark, that asks nothing of a network.

    Args:
        title: of the window.
        body: what is on the page.
        script: a file of this package to run, the only one that the page lets run.
    """
    folder = resources.files(__package__ or "")
    style = Html(folder.joinpath("style.css").read_text(encoding="utf-8"))
    code = Html(folder.joinpath(script).read_text(encoding="utf-8") if script else "")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{digest}'" if script else ""
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
    content = tag("body", tag("main", *body), tag("script", code) if script else None)
    return f"<!DOCTYPE html>\n{tag('html', head, content, lang='en')}\n"


def build_table(head: Sequence[object], rows: Sequence[Sequence[object]], numbers: int | None = None) -> Html:
    """Returns a table in a box of its own that scrolls, its first column the names of the rows.

    Args:
        head: the names of the columns.
        rows: their cells.
        numbers: from which column on cells are aligned at the right.
    """

    def kind(i: int) -> str | None:
        return None if numbers is None or i < numbers else "number"

    top = tag("tr", *(tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(head)))
    lines = []
    for first, *cells in rows:
        others = (tag("td", cell, class_=kind(i)) for i, cell in enumerate(cells, 1))
        lines.append(tag("tr", tag("th", first, scope="row"), *others))
    inside = tag("table", tag("thead", top), tag("tbody", *lines))
    return tag("div", inside, class_="scroll", tabindex="0")


def build_cards(facts: dict[str, object]) -> Html:
    """Returns facts as a list of small boxes."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()))


def encode_png(pixels: np.ndarray) -> str:
    """Returns the address of a picture that is a part of the page: of uint8 [H, W, 3], as PNG."""
    Image.fromarray(pixels).save(written := io.BytesIO(), "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def build_figure(content: Html, title: str, words: str = "") -> Html:
    """Returns a figure with its caption."""
    return tag("figure", content, tag("figcaption", tag("b", f"{title}."), " ", words))


def build_player(content: Html, times: Sequence[int], **data: str) -> Html:
    """Returns a chain with a button and a slider, which film.js shows and plays.

    Args:
        content: the last state, which is there without a script too.
        times: the t of the states, in the order to show them.
        data: what film.js draws them from.
    """
    last = len(times) - 1
    controls = tag(
        "div",
        tag("button", "Play", type="button"),
        tag("input", type="range", min=0, max=last, value=last, step=1, aria_label="state of the chain"),
        tag("output", f"t = {times[-1]}", aria_live="off"),
        class_="controls",
        hidden=True,
    )
    return tag("div", content, controls, class_="film", data_times=" ".join(map(str, times)), **data)


def note_missing(text: str, command: str) -> Html:
    """Says what is not on the page, and which command gives it."""
    return tag("p", text, ": ", tag("code", command), " gives it.", class_="soft missing")
