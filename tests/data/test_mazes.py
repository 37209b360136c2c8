"""Mazes and their shortest paths: every path of tiny ones by brute force, the same ones again, refusals."""

import collections

import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.data import Description, read_all, read_batch, train_batches
from d3pm_jax.data.mazes import (
    MazeSource,
    draw_ends,
    draw_maze,
    draw_path,
    find_distances,
    find_shortest,
    join_maze,
    split_maze,
)


def simple_paths(is_open, way, end):
    """All ways from the last pixel of a way to an end that step on no pixel twice."""
    if way[-1] == end:
        return [way]
    row, column = way[-1]
    ways = []
    for pixel in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        is_inside = min(pixel) >= 0 and max(pixel) < len(is_open)
        if is_inside and is_open[pixel] and pixel not in way:
            ways += simple_paths(is_open, [*way, pixel], end)
    return ways


def check_shortest(is_open, start, end):
    """Compares the shortest path with all paths, and returns how many there are."""
    ways = simple_paths(is_open, [start], end)
    distance = find_distances(is_open, start)[end]
    if not ways:
        assert distance == -1
        with pytest.raises(ValueError, match="no path leads from"):
            find_shortest(is_open, start, end)
        return 0
    shortest = find_shortest(is_open, start, end)
    assert shortest in ways
    assert len(shortest) == min(map(len, ways)) == distance + 1
    return len(ways)


def test_the_shortest_path_is_the_shortest_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        is_open = draw_maze(3, rng)
        assert check_shortest(is_open, *draw_ends(3, rng)) == 1  # a perfect maze has one path alone

    counts = []
    for _ in range(60):
        is_open = rng.random((4, 4)) < 0.7  # a grid with loops, and with pixels that nothing leads to
        is_open[0, 0] = is_open[3, 2] = True
        counts.append(check_shortest(is_open, (0, 0), (3, 2)))
    assert min(counts) == 0
    assert max(counts) > 3


@pytest.mark.parametrize("cells", [2, 3, 6])
def test_a_maze_is_perfect(cells):
    rng = np.random.default_rng(cells)
    for _ in range(10):
        is_open = draw_maze(cells, rng)
        assert is_open.shape == (2 * cells - 1, 2 * cells - 1)
        assert is_open[::2, ::2].all()
        assert not is_open[1::2, 1::2].any()
        # A graph that is connected, with one edge less than it has cells, is a tree.
        assert is_open.sum() == 2 * cells**2 - 1
        assert np.all(find_distances(is_open, (0, 0))[is_open] >= 0)


def test_all_mazes_and_ends_are_drawn_alike():
    n = 2000
    rng = np.random.default_rng(0)
    mazes = [draw_maze(2, rng).tobytes() for _ in range(n)]
    ends = [draw_ends(2, rng) for _ in range(n)]
    for drawn, alternatives in ((mazes, 4), (ends, 12)):  # four walls, one of which stands; ordered pairs
        counts = np.array(list(collections.Counter(drawn).values()))
        p = 1 / alternatives
        assert len(counts) == alternatives
        assert np.all(np.abs(counts - n * p) < 4.5 * np.sqrt(n * p * (1 - p)))


def test_an_example_depends_on_seed_split_and_index_alone():
    source = MazeSource(4, 30, 7, "train")
    again = MazeSource(4, 20, 7, "train")
    for index in (19, 3, 3, 0):  # in another order, and once more
        example = source[index]
        for name in ("x", "condition"):
            np.testing.assert_array_equal(example[name], again[index][name])
    np.testing.assert_array_equal(source[-1]["x"], source[29]["x"])
    with pytest.raises(IndexError):
        source[30]
    mazes = [source[i]["condition"].tobytes() for i in range(30)]
    for other in (MazeSource(4, 30, 7, "test"), MazeSource(4, 30, 8, "train")):
        mazes += [other[i]["condition"].tobytes() for i in range(30)]
    assert len(set(mazes)) == 90


def test_an_example_is_the_path_of_its_maze():
    example = MazeSource(5, 1, 0, "test")[0]
    assert (example["x"].dtype, example["condition"].dtype) == (np.int32, np.float32)
    assert example["condition"].shape == (9, 9, 2)
    is_open, ends = split_maze(example["condition"])
    np.testing.assert_array_equal(join_maze(is_open, ends), example["condition"])
    path = find_shortest(is_open, *ends)
    np.testing.assert_array_equal(example["x"], draw_path(path, (9, 9)))
    assert example["x"].sum() == len(path)

    maze = example["condition"].copy()
    maze[(*ends[0], 1)] = 0
    with pytest.raises(ValueError, match=r"a maze has its ends at \[\(\d, \d\)\]: mark two open pixels"):
        split_maze(maze)
    maze = example["condition"].copy()
    maze[(*ends[0], 0)] = 0
    with pytest.raises(ValueError, match="mark two open pixels"):
        split_maze(maze)


def test_mazes_are_data_with_a_condition_or_without():
    data = config.Mazes(cells=3, train_size=8, test_size=4)
    description = data.describe()
    assert description == Description((5, 5, 1), 2, kind="maze", condition=(5, 5, 2))
    assert (len(data.open("train")), len(data.open("test"))) == (8, 4)
    batch = next(train_batches(data.open("train"), 4, 0, 2, description=description))
    assert batch["condition"].shape == (4, 5, 5, 2)
    for x, maze in zip(batch["x"], batch["condition"], strict=True):
        is_open, ends = split_maze(maze)
        np.testing.assert_array_equal(x, draw_path(find_shortest(is_open, *ends), (5, 5)))

    without = config.Mazes(cells=3, train_size=8, test_size=4, conditioned=False)
    assert without.describe() == Description((5, 5, 1), 2, kind="maze")
    batch = read_batch(without.open("test"), 2, description=without.describe())
    assert set(batch) == {"x"}
    np.testing.assert_array_equal(batch["x"], read_all(data.open("test"), 2)[0])


def test_what_mazes_cannot_be_is_one_line():
    with pytest.raises(ValueError, match=r"data.cells = 1: it must be .* in 2..64"):
        config.checks.check_fields("data", config.Mazes(cells=1))
