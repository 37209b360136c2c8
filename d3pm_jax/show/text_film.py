"""Shows chains of texts: what each token is at each state, as a part of a page that plays, or as a page."""

import itertools
import json
from collections.abc import Sequence

from d3pm_jax.show.markup import Html, build_document, build_figure, build_player, join_html, tag

MASK = "·"  # in a box of its own colour, which no symbol has
# A browser shows no control characters, but for tabs and line breaks: Unicode has a picture for each.
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}
# The characters that each token adds to its text, None for a mask, by chain, state and token.
TextChains = Sequence[Sequence[Sequence[str | None]]]


def build_page(
    name: str, caption: str, chains: TextChains, times: Sequence[int], steps: int, is_cut: bool = False
) -> str:
    """Returns chains of a text as a page of their own, which needs nothing else.

    Args:
        name: of the run.
        caption: what the chains are of.
        chains, times, steps, is_cut: as for `build_captioned_film`.
    """
    title = f"Reverse process of {name}"
    note = tag("p", caption, class_="soft")
    film_of_chains = build_captioned_film(chains, times, steps, is_cut)
    return build_document(title, tag("h1", title), note, film_of_chains, script="film.js")


def build_captioned_film(chains: TextChains, times: Sequence[int], steps: int, is_cut: bool = False) -> Html:
    """Returns chains of a text as a figure with its caption.

    Args:
        chains: in the order of the times.
        times: the t of the states, in the process with all steps.
        steps: of the process that was drawn from.
        is_cut: whether the samples have more tokens than these.
    """
    cut = f", their first {len(chains[0][0]):,} tokens" if is_cut else ""
    words = join_html(
        f"x_t of the first {len(chains)} samples{cut}, at {len(times)} of the {steps + 1} t, from noise to "
        f"t = 0. Tokens that differ from the state before are ",
        tag("span", "marked", class_="changed"),
    )
    if any(None in state for chain in chains for state in chain):
        words = join_html(words, ", ", tag("span", MASK, class_="mask"), " is a mask")
    words = join_html(words, ", ↵ a line break.")
    return build_figure(build_film(chains, times), "Reverse, played", words)


def build_film(chains: TextChains, times: Sequence[int]) -> Html:
    """Returns chains as texts that play; without a script these are those of the last state.

    Each token is written as the symbols that it is in turn and the states from which on it is the next one:
    [symbol, state, symbol, state, symbol].
    """
    numbers: dict[str | None, int] = {}
    texts = []
    for chain in chains:
        tokens = zip(*chain, strict=True)  # the states of each token
        texts.append([_list_changes(token, numbers) for token in tokens])
    data = {"mask": MASK, "symbols": [*numbers], "texts": texts}

    last = []
    for chain in chains:
        cells = [_show_cell(cell) for cell in chain[-1]]
        # A browser drops the line break that follows <pre>, and would drop one of the text.
        last.append(tag("pre", "\n", *cells))
    return build_player(
        join_html(*last), times, data_texts=json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    )


def _show_cell(cell: str | None) -> str:
    """Returns the characters of a token as they are shown, and a box for a mask."""
    if cell is None:
        return tag("span", MASK, class_="mask")
    return cell.translate(CONTROLS)


def _list_changes(token: Sequence[str | None], numbers: dict[str | None, int]) -> list[int]:
    """Lists the symbol that a token begins with, and each state at which it changes with its new symbol.

    Args:
        token: its symbol in each state.
        numbers: by symbol, which gets the symbols that it lacks.
    """
    changes = [numbers.setdefault(token[0], len(numbers))]
    for i, (before, after) in enumerate(itertools.pairwise(token), 1):
        if after != before:
            changes += [i, numbers.setdefault(after, len(numbers))]
    return changes
