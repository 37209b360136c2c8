"""Sudoku: a network that has seen solved boards fills in puzzles, cell by cell or many cells at once.

d3pm train examples/sudoku.py --workdir runs/sudoku
d3pm sample runs/sudoku --config examples/sudoku.py --given puzzle.txt --known filled --num 8
d3pm eval runs/sudoku --config examples/sudoku.py --samples 500
python examples/sudoku.py runs/sudoku --puzzles 1000 --seed 1
"""

import dataclasses

import jax
import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from d3pm_jax import config, kinds, runs
from d3pm_jax.data import ArraySource, Description
from d3pm_jax.errors import UserError
from d3pm_jax.sampling import Sampler, places

BOX = (2, 3)  # rows and columns of a box: (2, 2) for boards of 4 x 4, (3, 3) for 9 x 9
STEPS = 3200  # of the training
K = BOX[0] * BOX[1]  # digits, and cells of a row, a column or a box
assert K <= 9, "each digit is one mark of a text, 1 to 9"
DIGITS = "123456789"[:K]
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
    sets = np.where(puzzle == EMPTY, 0, 1 << puzzle).ravel()  # bit d says whether digit d is in a set
    taken = np.bitwise_or.reduce(sets * ARE_PEERS, axis=1)  # by the peers of each cell
    num_taken = np.where(puzzle.ravel() == EMPTY, np.bitwise_count(taken) + 1, 0)  # + 1: full cells lose
    cell = np.argmax(num_taken)
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
    text = "".join(path.read_text(encoding="utf-8-sig", errors="replace").split()).replace("0", ".")
    if strange := [mark for mark in text if mark not in DIGITS + "."]:
        raise UserError(f"{path} has {strange[0]!r}: write a text of digits 1 to {K}, and . for empty cells")
    if not text or len(text) % K**2 > 0:
        raise UserError(f"{path} has {len(text)} cells: each puzzle has {K**2}, for others change BOX")
    puzzles = np.reshape([(DIGITS + ".").index(mark) for mark in text], (-1, K, K))
    for number, puzzle in enumerate(puzzles, 1):
        if clashes := (np.argwhere(find_clashes(puzzle)) + 1).tolist():
            raise UserError(f"{path}, puzzle {number}: equal digits at (row, column) {clashes}: change one")
        found = len(find_solutions(puzzle, 100, np.random.default_rng(0)))
        if found != 1:
            cure = "take a clue away or change one" if found == 0 else "add clues"
            raise UserError(f"{path}, puzzle {number}: {found} solutions, counted up to 100: {cure}")
    return puzzles


@dataclasses.dataclass(frozen=True)
class Boards(config.Data):
    """Describes solved boards, which training changes at random by symmetries of the game."""

    def describe(self):
        return Description((K, K), K, kind="sudoku")

    def own_kind(self):
        return Sudoku

    def open(self, split):
        rng = np.random.default_rng({"train": 0, "test": 1}[split])
        return ArraySource(np.stack([find_solutions(BLANK, 1, rng)[0] for _ in range(2000)]))

    def random_map(self, example, rng):
        x = rng.permutation(K)[example["x"]]
        for size in BOX:  # Bands of `size` rows trade places, and so do the rows of each; then the columns.
            x = x[rng.permuted(rng.permutation(np.arange(K).reshape(-1, size)), axis=1).ravel()].T
        return {"x": x}


