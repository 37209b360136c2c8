"""Defines the kind of paths through mazes: pictures of walls and ends, shares of valid and shortest paths."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.data.mazes import CHANNELS, ENDS, OPEN, find_distances, split_maze
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.kinds.base import Kind, Measured, QualityTable, Reference, Samples, Split, States
from d3pm_jax.kinds.blocks import Block, Strip, Tiles
from d3pm_jax.show.images import MASK_COLOUR

PATH = 1  # the category of a pixel on the path
WALL_COLOUR = (40, 40, 40)
OPEN_COLOUR = (255, 255, 255)
PATH_COLOUR = (240, 150, 30)
# Of a path that goes through a wall.
BROKEN_COLOUR = (200, 30, 30)
END_COLOUR = (20, 130, 60)
# Of an end that is not on the path.
MISSED_END_COLOUR = (150, 220, 170)

QUALITY = QualityTable(
    columns={"valid": "valid", "shortest": "shortest", "extra": "extra pixels"},
    also=(),
    headline=("shortest", "shortest paths"),
    words="Sample i, and for comparison the path of test example i and that of the next test example, in the "
    "maze of test example i modulo their number. Valid: one connected piece of open pixels that holds both "
    "ends. Shortest: a valid one with no more pixels than the shortest path has. Extra pixels: how many more "
    "the valid ones have in the mean.",
)


class MazeKind(Kind):
    """Says that examples are paths [H, W, 1], 1 on the path and 0 elsewhere, each through a maze [H, W, 2].

    The maze is the condition of its example: 1 where it is open, and 1 at its two ends. Pictures without
    conditions, as of a network that is not given the maze, show paths alone.
    """

    name = "maze"
    plural = "paths"
    axes = 3
    sample_files = "pictures"
    shown_in_file = 64
    quality = QUALITY

    def check(self) -> None:
        super().check()
        shape = self.description.shape
        if shape[-1] != 1 or self.description.categories != 2:
            raise UserError(
                f"shape = {shape}, categories = {self.description.categories}: a path through a maze is "
                f"[H, W, 1] with 2 categories"
            )
        maze_shape = (*shape[:-1], CHANNELS)
        if self.description.condition not in (None, maze_shape):
            raise UserError(
                f"condition = {self.description.condition}: the maze of a path {shape} has shape {maze_shape}"
            )

    def prepare_quality(
        self, train: Split, test: Split, num: int, batch_size: int = 128, inception: Path | None = None
    ) -> Reference:
        """Reads the mazes of the test split, and measures its paths in them, and each in the next maze.

        Sample i belongs to test example i modulo their number, whose condition it was drawn with.

        Raises:
            UserError: an example has no maze.
        """
        paths, _ = test.read_unweighted()  # [N, H, W, 1]
        mazes = _read_mazes(test, len(paths))  # [N, H, W, 2]

        def measure(x: np.ndarray) -> Measured:
            return Measured(measure_paths(x, mazes[np.arange(len(x)) % len(mazes)]))

        index = np.arange(num)
        rows = {"test": paths[index % len(paths)], "next maze": paths[(index + 1) % len(paths)]}
        figures = {name: measure(x).figures for name, x in rows.items()}
        digest = hashlib.sha256(mazes.astype(np.uint8).tobytes()).hexdigest()
        return Reference(f"{len(mazes)} mazes, sha256 {digest}", "walls and ends", figures, measure)

    def show_samples(self, samples: Samples) -> Block | None:
        tiles = draw_mazes(samples.x, samples.conditions, samples.levels)
        return Tiles(tiles, f"{len(tiles)} paths through mazes")

    def show_chain(self, states: States) -> Block | None:
        pictures = draw_mazes(states.x, states.conditions, states.levels)  # [R, N, H, W, 3]
        return Strip(pictures, states.times)


def draw_mazes(x: np.ndarray, mazes: np.ndarray | None, levels: int) -> np.ndarray:
    """Draws paths, and walls and ends where mazes are passed, as colours uint8 [.., N, H, W, 3].

    Args:
        x: int [.., N, H, W, 1], 1 on the path; a category from `levels` on is a mask.
        mazes: [M, H, W, 2]; path i lies in maze i modulo M. None: all is drawn as if it were open.
        levels: categories that the data may have.
    """
    masked = x[..., 0] >= levels  # [.., N, H, W]
    on_path = x[..., 0] == PATH
    picture = np.empty((*on_path.shape, 3), np.uint8)
    picture[:] = OPEN_COLOUR
    picture[on_path] = PATH_COLOUR
    picture[masked] = MASK_COLOUR
    if mazes is None:
        return picture

    maze_of_path = np.arange(on_path.shape[-3]) % len(mazes)  # [N]
    is_wall = np.broadcast_to(mazes[maze_of_path][..., OPEN] <= 0, on_path.shape)
    is_end = np.broadcast_to(mazes[maze_of_path][..., ENDS] > 0, on_path.shape)
    picture[is_wall & ~masked] = WALL_COLOUR
    picture[is_wall & on_path] = BROKEN_COLOUR
    # An end under a mask is shown as an end, so that one sees where a path has to lead.
    picture[is_end] = MISSED_END_COLOUR
    picture[is_end & on_path] = END_COLOUR
    return picture


def measure_paths(x: np.ndarray, mazes: np.ndarray) -> dict[str, Any]:
    """Measures how many of the paths x [N, H, W, 1] are valid, and shortest, in their mazes [N, H, W, 2].

    A path is valid where its pixels are open, hold both ends and are connected, each to each by steps to the
    left, right, up and down; it may have branches. It is shortest where it has as few pixels as a shortest
    path from end to end has. As it is connected and holds both ends, it is such a path then.

    Returns:
        "n", the shares "valid" and "shortest" of all, and "extra": how many more pixels than a shortest path
        the valid ones have in the mean, None where none is valid.

    Raises:
        UserError: an array is no maze, or its ends are not connected.
    """
    extra_pixels = []  # of each valid path
    for path, maze in zip(x[..., 0] == PATH, mazes, strict=True):
        with as_user_error():
            is_open, (first, second) = split_maze(maze)
        steps = find_distances(is_open, first)[second]
        if steps < 0:
            raise UserError(f"no path leads from {first} to {second} in a maze: open a wall between them")
        if np.any(path & ~is_open) or not (path[first] and path[second]):
            continue
        is_connected = np.all(find_distances(path, first)[path] >= 0)
        if is_connected:
            extra_pixels.append(int(path.sum()) - (int(steps) + 1))

    mean_extra = None
    if extra_pixels:
        mean_extra = float(np.mean(extra_pixels))
    n = len(x)
    return {
        "n": n,
        "valid": len(extra_pixels) / n,
        "shortest": extra_pixels.count(0) / n,
        "extra": mean_extra,
    }


def _read_mazes(split: Split, n: int) -> np.ndarray:
    """Reads the mazes of the first n examples, [n, H, W, 2]: "maze", or else the condition."""
    mazes = []
    for index in range(n):
        example = split.source[index]
        maze = example.get("maze", example.get("condition"))
        if maze is None:
            raise UserError(f'example {index} has no maze to measure its path in: add it as "maze"')
        mazes.append(maze)
    return np.stack(mazes)
