"""Shows chains of texts: what each token is at each state, as a part of a page that plays, or as a page."""

import itertools
import json
from collections.abc import Sequence

import numpy as np

from d3pm_jax.data import Description
from d3pm_jax.data.tokenizers import joined_parts
from d3pm_jax.runs.run import Run
from d3pm_jax.show.markup import (
    Html,
    document,
    figure,
    join,
    player,
    tag,
)

CHAINS = 4  # that play
TOKENS = 1024  # of a text, at most
MASK = "·"  # in a box of its own colour, which no symbol has
CONTROLS = {x: 0x2400 + x for x in range(32) if chr(x) not in "\t\n"} | {127: 0x2421}  # their pictures


def page(run: Run, states: np.ndarray, times: Sequence[int]) -> str:
    """Returns chains of a text as a page of their own, which needs nothing else.

    Args:
        run: of a text.
        states: x_t int [R, N, L], state r at times[r], in the order to show them.
        times: the t of the states, in the process with all steps.
    """
    title = f"Reverse process of {run.workdir.resolve().name}"
    note = tag("p", run.caption, class_="soft")
    return document(title, tag("h1", title), note, shown(run, states, times), script="film.js")


def shown(run: Run, states: np.ndarray, times: Sequence[int]) -> Html:
    """Returns the first chains of those, as a figure with its caption."""
    few = states[:, :CHAINS, :TOKENS]
    cut = "" if few.shape[2] == states.shape[2] else f", their first {TOKENS:,} tokens"
    masked = bool((few >= run.parts.description.categories).any())
    words = join(
        f"x_t of the first {few.shape[1]} samples{cut}, at {len(times)} of the {run.process.T + 1} t, from "
        f"noise to t = 0. Tokens that differ from the state before are ",
        tag("span", "marked", class_="changed"),
        *((", ", tag("span", MASK, class_="mask"), " is a mask") if masked else ()),
        ", ↵ a line break.",
    )
    return figure(film(few, times, run.parts.description), "Reverse, played", words)


def film(states: np.ndarray, times: Sequence[int], description: Description) -> Html:
    """Returns chains int [R, N, L] as texts that play; without a script these are those of the last state.

    Of each token it is written what it is and from which state on: [symbol, state, symbol, state, symbol].
    """
    numbers: dict[str | None, int] = {}
    by_chain = [[cells(x, description) for x in chain] for chain in states.swapaxes(0, 1)]
    texts = [[_turns(token, numbers) for token in zip(*chain, strict=True)] for chain in by_chain]
    data = {"mask": MASK, "symbols": [*numbers], "texts": texts}
    # a browser takes no line break that follows <pre>
    last = (tag("pre", "\n", *(_plain(cell) for cell in chain[-1])) for chain in by_chain)
    return player(join(*last), times, data_texts=json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def cells(x: np.ndarray, description: Description) -> list[str | None]:
    """Returns what each token adds to the text, None for a mask.

    Joined it is the text; a character whose bytes are several tokens is at the last one.
    """
    found: list[str | None] = []
    for masked, run in itertools.groupby(x.tolist(), lambda k: k >= description.categories):
        tokens = np.array([*run])
        if masked:
            found += [None] * len(tokens)
        else:
            *parts, end = joined_parts([symbol] for symbol in description.written(tokens))
            found += [*parts[:-1], parts[-1] + end]
    return found


def _turns(token: Sequence[str | None], numbers: dict[str | None, int]) -> list[int]:
    """Returns what a token is, and where it changes what it is from then on; what is new gets a number."""
    found = [numbers.setdefault(token[0], len(numbers))]
    for i, (before, after) in enumerate(itertools.pairwise(token), 1):
        if after != before:
            found += [i, numbers.setdefault(after, len(numbers))]
    return found


def _plain(cell: str | None) -> Html | str:
    return tag("span", MASK, class_="mask") if cell is None else cell.translate(CONTROLS)
