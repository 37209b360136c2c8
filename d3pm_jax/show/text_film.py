"""Shows chains of texts: what each token is at each state, as a part of a page that plays, or as a page."""

import itertools
import json
from collections.abc import Sequence

from d3pm_jax.show.markup import Html, build_document, build_figure, build_player, join_html, tag

MASK = "·"  # in a box of its own colour, which no symbol has
CONTROLS = {x: 0x2400 + x for x in range(32) if chr(x) not in "\t\n"} | {127: 0x2421}  # their pictures
# what each token adds to its text, None for a mask, by chain, state and token
Chains = Sequence[Sequence[Sequence[str | None]]]


def build_page(
    name: str, caption: str, chains: Chains, times: Sequence[int], steps: int, is_cut: bool = False
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


def build_captioned_film(chains: Chains, times: Sequence[int], steps: int, is_cut: bool = False) -> Html:
    """Returns chains of a text as a figure with its caption.

    Args:
        chains: in the order of the times.
        times: the t of the states, in the process with all steps.
        steps: of the process that was drawn from.
        is_cut: whether the samples have more tokens than these.
    """
    cut = f", their first {len(chains[0][0]):,} tokens" if is_cut else ""
    masked = any(cell is None for chain in chains for state in chain for cell in state)
    words = join_html(
        f"x_t of the first {len(chains)} samples{cut}, at {len(times)} of the {steps + 1} t, from noise to "
        f"t = 0. Tokens that differ from the state before are ",
        tag("span", "marked", class_="changed"),
        *((", ", tag("span", MASK, class_="mask"), " is a mask") if masked else ()),
        ", ↵ a line break.",
    )
    return build_figure(build_film(chains, times), "Reverse, played", words)


def build_film(chains: Chains, times: Sequence[int]) -> Html:
    """Returns chains as texts that play; without a script these are those of the last state.

    Of each token it is written what it is and from which state on: [symbol, state, symbol, state, symbol].
    """
    numbers: dict[str | None, int] = {}
    texts = [[_turns(token, numbers) for token in zip(*chain, strict=True)] for chain in chains]
    data = {"mask": MASK, "symbols": [*numbers], "texts": texts}
    # a browser takes no line break that follows <pre>
    mask = tag("span", MASK, class_="mask")
    last = [
        tag("pre", "\n", *(mask if cell is None else cell.translate(CONTROLS) for cell in chain[-1]))
        for chain in chains
    ]
    return build_player(
        join_html(*last), times, data_texts=json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    )


def _turns(token: Sequence[str | None], numbers: dict[str | None, int]) -> list[int]:
    """Returns what a token is, and where it changes what it is from then on; what is new gets a number."""
    found = [numbers.setdefault(token[0], len(numbers))]
    for i, (before, after) in enumerate(itertools.pairwise(token), 1):
        if after != before:
            found += [i, numbers.setdefault(after, len(numbers))]
    return found
