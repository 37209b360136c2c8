"""Chains of texts that play: what each token is at each state, whatever symbols are, and a page of one."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from d3pm_jax.data import Description, tokenizers
from d3pm_jax.kinds import examples
from d3pm_jax.report import texts
from d3pm_jax.runs.run import Run
from tests.report.reading import Page

BYTES = tokenizers.Bytes()
EVIL = ("</pre><script>alert(1)</script>", '"', "'&amp;", "\n", "a\r", "", "·")


class Known(Run):
    """A run of which only so much is known."""

    process = caption = None

    def __init__(self, **known):
        vars(self).update(known)


def description(symbols, length=6):
    return Description((length,), len(symbols), None, "text", tuple(symbols))


def cells_of(film, i):
    """What the script shows at state i: the symbol of each token, None for a mask."""
    data = json.loads(film["data-texts"])
    return [[data["symbols"][_at(turns, i)] for turns in text] for text in data["texts"]]


def _at(turns, i):
    symbols, since = turns[::2], [0, *turns[1::2]]
    return [symbol for symbol, start in zip(symbols, since, strict=True) if start <= i][-1]


def test_what_tokens_add_is_the_text_and_masks_are_apart():
    x, _ = BYTES.encode(["é🎈\n"])
    known = description(BYTES.symbols)
    assert texts.cells(x, known) == ["", "é", "", "", "", "🎈", "\n"]
    assert texts.cells(x[:3], known) == ["", "é", "\ufffd"]  # what only the end decides
    masked = np.array([x[0], 256, x[1], 256, 256])
    assert texts.cells(masked, known) == ["\ufffd", None, "\ufffd", None, None]
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.choice([10, 65, 0xC3, 0xA9, 0xF0, 0x9F, 0x8E, 0x88], 30)
        assert "".join(texts.cells(x, known)) == known.text(x)


def test_every_state_is_in_the_film():
    rng = np.random.default_rng(1)
    known, states = description(EVIL), rng.integers(0, len(EVIL) + 1, (5, 3, 6))  # the last one is a mask
    states[3] = states[2]  # nothing changes
    page = Page(texts.film(states, [9, 7, 4, 1, 0], known))
    (film,) = page.having("div", "film")
    assert film["data-times"] == "9 7 4 1 0"
    for i, state in enumerate(states):
        assert cells_of(film, i) == [[[*EVIL, None][k] for k in x] for x in state]
    data = json.loads(film["data-texts"])
    turns = [len(token) // 2 for text in data["texts"] for token in text]
    assert sum(turns) == (states[1:] != states[:-1]).sum()  # no more than what changes is written
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.open == []
    plain = ["".join([*EVIL, texts.MASK][k] for k in x).replace("\r", "\u240d") for x in states[-1]]
    assert page.inside["pre"] == ["\n" + text for text in plain]  # browsers skip the line break
    assert len(page.having("span", "mask")) == (states[-1] == len(EVIL)).sum()


def test_a_page_of_a_chain_is_whole_and_asks_nothing_of_a_network():
    known = description("ab<", 3000)
    run = Known(
        workdir=Path("runs/<b>"),
        caption="of <i>",
        process=SimpleNamespace(T=8),
        parts=SimpleNamespace(description=known),
    )
    states = np.random.default_rng(2).integers(0, 4, (3, 6, 3000))
    written = texts.page(run, states, [8, 4, 0])
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
        x.replace("_", texts.MASK) for x in examples.lines(states[-1, :4, :1024], known)
    ]
    assert "controls" in [attrs.get("class") for _, attrs in page.tags if "hidden" in attrs]
