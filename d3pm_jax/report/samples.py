"""Draws samples and chains of a run, and shows them as the kind of its data wants them to be seen."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.keys import make_key
from d3pm_jax.kinds import SHOWN_CHAINS, STATES, Chains, Kind, Samples
from d3pm_jax.kinds.blocks import Block, Film, TextFilm, draw_block
from d3pm_jax.program.measure.samples import (
    chains_to_show,
    choose_inputs,
    settle,
    times_to_show,
)
from d3pm_jax.program.parts.draw import Draw
from d3pm_jax.program.storage.run_folder import read_examples
from d3pm_jax.report.blocks import render_block
from d3pm_jax.report.figures import format_cell
from d3pm_jax.report.folder import Reported, read_samples
from d3pm_jax.show import text_film
from d3pm_jax.show.markup import Html, build_figure, encode_png, join_html, note_missing, tag

# Samples of a network that takes classes, at most.
CLASSES = 80
FILMED = 16  # chains that play
# A chain that plays has the states of a strip, and three more between any two of them.
FRAMES = 4 * (STATES - 1) + 1
MADE = 32  # samples that were made from examples
SEED = 0


class ShownSamples(NamedTuple):
    """Holds the samples and chains of a run that its pictures show."""

    chains: Chains
    are_from_folder: bool  # whether the samples are those of `d3pm sample`


def draw_run(reported: Reported) -> ShownSamples | None:
    """Draws samples and chains from the checkpoint of a run; samples of `d3pm sample` are not drawn again.

    Returns:
        None where the network takes conditions, of which a run that began from weights alone keeps none.

    Raises:
        UserError: the weights are not finite, or the samples in the folder are damaged.
    """
    run = reported.run
    key = make_key(SEED)
    classes = run.parts.recipe.classes
    num_samples = run.parts.kind.samples_drawn
    if classes is not None and classes <= CLASSES:
        num_samples = CLASSES // classes * classes  # as many of each class

    # Sample i depends on the key and i alone, so that chains of a few samples are those of the stored ones.
    kept_examples = read_examples(run.workdir, run.parts.description)
    if kept_examples is None and run.parts.description.condition is not None:
        return None
    inputs = choose_inputs(run.parts, kept_examples or {})
    # Those of `d3pm sample` may be of other conditions than the run keeps.
    stored_samples = None if "condition" in inputs else read_samples(run, num_samples)
    num_drawn = num_samples if stored_samples is None else FILMED
    settled, _ = settle(run.parts, Draw(**inputs))
    times = times_to_show(settled, FRAMES)
    drawn = run.sample(key, num_drawn, Draw(record=times, **inputs), batch_size=num_drawn, chains=FILMED)
    x0 = drawn.x0 if stored_samples is None else stored_samples
    samples = Samples(x0, run.parts.recipe.categories, inputs.get("condition"))
    examples = None if reported.examples is None else samples._replace(x=reported.examples)
    chains = chains_to_show(run.parts, key, samples, drawn.states, times, settled, examples)
    return ShownSamples(chains, stored_samples is not None)


def show_samples(reported: Reported, shown: ShownSamples | None) -> Html:
    """Shows samples beside examples of the data."""
    if shown is None:
        return _note_no_examples(reported, "Samples need conditions, and")
    run = reported.run
    kind = run.parts.kind
    classes = run.parts.recipe.classes
    samples = shown.chains.samples
    num_steps = shown.chains.reverse.steps

    words = f"{len(samples.x)} samples of step {run.step:,}, "
    if num_steps:
        words += f"{num_steps} steps, "
    words += f"seed {SEED}, "
    if shown.are_from_folder:
        words += "the first of samples.npy of d3pm sample."
    else:
        words += "drawn for this page."
    if kind.lines_shown is not None:
        words += f" The first {kind.lines_shown} are shown."
    if samples.conditions is not None:
        # Classes are those of the examples then, so that there is no row for each of them.
        classes = None
        words += " The samples have conditions: sample i has that of test example i."
    elif classes is not None:
        words += f" The samples have labels: sample i is of class i modulo {classes}."

    if (samples.x < 0).any():
        words += " Sample i is as long as test example i."

    block = draw_block(kind.show_samples, samples._replace(classes=classes).first(kind.lines_shown))
    samples_figure = _draw_figure(block, "Samples", words)
    if samples_figure is None:
        return tag("p", words, f" Each is an array {list(samples.x.shape[1:])}, of which no picture is made.")

    examples = shown.chains.examples
    histograms = join_html(
        _show_histograms(kind, samples, examples), _show_associations(kind, samples, examples)
    )
    if examples is None:
        note = _note_no_examples(reported, "Examples of the data are not beside them:")
        return join_html(samples_figure, histograms, note)
    shown_examples = examples.first(kind.lines_shown)
    words = f"The first {len(shown_examples.x)} examples of the test split, which the run keeps."
    examples_figure = _draw_figure(draw_block(kind.show_samples, shown_examples), "Data", words)
    figures = tag("div", samples_figure, examples_figure, class_="beside")
    return join_html(figures, histograms)


def show_made(reported: Reported) -> Html:
    """Shows samples of `d3pm sample --given` beside what they were made from, if there are any.

    Raises:
        UserError: a file is damaged.
    """
    parts = reported.run.parts
    figures = []
    for made in reported.made:
        n = min(parts.kind.lines_shown or MADE, MADE, len(made.samples), len(made.made_from))
        given_block = draw_block(
            parts.kind.show_samples, Samples(made.made_from[:n], parts.recipe.categories)
        )
        made_block = draw_block(parts.kind.show_samples, Samples(made.samples[:n], parts.recipe.categories))
        if made_block is None:
            continue
        protocol = made.record.protocol
        words = (
            f"{made.record.file.stem}.npy of d3pm sample: {protocol['steps']} steps, seed {protocol['seed']}"
        )
        if "known" in protocol:
            words += f", known: {protocol['known']}"
        if "strength" in protocol:
            words += f", edits of strength {protocol['strength']}"
        made_figure = _draw_figure(made_block, "Made from it", f"{words}.")
        figures.append(tag("div", _draw_figure(given_block, "Given"), made_figure, class_="beside"))
    return join_html(*figures)


def _draw_figure(block: Block | None, title: str, words: str = "") -> Html | None:
    """Draws a block as a figure with its caption; None where there is no block."""
    if block is None:
        return None
    return build_figure(render_block(block), title, words)


def _note_no_examples(reported: Reported, text: str) -> Html:
    """Builds a note that ends in why a run has no examples of its data, and which command gives them."""
    if not reported.run.config.data.keep_examples:
        return note_missing(f"{text} this run keeps no examples (data.keep_examples = False)")
    reason = "examples.npy is not in its folder"
    if reported.is_imported:
        reason = "this run began from weights alone, and has none until it is trained"
    return note_missing(f"{text} {reason}", reported.resume)


def _show_histograms(kind: Kind, samples: Samples, examples: Samples | None) -> Html | None:
    """Shows how often each place of samples has each category, beside the same of examples."""
    histograms = draw_block(kind.show_histograms, samples, examples)
    if histograms is None:
        return None
    place = kind.place_name
    words = f"How often each {place} has each category, {_count_shown(samples, examples)}"
    num_places = int(np.prod(samples.x.shape[1:]))
    if len(histograms.names) < num_places:
        words += f"; the first {len(histograms.names)} of {num_places:,} {place}s"
    if histograms.width > 1:
        words += f"; a bar is of {histograms.width} categories"
        if kind.description.sizes is not None:
            words += " or fewer"
    return _draw_figure(histograms, f"{place.capitalize()}s", f"{words}.")


def _show_associations(kind: Kind, samples: Samples, examples: Samples | None) -> Html | None:
    """Shows how much each place of samples tells of each other one, beside the same of examples."""
    associations = draw_block(kind.show_associations, samples, examples)
    if associations is None:
        return None
    words = f"{associations.measure} of each two {kind.place_name}s, {_count_shown(samples, examples)}."
    return _draw_figure(associations, "Pairs", words)


def _count_shown(samples: Samples, examples: Samples | None) -> str:
    """Says of how many samples and examples a figure is."""
    words = f"in {len(samples.x)} samples"
    if examples is not None:
        words += f" and in the {len(examples.x)} examples of the test split that the run keeps"
    return words


def show_chains(reported: Reported, shown: ShownSamples | None) -> Html | None:
    """Shows chains of the forward process and of the reverse one, and the latter as a film.

    Returns:
        None where there are no chains, as of a flow, or of a sampler whose rows are no steps.
    """
    if shown is None:
        return _note_no_examples(reported, "Chains need conditions, and")
    chains = shown.chains
    if not chains.reverse.times:
        return None
    kind = reported.run.parts.kind

    # Chains are recorded with t increasing, and the reverse process is shown from noise on.
    backwards = chains.reverse.at(chains.reverse.times[::-1])
    in_strip = chains.reverse.at(chains.strip[::-1])
    block = draw_block(kind.show_chain, in_strip._replace(x=in_strip.x[:, :SHOWN_CHAINS]))
    words = "x_t of the first samples, from noise to t = 0."
    reverse = _draw_figure(block, "Reverse, noise to sample", words)
    if reverse is None:
        return tag("p", f"No picture is made of chains of kind {kind.name}.", class_="soft")

    if chains.forward is None:
        forward = _note_no_examples(reported, "The forward process has no examples to begin from:")
    else:
        words = "x_t of examples of the test split, from the data (t = 0) to noise."
        forward = _draw_figure(draw_block(kind.show_chain, chains.forward()), "Forward, data to noise", words)
    strips = tag("div", forward, reverse)

    # A film of a text takes the page, below the strips; another one stands beside them.
    match draw_block(kind.show_film, backwards):
        case None:
            return strips
        case TextFilm() as film:
            return join_html(strips, text_film.build_captioned_film(*film))
        case Film(_, times, _, _) as film:
            words = f"x_t of the first {backwards.x.shape[1]} samples, at {len(times)} of the "
            words += f"{backwards.steps + 1} t."
            played = _draw_figure(film, "Reverse, played", words)
            return tag("div", strips, played, class_="chains")


def show_nearest(reported: Reported) -> Html:
    """Shows the pictures of `d3pm eval --samples`: samples and the training example nearest to each.

    Raises:
        UserError: one of the files is no picture.
    """
    figures = []
    for result in reported.quality:
        path = result.file.with_suffix(".png")
        if not path.is_file():
            continue
        try:
            with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"{path} is not a picture ({one_line(error)}): delete it, `d3pm eval --samples` draws it "
                "again"
            ) from error
        words = f"Right of each sample of step {result.protocol['step']:,} the training example nearest to "
        words += "it, of all of the training split, in "
        words = join_html(words, format_cell(result.protocol["features"]), f" ({path.name}).")
        image = tag("img", src=encode_png(pixels), alt="samples and training examples")
        figures.append(build_figure(image, "Nearest training examples", words))
    return join_html(*figures)
