"""Shows what a run draws, by the kind of its data: images, lines of text; of arrays a note."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from d3pm_jax import show
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.kinds import examples
from d3pm_jax.report import chains, pictures, texts
from d3pm_jax.report.chains import Chains
from d3pm_jax.report.figures import cell
from d3pm_jax.report.folder import Reported
from d3pm_jax.show.markup import (
    Html,
    figure,
    join,
    missing,
    png,
    tag,
)

COLUMNS = 8  # of a grid
LINES = 24  # of text
NAMED = 20  # classes whose rows have their numbers before them


def samples(record: Reported, drawn: Chains) -> Html:
    """Returns samples beside examples of the data."""
    run, real = record.run, record.examples
    told, x = run.parts.classes, drawn.samples
    words = f"{len(x)} samples of step {run.step:,}, {run.process.T} steps, seed {chains.SEED}, "
    words += "the first of samples.npy of d3pm sample." if drawn.kept else "drawn for this page."
    if run.parts.description.kind == "text":
        words += f" The first {LINES} are shown."
    if told is not None:
        words += f" The network is told labels: sample i is of class i modulo {told}."
    if run.parts.description.kind == "array":
        return tag("p", words, f" Each is an array {list(x.shape[1:])}, of which no picture is made.")
    beside = [figure(_samples(record, x), "Samples", words)]
    if real is None:
        text = "Examples of the data are not beside them: this run began from weights alone"
        note = missing(text, record.resume)
        return join(*beside, note)
    words = f"The first {len(real)} examples of the test split, which the run keeps."
    return tag("div", *beside, figure(_shown(record, real), "Data", words), class_="beside")


def processes(record: Reported, drawn: Chains) -> Html:
    """Returns chains of the forward process and of the reverse one, and the latter as a film."""
    kind, found = record.run.parts.description.kind, []
    if kind == "array":
        return tag("p", "No picture is made of chains of arrays.", class_="soft")
    if drawn.forward is None:
        found.append(missing("The forward process has no examples to begin from", record.resume))
    else:
        words = "x_t of examples of the test split, from the data (t = 0) to noise."
        found.append(figure(_strip(record, drawn.forward, drawn.strip), "Forward, data to noise", words))
    chosen = [drawn.times.index(t) for t in reversed(drawn.strip)]
    reverse, times = drawn.reverse[chosen, : chains.ROWS], drawn.strip[::-1]
    words = "x_t of the first samples, from noise to t = 0."
    found.append(figure(_strip(record, reverse, times), "Reverse, noise to sample", words))
    strips = tag("div", *found)
    if kind == "text":
        return join(strips, texts.shown(record.run, drawn.reverse[::-1], drawn.times[::-1]))
    return tag("div", strips, _film(record, drawn), class_="chains")


def _film(record: Reported, drawn: Chains) -> Html:
    """Shows the reverse process as it goes."""
    n = drawn.reverse.shape[1]
    states = show.to_rgb(drawn.reverse[::-1], record.run.parts.categories)
    picture = pictures.film(states, drawn.times[::-1], round(n**0.5), f"the chains of {n} samples, played")
    words = f"x_t of the first {n} samples, at {len(drawn.times)} of the {record.run.process.T + 1} t."
    return figure(picture, "Reverse, played", words)


def nearest(record: Reported) -> Html | None:
    """Returns the pictures of `d3pm eval --samples`: samples and the training example nearest to each."""
    shown = []
    for found in record.quality:
        path = found.path.with_suffix(".png")
        if path.is_file():
            words = (
                f"Right of each sample of step {found.protocol['step']:,} the training example nearest to "
            )
            words += "it, of all of the training split, in "
            words = join(words, cell(found.protocol["features"]), f" ({path.name}).")
            shown.append(figure(_picture(path), "Nearest training examples", words))
    return join(*shown) if shown else None


def _samples(record: Reported, x: np.ndarray) -> Html:
    """Shows samples, of a network that is told classes in a row for each."""
    classes = record.run.parts.classes
    if record.run.parts.description.kind != "image" or classes is None or len(x) % classes or classes > NAMED:
        return _shown(record, x)
    images = show.to_rgb(x, record.run.parts.categories)
    by_class = images.reshape(-1, classes, *images.shape[1:]).swapaxes(0, 1)
    return pictures.rows(by_class, [str(c) for c in range(classes)], "samples, a row for each class")


def _shown(record: Reported, x: np.ndarray) -> Html:
    """Shows examples: images as a grid, texts as lines."""
    if record.run.parts.description.kind == "text":
        return tag("pre", "\n".join(examples.lines(x[:LINES], record.run.parts.description)), tabindex="0")
    images = show.to_rgb(x, record.run.parts.categories)
    return pictures.grid(images, COLUMNS, f"{len(images)} images")


def _strip(record: Reported, states: np.ndarray, times: list[int]) -> Html:
    """Shows chains [R, N, *S]: of texts the first one, a line for each t."""
    if record.run.parts.description.kind == "image":
        alt = f"chains at t = {', '.join(map(str, times))}"
        return pictures.strip(show.to_rgb(states, record.run.parts.categories), times, alt)
    width = len(str(max(times)))
    found = examples.lines(states[:, 0], record.run.parts.description)
    lines = [f"t = {t:>{width}}  {text}" for t, text in zip(times, found, strict=True)]
    return tag("pre", "\n".join(lines), tabindex="0")


def _picture(path: Path) -> Html:
    """Shows a PNG file as it is. Raises UserError where it is none."""
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        cure = "delete it, `d3pm eval --samples` draws it again"
        raise UserError(f"{path} is no picture ({one_line(error)}): {cure}") from error
    return tag("img", src=png(pixels), alt="samples and training examples")
