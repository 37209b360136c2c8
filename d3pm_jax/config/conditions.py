"""Describes data sets of which each example has a condition that is not a class."""

import dataclasses
from typing import Annotated, ClassVar

import numpy as np

from d3pm_jax.config.checks import Count, Free, NonEmptyStr, Seed, undefined_method
from d3pm_jax.config.data import Data, Digits, check_split_of
from d3pm_jax.data import Description, Source
from d3pm_jax.data.digit_conditions import SMALL_SIDE, ConditionedSource, block_means, scaled_style
from d3pm_jax.data.mazes import CHANNELS, Cells, MazeSource


@dataclasses.dataclass(frozen=True)
class ConditionedDigits(Data):
    """Base of the digits with a condition of each; a class defines `condition_shape` and `condition_of`."""

    condition_shape: ClassVar[tuple[int, ...]]
    """the shape of the condition of a digit"""

    dir: Annotated[NonEmptyStr | None, Free] = None
    """the folder of the data sets; None: that of TFDS"""
    conditioned: bool = dataclasses.field(default=True, kw_only=True)
    """give the network the condition; False leaves it out, for a run to compare with"""

    def check_kept(self) -> None:
        self._digits.check_kept()

    def describe(self) -> Description:
        description = self._digits.describe()
        if not self.conditioned:
            return description
        return dataclasses.replace(description, condition=self.condition_shape, condition_type="float32")

    def open(self, split: str) -> Source:
        source = self._digits.open(split)
        if not self.conditioned:
            return source
        return ConditionedSource(source, self.condition_of)

    def condition_of(self, x: np.ndarray) -> np.ndarray:
        """Returns the condition of a digit of grey levels [8, 8, 1], float32."""
        raise undefined_method(self, "condition_of")

    @property
    def _digits(self) -> Digits:
        return Digits(dir=self.dir)


@dataclasses.dataclass(frozen=True)
class StyledDigits(ConditionedDigits):
    """Names the digits, each with its thickness, slant and brightness as the condition: float32 [3].

    They have mean 0 and variance 1 over the training split; see `data.digit_conditions.measure_style`.
    """

    condition_shape: ClassVar[tuple[int, ...]] = (3,)

    def condition_of(self, x: np.ndarray) -> np.ndarray:
        return scaled_style(x)


@dataclasses.dataclass(frozen=True)
class UpsampledDigits(ConditionedDigits):
    """Names the digits, each with its 4 x 4 block means as the condition: float32 [4, 4, 1] in 0..1.

    A digit is an image of twice as many rows and columns, so that this is super-resolution.
    """

    condition_shape: ClassVar[tuple[int, ...]] = (SMALL_SIDE, SMALL_SIDE, 1)

    def condition_of(self, x: np.ndarray) -> np.ndarray:
        return block_means(x)


@dataclasses.dataclass(frozen=True)
class Mazes(Data):
    """Describes mazes with two ends, which are the condition, and the shortest path between them, which is x.

    With n cells in a row, x is 0 or 1, [2n - 1, 2n - 1, 1], and the condition float32 [2n - 1, 2n - 1, 2]: 1
    where the maze is open, and 1 at the ends. They are drawn as they are read, by `data.mazes`.
    """

    cells: Cells = 6
    """cells in a row and in a column; with 2 or 3, mazes are so few that most test mazes are trained on"""
    train_size: Count = 20_000
    """mazes to train on"""
    test_size: Count = 500
    """mazes to evaluate on"""
    seed: Seed = 0
    """seed of the mazes; together with split and index it determines an example"""
    conditioned: bool = dataclasses.field(default=True, kw_only=True)
    """give the network the maze; False leaves it out, for a run to compare with"""

    def describe(self) -> Description:
        side = 2 * self.cells - 1
        description = Description((side, side, 1), 2, kind="maze")
        if not self.conditioned:
            return description
        return dataclasses.replace(description, condition=(side, side, CHANNELS), condition_type="float32")

    def open(self, split: str) -> Source:
        check_split_of(self, split)
        size = {"train": self.train_size, "test": self.test_size}[split]
        return MazeSource(self.cells, size, self.seed, split, self.conditioned)
