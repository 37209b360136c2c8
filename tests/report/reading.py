"""Reads a page as a browser would: its tags, addresses, cells and pictures."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"img", "input", "link", "meta"}


class Page(HTMLParser):
    """Every tag with its attributes, the text of every kind of element, and what is still open."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.addresses = []
        self.open = []
        self.words = []
        self.inside = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.addresses += [attrs[name] for name in ("src", "href", "xlink:href", "action") if name in attrs]
        self.inside.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        for tag in set(self.open):
            self.inside[tag][-1] += data

    def having(self, tag, class_):
        """The attributes of elements of a class."""
        return [
            attrs for name, attrs in self.tags if name == tag and class_ in (attrs.get("class") or "").split()
        ]


def pixels(address):
    """The picture in an address, uint8 [H, W, 3]."""
    head, content = address.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
