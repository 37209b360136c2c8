"""Derives a condition from each digit: the style of its strokes, or a smaller image of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Integer

from d3pm_jax.checks import declared
from d3pm_jax.data.source import DatasetError, FunctionSource, Source, check_example, check_source

HIGHEST_LEVEL = 16  # of the grey levels 0..16
SMALL_SIDE = 4  # of the smaller image

# Thickness, slant and brightness of the 1,500 training digits: mean and standard deviation (divided by N) of
# what `measure_style` gives for them, to five digits. Measured once and written down, so that a condition
# depends on its digit alone. On the 297 test digits, by other writers, the scaled numbers have means 0.32,
# 0.12, 0.03 and standard deviations 0.87, 0.88, 1.04; in training they lie in -3.2..3.6, and thickness and
# brightness are correlated by 0.52.
STYLE_MEANS = np.array([0.76334, -0.043815, 0.30511])
STYLE_DEVIATIONS = np.array([0.047908, 0.12335, 0.033428])


class ConditionedSource(FunctionSource):
    """Adds "condition", a function of x, to each example of a source.

    Args:
        source: the examples.
        condition_of: x [*S] -> the condition.
    """

    @declared()
    def __init__(self, source: Source, condition_of: Callable[[np.ndarray], np.ndarray]) -> None:
        check_source("source", source)

        def read(number: int) -> dict[str, Any]:
            example = source[number]
            check_example(example, f"example {number} of the source is")
            return example | {"condition": condition_of(example["x"])}

        super().__init__(len(source), read)


def measure_style(x: Integer[np.ndarray, "H W 1"]) -> Float64[np.ndarray, " 3"]:
    """Returns thickness, slant and brightness of a digit of grey levels w = level / 16.

    - thickness = sum w^2 / sum w, the mean grey of the ink. The level of a pixel says how much of it the
      stroke covers, so that thin strokes are grey and thick ones are dark inside.
    - slant = -mu_rc / mu_rr, of the central moments mu_ab = sum w (a - mean a) (b - mean b) / sum w of row r
      and column c: columns to the right for each row upwards, of the line of regression through the digit.
    - brightness = mean of w over all pixels, the amount of ink.

    Raises:
        DatasetError: the digit has no ink, or ink in one row alone, so that it has no slant.
    """
    w = x[..., 0] / HIGHEST_LEVEL  # [H, W]
    ink = w.sum()
    ink_of_rows = w.sum(1)  # [H]
    if np.count_nonzero(ink_of_rows) < 2:
        raise DatasetError(
            f"a digit has ink in {np.count_nonzero(ink_of_rows)} of its rows: take digits with ink in two or "
            f"more, or leave the condition out, conditioned=False"
        )
    rows = np.arange(w.shape[0])
    columns = np.arange(w.shape[1])
    rows_from_centre = rows - rows @ ink_of_rows / ink  # [H]
    columns_from_centre = columns - columns @ w.sum(0) / ink  # [W]

    row_variance = rows_from_centre**2 @ ink_of_rows
    covariance = rows_from_centre @ w @ columns_from_centre
    # Rows are counted downwards, and a digit leans to the right where its upper rows lie to the right.
    slant = -covariance / row_variance
    return np.array([np.sum(w**2) / ink, slant, w.mean()])


def scaled_style(x: Integer[np.ndarray, "H W 1"]) -> Float32[np.ndarray, " 3"]:
    """Returns `measure_style` of a digit, with mean 0 and variance 1 over the training digits."""
    return ((measure_style(x) - STYLE_MEANS) / STYLE_DEVIATIONS).astype(np.float32)


def block_means(x: Integer[np.ndarray, "H W 1"]) -> Float32[np.ndarray, "4 4 1"]:
    """Returns the mean of each block of an image of grey levels, 4 by 4 blocks, in 0..1.

    For levels 0..16 and blocks of 2 x 2 pixels they are multiples of 1/64, which float32 holds exactly.
    """
    H, W, C = x.shape
    blocks = x.reshape(SMALL_SIDE, H // SMALL_SIDE, SMALL_SIDE, W // SMALL_SIDE, C)
    return (blocks.mean((1, 3)) / HIGHEST_LEVEL).astype(np.float32)
