"""Draws what the pictures of a run show: samples, chains of the reverse process and of the forward one."""

from typing import NamedTuple

import jax
import numpy as np

from d3pm_jax.measure.samples import draw_forward, spaced
from d3pm_jax.report import folder

SAMPLES = 64
CLASSES = 80  # samples of a network that is told classes, at most
FILMED = 16  # chains
STRIP = 10  # states of a chain side by side
FRAMES = 4 * (STRIP - 1) + 1  # states of a chain that plays, those among them
ROWS = 4  # chains in it
SEED = 0


class Chains(NamedTuple):
    """Holds samples and chains, int32."""

    samples: np.ndarray  # [N, *S]; sample i is of class i modulo all
    kept: bool  # whether they are those of `d3pm sample`
    times: list[int]  # increasing, from 0 to the last, of the process with all steps
    reverse: np.ndarray  # [R, FILMED, *S], state r at times[r]
    strip: list[int]  # which of the times a strip shows
    forward: np.ndarray | None  # [len(strip), ROWS, *S]; None without examples to begin from


def draw(record: folder.Reported) -> Chains:
    """Draws them from the checkpoint of a run; what `d3pm sample` drew from it is not drawn again.

    Raises:
        UserError: the weights are not finite, or the samples in the folder are damaged.
    """
    run, key = record.run, jax.random.key(SEED)
    wanted = _number(run.parts.classes)
    kept = folder.read_samples(run, wanted)
    n, times = wanted if kept is None else FILMED, spaced(run.process.T, FRAMES)
    drawn, reverse = run.sample(key, n, batch_size=n, record=times, chains=FILMED)
    strip, forward = spaced(run.process.T, STRIP), None
    if record.examples is not None:
        forward = draw_forward(key, run.process, record.examples[:ROWS], strip)
    samples, time = drawn if kept is None else kept, np.asarray(run.process.time)
    return Chains(samples, kept is not None, time[times].tolist(), reverse, time[strip].tolist(), forward)


def _number(classes: int | None) -> int:
    """Returns how many samples to show: as many of each class where they are told, and not too many."""
    if classes is None or classes > CLASSES:
        return SAMPLES
    return CLASSES // classes * classes
