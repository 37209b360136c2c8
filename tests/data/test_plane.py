"""Points of the plane: masses of cells against draws and other integrals, Gray codes, edges, splits."""

import numpy as np
import pytest
from scipy import integrate, stats

from d3pm_jax import config
from d3pm_jax.data import Description, plane, read_all

DENSITIES = ("spirals", "eight_gaussians", "checkerboard")


@pytest.mark.parametrize("density", DENSITIES)
def test_masses_are_the_frequencies_of_drawn_points(density):
    n = 10**6
    masses = plane.cell_masses(density)
    assert masses.shape == (64, 64)
    assert masses.min() >= 0
    assert abs(masses.sum() - 1) < 1e-14
    cells = plane.find_cells(plane.draw_points(density, n, np.random.default_rng(0)))
    counts = np.bincount(64 * cells[:, 0] + cells[:, 1], minlength=64**2).reshape(64, 64)

    expected = n * masses
    is_frequent = expected > 10
    errors = (counts - expected)[is_frequent] / np.sqrt(expected[is_frequent])
    assert np.abs(errors).max() < 5.5
    assert 1e-4 < stats.chi2.sf((errors**2).sum(), is_frequent.sum()) < 1 - 1e-4
    rare = expected[~is_frequent].sum()
    assert abs(counts[~is_frequent].sum() - rare) <= 5 * np.sqrt(rare)

    # The entropy of frequencies is too low by about (cells - 1) / 2n (Miller and Madow).
    entropy = plane.compute_entropy(density)
    shares = counts[counts > 0] / n
    histogram_entropy = -(shares * np.log(shares)).sum() + (len(shares) - 1) / (2 * n)
    error = np.log(masses[cells[:, 0], cells[:, 1]]).std() / np.sqrt(n)
    assert abs(histogram_entropy - entropy) < 5 * error + 2e-4


def test_masses_are_the_integrals_of_the_densities():
    assert plane.compute_entropy("checkerboard") == pytest.approx(np.log(2048), abs=1e-13)
    np.testing.assert_array_equal(np.unique(plane.cell_masses("checkerboard")), [0, 1 / 2048])

    normal = stats.norm(scale=plane.GAUSSIAN_NOISE)
    cell = (42, 20)  # x from 1.25 to 1.375, y from -1.5 to -1.375
    expected = 0.0
    for angle in np.arange(8) * np.pi / 4:
        x = 1.25 - 2.8 * np.cos(angle)
        y = -1.5 - 2.8 * np.sin(angle)
        expected += np.diff(normal.cdf([x, x + 0.125]))[0] * np.diff(normal.cdf([y, y + 0.125]))[0] / 8
    assert plane.cell_masses("eight_gaussians")[cell] == pytest.approx(expected, rel=1e-12)

    def in_cell(u, sign):
        """The mass in the cell of the points that a u of the spirals is drawn for."""
        theta = 3 * np.pi * np.sqrt(u)
        columns = stats.norm.cdf([1.25, 1.375], sign * theta / 3 * np.cos(theta), 0.1)
        rows = stats.norm.cdf([-1.5, -1.375], sign * theta / 3 * np.sin(theta), 0.1)
        return np.diff(columns)[0] * np.diff(rows)[0] / 2

    expected = 0.0
    for sign in (1, -1):
        expected += integrate.quad(in_cell, 0, 1, sign, points=np.linspace(0, 1, 30), limit=200)[0]
    assert plane.cell_masses("spirals")[cell] == pytest.approx(expected, rel=1e-7)


def test_points_outside_of_the_square_fall_into_the_cells_at_its_edge():
    points = [[-4, 3.999], [-4.001, 4], [-9, 1e300], [0, -0.001], [3.875, np.inf], [3.87, -np.inf]]
    cells = [[0, 63], [0, 63], [0, 63], [32, 31], [63, 63], [62, 0]]
    np.testing.assert_array_equal(plane.find_cells(np.array(points, float)), cells)
    # All that lies beyond x = 3.875, of the Gaussian around (2.8, 0) and of its two neighbours.
    edge = plane.cell_masses("eight_gaussians")[63].sum()
    tails = stats.norm.sf((3.875 - 2.8 * np.array([1, np.sqrt(0.5), np.sqrt(0.5)])) / 0.35)
    assert edge == pytest.approx(tails.sum() / 8, rel=1e-6)


def test_gray_codes_of_neighbours_differ_in_a_bit():
    grid = np.stack(np.indices((64, 64)), axis=-1)  # [64, 64, 2]
    bits = plane.encode_gray(grid)
    assert bits.shape == (64, 64, 12)
    assert set(np.unique(bits)) == {0, 1}
    np.testing.assert_array_equal(plane.decode_gray(bits), grid)
    np.testing.assert_array_equal(np.abs(np.diff(bits, axis=0)).sum(-1), 1)
    np.testing.assert_array_equal(np.abs(np.diff(bits, axis=1)).sum(-1), 1)
    np.testing.assert_array_equal(bits[5, 63], [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("density", DENSITIES)
def test_both_codings_have_the_same_points(density):
    plain = config.Plane(density, "plain", 50, 40)
    gray = config.Plane(density, "gray", 50, 40)
    assert plain.describe() == Description((2,), 64, kind=density)
    assert gray.describe() == Description((12,), 2, kind=density)
    splits = {}
    for split, size in {"train": 50, "test": 40}.items():
        splits[split], labels = read_all(plain.open(split), 64)
        assert labels is None
        assert splits[split].shape == (size, 2)
        bits, _ = read_all(gray.open(split), 2)
        np.testing.assert_array_equal(plane.decode_gray(bits), splits[split])
    assert not np.array_equal(splits["train"][:40], splits["test"])
    other_seed, _ = read_all(config.Plane(density, "plain", 50, 40, seed=1).open("train"), 64)
    assert not np.array_equal(other_seed, splits["train"])
