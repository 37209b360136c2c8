"""Points of the plane in cells: the density of points with masks, nats beside the entropy, and pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3pm_jax import config
from d3pm_jax.data import Description, plane
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Chains, PlaneKind, Samples, Split, States, make_kind
from d3pm_jax.kinds.files import show_beside, write_block, write_chains
from d3pm_jax.kinds.plane import EMPTY_COLOUR, FULL_COLOUR, draw_masses, draw_states, spread_points

CELLS = np.array([[0, 5], [63, 63], [63, 63], [31, 32]])
CODED = {"plain": (CELLS, 64), "gray": (plane.encode_gray(CELLS), 2)}


@pytest.mark.parametrize("coding", CODED)
def test_a_point_is_in_the_cell_of_its_code_and_one_with_masks_in_all_that_agree(coding):
    x, levels = CODED[coding]
    shares = spread_points(x, levels)
    expected = np.zeros((64, 64))
    expected[0, 5] = expected[31, 32] = 0.25
    expected[63, 63] = 0.5
    np.testing.assert_array_equal(shares, expected)

    masked = np.where(np.arange(x.shape[1]) < x.shape[1] // 2, levels, x)  # all of the first coordinate
    states = spread_points(np.stack([x, masked]), levels)
    np.testing.assert_array_equal(states[0], expected)
    np.testing.assert_allclose(states[1], np.broadcast_to(expected.sum(0) / 64, (64, 64)), atol=1e-16)


def test_a_masked_bit_leaves_the_cells_that_have_either():
    x, levels = CODED["gray"]
    x = np.array(x[:1])
    x[0, 0] = 2  # the highest bit of the Gray code of 0: 0 or 63
    shares = spread_points(x, levels)
    assert np.argwhere(shares).tolist() == [[0, 5], [63, 5]]
    assert shares.sum() == 1


def test_pictures_have_x_to_the_right_and_y_upwards():
    masses = np.zeros((2, 64, 64))
    masses[0, 2, 60] = 1
    masses[1, 63, 0] = 0.25
    pictures = draw_masses(masses)
    assert (pictures.shape, pictures.dtype) == ((2, 256, 256, 3), np.uint8)
    np.testing.assert_array_equal(pictures[0, 12:16, 8:12], np.broadcast_to(FULL_COLOUR, (4, 4, 3)))
    np.testing.assert_array_equal(pictures[0, 16:, 12:], np.broadcast_to(EMPTY_COLOUR, (240, 244, 3)))
    # The root of a quarter is a half.
    np.testing.assert_allclose(pictures[1, -1, -1], (EMPTY_COLOUR + FULL_COLOUR) / 2, atol=1)


def test_points_of_a_chain_are_wider_and_of_one_scale():
    x, levels = CODED["plain"]
    pictures = draw_states(np.stack([x, np.full_like(x, levels)]), levels)
    assert pictures.shape == (2, 1, 256, 256, 3)
    is_full = np.all(pictures[0, 0] == FULL_COLOUR, axis=-1)
    # Two points are in the cell at the corner, which is drawn with its three neighbours.
    assert is_full.sum() == 4 * 4**2
    assert is_full[:8, -8:].all()
    # A point of unknown place is spread over the plane, and pale beside those of another state.
    faint = EMPTY_COLOUR + np.sqrt(1 / 64**2 / 0.5) * (FULL_COLOUR - EMPTY_COLOUR)
    np.testing.assert_allclose(pictures[1, 0, 9, 7], faint, atol=1)


@pytest.mark.parametrize("coding", CODED)
def test_nats_are_compared_with_the_exact_ones_of_the_same_points(coding):
    for density in ("spirals", "eight_gaussians", "checkerboard"):
        data = config.Plane(density, coding, 8, 500)
        kind = make_kind(data.describe(), data)
        assert isinstance(kind, PlaneKind)
        x = Split(data.open("test"), data.describe().categories, data.describe()).read()
        cells = x["x"] if coding == "plain" else plane.decode_gray(x["x"])
        exact = np.mean([-np.log(plane.cell_masses(density)[tuple(cell)]) for cell in cells])
        figures = kind.extra_figures({"nats": exact + 0.25}, x)
        entropy = plane.compute_entropy(density)
        assert figures == pytest.approx({"nats_above_exact": 0.25, "entropy": entropy})
        assert set(kind.units) == set(figures)
        # The points are of the density, so that their exact nats are the entropy within errors.
        assert abs(exact - entropy) < 5 / np.sqrt(500)
    # Points that the density does not have are infinitely unlikely, and no warning.
    outside = np.array([[0, 16]]) if coding == "plain" else plane.encode_gray(np.array([[0, 16]]))
    assert kind.extra_figures({"nats": 1.0}, {"x": outside})["nats_above_exact"] == -np.inf


def test_samples_are_measured_against_the_exact_masses():
    data = config.Plane("checkerboard", "plain", 4000, 8)
    description = data.describe()
    kind = make_kind(description, data)
    train = Split(data.open("train"), 64, description)
    test = Split(data.open("test"), 64, description)
    reference = kind.prepare_quality(train, test, 3000)
    assert reference.figures["train"]["n"] == 3000
    every_cell = np.argwhere(plane.cell_masses("checkerboard"))
    assert reference.measure(every_cell).figures == {"n": 2048, "variation": 0}
    other_cells = np.argwhere(plane.cell_masses("checkerboard") == 0)
    measured = reference.measure(other_cells)
    assert measured.figures == {"n": 2048, "variation": pytest.approx(1)}
    assert 0 < reference.figures["train"]["variation"] < 0.5
    block = kind.show_quality(Samples(other_cells, 64), measured)
    assert block.alt == "samples beside the exact density"
    np.testing.assert_array_equal(block.right.pixels, draw_masses(plane.cell_masses("checkerboard")))
    with pytest.raises(UserError, match="--inception weights measures samples of images"):
        kind.check_quality(9, Path("weights"))


def test_pictures_are_written(tmp_path):
    x, levels = CODED["gray"]
    kind = make_kind(config.Plane("spirals").describe())
    samples = Samples(x, levels)
    step = write_block(tmp_path / "step", show_beside(kind, samples), "caption")
    assert step == tmp_path / "step.png"
    reverse = States(np.stack([x, x, np.full_like(x, levels)]), [0, 2, 4], 4, levels)
    chains = Chains(samples, reverse, [0, 4], lambda: reverse.at([0, 4]), samples)
    written = write_chains(kind, tmp_path, "_a", chains, "caption", gif=True)
    assert {p.name for p in written.values()} == {"samples_a.png", "chain_a.png", "chain_a.gif"}
    for file in (tmp_path / "step.png", *written.values()):
        with Image.open(file) as picture:
            assert picture.height > 200
    without_examples = chains._replace(forward=None, examples=None)
    written = write_chains(kind, tmp_path, "_b", without_examples, "caption")
    assert [p.name for p in written.values()] == ["samples_b.png"]
    assert kind.show_samples(samples).pixels.shape == (256, 256, 3)
    assert kind.show_chain(reverse).states.shape == (3, 1, 256, 256, 3)
    assert kind.show_film(reverse).columns == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (2,), "categories": 16}, r"shape = \(2,\), categories = 16: points of kind 'spirals' are"),
        ({"shape": (12,), "categories": 64}, r"shape = \(12,\), categories = 64: points of kind"),
        ({"shape": (2, 1), "categories": 64}, "spirals examples have 1 axes"),
    ],
)
def test_what_is_no_point_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        make_kind(Description(kind="spirals", **fields))
