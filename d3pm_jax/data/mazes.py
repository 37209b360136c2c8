"""Draws mazes, each with two ends and the shortest path between them, as functions of (seed, split, index).

A maze of n x n cells is a picture of 2n - 1 rows and columns. Cells stand at even rows and columns and are
open; between two neighbouring cells there is an open pixel or a wall, and all other pixels are walls. The
wall around the maze is not in the picture.
"""

import collections
import functools
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from d3pm_jax.checks import Count, Seed, declared, integers_from, one_of
from d3pm_jax.data.source import FunctionSource

Pixel = tuple[int, int]  # (row, column)

SPLITS = ("train", "test")
Cells = Annotated[int, integers_from(2, 64)]  # in a row
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
# Channels of a maze as a condition.
OPEN = 0
ENDS = 1
CHANNELS = 2
# Memory for mazes that were drawn, as drawing one of 6 x 6 cells takes 0.1 ms.
CACHE_BYTES = 2**27


class MazeSource(FunctionSource):
    """Gives random access to examples {"x", "maze"}, and "condition", which is the maze where it is given.

    x int32 [H, W, 1] is 1 on the shortest path, the two ends included. The maze is float32 [H, W, 2]: 1 where
    it is open, and 1 at its ends. `MazeKind` measures samples in it, also those of a network without it.

    Args:
        cells: n, of a row of the maze.
        size: how many examples.
        seed: of the mazes.
        split: "train" or "test"; equal indices of two splits have mazes of their own.
        conditioned: whether the maze is the condition too.
    """

    @declared()
    def __init__(
        self,
        cells: Cells,
        size: Count,
        seed: Seed,
        split: Annotated[str, one_of(*SPLITS)],
        conditioned: bool = True,
    ) -> None:
        split_number = SPLITS.index(split)
        # A pixel takes four bytes in the path, and four in each channel of the maze.
        bytes_of_example = 4 * (1 + CHANNELS) * (2 * cells - 1) ** 2

        @functools.lru_cache(CACHE_BYTES // bytes_of_example)
        def draw(index: int) -> dict[str, Any]:
            rng = np.random.default_rng([seed, split_number, index])
            is_open = draw_maze(cells, rng)
            ends = draw_ends(cells, rng)
            path = find_shortest(is_open, *ends)
            maze = join_maze(is_open, ends)
            example = {"x": draw_path(path, is_open.shape), "maze": maze}
            if conditioned:
                example["condition"] = maze
            return example

        super().__init__(size, lambda index: dict(draw(index)))


def draw_maze(cells: int, rng: np.random.Generator) -> Bool[np.ndarray, "side side"]:
    """Draws a perfect maze, in which one path leads from any cell to any other, by a depth-first search.

    The search goes from a cell to a random one of its neighbours that it has not seen, opens the wall between
    them, and returns by the way it came where there is no such neighbour.

    Returns:
        Where it is open, bool [2 cells - 1, 2 cells - 1].
    """
    side = 2 * cells - 1
    is_open = np.zeros((side, side), bool)
    # One draw for the first cell, and one for each cell that is entered from another one. They are drawn
    # together, as a call of the generator takes longer than a step of the search.
    draws = iter(rng.random(cells * cells).tolist())
    first = int(next(draws) * cells * cells)
    way = [_pixel_of_cell(first, cells)]
    is_open[way[0]] = True

    while way:
        row, column = way[-1]
        unseen_cells = [cell for cell in _find_neighbours(way[-1], is_open.shape, 2) if not is_open[cell]]
        if not unseen_cells:
            way.pop()
            continue
        next_row, next_column = unseen_cells[int(next(draws) * len(unseen_cells))]
        is_open[(row + next_row) // 2, (column + next_column) // 2] = True
        is_open[next_row, next_column] = True
        way.append((next_row, next_column))
    return is_open


def draw_ends(cells: int, rng: np.random.Generator) -> tuple[Pixel, Pixel]:
    """Draws two different cells, in no order, as pixels of the picture."""
    first, second = rng.choice(cells * cells, 2, replace=False).tolist()
    return _pixel_of_cell(first, cells), _pixel_of_cell(second, cells)


def find_distances(is_open: Bool[np.ndarray, "H W"], start: Pixel) -> Int[np.ndarray, "H W"]:
    """Returns how many steps through open pixels lead from an open start to each; -1 where none do."""
    # Lists are read and written faster than single numbers of an array.
    is_open_rows = is_open.tolist()
    distances = np.full(is_open.shape, -1).tolist()
    distances[start[0]][start[1]] = 0
    queue = collections.deque([start])
    while queue:
        row, column = queue.popleft()
        for next_row, next_column in _find_neighbours((row, column), is_open.shape, 1):
            if is_open_rows[next_row][next_column] and distances[next_row][next_column] < 0:
                distances[next_row][next_column] = distances[row][column] + 1
                queue.append((next_row, next_column))
    return np.array(distances)


def find_shortest(is_open: Bool[np.ndarray, "H W"], start: Pixel, end: Pixel) -> list[Pixel]:
    """Returns the pixels of a shortest path between two open pixels, both included.

    Raises:
        ValueError: no path connects them.
    """
    distances = find_distances(is_open, end)
    if distances[start] < 0:
        raise ValueError(f"no path leads from {start} to {end}: open a wall between them")
    path = [start]
    while path[-1] != end:
        neighbours = _find_neighbours(path[-1], is_open.shape, 1)
        nearer = distances[path[-1]] - 1
        path.append(next(pixel for pixel in neighbours if distances[pixel] == nearer))
    return path


# A picture has few pixels, and a search asks for the neighbours of each again and again.
@functools.cache
def _find_neighbours(pixel: Pixel, shape: tuple[int, ...], distance: int) -> tuple[Pixel, ...]:
    """Returns pixels so far above, below, left and right of one, in this order, inside of the picture."""
    row, column = pixel
    pixels = [(row + distance * down, column + distance * right) for down, right in STEPS]
    return tuple(place for place in pixels if 0 <= place[0] < shape[0] and 0 <= place[1] < shape[1])


def draw_path(path: list[Pixel], shape: tuple[int, ...]) -> Int[np.ndarray, "H W 1"]:
    """Returns int32 [H, W, 1], 1 on the pixels of a path and 0 elsewhere."""
    x = np.zeros((*shape, 1), np.int32)
    for row, column in path:
        x[row, column] = 1
    return x


def join_maze(is_open: Bool[np.ndarray, "H W"], ends: tuple[Pixel, Pixel]) -> Float32[np.ndarray, "H W 2"]:
    """Joins the open pixels of a maze and its two ends to one array, which `split_maze` splits again."""
    maze = np.zeros((*is_open.shape, CHANNELS), np.float32)
    maze[..., OPEN] = is_open
    for end in ends:
        maze[(*end, ENDS)] = 1
    return maze


def split_maze(maze: np.ndarray) -> tuple[Bool[np.ndarray, "H W"], tuple[Pixel, Pixel]]:
    """Splits a maze [H, W, 2] into its open pixels and its two ends, the upper one first.

    Raises:
        ValueError: it has not two ends that are open.
    """
    is_open = maze[..., OPEN] > 0
    ends = [(row, column) for row, column in np.argwhere(maze[..., ENDS] > 0).tolist()]
    if len(ends) != 2 or not all(is_open[end] for end in ends):
        raise ValueError(f"a maze has its ends at {ends}: mark two open pixels in channel {ENDS}")
    return is_open, (ends[0], ends[1])


def _pixel_of_cell(cell: int, cells: int) -> Pixel:
    """Returns the pixel of a cell, counted row by row, in a maze with so many cells in a row."""
    return 2 * (cell // cells), 2 * (cell % cells)
