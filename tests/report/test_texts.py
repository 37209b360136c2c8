"""Chains of texts that play: what each token is at each state, whatever symbols are, and a page of one."""

import json
import re

import numpy as np

from d3pm_jax import kinds
from d3pm_jax.data import Description, tokenizers
from d3pm_jax.show import text_film
from tests.report.reading import Page

BYTES = tokenizers.Bytes()
EVIL = ("</pre><script>alert(1)</script>", '"', "'&amp;", "\n", "a\r", "", "·")


def kind_of(symbols, length=6):
    return kinds.make_kind(Description((length,), len(symbols), None, "text", tuple(symbols)))


def cells_of(film, i):
    """What the script shows at state i: the symbol of each token, None for a mask."""
    data = json.loads(film["data-texts"])
    return [[data["symbols"][_at(turns, i)] for turns in text] for text in data["texts"]]


def _at(turns, i):
    symbols = turns[::2]
    since = [0, *turns[1::2]]
    return [symbol for symbol, start in zip(symbols, since, strict=True) if start <= i][-1]


def test_what_tokens_add_is_the_text_and_masks_are_apart():
    x, _ = BYTES.encode(["é🎈\n"])
    known = kind_of(BYTES.symbols)
    assert known.cells(x) == ["", "é", "", "", "", "🎈", "\n"]
    assert known.cells(x[:3]) == ["", "é", "\ufffd"]  # what only the end decides
    masked = np.array([x[0], 256, x[1], 256, 256])
    assert known.cells(masked) == ["\ufffd", None, "\ufffd", None, None]
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.choice([10, 65, 0xC3, 0xA9, 0xF0, 0x9F, 0x8E, 0x88], 30)
        assert "".join(known.cells(x)) == known.description.text(x)


def test_every_state_is_in_the_film():
    rng = np.random.default_rng(1)
    known = kind_of(EVIL)
    states = rng.integers(0, len(EVIL) + 1, (5, 3, 6))  # the last one is a mask
    states[3] = states[2]  # nothing changes
    times = [9, 7, 4, 1, 0]
    page = Page(text_film.build_film(known.show_film(kinds.States(states, times, 9, 6)).chains, times))
    (film,) = page.having("div", "film")
    assert film["data-times"] == "9 7 4 1 0"
    for i, state in enumerate(states):
        assert cells_of(film, i) == [[[*EVIL, None][k] for k in x] for x in state]
    data = json.loads(film["data-texts"])
    turns = [len(token) // 2 for text in data["texts"] for token in text]
    assert sum(turns) == (states[1:] != states[:-1]).sum()  # no more than what changes is written
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.open == []
    plain = ["".join([*EVIL, text_film.MASK][k] for k in x).replace("\r", "\u240d") for x in states[-1]]
    assert page.inside["pre"] == ["\n" + text for text in plain]  # browsers skip the line break
    assert len(page.having("span", "mask")) == (states[-1] == len(EVIL)).sum()


def test_a_page_of_a_chain_is_whole_and_asks_nothing_of_a_network():
    known = kind_of("ab<", 3000)
    states = np.random.default_rng(2).integers(0, 4, (3, 6, 3000))
    film = known.show_film(kinds.States(states, [8, 4, 0], 8, 3))
    written = text_film.build_page("<b>", "of <i>", *film)
    page = Page(written)
    assert page.open == []
    assert page.addresses == ["data:,"]
    assert not re.search(r"url\(|@import|https?:|srcset|<iframe|<form|<i>|<b>runs", written)
    assert page.inside["title"] == ["Reverse process of <b>"]
    (caption,) = page.inside["figcaption"]
    assert "the first 4 samples, their first 1,024 tokens, at 3 of the 9 t," in caption
    (film,) = page.having("div", "film")
    assert np.shape(cells_of(film, 0)) == (4, 1024)
    assert [x.removeprefix("\n") for x in page.inside["pre"]] == [
        x.replace("_", text_film.MASK) for x in known.lines(states[-1, :4, :1024])
    ]
    assert "controls" in [attrs.get("class") for _, attrs in page.tags if "hidden" in attrs]
