"""examples/sudoku.py: boards and puzzles by brute force, its order, pictures, bad puzzles and commands."""

import dataclasses
import itertools
import runpy
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import kinds
from d3pm_jax.config import Transformer, io
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.sampling.places import Candidates, LargestProbability, Margin
from tests import tiny
from tests.cli.commands import status

FILE = Path(__file__).parents[2] / "examples" / "sudoku.py"
CODE = FILE.read_text()
sudoku = io.load_module(FILE)
K = sudoku.K
PUZZLE = """
2...41
...6.5
..1..6
......
3.....
5..2..
"""
SOLUTION = "256341143625421536635412362154514263"


def write_variant(folder, **constants):
    """Writes the file with other numbers at its top, and returns its path."""
    code = CODE
    for name, value in constants.items():
        (line,) = [line for line in code.splitlines() if line.startswith(f"{name} = ")]
        code = code.replace(line, f"{name} = {value}")
    path = folder / "sudoku.py"
    path.write_text(code)
    return path


def as_board(text):
    return np.array([".123456789".index(mark) - 1 for mark in "".join(text.split())]).reshape(K, K) % (K + 1)


def list_boards_of_4():
    """All boards of 4 x 4, [288, 4, 4], of those whose rows have each digit once."""
    rows = np.array(list(itertools.permutations(range(4))))
    boards = rows[np.array(list(itertools.product(range(24), repeat=4)))]  # [24^4, 4, 4]
    boxes = boards.reshape(-1, 2, 2, 2, 2).swapaxes(2, 3).reshape(-1, 4, 4)
    is_right = [
        np.all(np.sort(units, axis=2) == np.arange(4), axis=(1, 2))
        for units in (boards.swapaxes(1, 2), boxes)
    ]
    return boards[is_right[0] & is_right[1]]


def test_solutions_are_those_that_brute_force_finds(tmp_path):
    small = io.load_module(write_variant(tmp_path, BOX="(2, 2)"))
    boards = list_boards_of_4()
    assert len(boards) == 288
    rng = np.random.default_rng(0)
    found = small.find_solutions(small.BLANK, 1000, rng)
    assert len(found) == 288
    assert {board.tobytes() for board in found} == {board.tobytes() for board in boards}
    for board in boards[::12]:
        puzzle = np.where(rng.random((4, 4)) < 0.3, board, small.EMPTY)
        fits = np.all((boards == puzzle) | (puzzle == small.EMPTY), axis=(1, 2))
        assert len(small.find_solutions(puzzle, 1000, rng)) == fits.sum()
        assert len(small.find_solutions(puzzle, 2, rng)) == min(2, fits.sum())


def test_puzzles_have_one_solution_and_no_clue_too_many():
    rng = np.random.default_rng(0)
    for _ in range(3):
        board = sudoku.find_solutions(sudoku.BLANK, 1, rng)[0]
        puzzle = sudoku.make_puzzle(board, rng)
        np.testing.assert_array_equal(sudoku.find_solutions(puzzle, 2, rng), board[None])
        for cell in np.flatnonzero(puzzle != sudoku.EMPTY):
            fewer = puzzle.copy()
            fewer.flat[cell] = sudoku.EMPTY
            assert len(sudoku.find_solutions(fewer, 2, rng)) == 2


