"""Exact likelihoods of four-part chorales at sixteenths, in nats per note.

    python benchmarks/exact_chorales.py chronological RUN --data jsb16.npz [--split test]
    python benchmarks/exact_chorales.py random RUN --data jsb16.npz [--split test] [--orders 8]
    python benchmarks/exact_chorales.py coconet RUN --data jsb16.npz [--split test] [--orders 5]

RUN is a run of configs/chorales.py or configs/chorales_causal.py.

- chronological: -log p of whole pieces, frame by frame and soprano before bass, each note given the 31 frames
  before its own, or as many as there are, and the earlier voices of its frame.
- random: the chain rule in random orders, which are the same for all pieces, on the 32 frames in the middle
  of each piece (from a beat on): the mean over orders, and the law of the mixture of these orders.
- coconet: the score of Coconet's code (magenta, coconet/lib_evaluation.py) on the same windows. It is the
  likelihood of no joint law: inside a frame the earlier voices are the network's own most likely notes, not
  the true ones, and several orders are combined for each frame alone, by a log of mean probabilities.

Errors are over pieces: of the quotient of all nats by all notes.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import likelihood, orders, runs

CONFIG = Path(__file__).parents[1] / "configs" / "chorales.py"
BATCH = 256  # windows at a time
BEAT = 4  # frames
BAR = 16
VOICES = 4

# (x_t int32 [B, F, 4], phase int32 [B]) -> log p(x_0) [B, F, 4, K]; the phase is the first frame's in its bar
FillIn = Callable[[Any, Any], jax.Array]


class Opened(NamedTuple):
    """Holds the network of a run, and the pieces of a split."""

    fill_in: FillIn
    mask: int
    frames: int  # of a window
    is_causal: bool
    pieces: list[np.ndarray]  # int32 [frames, 4] each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("figure", choices=("chronological", "random", "coconet"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the .npz file of pieces")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--pieces", type=int, help="take the first ones only")
    parser.add_argument("--orders", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the orders")
    parser.add_argument("--step", type=int, help="of the checkpoint; the last without")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the file that defines the run's parts")
    args = parser.parse_args()
    opened = open_all(args)
    began = time.process_time()
    if args.figure == "chronological":
        print_chronological(opened)
    elif args.figure == "random":
        print_random(opened, args.orders, args.seed)
    else:
        print_coconet(opened, args.orders, args.seed)
    print(f"{args.split}, {len(opened.pieces)} pieces; {(time.process_time() - began) / 60:.1f} core minutes")


def open_all(args: argparse.Namespace) -> Opened:
    """Opens the run and reads the pieces."""
    run = runs.open(args.run, args.config, args.step)
    data: Any = run.config.data
    model: Any = run.config.model
    diffusion = run.parts.recipe.diffusion
    assert diffusion is not None
    one = jnp.ones(1, jnp.int32)

    @jax.jit
    def fill_in(params: Any, xt: jax.Array, phase: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(diffusion.network(params, xt, jnp.broadcast_to(one, len(xt)), label=phase))

    pieces = type(data)(str(args.data), data.frames).read_pieces(args.split)[: args.pieces]
    mask = run.process.K - 1
    return Opened(lambda xt, phase: fill_in(run.params, xt, phase), mask, data.frames, model.causal, pieces)


def print_chronological(opened: Opened) -> None:
    """Prints the likelihood of whole pieces from left to right."""
    nats_by_frame = []
    for windows, phase, frame, valid in list_windows(opened):
        log_p = predict_frame(opened, windows, phase, frame)  # [B, 4, K]
        notes = windows[np.arange(len(windows)), frame]  # [B, 4]
        nats_by_frame.append(-np.take_along_axis(log_p, notes[..., None], axis=2)[:valid, :, 0])
    nats = np.concatenate(nats_by_frame)  # [all frames, 4]
    lengths = [len(piece) for piece in opened.pieces]
    by_piece = np.split(nats, np.cumsum(lengths)[:-1])
    print_figure("chronological, nats per note", by_piece)
    for voice, name in enumerate(("soprano", "alto", "tenor", "bass")):
        print_figure(f"  {name}", [piece[:, voice] for piece in by_piece])


def list_windows(opened: Opened) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Yields for each frame of all pieces, a batch at a time, the window that ends with it.

    Yields:
        Windows int32 [BATCH, F, 4], with masks after the end of a piece; their phase [BATCH]; which frame of
        the window it is [BATCH], the last one but at the beginning of a piece; and how many are meant.
    """
    F = opened.frames
    windows, phases, frames = [], [], []
    for piece in opened.pieces:
        padded = np.concatenate([piece, np.full((F, VOICES), opened.mask, np.int32)])
        for number in range(len(piece)):
            start = max(0, number - F + 1)
            windows.append(padded[start : start + F])
            phases.append(start % BAR)
            frames.append(number - start)
    for first in range(0, len(windows), BATCH):
        part = [list_[first : first + BATCH] for list_ in (windows, phases, frames)]
        valid = len(part[0])
        # The last batch is filled up, so that one program is compiled.
        yield *(np.array(list_ + list_[:1] * (BATCH - valid), np.int32) for list_ in part), valid


