"""Defines kinds of points of the plane in cells: pictures of their density, nats beside the exact entropy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from d3pm_jax.data import plane
from d3pm_jax.errors import UserError
from d3pm_jax.kinds.base import Batch, Kind, Measured, QualityTable, Reference, Samples, Split, States
from d3pm_jax.kinds.blocks import Block, Film, Picture, Strip
from d3pm_jax.kinds.files import show_beside

SCALE = 4  # pixels of a cell in each direction
EMPTY_COLOUR = np.array([255, 255, 255])
FULL_COLOUR = np.array([20, 30, 90])

QUALITY = QualityTable(
    columns={"variation": "total variation"},
    also=(),
    headline=("variation", "total variation"),
    words="Total variation: half of the sum over all cells of the difference between the share of the points "
    "in a cell and its exact mass. It falls with the number of points, so that points of the training split, "
    "as many as there are samples, show what there is to reach.",
)


class PlaneKind(Kind):
    """Says that examples are points of the plane in cells: 12 bits of Gray codes, or 2 numbers below 64.

    The density is part of the kind, since the exact masses of the cells follow from it.
    """

    density: ClassVar[plane.Density]
    """what the points are drawn from"""
    plural = "points"
    axes = 1
    sample_files = "pictures"
    # Fewer points do not show what density they are of.
    samples_drawn = 4000
    units: ClassVar = {
        "nats_above_exact": "{:.4f} nats above the exact density on these points",
        "entropy": "whose entropy is {:.4f} nats",
    }
    quality = QUALITY

    def check(self) -> None:
        super().check()
        size = self.description.shape[0]
        categories = self.description.categories
        if (size, categories) not in ((2 * plane.BITS, 2), (2, plane.SIDE)):
            raise UserError(
                f"shape = ({size},), categories = {categories}: points of kind {self.name!r} are the "
                f"{2 * plane.BITS} bits of Gray codes, of 2 categories, or 2 cells, of {plane.SIDE}"
            )

    def extra_figures(self, bound: Mapping[str, Any], examples: Batch) -> dict[str, float]:
        """Returns the entropy, and how far the bound is above -log of the exact masses of the same points.

        The mean of these is the entropy but for which points there happen to be, and that has no part in the
        difference.
        """
        cells = examples["x"]
        if cells.shape[-1] != 2:
            cells = plane.decode_gray(cells)  # [N, 2]
        masses = plane.cell_masses(self.density)[cells[:, 0], cells[:, 1]]  # [N]
        # Points of other data may lie in cells of mass 0.
        with np.errstate(divide="ignore"):
            exact_nats = -np.log(masses).mean()
        return {
            "nats_above_exact": float(bound["nats"] - exact_nats),
            "entropy": plane.compute_entropy(self.density),
        }

    def prepare_quality(
        self, train: Split, test: Split, num: int, batch_size: int = 128, inception: Path | None = None
    ) -> Reference:
        """Compares samples, and as many points of the training split, with the exact masses of the cells."""
        masses = plane.cell_masses(self.density)
        levels = self.description.categories

        def measure(x: np.ndarray) -> Measured:
            shares = spread_points(x, levels)
            return Measured({"n": len(x), "variation": float(np.abs(shares - masses).sum() / 2)})

        figures = {"train": measure(train.read(num)["x"]).figures}
        compared = f"exact density of {self.density}"
        return Reference(compared, f"{plane.SIDE} x {plane.SIDE} cells", figures, measure)

    def show_quality(self, samples: Samples, measured: Measured) -> Block | None:
        return show_beside(self, samples)

    def show_samples(self, samples: Samples) -> Picture:
        shares = spread_points(samples.x, self.description.categories)
        return Picture(draw_masses(shares), f"{len(samples.x)} points of the plane")

    def show_target(self) -> Picture:
        return Picture(draw_masses(plane.cell_masses(self.density)), "the exact density")

    def show_chain(self, states: States) -> Block | None:
        return Strip(draw_states(states.x, states.levels), states.times, "points")

    def show_film(self, states: States) -> Film:
        words = f"the chains of {states.x.shape[1]} points, played"
        return Film(draw_states(states.x, states.levels), states.times, 1, words)


class SpiralsKind(PlaneKind):
    """Says that examples are points of two spirals."""

    name = density = "spirals"


class EightGaussiansKind(PlaneKind):
    """Says that examples are points around eight points of a circle."""

    name = density = "eight_gaussians"


class CheckerboardKind(PlaneKind):
    """Says that examples are points of every second square of a board."""

    name = density = "checkerboard"


def spread_points(x: np.ndarray, levels: int) -> np.ndarray:
    """Returns the share of the points that each cell has, float64 [.., 64, 64], x before y.

    A point with masks is spread evenly over all cells that it may be in.

    Args:
        x: int [.., N, 12] of Gray codes or [.., N, 2]; a category from `levels` on is a mask.
        levels: categories that the data may have.
    """
    cells = np.arange(plane.SIDE)
    codes = cells[:, None]  # [64, 1]
    if x.shape[-1] != 2:
        diagonal = np.stack([cells, cells], axis=1)
        codes = plane.encode_gray(diagonal)[:, : plane.BITS]  # [64, 6]
    parts = x.reshape(*x.shape[:-1], 2, 1, -1)  # [.., N, 2, 1, 6] or [.., N, 2, 1, 1]
    is_possible = np.all((parts == codes) | (parts >= levels), axis=-1)  # [.., N, 2, 64]
    shares = is_possible / is_possible.sum(-1, keepdims=True)
    columns = shares[..., 0, :]
    rows = shares[..., 1, :]
    return columns.swapaxes(-1, -2) @ rows / x.shape[-2]


def draw_masses(masses: np.ndarray) -> np.ndarray:
    """Draws masses [.., 64, 64] of cells (x, y) as colours uint8 [.., H, W, 3], x to the right and y upwards.

    The colour goes with the root of a mass, so that a cell of a few points is seen beside one of many. The
    largest mass of all pictures has the full colour.
    """
    shade = np.sqrt(masses / masses.max())[..., None]  # [.., 64, 64, 1]
    colours = EMPTY_COLOUR + shade * (FULL_COLOUR - EMPTY_COLOUR)
    upright = colours.swapaxes(-2, -3)[..., ::-1, :, :].round().astype(np.uint8)
    return upright.repeat(SCALE, axis=-3).repeat(SCALE, axis=-2)


def draw_states(states: np.ndarray, levels: int) -> np.ndarray:
    """Draws the points of each state [R, N, *S] of chains into one picture, as colours uint8 [R, 1, H, W, 3].

    The points are few and the pictures small, so that a cell has the colour of the fullest cell around it.
    """
    shares = spread_points(states, levels)  # [R, 64, 64]
    padded = np.pad(shares, ((0, 0), (1, 1), (1, 1)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # [R, 64, 64, 3, 3]
    return draw_masses(around.max((-1, -2)))[:, None]