def test_clashes_are_equal_digits_of_a_row_a_column_or_a_box():
    x = np.random.default_rng(0).integers(0, K + 1, (5, K, K))
    expected = np.zeros(x.shape, bool)
    cells = list(itertools.product(range(K), repeat=2))
    for n, (r, c), (i, j) in itertools.product(range(5), cells, cells):
        peers = r == i or c == j or (r // 2, c // 3) == (i // 2, j // 3)
        expected[n, r, c] |= (r, c) != (i, j) and peers and x[n, r, c] == x[n, i, j] < K
    np.testing.assert_array_equal(sudoku.find_clashes(x), expected)


@pytest.fixture(scope="module")
def source():
    return sudoku.Boards().open("test")


def test_training_sees_boards_that_are_right_and_differ(source):
    assert not sudoku.find_clashes(np.stack([source[i]["x"] for i in range(0, 2000, 50)])).any()
    seen = [sudoku.Boards().random_map(source[0], np.random.default_rng(n))["x"] for n in range(20)]
    assert not sudoku.find_clashes(np.stack(seen)).any()
    assert len({x.tobytes() for x in seen}) == 20


def test_rows_and_columns_move_as_digits_do(source):
    x = source[0]["x"]
    maps = [sudoku.Boards().random_map({"x": x}, np.random.default_rng(n))["x"] for n in range(20)]

    # A board whose digits alone had other names would have equal digits where x has them.
    def pattern(board):
        return board.reshape(-1, 1) == board.reshape(1, -1)

    assert not any(np.array_equal(pattern(mapped), pattern(x)) for mapped in maps)
    # A mark in a corner goes to every row and to every column.
    corner = np.zeros((K, K), int)
    corner[0, 0] = 1
    places = []
    for n in range(100):
        mapped = sudoku.Boards().random_map({"x": corner}, np.random.default_rng(n))["x"]
        values, counts = np.unique(mapped, return_counts=True)
        places.append(np.argwhere(mapped == values[counts == 1])[0])
    rows, columns = np.transpose(places)
    assert set(rows) == set(columns) == set(range(K))


def test_boards_of_both_splits_and_of_the_program_differ(source):
    rng = np.random.default_rng([1, 2])
    drawn = [sudoku.find_solutions(sudoku.BLANK, 1, rng)[0] for _ in range(300)]
    train = sudoku.Boards().open("train")
    sets = [{train[i]["x"].tobytes() for i in range(2000)}, {source[i]["x"].tobytes() for i in range(2000)}]
    sets.append({x.astype(source[0]["x"].dtype).tobytes() for x in drawn})
    for one, other in itertools.combinations(sets, 2):
        assert len(one & other) / len(other) < 0.005


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone"], "gone holds no run"),
        (["gone", "--puzzles", "0"], "--puzzles 0"),
        (["gone", "--puzzles=-3"], "--puzzles -3"),
        (["gone", "--seed=-1"], "--seed -1"),
    ],
)
def test_the_program_refuses_in_one_line(words, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(FILE), *words])
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as ended:
        runpy.run_path(str(FILE), run_name="__main__")
    assert "\n" not in str(ended.value.code)


def test_a_board_has_no_more_digits_than_marks(tmp_path):
    with pytest.raises(Exception, match="1 to 9"):
        io.load_module(write_variant(tmp_path, BOX="(3, 4)"))


def test_the_margin_comes_first_and_not_the_probability():
    p = np.array([[0.5, 0.5, 0, 0], [0.45, 0.25, 0.3, 0], [0.25, 0.25, 0.25, 0.25]])
    with np.errstate(divide="ignore"):
        log_p = jnp.asarray(np.log(p))[None]
    shown = Candidates(log_p, jnp.zeros((1, 3), int), jnp.ones((1, 3), bool), jnp.array([3]), None, 1, 3)
    np.testing.assert_allclose(Margin().score(shown), [[0, 0.15, 0]], atol=1e-6)
    assert LargestProbability().score(shown)[0].argmax() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no file .*: write a puzzle there"),
        ("12.\n", "has 3 cells: each puzzle has 36, for others change BOX"),
        ("", "has 0 cells"),
        (PUZZLE.replace("6", "7"), "has '7': write a text of digits 1 to 6, and . for empty cells"),
        (
            PUZZLE.replace("2...41", "2..241"),
            r"puzzle 1: equal digits at \(row, column\) \[\[1, 1\], \[1, 4\], \[6, 4\]\]",
        ),
        (
            PUZZLE.replace("......", ".2...."),
            "puzzle 1: 0 solutions, counted up to 100: take a clue away or change one",
        ),
        (PUZZLE.replace("5..2..", "5....."), "puzzle 1: 16 solutions, counted up to 100: add clues"),
        (PUZZLE + "." * 36, "puzzle 2: 100 solutions, counted up to 100: add clues"),
    ],
)
def test_a_bad_puzzle_gets_one_line(text, message, tmp_path):
    path = tmp_path / "puzzle.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        sudoku.read_puzzles(path)
    assert "\n" not in str(refused.value)