def predict_frame(opened: Opened, windows: np.ndarray, phase: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Returns log p of each voice of a frame given the frames before and the voices before it, [B, 4, K]."""
    rows = np.arange(len(windows))
    numbers = np.arange(opened.frames)[:, None]
    log_p = []
    for voice in range(VOICES):
        is_later = (numbers > frame[:, None, None]) | (
            (numbers == frame[:, None, None]) & (np.arange(VOICES) >= voice)
        )
        # A causal network does not see what comes later: one call is enough, and nothing is masked.
        xt = windows if opened.is_causal else np.where(is_later, opened.mask, windows)
        predicted = np.asarray(opened.fill_in(xt, phase), np.float64)[rows, frame]  # [B, 4, K]
        if opened.is_causal:
            return predicted
        log_p.append(predicted[:, voice])
    return np.stack(log_p, axis=1)


def cut_middles(opened: Opened) -> tuple[np.ndarray, np.ndarray]:
    """Returns the window in the middle of each piece, from a beat on, [N, F, 4], and its phase [N]."""
    starts = [(len(piece) - opened.frames) // 2 // BEAT * BEAT for piece in opened.pieces]
    windows = [
        piece[start : start + opened.frames] for piece, start in zip(opened.pieces, starts, strict=True)
    ]
    return np.array(windows), np.array(starts, np.int32) % BAR


def print_random(opened: Opened, num_orders: int, seed: int) -> None:
    """Prints the chain rule in random orders: their mean and their mixture."""
    x0, phase = cut_middles(opened)
    nats_by_order = []

    @jax.jit
    def compute(order: jax.Array) -> jax.Array:
        order = jnp.broadcast_to(order, x0.shape)
        return likelihood.chain_rule(lambda xt: opened.fill_in(xt, phase), x0, order, opened.mask)

    for number in range(num_orders):
        order = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), number), x0.shape[1:])
        nats_by_order.append(np.asarray(compute(order), np.float64).sum((1, 2)))
    nats = np.array(nats_by_order)  # [M, N]
    notes = opened.frames * VOICES
    mixture = orders.mixture(jnp.asarray(nats))
    print_figure(f"mean of {num_orders} random orders, nats per note", list(nats.mean(0) / notes))
    print_figure(f"mixture of these {num_orders} orders, nats per note", list(mixture.nats / notes))
    print_figure("  mean - mixture, nats per window", list(nats.mean(0) - mixture.nats))
    print_figure("  effective number of orders", list(mixture.effective))


def print_coconet(opened: Opened, num_orders: int, seed: int) -> None:
    """Prints the score of Coconet's code, in nats per frame and per note."""
    x0, phase = cut_middles(opened)
    N, F, _ = x0.shape
    rng = np.random.default_rng(seed)
    scores = []  # of each order, log "p" of each frame [N, F]
    for _ in range(num_orders):
        score = np.zeros((N, F))
        seen = np.full_like(x0, opened.mask)
        for frame in rng.permutation(F):
            shown = seen.copy()
            for voice in rng.permutation(VOICES):
                log_p = np.asarray(opened.fill_in(shown, phase), np.float64)[:, frame, voice]  # [N, K]
                score[:, frame] += np.take_along_axis(log_p, x0[:, frame, voice, None], axis=1)[:, 0]
                shown[:, frame, voice] = log_p.argmax(axis=1)
            seen[:, frame] = x0[:, frame]
        scores.append(score)
    ensemble = np.logaddexp.reduce(np.array(scores), axis=0) - np.log(num_orders)  # [N, F]
    print("Coconet's score, which is no likelihood: see --help")
    print_figure(f"random frames, {num_orders} orders, nats per frame", list(-ensemble.mean(1)))
    print_figure(f"random frames, {num_orders} orders, nats per note", list(-ensemble.mean(1) / VOICES))
    print_figure("one order, nats per frame", list(-scores[0].mean(1)))


def print_figure(name: str, by_piece: list[Any]) -> None:
    """Prints the quotient of the sums of values and of their number, with its error over pieces."""
    sums = np.array([np.sum(piece) for piece in by_piece])
    sizes = np.array([np.size(piece) for piece in by_piece], np.float64)
    ratio = sums.sum() / sizes.sum()
    error = likelihood.mean_and_se(jnp.asarray((sums - ratio * sizes) / sizes.mean()))[1]
    print(f"{name}: {ratio:.4f} +- {float(error):.4f}")


if __name__ == "__main__":
    main()
