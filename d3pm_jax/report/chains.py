"""Draws what the pictures of a run show: samples, chains of the reverse process and of the forward one."""

from typing import NamedTuple

import jax

from d3pm_jax.kinds import Chains
from d3pm_jax.measure.samples import chains_to_show, spaced
from d3pm_jax.report import folder

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


def draw(record: folder.Reported) -> Drawn:
    """Draws from the checkpoint of a run; what `d3pm sample` drew from it is not drawn again.

    Raises:
        UserError: the weights are not finite, or the samples in the folder are damaged.
    """
    run, key = record.run, jax.random.key(SEED)
    wanted = _number(run.parts.classes)
    kept = folder.read_samples(run, wanted)
    n, times = wanted if kept is None else FILMED, spaced(run.process.T, FRAMES)
    drawn, reverse = run.sample(key, n, batch_size=n, record=times, chains=FILMED)
    samples = drawn if kept is None else kept
    strip = spaced(run.process.T, STRIP)
    chains = chains_to_show(run.parts, key, samples, reverse, times, strip, record.examples)
    return Drawn(chains, kept is not None)


def _number(classes: int | None) -> int:
    """Returns how many samples to show: as many of each class where they are told, and not too many."""
    if classes is None or classes > CLASSES:
        return SAMPLES
    return CLASSES // classes * classes
