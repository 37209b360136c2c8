"""Bounds of a run of examples/chorales.py beside simple laws, parallels of samples, sopranos harmonised.

    python benchmarks/parallels.py bound RUN
    python benchmarks/parallels.py samples RUN [--samplers ancestral,random] [--calls 8,32]
    python benchmarks/parallels.py picture RUN --to chorales.png

- bound: that of the run on the test split; "unigram": each note by the histogram of its voice; "last note":
  with a probability of its voice a note is the one before, and else another one by the histogram. Both learn
  from the training split.
- samples: parallel fifths, octaves and unisons per 1,000 changes of frame, of samples and of both splits, and
  which share of the notes is not that of the frame before. Errors are over samples, and over pieces in the
  splits, whose windows belong together. In "mixed" each voice of a window is of another window of the test
  split, and in "mixed, one key" all windows were moved to one key before: so many there are by chance.
- picture: windows of the test split as they are, and below them two samples to their sopranos.

Notes of one call are drawn as if they were independent. A random order has at most as many calls as there
are notes; with fewer it reveals evenly many a call. Gibbs draws a note anew after each step, so half of its
calls are steps.
"""

import argparse
import dataclasses
import itertools
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from PIL import Image

from d3pm_jax import runs
from d3pm_jax.config.io import load_module
from d3pm_jax.evaluation.bound import summarize_bound
from d3pm_jax.kinds import Measured, Reference, Samples
from d3pm_jax.kinds.blocks import Tiles
from d3pm_jax.sampling import Sampler, named
from d3pm_jax.sampling.places import Candidates, Count, RandomOrder, Reveal
from d3pm_jax.show.images import grid