@np.vectorize(signature="(k,k),(k,k)->(h,w,c)")
def draw_boards(x, is_clue):
    """Draws boards [.., K, K] as uint8 [.., H, W, 3]: clues on grey, other digits blue, clashes on orange."""
    image = Image.new("RGB", (20 * K + 10, 20 * K + 10), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    paper = np.where(find_clashes(x), "#fab450", np.where(is_clue, "#d7d7d7", "white")).tolist()
    ink = np.where(is_clue, "black", "#003cc8").tolist()
    for row, column in np.ndindex(K, K):
        top, left = 20 * row + 4, 20 * column + 4
        draw.rectangle((left, top, left + 20, top + 20), paper[row][column], outline="#969696")
        draw.text((left + 10, top + 10), (DIGITS + " ")[x[row, column]], ink[row][column], font, anchor="mm")
    for row, column in np.ndindex(K // BOX[0], K // BOX[1]):  # of boxes
        top, left = 20 * row * BOX[0] + 4, 20 * column * BOX[1] + 4
        draw.rectangle((left, top, left + 20 * BOX[1] + 1, top + 20 * BOX[0] + 1), outline="black", width=2)
    return np.asarray(image)


class Sudoku(kinds.Kind):
    name = "sudoku"
    plural = "boards"
    sample_files = "pictures"
    quality = kinds.QualityTable({"valid": "valid boards"}, (), ("valid", "valid"), "Valid: no clashes.")

    def read_given(self, path, shape):
        return read_puzzles(path)

    def show_samples(self, samples):
        is_puzzle = np.any(samples.x == EMPTY, axis=(1, 2), keepdims=True)  # full boards show no clues
        return kinds.blocks.Tiles(draw_boards(samples.x, is_puzzle & (samples.x != EMPTY)), "boards")

    def show_chain(self, states):
        is_clue = states.x[np.argmax(states.times)] != EMPTY  # x_T has only clues, [N, K, K]
        return kinds.blocks.Strip(draw_boards(states.x, is_clue), states.times)

    def prepare_quality(self, train, test, num, batch_size=128, inception=None):
        def measure(x):
            return kinds.Measured({"n": len(x), "valid": float(np.mean(~find_clashes(x).any(axis=(1, 2))))})

        return kinds.Reference("boards", "the rules", {"test": measure(test.read(num)["x"]).figures}, measure)


def get_config():
    return config.Config(
        data=Boards(),
        process=config.Absorbing(K="data", steps=K**2, beta=config.Reciprocal(), mask_id="data"),
        model=config.Transformer(width=96, num_layers=4, see_time=False, positions="grid"),
        head=config.Head(residual=False),
        loss=config.HybridLoss(ce_weight=0.0),
        optimizer=config.Adam(lr=2e-3, warmup_steps=100, decay_steps=STEPS),
        sampler=Sampler(places.Reveal(places.Margin())),  # of the commands: a cell a call
        train=config.Train(steps=STEPS, batch_size=128, ema_decay=0.999),
    )


def in_percent(shares):
    """Writes the mean of shares [n] with its error."""
    return f"{100 * shares.mean():4.1f} +- {100 * shares.std() / len(shares) ** 0.5:.1f}"


def main(workdir: tyro.conf.Positional[str], puzzles: int = 1000, seed: int = 1):
    """Prints how many percent of new puzzles a run solves, by calls of its network and order."""
    if puzzles < 1 or not 0 <= seed < 2**32:
        raise UserError(f"--puzzles {puzzles}, --seed {seed}: take 1 or more, and a seed of 0 to 2**32 - 1")
    run = runs.open(workdir, __file__)
    rng = np.random.default_rng([seed, 2])  # of other boards than those of `Boards`
    boards = np.stack([find_solutions(BLANK, 1, rng)[0] for _ in range(puzzles)])
    given = np.stack([make_puzzle(board, rng) for board in boards])
    known = (given, given != EMPTY)
    orders = (places.RandomOrder(), places.LargestProbability(), places.Margin())
    print("calls", *orders, "second above first", "third above second", "clues changed", sep=" | ")
    for count in (*map(places.Cosine, (2, 4, 8, 16)), places.One()):
        draws = [runs.Draw(known=known, sampler=Sampler(places.Reveal(order, count))) for order in orders]
        x = np.stack([run.sample(jax.random.key(seed), puzzles, draw).x0 for draw in draws])
        is_solved = np.all(x == boards, axis=(2, 3))  # [orders, puzzles]
        shares = [*is_solved, *np.diff(is_solved.astype(int), axis=0)]
        print(f"{count!s:14}", *map(in_percent, shares), np.sum((x != given) & known[1]), sep=" | ")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
