"""Sudoku: a network that has seen solved boards fills in puzzles, cell by cell or many cells at once.

    d3pm train examples/sudoku.py --workdir runs/sudoku
    d3pm sample runs/sudoku --config examples/sudoku.py --given puzzle.txt --known filled --gif
    d3pm eval runs/sudoku --config examples/sudoku.py --samples 500
    python examples/sudoku.py runs/sudoku --puzzles 1000 --seed 1

The last makes puzzles with one solution each, and counts those that are solved, by order and calls.
"""

import dataclasses

import jax
import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from d3pm_jax import config, kinds, runs
from d3pm_jax.config import Absorbing, Adam, Config, Head, HybridLoss, Reciprocal, Train, Transformer
from d3pm_jax.data import ArraySource, Description
from d3pm_jax.errors import UserError
from d3pm_jax.sampling import Sampler, places

BOX = (2, 3)  # rows and columns of a box: (2, 2) for boards of 4 x 4, (3, 3) for 9 x 9
STEPS = 3200  # of the training
K = BOX[0] * BOX[1]  # digits, and cells of a row, a column or a box
EMPTY = K  # categories 0 to K - 1 are the digits 1 to K, and an empty cell is a mask
BLANK = np.full((K, K), EMPTY)
ROW, COLUMN = np.indices((K, K)).reshape(2, -1)
UNITS = np.stack([ROW, COLUMN, ROW // BOX[0] * BOX[0] + COLUMN // BOX[1]])  # [3, cells]
ARE_PEERS = (UNITS[:, :, None] == UNITS[:, None]).any(axis=0) & ~np.eye(K**2, dtype=bool)  # [cells, cells]


def find_clashes(x):
    """Tells which cells of boards [.., K, K] have the digit of another one in their row, column or box."""
    cells = x.reshape(*x.shape[:-2], K**2)
    are_equal = cells[..., :, None] == cells[..., None, :]
    return (x != EMPTY) & np.any(are_equal & ARE_PEERS, axis=-1).reshape(x.shape)


def find_solutions(puzzle, most, rng):
    """Finds solutions [K, K] of a puzzle without clashes, in a random order and not more than so many."""
    if EMPTY not in puzzle:
        return [puzzle]
    # A set of digits is a number, whose bit d says whether it has digit d.
    sets = np.where(puzzle == EMPTY, 0, 1 << puzzle).ravel()
    taken = np.bitwise_or.reduce(sets * ARE_PEERS, axis=1)  # by the peers of each cell
    cell = np.argmax(np.where(puzzle.ravel() == EMPTY, np.bitwise_count(taken) + 1, 0))
    solutions = []
    for digit in rng.permutation(K):
        if not taken[cell] >> digit & 1 and len(solutions) < most:
            tried = puzzle.copy()
            tried.flat[cell] = digit
            solutions += find_solutions(tried, most - len(solutions), rng)
    return solutions


def make_puzzle(board, rng):
    """Takes digits off a board [K, K], in a random order, wherever it still has one solution without."""
    puzzle = board.copy()
    for cell in rng.permutation(K**2):
        puzzle.flat[cell] = EMPTY
        if len(find_solutions(puzzle, 2, rng)) > 1:
            puzzle.flat[cell] = board.flat[cell]
    return puzzle


def read_puzzles(path):
    """Reads puzzles [n, K, K], each with one solution, from a text of digits and . or 0 for empty cells."""
    if not path.is_file():
        raise UserError(f"no file {path}: write a puzzle there, its digits and a . for each empty cell")
    text = "".join(path.read_text(errors="replace").split()).replace("0", ".")
    marks = "123456789"[:K] + "."
    if strange := text.strip(marks):
        raise UserError(f"{path} has {strange[0]!r}: digits are 1 to {K}, and an empty cell is . or 0")
    if not text or len(text) % K**2 > 0:
        raise UserError(f"{path} has {len(text)} cells: a puzzle has {K} x {K} = {K**2}")
    puzzles = np.reshape([marks.index(mark) for mark in text], (-1, K, K))
    for number, puzzle in enumerate(puzzles, 1):
        clashes = (np.argwhere(find_clashes(puzzle)) + 1).tolist()
        if clashes:
            raise UserError(f"{path}, puzzle {number}: equal digits at (row, column) {clashes}: change one")
        found = len(find_solutions(puzzle, 100, np.random.default_rng(0)))
        if found != 1:
            raise UserError(f"{path}, puzzle {number}: {found} solutions, counted to 100: it needs exactly 1")
    return puzzles


@dataclasses.dataclass(frozen=True)
class Boards(config.Data):
    """Describes solved boards, which training changes at random by symmetries of the game."""

    def describe(self):
        return Description((K, K), K, kind="sudoku")

    def own_kind(self):
        return Sudoku

    def open(self, split):
        rng = np.random.default_rng(split == "test")
        return ArraySource(np.stack([find_solutions(BLANK, 1, rng)[0] for _ in range(2000)]))

    def random_map(self, example, rng):
        def draw_order(size):  # of rows or columns, of which so many that cross the same boxes stay together
            return rng.permuted(rng.permutation(np.arange(K).reshape(-1, size)), axis=1).ravel()

        x = rng.permutation(K)[example["x"]]
        return {"x": x[draw_order(BOX[0])][:, draw_order(BOX[1])]}


def draw_boards(x, is_clue, size=20):
    """Draws boards [.., K, K] as uint8 [.., H, W, 3]: clues on grey, other digits blue, clashes on orange."""
    font = ImageFont.load_default(0.7 * size)
    glyphs = []
    for mark in "123456789"[:K] + " ":
        image = Image.new("L", (size, size))
        ImageDraw.Draw(image).text((size / 2, size / 2), mark, 255, font, anchor="mm")
        glyphs.append(np.asarray(image)[..., None] / 255)
    paper = np.where(is_clue[..., None], 215, 255)
    paper = np.where(find_clashes(x)[..., None], (250, 180, 80), paper)  # [.., K, K, 3]
    ink = np.where(is_clue[..., None], 0, (0, 60, 200))
    cells = paper[..., None, None, :] + np.stack(glyphs)[x] * (ink - paper)[..., None, None, :]
    cells[..., 0, :, :] = cells[..., 0, :] = 150
    cells[..., :: BOX[0], :, :2, :, :] = cells[..., :: BOX[1], :, :2, :] = 0
    pixels = cells.swapaxes(-4, -3).reshape(*x.shape[:-2], K * size, K * size, 3).astype(np.uint8)
    pixels = np.pad(pixels, [(0, 0)] * (x.ndim - 2) + [(0, 2), (0, 2), (0, 0)])
    return np.pad(pixels, [(0, 0)] * (x.ndim - 2) + [(4, 4), (4, 4), (0, 0)], constant_values=255)


class Sudoku(kinds.Kind):
    """Shows and measures boards, and reads puzzles."""

    name = "sudoku"
    sample_files = "pictures"
    quality = kinds.QualityTable({"valid": "valid boards"}, (), ("valid", "valid"), "Valid: no clashes.")

    def read_given(self, path, shape):
        return read_puzzles(path)

    def show_samples(self, samples):
        is_clue = (samples.x != EMPTY) & np.any(samples.x == EMPTY, axis=(1, 2), keepdims=True)
        return kinds.blocks.Tiles(draw_boards(samples.x, is_clue), f"{len(samples.x)} boards of Sudoku")

    def show_chain(self, states):
        is_clue = states.x[np.argmax(states.times)] != EMPTY  # x_T has only clues, [N, K, K]
        return kinds.blocks.Strip(draw_boards(states.x, is_clue), states.times)

    def prepare_quality(self, train, test, num, batch_size=128, inception=None):
        def measure(x):
            is_valid = ~find_clashes(x).any(axis=(1, 2))
            return kinds.Measured({"n": len(x), "valid": float(is_valid.mean())})

        boards, _ = test.read_unweighted(num)
        return kinds.Reference("boards", "the rules", {"test": measure(boards).figures}, measure)


@dataclasses.dataclass(frozen=True)
class LargestMargin(places.Order):
    """Fills first where the likeliest digit is furthest above the next (Kim et al. 2025, 2502.06768)."""

    def score(self, candidates):
        p = jax.numpy.sort(jax.numpy.exp(candidates.log_p), axis=-1)  # [B, L, K + 1]
        return p[..., -1] - p[..., -2]


def get_config():
    return Config(
        data=Boards(),
        process=Absorbing(K="data", steps=K**2, beta=Reciprocal(), mask_id="data"),
        model=Transformer(width=96, num_layers=4, see_time=False, positions="grid"),
        head=Head(residual=False),
        loss=HybridLoss(ce_weight=0.0),
        optimizer=Adam(lr=2e-3, warmup_steps=100, decay_steps=STEPS),
        train=Train(steps=STEPS, batch_size=128, ema_decay=0.999),
    )


def main(workdir: tyro.conf.Positional[str], puzzles: int = 1000, seed: int = 1):
    """Prints the share of new puzzles that a run solves, by order and calls of its network."""
    run = runs.open(workdir, __file__)
    rng = np.random.default_rng([seed, 2])  # of other boards than those of `Boards`
    boards = np.stack([find_solutions(BLANK, 1, rng)[0] for _ in range(puzzles)])
    given = np.stack([make_puzzle(board, rng) for board in boards])
    for count in (*map(places.Cosine, (2, 4, 8, 16)), places.One()):
        solved = []  # by each order, in percent [puzzles]
        for order in (places.RandomOrder(), places.LargestProbability(), LargestMargin()):
            draw = runs.Draw(known=(given, given != EMPTY), sampler=Sampler(places.Reveal(order, count)))
            drawn = run.sample(jax.random.key(seed), puzzles, draw).x0
            solved.append(100 * np.all(drawn == boards, axis=(1, 2)))
            error = np.std(solved[-1]) / puzzles**0.5
            right = 100 * np.mean((drawn == boards)[given == EMPTY])
            changed = np.sum((drawn != given) & (given != EMPTY))
            print(f"{count!s:16}{order!s:21}{np.mean(solved[-1]):5.1f} +- {error:.1f}% of puzzles,", end=" ")
            print(f"{right:4.1f}% of cells, {changed} clues changed")
        gains = [f"{gain.mean():+.1f} +- {gain.std() / puzzles**0.5:.1f}" for gain in np.diff(solved, axis=0)]
        print(f"{count!s:16}each order above the one before: {' and '.join(gains)}")


if __name__ == "__main__":
    tyro.cli(main)