CONFIG = Path(__file__).parents[1] / "examples" / "chorales.py"
SAMPLERS = ("ancestral", "remdm_cap", "random", "gibbs")
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Evenly(Count):
    """Reveals evenly many places a row."""

    rows: int

    def num_rows(self, places: int) -> int:
        return self.rows

    def count(self, candidates: Candidates, score: Array) -> Array:
        remaining = candidates.places * (candidates.rows - candidates.i) // candidates.rows
        return jnp.sum(candidates.masked, axis=-1, dtype=jnp.int32) - remaining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("figure", choices=("bound", "samples", "picture"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--calls", default="8,32,128,512")
    parser.add_argument("--num", type=int, default=256, help="samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", default="0,100", help="of the picture")
    parser.add_argument("--to", type=Path, help="the file of the picture")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the file that defines the run's parts")
    args = parser.parse_args()
    run = runs.open(args.run, args.config)
    began = time.process_time()
    if args.figure == "bound":
        print_bound(run)
    elif args.figure == "picture":
        windows = [int(number) for number in args.windows.split(",")]
        save_picture(run, windows, args.seed, args.to)
    else:
        samplers = args.samplers.split(",")
        calls = [int(number) for number in args.calls.split(",")]
        print_samples(run, samplers, calls, args.num, args.seed)
    print(f"{(time.process_time() - began) / 60:.1f} core minutes")


def print_bound(run: runs.Run) -> None:
    """Prints the bound on the test split and what simple laws have there."""
    train, test = (run.read_batch(split)["x"] for split in ("train", "test"))
    bound = run.evaluate(batch_size=BATCH)
    nats, error = (bound[name] * np.log(2) for name in ("bits_per_dim", "standard_error"))
    print(f"{len(test)} windows of the test split, nats per note")
    print(f"  bound: {nats:.4f} +- {error:.4f}")
    for name, p in compute_laws(train, test).items():
        law = summarize_bound(-np.log(p).mean((1, 2)), 1)
        print(f"  {name}: {law['nats']:.4f} +- {law['nats_standard_error']:.4f}")


def compute_laws(train: np.ndarray, test: np.ndarray) -> Mapping[str, np.ndarray]:
    """Returns the probability that each law gives to each note of test [N, F, V], given those before."""
    voices = np.arange(test.shape[2])
    K = max(train.max(), test.max()) + 1
    counts = np.stack([np.bincount(train[..., voice].ravel(), minlength=K) for voice in voices]) + 1
    histogram = counts / counts.sum(axis=1, keepdims=True)  # [V, K]
    unigram = histogram[voices, test]
    repeats = np.mean(np.diff(train, axis=1) == 0, axis=(0, 1))  # [V]
    # Another note than the one before: the histogram without that one.
    another = (1 - repeats) * unigram[:, 1:] / (1 - unigram[:, :-1])
    given_last = np.where(np.diff(test, axis=1) == 0, repeats, another)
    return {"unigram": unigram, "last note": np.concatenate([unigram[:, :1], given_last], axis=1)}


def choose_sampler(run: runs.Run, name: str, calls: int) -> tuple[runs.Run, Sampler]:
    """Returns a run with the steps, and the sampler, that take so many calls at most."""
    if name == "random":
        rows = min(calls, run.parts.description.place_sizes.size)
        return run, Sampler(Reveal(RandomOrder(), Evenly(rows)))
    if name == "gibbs":
        return run.respaced((calls + 1) // 2), named.gibbs()
    return run.respaced(calls), named.SAMPLERS[name]()


def print_samples(run: runs.Run, samplers: list[str], calls: list[int], num: int, seed: int) -> None:
    """Prints parallels of samples for each sampler and number of calls, after those of the data."""
    for split in ("train", "test"):
        notes = run.read_batch(split)["x"]
        counts = count_parallels(notes)
        row = {**measure(notes).figures, "error": error_over_pieces(counts, count_windows(run, split))}
        print(f"{split:<20} {'':>5}  {format_figures(row)}", flush=True)
    test = run.read_batch("test")["x"]  # [N, F, V]
    for name, notes in {"mixed": test, "mixed, one key": move_to_one_key(test)}.items():
        # Seven windows are more than most pieces have, so that hardly any two voices are of one piece.
        mixed = [np.roll(line, 7 * voice, axis=0) for voice, line in enumerate(np.moveaxis(notes, 2, 0))]
        print(f"{name:<20} {'':>5}  {format_figures(measure(np.stack(mixed, axis=2)).figures)}", flush=True)
    reference = Reference("nothing", "parallels", {}, measure)
    for name in samplers:
        for number in calls:
            respaced_run, sampler = choose_sampler(run, name, number)
            quality = respaced_run.measure_quality(reference, num, seed, BATCH, sampler=sampler)
            row = quality.figures["samples"]
            taken = row.get("calls_per_sample", number)
            print(f"{name:<20} {taken:>5.0f}  {format_figures(row)}", flush=True)


def count_windows(run: runs.Run, split: str) -> list[int]:
    """Returns how many windows each piece of a split has."""
    data = run.config.data
    example = load_module(CONFIG)
    step = example.BAR if split == "train" else data.frames
    pieces = example.read_pieces(data.file, split)
    return [len(range(0, len(piece) - data.frames + 1, step)) for piece in pieces]


def count_parallels(notes: np.ndarray) -> np.ndarray:
    """Counts parallels of notes [N, F, V] per 1,000 changes of frame, [N].

    Two voices move in one direction, and have a fifth, an octave or a unison between them before and after,
    modulo octaves, with the same voice above.
    """
    parallels = np.zeros(len(notes))
    for first, second in itertools.combinations(np.moveaxis(notes, 2, 0), 2):  # [N, F] each
        # The remainder is 7 for a fifth above and -7 for one below: voices that cross make no parallels.
        interval = np.where((first > 0) & (second > 0), np.fmod(first - second, 12), -1)
        stays = np.isin(interval[:, 1:], [0, 7, -7]) & (np.diff(interval) == 0)
        moves_along = np.diff(first) * np.diff(second) > 0
        parallels += 1000 * np.mean(stays & moves_along, axis=1)
    return parallels


def measure(notes: np.ndarray) -> Measured:
    """Returns the figures of notes [N, F, V], with the error over these N."""
    parallels = count_parallels(notes)
    error = np.std(parallels) / len(notes) ** 0.5
    moves = np.mean(np.diff(notes, axis=1) != 0)
    return Measured({"n": len(notes), "parallels": np.mean(parallels), "error": error, "moves": moves})


def error_over_pieces(x: np.ndarray, windows: list[int]) -> float:
    """Returns the standard error of the mean of x [N], where so many windows in a row are of one piece."""
    piece = np.repeat(np.arange(len(windows)), windows)
    sums = np.bincount(piece, x - np.mean(x))
    return float(np.sum(sums**2) ** 0.5 / len(x))


def move_to_one_key(notes: np.ndarray) -> np.ndarray:
    """Transposes each window of notes [N, F, V] so that as many of its notes as can be are of C major."""
    is_white = np.isin(np.arange(12), [0, 2, 4, 5, 7, 9, 11])
    moved = []
    for window in notes:
        shares = [np.mean(is_white[(window[window > 0] + shift) % 12]) for shift in range(-6, 6)]
        moved.append(np.where(window > 0, window + np.argmax(shares) - 6, 0))
    return np.stack(moved)


def save_picture(run: runs.Run, windows: list[int], seed: int, path: Path) -> None:
    """Draws windows of the test split side by side, each above two samples that have its soprano."""
    notes = run.read_batch("test", max(windows) + 1)["x"][windows]  # [N, F, V]
    rows = [notes]
    for number in range(2):
        known = np.broadcast_to(np.arange(notes.shape[2]) == 0, notes.shape)
        draw = runs.Draw(known=(notes, known), sampler=named.random_order())
        rows.append(run.sample(jax.random.key(seed + number), len(windows), draw).x0)
    block = run.parts.kind.show_samples(Samples(np.concatenate(rows), run.process.K - 1))
    assert isinstance(block, Tiles)
    Image.fromarray(grid(block.images, len(windows))).save(path, optimize=True)


def format_figures(row: Mapping[str, float]) -> str:
    """Formats the figures of samples."""
    return (
        f"{row['parallels']:6.2f} +- {row['error']:.2f} per 1,000 changes; {row['moves']:.3f} of notes move"
    )


if __name__ == "__main__":
    main()
