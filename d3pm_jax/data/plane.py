"""Draws points of the plane from three densities, quantises them, and computes the exact masses of the cells.

The square of both coordinates in [-4, 4) is cut into 64 x 64 cells; a point outside of it falls into the
nearest cell at the edge. The probability of each cell, its mass, is known exactly, and with it the entropy of
the quantised points, which no model of them can be below.

Two spirals: with u uniform in [0, 1), theta = 3 pi sqrt(u) and a sign that is drawn,
    point = sign (theta / 3) (cos theta, sin theta) + 0.1 z,  z normal.
Eight Gaussians: around eight points of a circle of radius 2.8, with a standard deviation of 0.35.
Checkerboard: uniform on every second of 4 x 4 squares.
"""

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Int32
from scipy.special import ndtr, xlogy

Density = Literal["spirals", "eight_gaussians", "checkerboard"]
Coding = Literal["gray", "plain"]

BITS = 6  # of a coordinate
SIDE = 2**BITS  # cells in a row and in a column
EXTENT = 4.0  # the square has coordinates from -EXTENT to EXTENT
CELL = 2 * EXTENT / SIDE  # side of a cell

TURN = 3 * np.pi  # angle of a spiral, from its centre to its end
SPIRAL_RADIUS = np.pi  # of the end
SPIRAL_NOISE = 0.1  # standard deviation
# The rule of 16 nodes on each of 200 parts of a spiral is exact to the last digits, as no part is longer
# than 1.5 standard deviations of the noise.
PANELS = 200
NODES = 16

CIRCLE_RADIUS = 2.8
GAUSSIAN_NOISE = 0.35  # standard deviation

SQUARES = 4  # in a row of the checkerboard
SQUARE = SIDE // SQUARES  # cells in a row of a square


def draw_points(density: Density, n: int, rng: np.random.Generator) -> Float64[np.ndarray, "n 2"]:
    """Draws n points (x, y) of a density, before they are quantised."""
    return _DRAWS[density](n, rng)


def find_cells(points: Float64[np.ndarray, "*N 2"]) -> Int32[np.ndarray, "*N 2"]:
    """Returns the cell 0..63 of each coordinate; what lies outside of the square falls into an edge cell."""
    return np.clip(np.floor((points + EXTENT) / CELL), 0, SIDE - 1).astype(np.int32)


def encode_gray(cells: Int[np.ndarray, "*N 2"]) -> Int32[np.ndarray, "*N 12"]:
    """Returns the bits of the Gray codes of cells, the six of x before those of y, highest first.

    Codes of neighbouring cells differ in one bit.
    """
    codes = cells ^ (cells >> 1)  # [*N, 2]
    bits = codes[..., None] >> np.arange(BITS)[::-1] & 1  # [*N, 2, 6]
    return bits.reshape(*cells.shape[:-1], 2 * BITS).astype(np.int32)


def decode_gray(bits: Int[np.ndarray, "*N 12"]) -> Int32[np.ndarray, "*N 2"]:
    """Returns the cells whose Gray codes have these bits: `encode_gray` backwards."""
    codes = bits.reshape(*bits.shape[:-1], 2, BITS).astype(np.int32)
    # A bit of the number is the parity of the bits of its code from the highest to this one.
    binary = np.cumsum(codes, axis=-1) % 2  # [*N, 2, 6]
    return (binary << np.arange(BITS)[::-1]).sum(-1).astype(np.int32)


@functools.cache
def cell_masses(density: Density) -> Float64[np.ndarray, "64 64"]:
    """Computes the probability of each cell (x, y): by quadrature, by erf, or exactly. It is read-only."""
    masses = _MASSES[density]()
    masses.flags.writeable = False
    return masses


def compute_entropy(density: Density) -> float:
    """Computes -sum p log p over the cells, the entropy in nats of the quantised points."""
    masses = cell_masses(density)
    return float(-xlogy(masses, masses).sum())


def _draw_spirals(n: int, rng: np.random.Generator) -> np.ndarray:
    theta = TURN * np.sqrt(rng.random(n))
    sign = rng.choice([-1.0, 1.0], n)
    return sign[:, None] * _spiral(theta) + SPIRAL_NOISE * rng.standard_normal((n, 2))


def _draw_gaussians(n: int, rng: np.random.Generator) -> np.ndarray:
    centres = _circle()[rng.integers(8, size=n)]
    return centres + GAUSSIAN_NOISE * rng.standard_normal((n, 2))


def _draw_checkerboard(n: int, rng: np.random.Generator) -> np.ndarray:
    column = rng.integers(SQUARES, size=n)
    row = 2 * rng.integers(SQUARES // 2, size=n) + column % 2
    corners = np.stack([column, row], axis=1)  # [n, 2]
    return (corners + rng.random((n, 2))) * SQUARE * CELL - EXTENT


def _spiral_masses() -> np.ndarray:
    """Integrates the mass of each cell, given theta, over theta with its density 2 theta / TURN^2.

    Both spirals are the same but for the sign of their points.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    width = TURN / PANELS
    theta = (np.arange(PANELS)[:, None] + (nodes + 1) / 2).ravel() * width  # [PANELS * NODES]
    measure = np.tile(weights / 2 * width, PANELS) * 2 * theta / TURN**2
    masses = _blob_masses(_spiral(theta), SPIRAL_NOISE, measure)
    return (masses + masses[::-1, ::-1]) / 2


def _gaussian_masses() -> np.ndarray:
    return _blob_masses(_circle(), GAUSSIAN_NOISE, np.full(8, 1 / 8))


def _checkerboard_masses() -> np.ndarray:
    column, row = np.indices((SIDE, SIDE)) // SQUARE
    is_on_square = (column + row) % 2 == 0
    return is_on_square / is_on_square.sum()


def _blob_masses(centres: np.ndarray, deviation: float, weights: np.ndarray) -> np.ndarray:
    """Returns the masses [64, 64] of a mixture of round Gaussians around centres [n, 2] with weights [n]."""
    edges = np.arange(SIDE + 1) * CELL - EXTENT
    # What lies outside of the square belongs to the cells at its edge.
    edges[0] = -np.inf
    edges[-1] = np.inf
    below = ndtr((edges - centres[..., None]) / deviation)  # [n, 2, 65]
    masses = np.diff(below)  # [n, 2, 64]
    return np.einsum("n,ni,nj->ij", weights, masses[:, 0], masses[:, 1], optimize=True)


def _spiral(theta: np.ndarray) -> np.ndarray:
    """Returns points [n, 2] of the spiral whose sign is positive, at angles [n]."""
    radius = SPIRAL_RADIUS * theta / TURN
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)


def _circle() -> np.ndarray:
    """Returns the centres [8, 2] of the Gaussians."""
    angle = np.arange(8) * np.pi / 4
    return CIRCLE_RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)


_DRAWS: dict[Density, Callable[[int, np.random.Generator], np.ndarray]] = {
    "spirals": _draw_spirals,
    "eight_gaussians": _draw_gaussians,
    "checkerboard": _draw_checkerboard,
}
_MASSES: dict[Density, Callable[[], np.ndarray]] = {
    "spirals": _spiral_masses,
    "eight_gaussians": _gaussian_masses,
    "checkerboard": _checkerboard_masses,
}
