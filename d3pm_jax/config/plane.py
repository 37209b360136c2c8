"""Describes data sets of points of the plane."""

import dataclasses

import numpy as np

from d3pm_jax.config.checks import Count, Seed
from d3pm_jax.config.data import Data, check_split_of
from d3pm_jax.data import ArraySource, Description, Source, plane


@dataclasses.dataclass(frozen=True)
class Plane(Data):
    """Describes points of the plane in 64 x 64 cells, whose entropy is known exactly; see `data.plane`.

    They are drawn when the data is opened, and follow from the fields alone. Each density is a kind of data.
    """

    density: plane.Density = "spirals"
    """the density that the points are drawn from"""
    coding: plane.Coding = "gray"
    """how a cell is written: "gray": the 12 bits of the Gray codes of its column and row, K = 2;
    "plain": column and row as numbers, K = 64"""
    train_size: Count = 100_000
    """points to train on"""
    test_size: Count = 20_000
    """points to evaluate on"""
    seed: Seed = 0
    """seed of the points; the two splits have different points"""

    def describe(self) -> Description:
        if self.coding == "gray":
            return Description((2 * plane.BITS,), 2, kind=self.density)
        return Description((2,), plane.SIDE, kind=self.density)

    def open(self, split: str) -> Source:
        check_split_of(self, split)
        number = {"train": 0, "test": 1}[split]
        size = {"train": self.train_size, "test": self.test_size}[split]
        rng = np.random.default_rng([self.seed, number])
        cells = plane.find_cells(plane.draw_points(self.density, size, rng))  # [N, 2]
        if self.coding == "gray":
            return ArraySource(plane.encode_gray(cells))
        return ArraySource(cells)
