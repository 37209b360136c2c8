"""d3pm sample draws samples, as arrays and as their kind wants to be seen; of images, chains end to end."""

import dataclasses
from typing import Annotated, Any

import jax
import numpy as np
from tyro.conf import arg

from d3pm_jax import show
from d3pm_jax.cli import arguments, results, sample_text
from d3pm_jax.config.checks import Count, Natural, Seed
from d3pm_jax.errors import UsageError, UserError
from d3pm_jax.files import write_npy, write_text
from d3pm_jax.kinds import examples
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import grids
from d3pm_jax.measure.samples import draw_forward, spaced
from d3pm_jax.report import texts
from d3pm_jax.runs.run import Run
from d3pm_jax.storage import workdir

NAMED = ("step", "steps", "grid", "seed", "label", "length")  # options in names of files
SHOWN = 64  # samples in the picture
CHAINS = 4  # examples in the picture of chains
STATES = 10  # states in the picture of chains
GIF_CHAINS = 25  # samples in the GIF
GIF_STATES = 5 * (STATES - 1) + 1  # states in the GIF and of a text, those of the picture among them


@dataclasses.dataclass(frozen=True)
class Sample(arguments.Computation):
    """Draws samples, beside data and as chains."""

    steps: Annotated[Count | None, arg(metavar="N")] = None
    """take N steps of the process in place of all"""
    num: Annotated[Count, arg(metavar="N")] = 256
    """samples to draw"""
    label: Annotated[Natural | None, arg(metavar="C")] = None
    """of this class; without, sample i is of class i modulo all"""
    batch_size: Annotated[Count, arg(metavar="B")] = 128
    """samples at a time"""
    seed: Annotated[Seed, arg(metavar="N")] = 0
    """of the noise; sample i is the same for every N and B"""
    gif: bool = False
    """of images: the reverse process of 25 samples as a GIF as well"""
    prompt: Annotated[str | None, arg(metavar="TEXT")] = None
    """of text: every sample begins with this; not together with --infill"""
    infill: Annotated[str | None, arg(metavar="TEXT")] = None
    """of text: every sample has this, with a gap for each [MASK:N], as "The [MASK:12] fox\""""
    length: Annotated[Count | None, arg(metavar="N")] = None
    """of text: tokens of a sample (as the data has)"""

    def __post_init__(self) -> None:
        """Raises UsageError where both texts are given."""
        if self.prompt is not None and self.infill is not None:
            raise UsageError("argument --infill: not allowed with argument --prompt")


def execute(args: Sample, words: list[str]) -> int:
    """Samples; returns the exit status."""
    arguments.check_grid(args.grid, args.steps)
    run = arguments.open_with_others(args, min(args.batch_size, args.num))
    _check_gif(args, run)
    sample_text.check(args, run)
    given, shape = sample_text.given(args, run), None if args.length is None else (args.length,)
    if args.steps is not None:
        run = run.respaced(grids.choose(run.parts, run.workdir, args.steps, args.grid))
    many = args.gif or run.parts.description.kind == "text"
    times, key = spaced(run.process.T, GIF_STATES if many else STATES), jax.random.key(args.seed)
    with Terminal("sample", args.num).shown() as terminal:
        samples, reverse = run.sample(
            key, args.num, args.label, args.batch_size, times, terminal.advance, GIF_CHAINS, given, shape
        )
    suffix = results.suffix(args, *NAMED) + sample_text.suffix(args)
    path = args.workdir / f"samples{suffix}.npy"
    write_npy(path, samples)
    about = _about(args, run, len(samples))
    replaced = results.write_json(path.with_suffix(".json"), about, ("step", "num", *sample_text.told(args)))
    pictures = _pictures(run, samples, reverse, times, args, suffix)
    classes = run.parts.classes
    of_class = "" if classes is None else f", sample i of class i modulo {classes}"
    of_class = of_class if args.label is None else f", all of class {args.label}"
    first = f"{len(samples)} samples of step {run.step}{of_class}, int32 {samples.shape}: {path}{replaced}"
    print("\n".join([first, *pictures]))
    return 0


def _about(args: Sample, run: Run, n: int) -> dict[str, Any]:
    """Says what samples are of."""
    about = {"step": run.step, "num": n, "steps": run.process.T, "grid": args.grid}
    about |= {"seed": args.seed, "label": args.label}
    return about | {name: x for name in sample_text.OPTIONS if (x := getattr(args, name)) is not None}


def _check_gif(args: Sample, run: Run) -> None:
    """Raises UserError where --gif is asked of a run on anything but images."""
    kind = run.parts.description.kind
    if args.gif and kind != "image":
        raise UserError(f"--gif: a GIF is of images, the data of this run is of kind {kind!r}; leave it out")


def _pictures(
    run: Run,
    samples: np.ndarray,
    reverse: np.ndarray,
    times: list[int],
    args: Sample,
    suffix: str,
) -> list[str]:
    """Writes samples as their kind wants to be seen, and returns what to print of that.

    Images are drawn beside examples of the data, and both processes from end to end.
    """
    description, levels = run.parts.description, run.parts.categories
    picture = run.workdir / f"samples{suffix}.png"
    if description.kind == "text":
        path = examples.save_examples(picture.with_suffix(""), samples, description)
        chain = run.workdir / f"chain{suffix}.html"
        write_text(chain, texts.page(run, reverse[::-1], _told(run, times[::-1])))
        lines = [f"as text, a line for each: {path}", f"reverse process, played: {chain}"]
        return [*lines, *sample_text.printed(args, run, samples)]
    if description.kind != "image":
        return []
    gif = [_gif(run, reverse, times, suffix)] if args.gif else []
    real, tiles = workdir.read_examples(run.workdir, description), show.to_rgb(samples[:SHOWN], levels)
    if real is None:  # begun from weights: there is no data to show beside
        show.save_grid(picture, tiles, round(len(tiles) ** 0.5), run.caption)
        return [f"samples: {picture}", *gif]
    real = real[: len(tiles)]
    show.save_beside(picture, tiles, show.to_rgb(real, levels), run.caption)
    return [
        f"samples beside test data: {picture}",
        _chain(run, real, reverse, times, args.seed, suffix),
        *gif,
    ]


def _chain(run: Run, real: np.ndarray, reverse: np.ndarray, times: list[int], seed: int, suffix: str) -> str:
    """Draws both processes, and returns what to print of that."""
    path, shown = run.workdir / f"chain{suffix}.png", spaced(run.process.T, STATES)
    forward = draw_forward(jax.random.key(seed), run.process, real[:CHAINS], shown)
    reverse = reverse[[times.index(t) for t in shown], :CHAINS]
    rows, back = (show.to_rgb(x, run.parts.categories) for x in (forward, reverse))
    show.save_chain(path, rows, back, _told(run, shown), run.caption)
    return f"forward and reverse process: {path}"


def _gif(run: Run, reverse: np.ndarray, times: list[int], suffix: str) -> str:
    """Writes the reverse process as a GIF, and returns what to print of that."""
    path, tiles = run.workdir / f"chain{suffix}.gif", show.to_rgb(reverse[::-1], run.parts.categories)
    show.save_gif(path, tiles, round(tiles.shape[1] ** 0.5), _told(run, times[::-1]))
    return f"reverse process, moving: {path}"


def _told(run: Run, times: list[int]) -> list[int]:
    """Returns steps of a process that may have fewer by their t in the one with all of them."""
    return np.asarray(run.process.time)[times].tolist()
