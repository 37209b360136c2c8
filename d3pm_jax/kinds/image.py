"""Images [H, W, C] of ordered levels: grids and strips, GIFs, per-pixel histograms, quality in features."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d3pm_jax import show
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import baselines, frechet
from d3pm_jax.evaluation.neighbours import K as NEIGHBOURS, find_nearest, precision_recall
from d3pm_jax.kinds import features
from d3pm_jax.kinds.base import FRAMES, STATES, Chains, Kind, Measured, QualityTable, Reference, Split
from d3pm_jax.kinds.blocks import Block, Film, Picture, Rows, Strip

SHOWN = 64  # samples in the picture
CHAINS = 4  # examples in the picture of chains
PAIRS = 32  # samples in the picture of quality, each with its nearest example
COLUMNS = 8  # of pairs, and of a grid in a report
NAMED = 20  # classes whose rows have their numbers before them
SEED = 0  # of what samples are to be compared with

QUALITY = QualityTable(
    columns={"frechet": "Fréchet", "precision": "precision", "recall": "recall"},
    also=("nearest", "copies"),
    headline=("frechet", "Fréchet distance"),
    words="Samples, and for comparison examples of the data and samples of the per-pixel histogram, "
    "beside all of the training split, in features of images.",
)


class ImageKind(Kind):
    """Says that examples are images [H, W, C] of ordered levels: grey with one channel, or RGB with three."""

    name = "image"
    axes = 3
    place_histogram = "per-pixel histogram"
    beside_data = True
    quality = QUALITY

    def save_examples(self, path: Path, x: np.ndarray, caption: str = "") -> Path:
        path = path.with_name(f"{path.name}.png")
        show.save_grid(path, show.to_rgb(x, self.description.categories), round(len(x) ** 0.5), caption)
        return path

    def num_states(self, gif: bool = False) -> int:
        return FRAMES if gif else STATES

    def save_samples(
        self, folder: Path, suffix: str, chains: Chains, caption: str, gif: bool = False
    ) -> dict[str, Path]:
        picture, written = folder / f"samples{suffix}.png", {}
        tiles = show.to_rgb(chains.samples[:SHOWN], chains.levels)
        if chains.examples is None:  # begun from weights: there is no data to show beside
            show.save_grid(picture, tiles, round(len(tiles) ** 0.5), caption)
            written["samples"] = picture
        else:
            real = show.to_rgb(chains.examples[: len(tiles)], chains.levels)
            show.save_beside(picture, tiles, real, caption)
            written["samples beside test data"] = picture
        if chains.forward is not None:
            path = folder / f"chain{suffix}.png"
            reverse = chains.reverse[[chains.times.index(t) for t in chains.strip], :CHAINS]
            forward, back = (show.to_rgb(x, chains.levels) for x in (chains.forward(), reverse))
            show.save_chain(path, forward, back, chains.strip, caption)
            written["forward and reverse process"] = path
        if gif:
            path, states = folder / f"chain{suffix}.gif", show.to_rgb(chains.reverse[::-1], chains.levels)
            show.save_gif(path, states, round(states.shape[1] ** 0.5), chains.times[::-1])
            written["reverse process, moving"] = path
        return written

    def check_quality(self, num: int, inception: Path | None) -> None:
        if self.description.shape[-1] not in (1, 3):
            super().check_quality(num, inception)
        features.check_measurable(self.description, num, inception)

    def prepare_quality(
        self, train: Split, test: Split, num: int, batch_size: int = 128, inception: Path | None = None
    ) -> Reference:
        """Measures the training split itself, the test split and the per-pixel histogram in features.

        These are as many examples of the training split as there are samples, at most as many of the test
        split, and as many samples of the per-pixel histogram. A figure for which images are too few is None.
        """
        self.check_quality(num, inception)
        images, labels = train.read_unweighted()
        chosen = features.choose_features(self.description, images, labels, inception, batch_size)
        of_train, _ = chosen.compute(images)
        statistics = _statistics(of_train, "the training split")
        # features of as many training examples as there are samples, evenly spaced
        spaced = of_train[np.linspace(0, len(images) - 1, min(len(images), num)).astype(int)]

        def measure(x: np.ndarray) -> Measured:
            found, called = chosen.compute(x)
            is_comparable = min(len(found), len(spaced)) > NEIGHBOURS
            precision, recall = precision_recall(spaced, found, NEIGHBOURS) if is_comparable else (None, None)
            distance = None
            if len(x) > found.shape[1]:
                distance = frechet.compute_distance(_statistics(found, "images"), statistics)
            index, squared = find_nearest(x, images)
            row = {
                "n": len(x),
                "frechet": distance,
                "precision": precision,
                "recall": recall,
                "nearest": float(np.sqrt(squared).mean()) / (self.description.categories - 1),
                "copies": float(np.mean(squared == 0)),
            }
            if called is not None:
                counts = np.bincount(called, minlength=self.description.classes or 0)
                row["classes"] = (counts / len(x)).tolist()
            return Measured(row, images[index])

        drawn = np.random.default_rng(SEED).choice(len(images), num, replace=num > len(images))
        rows = {
            "train": images[drawn],
            "test": test.read_unweighted(num)[0],
            "per-pixel": baselines.histogram_samples(images, num, SEED),
        }
        figures = {name: measure(x).figures for name, x in rows.items()}
        compared = f"{len(images)} examples, sha256 {hashlib.sha256(images.tobytes()).hexdigest()}"
        return Reference(compared, chosen.name, figures, measure)

    def show_quality(
        self, path: Path, samples: np.ndarray, measured: Measured, levels: int, caption: str
    ) -> str | None:
        assert measured.nearest is not None
        pairs = np.stack([samples[:PAIRS], measured.nearest[:PAIRS]], axis=1)
        tiles = show.to_rgb(pairs.reshape(-1, *pairs.shape[2:]), levels)
        picture = path.with_suffix(".png")
        show.save_grid(picture, tiles, 2 * COLUMNS, f"{caption}; right of each sample its nearest example")
        return f"samples, each left of the training example nearest to it: {picture}"

    def show_samples(self, x: np.ndarray, levels: int, classes: int | None = None) -> Block | None:
        images = show.to_rgb(x, levels)
        if classes is None or len(x) % classes or classes > NAMED:
            return Picture(show.grid(images, COLUMNS), f"{len(images)} images")
        by_class = images.reshape(-1, classes, *images.shape[1:]).swapaxes(0, 1)
        return Rows(by_class, [str(c) for c in range(classes)], "samples, a row for each class")

    def show_chain(self, states: np.ndarray, times: Sequence[int], levels: int) -> Block | None:
        return Strip(show.to_rgb(states, levels), times, f"chains at t = {', '.join(map(str, times))}")

    def show_film(self, states: np.ndarray, times: Sequence[int], levels: int, steps: int) -> Block | None:
        n = states.shape[1]
        return Film(show.to_rgb(states, levels), times, round(n**0.5), f"the chains of {n} samples, played")


def _statistics(found: np.ndarray, what: str) -> frechet.Statistics:
    try:
        return frechet.compute_statistics(found)
    except ValueError as error:
        raise UserError(f"{what} cannot be compared: {error}") from error