def test_puzzles_are_read_and_drawn(tmp_path):
    path = tmp_path / "puzzles.txt"
    path.write_text(PUZZLE + PUZZLE.replace(".", "0"), encoding="utf-8-sig")  # as some editors write
    puzzles = sudoku.read_puzzles(path)
    np.testing.assert_array_equal(puzzles, [as_board(PUZZLE)] * 2)
    (solution,) = sudoku.find_solutions(puzzles[0], 2, np.random.default_rng(0))
    np.testing.assert_array_equal(solution, as_board(SOLUTION))
    kind = kinds.make_kind(sudoku.Boards().describe(), sudoku.Boards())
    wrong = solution.copy()
    wrong[0, 1] = wrong[0, 0]
    tiles = kind.show_samples(kinds.Samples(np.stack([puzzles[0], solution, wrong]), K)).images
    corner = tiles[:, 4 + 20 * np.arange(K) + 3][:, :, 4 + 20 * np.arange(K) + 3]  # a pixel of each cell
    assert (corner[0][puzzles[0] != sudoku.EMPTY] == 215).all()
    assert (corner[0][puzzles[0] == sudoku.EMPTY] == 255).all()
    assert (corner[1] == 255).all()
    np.testing.assert_array_equal((corner[2] == (250, 180, 80)).all(axis=-1), sudoku.find_clashes(wrong))
    # In a chain the clues are what is there from the beginning.
    states = kinds.States(np.stack([solution, puzzles[0]])[:, None], [0, 36], 36, K)
    strip = kind.show_chain(states).states[:, 0]
    grey = (strip[:, 4 + 20 * np.arange(K) + 3][:, :, 4 + 20 * np.arange(K) + 3] == 215).all(axis=-1)
    np.testing.assert_array_equal(grey, [puzzles[0] != sudoku.EMPTY] * 2)


def test_valid_boards_are_counted(source):
    boards = kinds.Split(source, K, sudoku.Boards().describe(), 8)
    kind = kinds.make_kind(sudoku.Boards().describe(), sudoku.Boards())
    reference = kind.prepare_quality(boards, boards, 8)
    assert reference.figures == {"test": {"n": 8, "valid": 1.0}}
    x, _ = boards.read_unweighted()
    x[:2, 0, 0] = (x[:2, 0, 0] + 1) % K
    assert reference.measure(x).figures == {"n": 8, "valid": 0.75}


@pytest.fixture
def workdir(tmp_path):
    """A run with random weights of a small network."""
    small = Transformer(width=8, num_layers=1, num_heads=1, see_time=False, positions="grid")
    config = dataclasses.replace(sudoku.get_config(), model=small)
    tiny.write_run(tmp_path / "run", config, description=sudoku.Boards().describe())
    return tmp_path / "run"


def test_clues_stay_and_a_film_shows_the_rest(workdir, capsys):
    puzzle = workdir.parent / "puzzle.txt"
    puzzle.write_text(PUZZLE)
    words = ("--config", FILE, "--num", 4, "--given", puzzle, "--known", "filled")
    assert status("sample", workdir, *words) == 0
    assert "Margin(" in capsys.readouterr().out
    x = np.load(workdir / "samples_given_knownfilled.npy")
    clues = as_board(PUZZLE)
    assert (x == clues)[:, clues != sudoku.EMPTY].all()
    assert (x < K).all()
    assert status("sample", workdir, *words, "--sampler", "ancestral", "--gif") == 0
    assert "reverse process, moving" in capsys.readouterr().out
    assert (workdir / "chain_samplerancestral_given_knownfilled.gif").stat().st_size > 10_000


@pytest.mark.slow
def test_boards_of_4_are_trained_on_by_two_numbers_changed(tmp_path, capsys):
    file = write_variant(tmp_path, BOX="(2, 2)", STEPS="40")
    workdir = tmp_path / "run"
    assert status("train", file, "--workdir", workdir, "--train.batch-size", 16) == 0
    assert status("eval", workdir, "--config", file, "--samples", 64, "--steps", 4) == 0
    assert "valid" in capsys.readouterr().out
    io.load_module(file).main(str(workdir), puzzles=32)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 5
    assert all(line.endswith("| 0") and line.count("+-") == 5 for line in lines[1:])


def test_boards_of_9_have_puzzles_and_a_config(tmp_path):
    large = io.load_module(write_variant(tmp_path, BOX="(3, 3)"))
    rng = np.random.default_rng(0)
    board = large.find_solutions(large.BLANK, 1, rng)[0]
    assert not large.find_clashes(board).any()
    np.testing.assert_array_equal(large.find_solutions(large.make_puzzle(board, rng), 2, rng), board[None])
    large.get_config().check()
    assert large.Boards().describe() == Description((9, 9), 9, kind="sudoku")
