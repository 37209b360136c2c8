"""Writes samples and their chains as pictures, for kinds whose examples are drawn as tiles."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from d3pm_jax import show
from d3pm_jax.kinds.base import Chains, check_gif

SHOWN = 64  # samples in the picture
CHAINS = 4  # examples in the picture of chains

# (examples int [.., N, *S], their conditions [M, *C] or None) -> colours uint8 [.., N, H, W, 3]
Draw = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


def save_pictures(
    folder: Path,
    suffix: str,
    chains: Chains,
    caption: str,
    gif: bool,
    draw_tiles: Draw,
    draw_states: Draw,
) -> dict[str, Path]:
    """Writes samples beside test data, both processes, and if asked for the reverse one as a GIF.

    Args:
        folder: to write to.
        suffix: of the names of files.
        chains: samples and chains.
        caption: a line of text above pictures.
        gif: whether to write a GIF too.
        draw_tiles: draws samples and examples.
        draw_states: draws states of chains.

    Returns:
        The files by what is in them.

    Raises:
        UserError: there are no chains that a GIF could show.
    """
    check_gif(gif, chains.times)
    written: dict[str, Path] = {}
    picture = folder / f"samples{suffix}.png"
    tiles = draw_tiles(chains.samples[:SHOWN], chains.conditions)  # [n, H, W, 3]
    if chains.given is not None:
        made_from = draw_tiles(chains.given[np.arange(len(tiles)) % len(chains.given)], None)
        show.save_beside(picture, tiles, made_from, caption, ("samples", "what they were made from"))
        written["samples beside what they were made from"] = picture
    elif chains.examples is None:
        # The run began from weights alone, so that it has no examples to show beside the samples.
        show.save_grid(picture, tiles, round(len(tiles) ** 0.5), caption)
        written["samples"] = picture
    else:
        real = draw_tiles(chains.examples[: len(tiles)], chains.example_conditions)
        show.save_beside(picture, tiles, real, caption)
        written["samples beside test data"] = picture

    if chains.forward is not None:
        path = folder / f"chain{suffix}.png"
        in_strip = [chains.times.index(t) for t in chains.strip]
        forward = draw_states(chains.forward(), chains.example_conditions)  # [S, n, H, W, 3]
        reverse = draw_states(chains.reverse[in_strip, :CHAINS], chains.conditions)
        show.save_chain(path, forward, reverse, chains.strip, caption)
        written["forward and reverse process"] = path

    if gif:
        path = folder / f"chain{suffix}.gif"
        states = draw_states(chains.reverse[::-1], chains.conditions)  # [R, n, H, W, 3]
        show.save_gif(path, states, round(states.shape[1] ** 0.5), chains.times[::-1])
        written["reverse process, moving"] = path
    return written
