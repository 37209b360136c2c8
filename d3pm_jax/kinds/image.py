"""Defines the kind of images [H, W, C]: grids, strips, GIFs, per-pixel histograms, quality in features."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from d3pm_jax import show
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.evaluation import baselines, frechet, neighbours
from d3pm_jax.kinds import features
from d3pm_jax.kinds.base import Kind, Measured, QualityTable, Reference, Samples, Split, States
from d3pm_jax.kinds.blocks import Block, Strip, Tiles

PAIRS = 32  # samples in the picture of quality, each with its nearest example
COLUMNS = 8  # of pairs
NAMED = 20  # classes whose rows have their numbers before them
SEED = 0  # of the draws that samples are compared with
PARTS = ("left", "right", "top", "bottom", "center", "border")  # of an image, that may be known
BIT_DEPTH = 24  # the byte of a PNG file that holds it
LINE_LEVEL = 90  # grey of the line between a sample and its condition

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
    sample_files = "pictures"
    shown_in_file = 64
    quality = QUALITY

    def read_given(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """Reads a picture too, a pixel for each element: its greys or colours become the nearest levels."""
        channels = shape[-1]
        if path.suffix != ".png" or channels not in (1, 3):
            return super().read_given(path, shape)
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                if path.read_bytes()[BIT_DEPTH] > 8:
                    raise ValueError("its greys or colours have 16 bits, of which 8 would be left out")
                pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"--given {path} cannot be read as a picture ({one_line(error)}): save it as a PNG file, or "
                "pass an .npy file"
            ) from error
        height, width = pixels.shape[:2]
        if (height, width) != shape[:2]:
            raise UserError(
                f"--given {path} is {width} pixels wide and {height} high: resize it to {shape[1]} wide "
                f"and {shape[0]} high, a pixel for each element"
            )
        levels = self.description.categories
        return np.round(pixels.reshape(shape) / 255 * (levels - 1)).astype(np.int32)

    def parse_known(self, word: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns a half of an image, or its middle or border, where the word is one of `PARTS`."""
        if word in PARTS:
            return mark_part(word, shape)
        if not word.endswith(".npy"):
            raise UserError(
                f"--known {one_line(word, 80)}: pass an .npy file of booleans, or one of {', '.join(PARTS)}"
            )
        return super().parse_known(word, shape)

    def check_quality(self, num: int, inception: Path | None) -> None:
        if self.description.shape[-1] not in (1, 3):
            raise self.not_measured()
        features.check_measurable(self.description, num, inception)

    def quality_options(self) -> str | None:
        channels = self.description.shape[-1]
        if channels == 3 or (channels == 1 and self.description.classes is None):
            return "--samples 5000 --inception FILE"
        return super().quality_options()

    def prepare_quality(
        self, train: Split, test: Split, num: int, batch_size: int = 128, inception: Path | None = None
    ) -> Reference:
        """Measures the training split itself, the test split and the per-pixel histogram in features.

        These are as many examples of the training split as there are samples, at most as many of the test
        split, and as many samples of the per-pixel histogram. A figure for which images are too few is None.
        """
        images, labels = train.read_unweighted()  # [N, H, W, C], [N]
        feature_space = features.choose_features(self.description, images, labels, inception, batch_size)
        train_features, _ = feature_space.compute(images)  # [N, d]
        train_statistics = _compute_statistics(train_features, "the training split")

        # Precision and recall depend on how many features there are on either side. So samples are compared
        # with as many training examples as there are samples, evenly spaced in the training split.
        spaced = np.linspace(0, len(images) - 1, min(len(images), num)).astype(int)
        spaced_features = train_features[spaced]  # [min(N, num), d]

        def measure(x: np.ndarray) -> Measured:
            """Measures images [n, H, W, C], and finds the training example nearest to each."""
            x_features, predicted_classes = feature_space.compute(x)  # [n, d], [n] or None
            precision = None
            recall = None
            if min(len(x_features), len(spaced_features)) > neighbours.K:
                precision, recall = neighbours.precision_recall(spaced_features, x_features, neighbours.K)

            # With no more images than features their covariance is singular, and the distance says nothing.
            frechet_distance = None
            if len(x) > x_features.shape[1]:
                statistics = _compute_statistics(x_features, "images")
                frechet_distance = frechet.compute_distance(statistics, train_statistics)

            nearest, squared_distances = neighbours.find_nearest(x, images)  # indices [n] of images, [n]
            mean_distance = float(np.sqrt(squared_distances).mean())
            # The figure is a distance of pixels in [0, 1], and x holds categories.
            largest_category = self.description.categories - 1
            row = {
                "n": len(x),
                "frechet": frechet_distance,
                "precision": precision,
                "recall": recall,
                "nearest": mean_distance / largest_category,
                "copies": float(np.mean(squared_distances == 0)),
            }
            if predicted_classes is not None:
                counts = np.bincount(predicted_classes, minlength=self.description.classes or 0)
                row["classes"] = (counts / len(x)).tolist()
            return Measured(row, images[nearest])

        # As many training examples are measured as if they were samples, which shows what there is to reach.
        drawn = np.random.default_rng(SEED).choice(len(images), num, replace=num > len(images))
        images_by_name = {
            "train": images[drawn],
            "test": test.read_unweighted(num)[0],
            "per-pixel": baselines.histogram_samples(images, num, SEED),
        }
        figures = {name: measure(x).figures for name, x in images_by_name.items()}
        compared = f"{len(images)} examples, sha256 {hashlib.sha256(images.tobytes()).hexdigest()}"
        return Reference(compared, feature_space.name, figures, measure)

    def show_quality(self, samples: Samples, measured: Measured) -> Block | None:
        assert measured.nearest is not None
        pairs = np.stack([samples.x[:PAIRS], measured.nearest[:PAIRS]], axis=1)  # [n, 2, H, W, C]
        tiles = show.to_rgb(pairs.reshape(-1, *pairs.shape[2:]), samples.levels)
        return Tiles(tiles, "samples, each left of the training example nearest to it", 2 * COLUMNS)

    def show_samples(self, samples: Samples) -> Block | None:
        images = put_beside_conditions(show.to_rgb(samples.x, samples.levels), samples.conditions)
        classes = samples.classes
        if classes is None or len(images) % classes or classes > NAMED:
            return Tiles(images, f"{len(images)} images")
        # Sample i is of class i modulo the number of classes.
        by_class = np.concatenate([images[c::classes] for c in range(classes)])
        names = [str(c) for c in range(classes)]
        return Tiles(by_class, "samples, a row for each class", len(images) // classes, names)

    def show_chain(self, states: States) -> Block | None:
        return Strip(show.to_rgb(states.x, states.levels), states.times)


def mark_part(word: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns which elements of an image [H, W, C] are in a part of it, one of `PARTS`, bool.

    The center has half of the height and half of the width, the border is the rest.
    """
    height, width, _ = shape
    row = np.broadcast_to(np.arange(height)[:, None, None], shape)
    column = np.broadcast_to(np.arange(width)[None, :, None], shape)
    is_central_row = (row >= height // 4) & (row < height - height // 4)
    is_central_column = (column >= width // 4) & (column < width - width // 4)
    is_center = is_central_row & is_central_column
    masks = {
        "left": column < width // 2,
        "right": column >= width // 2,
        "top": row < height // 2,
        "bottom": row >= height // 2,
        "center": is_center,
        "border": ~is_center,
    }
    return masks[word]


def put_beside_conditions(tiles: np.ndarray, conditions: np.ndarray | None) -> np.ndarray:
    """Puts images on the left of tiles uint8 [N, H, W, 3] where conditions are images that fit beside them.

    Args:
        tiles: to put them beside.
        conditions: [M, h, w, c], of which tile i has row i modulo M, with h, w that divide H, W and c = 1 or
            3: floats in 0..1, or integers from 0 to the largest of them. With others tiles stay as they are.

    Returns:
        Colours uint8 [N, H, 2 W + 1, 3], with a thin line between the two images; or the tiles.
    """
    if conditions is None or conditions.ndim != 4 or conditions.shape[-1] not in (1, 3):
        return tiles
    N, H, W, _ = tiles.shape
    _, h, w, _ = conditions.shape
    if H % h or W % w:
        return tiles

    brightest = 1.0
    if np.issubdtype(conditions.dtype, np.integer):
        brightest = max(1.0, float(conditions.max()))
    grey_levels = np.clip(conditions / brightest, 0, 1) * 255  # [M, h, w, c]
    images = np.broadcast_to(grey_levels, (*conditions.shape[:-1], 3)).round().astype(np.uint8)
    images = np.repeat(np.repeat(images, H // h, axis=1), W // w, axis=2)  # [M, H, W, 3]
    images = images[np.arange(N) % len(images)]  # [N, H, W, 3]
    line = np.full((N, H, 1, 3), LINE_LEVEL, np.uint8)
    return np.concatenate([images, line, tiles], axis=2)


def _compute_statistics(image_features: np.ndarray, source: str) -> frechet.Statistics:
    """Computes the mean and covariance of features [N, d]; an error names the source of the images."""
    with as_user_error(f"{source} cannot be compared: "):
        return frechet.compute_statistics(image_features)
