"""Paths through mazes: which are valid and shortest, by brute force; their colours, pictures and refusals."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from d3pm_jax import config
from d3pm_jax.data import ArraySource, Description
from d3pm_jax.data.mazes import MazeSource, draw_ends, draw_maze, draw_path, find_shortest, join_maze
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Chains, MazeKind, Samples, Split, States, make_kind, maze as maze_kind
from d3pm_jax.kinds.files import show_beside, write_block, write_chains
from d3pm_jax.kinds.maze import draw_mazes, measure_paths
from d3pm_jax.show.images import MASK_COLOUR

DATA = config.Mazes(cells=3, train_size=8, test_size=6)


def read_examples(data=DATA):
    """The paths and the mazes of the test split."""
    source = data.open("test")
    examples = [source[i] for i in range(len(source))]
    return np.stack([e["x"] for e in examples]), np.stack([e["maze"] for e in examples])


def test_shares_are_those_of_all_sets_of_pixels():
    bits = (np.arange(512)[:, None] >> np.arange(9)) & 1
    x = bits.reshape(512, 3, 3, 1)  # every path that one can mark in a maze of 2 x 2 cells
    rng = np.random.default_rng(0)
    for _ in range(4):
        is_open = draw_maze(2, rng)
        ends = draw_ends(2, rng)
        shortest = draw_path(find_shortest(is_open, *ends), (3, 3))
        valid = []
        for marked in x[..., 0] > 0:
            pieces = ndimage.label(marked)[1]
            holds_ends = marked[ends[0]] and marked[ends[1]]
            valid.append(holds_ends and pieces == 1 and not np.any(marked & ~is_open))
        expected = {
            "n": 512,
            "valid": np.mean(valid),
            "shortest": np.mean(np.all(x == shortest, (1, 2, 3))),
            "extra": np.mean(x[valid].sum((1, 2, 3)) - shortest.sum()),
        }
        actual = measure_paths(x, np.broadcast_to(join_maze(is_open, ends), (512, 3, 3, 2)))
        assert actual == pytest.approx(expected)
        assert actual["shortest"] == 1 / 512


def test_no_valid_path_has_no_extra_pixels():
    x, mazes = read_examples()
    assert measure_paths(x, mazes) == {"n": 6, "valid": 1, "shortest": 1, "extra": 0}
    assert measure_paths(0 * x, mazes) == {"n": 6, "valid": 0, "shortest": 0, "extra": None}
    with pytest.raises(UserError, match="mark two open pixels"):
        measure_paths(x, 0 * mazes)
    maze = np.zeros((1, 5, 5, 2), np.float32)
    maze[0, 0, 0] = maze[0, 4, 4] = 1
    with pytest.raises(UserError, match=r"no path leads from \(0, 0\) to \(4, 4\) in a maze"):
        measure_paths(x[:1], maze)


def test_colours_say_what_is_wrong():
    is_open = np.array([[True, True, True], [False, False, True], [True, True, True]])
    maze = join_maze(is_open, ((0, 0), (2, 0)))
    x = np.array([[1, 1, 0], [1, 0, 2], [0, 0, 0]])[None, ..., None]
    picture = draw_mazes(x, maze[None], 2)
    assert (picture.shape, picture.dtype) == ((1, 3, 3, 3), np.uint8)
    expected = [
        [maze_kind.END_COLOUR, maze_kind.PATH_COLOUR, maze_kind.OPEN_COLOUR],
        [maze_kind.BROKEN_COLOUR, maze_kind.WALL_COLOUR, MASK_COLOUR],
        [maze_kind.MISSED_END_COLOUR, maze_kind.OPEN_COLOUR, maze_kind.OPEN_COLOUR],
    ]
    np.testing.assert_array_equal(picture[0], expected)
    without = draw_mazes(x, None, 2)[0]
    np.testing.assert_array_equal(without[1], [maze_kind.PATH_COLOUR, maze_kind.OPEN_COLOUR, MASK_COLOUR])


def test_path_i_is_drawn_in_maze_i_modulo_their_number():
    x, mazes = read_examples()
    tiles = draw_mazes(x, mazes[:2], 2)
    np.testing.assert_array_equal(tiles[4], draw_mazes(x[4:5], mazes[:1], 2)[0])
    states = np.stack([x, 1 - x])
    np.testing.assert_array_equal(draw_mazes(states, mazes, 2)[1], draw_mazes(1 - x, mazes, 2))


@pytest.mark.parametrize("conditioned", [True, False])
def test_samples_are_measured_in_the_mazes_of_the_test_split(conditioned):
    data = config.Mazes(cells=3, train_size=8, test_size=6, conditioned=conditioned)
    description = data.describe()
    kind = make_kind(description)
    train = Split(data.open("train"), 2, description)
    test = Split(data.open("test"), 2, description)
    reference = kind.prepare_quality(train, test, 9)
    assert reference.compared.startswith("6 mazes, sha256 ")
    assert reference.figures["test"] == {"n": 9, "valid": 1, "shortest": 1, "extra": 0}
    assert reference.figures["next maze"]["n"] == 9
    assert reference.figures["next maze"]["shortest"] < 0.5
    x, _ = read_examples(data)
    samples = x[np.arange(9) % 6]
    samples[7] = 0
    measured = reference.measure(samples)
    assert measured.figures == pytest.approx({"n": 9, "valid": 8 / 9, "shortest": 8 / 9, "extra": 0})
    with pytest.raises(UserError, match="--inception weights measures samples of images"):
        kind.check_quality(9, Path("weights"))


def test_pictures_are_written_with_mazes_and_without(tmp_path):
    x, mazes = read_examples()
    kind = make_kind(DATA.describe())
    assert isinstance(kind, MazeKind)
    for conditions in (None, mazes):
        samples = Samples(x[:4], 2, conditions)
        path = write_block(tmp_path / "step", show_beside(kind, samples), "caption")
        assert path == tmp_path / "step.png"
        reverse = States(np.stack([x[:4], 1 - x[:4], 0 * x[:4]]), [0, 2, 4], 4, 2, conditions)
        forward = States(np.stack([x[:4], 1 - x[:4]]), [0, 4], 4, 2, conditions)
        chains = Chains(samples, reverse, [0, 4], lambda forward=forward: forward, samples)
        written = write_chains(kind, tmp_path, "_a", chains, "caption", gif=True)
        assert {p.name for p in written.values()} == {"samples_a.png", "chain_a.png", "chain_a.gif"}
        for file in written.values():
            with Image.open(file) as picture:
                assert picture.height > 20
        assert kind.show_samples(samples).images.shape == (4, 5, 5, 3)
        assert kind.show_chain(reverse).states.shape == (3, 4, 5, 5, 3)
        assert kind.show_film(reverse).columns == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (5, 5, 2), "categories": 2}, "a path through a maze is"),
        ({"shape": (5, 5, 1), "categories": 3}, "a path through a maze is"),
        ({"shape": (5, 5), "categories": 2}, "maze examples have 3 axes"),
        (
            {"shape": (5, 5, 1), "categories": 2, "condition": (5, 5, 3)},
            r"condition = \(5, 5, 3\): the maze of a path \(5, 5, 1\) has shape \(5, 5, 2\)",
        ),
    ],
)
def test_what_is_no_maze_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        make_kind(Description(kind="maze", **fields))


def test_an_example_without_a_maze_is_named():
    description = DATA.describe()
    without = Description((5, 5, 1), 2, kind="maze")
    train = Split(MazeSource(3, 8, 0, "train"), 2, description)
    test = Split(ArraySource(read_examples()[0]), 2, without)
    with pytest.raises(UserError, match="example 0 has no maze to measure its path in"):
        make_kind(without).prepare_quality(train, test, 4)
