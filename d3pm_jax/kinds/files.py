"""Writes what a kind shows to files: pictures as PNG, films as GIF, texts as lines, their films as a page."""

from pathlib import Path

import numpy as np

from d3pm_jax import show
from d3pm_jax.errors import UserError, wrong_return
from d3pm_jax.files import write_text
from d3pm_jax.kinds.base import FRAMES, SHOWN_CHAINS, STATES, Chains, Kind, Measured, Samples
from d3pm_jax.kinds.blocks import (
    Associations,
    Beside,
    Block,
    Chain,
    Film,
    Histograms,
    Picture,
    Strip,
    Table,
    TextBlock,
    TextFilm,
    Tiles,
    draw_block,
)
from d3pm_jax.show import text_film

SUFFIXES = {TextBlock: ".txt", TextFilm: ".html", Film: ".gif"}  # of files; others are PNG


def write_block(path: Path, block: Block | None, caption: str) -> Path | None:
    """Writes a block to a file to look at.

    Args:
        path: of the file, without its suffix, which says what it holds.
        block: what to write.
        caption: a line of text above pictures, and on a page.

    Returns:
        The path of the file; None where there is none, as of a table or of nothing.
    """
    file = path.with_name(path.name + SUFFIXES.get(type(block), ".png"))
    match block:
        case None | Table() | Histograms() | Associations():
            return None
        case Picture() | Tiles():
            images, columns = _lay_out(block)
            show.save_grid(file, images, columns, caption)
        case Beside(left, right, titles, _):
            show.save_beside(file, _lay_out(left)[0], _lay_out(right)[0], caption, titles)
        case Strip(states, times, _):
            show.save_strip(file, states, times, caption)
        case Chain(forward, reverse):
            show.save_chain(file, forward.states, reverse.states[::-1], forward.times, caption)
        case Film(states, times, columns, _):
            show.save_gif(file, states, columns, times)
        case TextBlock(text):
            write_text(file, f"{text}\n")
        case TextFilm():
            write_text(file, text_film.build_page(file.parent.resolve().name, caption, *block))
    return file


def _lay_out(block: Picture | Tiles) -> tuple[np.ndarray, int]:
    """Returns the images of a block, uint8 [N, H, W, 3], and in how many columns they stand."""
    match block:
        case Picture(pixels, _):
            return pixels[None], 1
        case Tiles(images, _, columns, _):
            return images, columns or round(len(images) ** 0.5)


def count_states(kind: Kind, gif: bool) -> int:
    """Returns how many states of a chain the files of samples want.

    Raises:
        UserError: a GIF is asked for, and the kind makes none.
    """
    if gif and kind.sample_files != "pictures":
        raise UserError(
            f"--gif: no GIF is made of data of kind {kind.name!r}, which this run has; leave it out, or in a "
            'kind of your own, whose show_chain returns a Strip, write sample_files = "pictures"'
        )
    if gif or kind.sample_files == "texts":
        return FRAMES
    return STATES


def write_chains(
    kind: Kind, folder: Path, suffix: str, chains: Chains, caption: str, gif: bool = False
) -> dict[str, Path]:
    """Writes samples and chains in files to look at; only the samples where there are no chains.

    Args:
        kind: of the data.
        folder: where to write.
        suffix: of the names of files.
        chains: what to show.
        caption: what the samples are of.
        gif: write the reverse process as a GIF as well.

    Returns:
        The files, by words that say what is in them.
    """
    samples = show_beside(kind, chains.samples, chains.given, chains.examples)
    words = "samples"
    match samples:
        case Beside():
            words = samples.alt
        case TextBlock():
            words = "as text, a line for each"
    files = {words: write_block(folder / f"samples{suffix}", samples, caption)}

    chain_path = folder / f"chain{suffix}"
    files["forward and reverse process"] = write_block(chain_path, show_processes(kind, chains), caption)
    if chains.reverse.times and (gif or kind.sample_files == "texts"):
        film = draw_block(kind.show_film, chains.reverse.at(chains.reverse.times[::-1]))
        words = "reverse process, moving" if gif else "reverse process, played"
        files[words] = write_block(chain_path, film, caption)
    return {words: file for words, file in files.items() if file is not None}


def write_measured(kind: Kind, path: Path, samples: Samples, measured: Measured, caption: str) -> str | None:
    """Writes what is seen beside figures of samples; returns a line for the terminal, if there is anything.

    Args:
        kind: of the data.
        path: of the file of the figures.
        samples: that were measured.
        measured: of them.
        caption: what the samples are of.
    """
    block = draw_block(kind.show_quality, samples, measured)
    match block:
        case TextBlock(text):
            return text
        case Picture() | Tiles() | Beside():
            # A report takes a picture of the name of the figures for that of nearest examples.
            name = f"density_{path.stem}"
            if measured.nearest is not None:
                name = path.stem
                caption += "; right of each sample its nearest example"
            return f"{block.alt}: {write_block(path.with_name(name), block, caption)}"
        case _:
            return None


def show_beside(
    kind: Kind, samples: Samples, given: Samples | None = None, examples: Samples | None = None
) -> Block | None:
    """Shows samples for a file, and if they are pictures, what they are compared with beside them.

    Args:
        kind: of the data, which may know what a perfect model draws: samples are beside that.
        samples: of which the first ones are shown, if the kind says so.
        given: what each was made from, the next choice.
        examples: of the data, the last one.
    """
    samples = samples.first(kind.shown_in_file)
    n = len(samples.x)
    other = draw_block(kind.show_target)
    title = "data"
    if other is not None:
        words = other.alt
    elif given is not None:
        other = draw_block(kind.show_samples, given)
        title = words = "what they were made from"
    elif examples is not None:
        other = draw_block(kind.show_samples, examples.first(n))
        words = "test data"
    else:
        # The run began from weights alone, so that it has no examples to show beside the samples.
        return draw_block(kind.show_samples, samples)
    match draw_block(kind.show_samples, samples), other:
        case ((Picture() | Tiles() as left), (Picture() | Tiles() as right)):
            return Beside(left, right, ("samples", title), f"samples beside {words}")
        case block, _:
            return block


def show_processes(kind: Kind, chains: Chains) -> Chain | None:
    """Shows chains of both processes, the forward one above the reverse one; None without examples."""
    if chains.forward is None:
        return None
    # All states of the reverse process are shown before some are taken: their colours may have one scale.
    match draw_block(kind.show_chain, chains.forward()), draw_block(kind.show_chain, chains.reverse):
        case Strip() as forward, Strip(states, times, what) as reverse:
            backwards = chains.strip[::-1]
            if not set(backwards) <= set(times):
                raise wrong_return(kind.show_chain, reverse, "a Strip of all states, with states.times")
            in_strip = [times.index(t) for t in backwards]
            return Chain(forward, Strip(states[in_strip, :SHOWN_CHAINS], backwards, what))
        case _:
            return None
