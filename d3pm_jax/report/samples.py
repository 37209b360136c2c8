"""Draws what a run shows, samples and chains, and shows it as the kind of its data has it to be seen."""

import io
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.kinds import Chains
from d3pm_jax.kinds.blocks import Film, TextFilm
from d3pm_jax.measure.samples import chains_to_show, evenly_spaced
from d3pm_jax.report.blocks import render_block
from d3pm_jax.report.figures import format_cell
from d3pm_jax.report.folder import Reported, read_samples
from d3pm_jax.show import text_film
from d3pm_jax.show.markup import Html, build_figure, encode_png, join_html, note_missing, tag

SAMPLES = 64
CLASSES = 80  # samples of a network that is told classes, at most
FILMED = 16  # chains
STRIP = 10  # states of a chain side by side
FRAMES = 4 * (STRIP - 1) + 1  # states of a chain that plays, those among them
ROWS = 4  # chains in it
SEED = 0


class Drawn(NamedTuple):
    """Holds what the pictures of a run show."""

    chains: Chains
    kept: bool  # whether the samples are those of `d3pm sample`


def draw_run(record: Reported) -> Drawn:
    """Draws from the checkpoint of a run; what `d3pm sample` drew from it is not drawn again.

    Raises:
        UserError: the weights are not finite, or the samples in the folder are damaged.
    """
    run, key = record.run, jax.random.key(SEED)
    classes, wanted = run.parts.classes, SAMPLES
    if classes is not None and classes <= CLASSES:
        wanted = CLASSES // classes * classes  # as many of each class
    kept = read_samples(run, wanted)
    n, times = wanted if kept is None else FILMED, evenly_spaced(run.process.T, FRAMES)
    drawn, reverse = run.sample(key, n, batch_size=n, record=times, chains=FILMED)
    samples = drawn if kept is None else kept
    strip = evenly_spaced(run.process.T, STRIP)
    chains = chains_to_show(run.parts, key, samples, reverse, times, strip, record.examples)
    return Drawn(chains, kept is not None)


def show_samples(record: Reported, drawn: Drawn) -> Html:
    """Returns samples beside examples of the data."""
    run, real, classes = record.run, record.examples, record.run.parts.classes
    x, levels, kind = drawn.chains.samples, drawn.chains.levels, record.run.parts.kind
    words = f"{len(x)} samples of step {run.step:,}, {run.process.T} steps, seed {SEED}, "
    words += "the first of samples.npy of d3pm sample." if drawn.kept else "drawn for this page."
    if kind.lines_shown is not None:
        words += f" The first {kind.lines_shown} are shown."
    if classes is not None:
        words += f" The network is told labels: sample i is of class i modulo {classes}."
    block = kind.show_samples(x, levels, classes)
    if block is None:
        return tag("p", words, f" Each is an array {list(x.shape[1:])}, of which no picture is made.")
    beside = build_figure(render_block(block), "Samples", words)
    data = None if real is None else kind.show_samples(real, levels)
    if real is None:
        text = "Examples of the data are not beside them: this run began from weights alone"
        return join_html(beside, note_missing(text, record.resume))
    if data is None:
        return beside
    words = f"The first {len(real)} examples of the test split, which the run keeps."
    return tag("div", beside, build_figure(render_block(data), "Data", words), class_="beside")


def show_chains(record: Reported, drawn: Drawn) -> Html:
    """Returns chains of the forward process and of the reverse one, and the latter as a film."""
    kind, known = record.run.parts.kind, drawn.chains
    chosen = [known.times.index(t) for t in reversed(known.strip)]
    states, times = known.reverse[chosen, :ROWS], known.strip[::-1]
    reverse = kind.show_chain(states, times, known.levels)
    if reverse is None:
        return tag("p", "No picture is made of chains of arrays.", class_="soft")
    found = []
    forward = None if known.forward is None else kind.show_chain(known.forward(), known.strip, known.levels)
    if forward is None:
        found.append(note_missing("The forward process has no examples to begin from", record.resume))
    else:
        words = "x_t of examples of the test split, from the data (t = 0) to noise."
        found.append(build_figure(render_block(forward), "Forward, data to noise", words))
    words = "x_t of the first samples, from noise to t = 0."
    found.append(build_figure(render_block(reverse), "Reverse, noise to sample", words))
    strips = tag("div", *found)
    film = kind.show_film(known.reverse[::-1], known.times[::-1], known.levels, known.steps)
    if film is None:
        return strips
    if isinstance(film, TextFilm):  # as wide as the page
        return join_html(strips, text_film.build_captioned_film(*film))
    words = ""
    if isinstance(film, Film):
        n = film.states.shape[1]
        words = f"x_t of the first {n} samples, at {len(film.times)} of the {known.steps + 1} t."
    return tag("div", strips, build_figure(render_block(film), "Reverse, played", words), class_="chains")


def show_nearest(record: Reported) -> Html | None:
    """Returns the pictures of `d3pm eval --samples`: samples and the training example nearest to each.

    Raises:
        UserError: one of the files is no picture.
    """
    shown = []
    for found in record.quality:
        path = found.path.with_suffix(".png")
        if not path.is_file():
            continue
        try:
            with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            cure = "delete it, `d3pm eval --samples` draws it again"
            raise UserError(f"{path} is no picture ({one_line(error)}): {cure}") from error
        words = f"Right of each sample of step {found.protocol['step']:,} the training example nearest to "
        words += "it, of all of the training split, in "
        words = join_html(words, format_cell(found.protocol["features"]), f" ({path.name}).")
        image = tag("img", src=encode_png(pixels), alt="samples and training examples")
        shown.append(build_figure(image, "Nearest training examples", words))
    return join_html(*shown) if shown else None
