"""The weights in the repository load in JAX and in PyTorch, and give the numbers that stand beside them."""

import hashlib
import json
import operator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from d3pm_jax import likelihood, losses, respace, runs
from d3pm_jax.config import io as config_io
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.runs import exported
from d3pm_jax.sampling import even_grid
from d3pm_jax.weights import twin
from torch_ref.runs import exported as torch_exported

FOLDER = Path(__file__).parent.parent / "pretrained"
FILE = FOLDER / "bin_mnist.safetensors"
GREY = FOLDER / "mnist_absorbing.safetensors"
IMAGES = [FILE, FOLDER / "bin_mnist_muon.safetensors", GREY]
LETTERS = FOLDER / "wiki27_absorbing.safetensors"
BITS = FOLDER / "nltcs.safetensors"
NOTES = FOLDER / "chorales.safetensors"
SUDOKU = FOLDER / "sudoku.safetensors"
STEM = operator.attrgetter("stem")
STEPS = 10
# Chords of soprano, alto, tenor and bass, a quarter each.
CHORDS = [
    *([71, 67, 62, 55], [72, 67, 64, 48], [74, 67, 59, 55], [74, 66, 57, 50]),
    *([72, 64, 57, 48], [71, 67, 62, 55], [69, 66, 62, 50], [67, 62, 59, 55]),
]

SENTENCE = (
    "the river rises in the hills to the north of the town and flows "
    "west through a wide valley to the sea where it forms a small bay"
)

BOARDS = ("256341143625421536635412362154514263", "123456456123231564564231312645645312")

# Each mark is two by two pixels.
SEVEN = """
..............
..............
...########...
...########...
..........##..
.........##...
.........##...
........##....
........##....
.......##.....
.......##.....
......##......
......##......
..............
"""
TWO = """
..............
..............
....######....
...##....##...
.........##...
.........##...
........##....
.......##.....
......##......
.....##.......
....##........
...#########..
...########...
..............
"""


def drawn(text: str) -> np.ndarray:
    marks = np.array([[mark == "#" for mark in line] for line in text.split()])
    return np.kron(marks, np.ones((2, 2), int))[..., None]


def count_categories(file: Path) -> int:
    return exported.read_description(file).categories


def read_boards() -> np.ndarray:
    return np.array([[int(digit) - 1 for digit in board] for board in BOARDS], np.int32).reshape(2, 6, 6)


def test_every_file_is_the_one_that_was_measured_small_and_names_no_folder():
    files = sorted(FOLDER.glob("*.safetensors"))
    assert set(files) == {*IMAGES, LETTERS, BITS, NOTES, SUDOKU}
    for file in files:
        recorded = json.loads(file.with_suffix(".json").read_text())
        assert hashlib.sha256(file.read_bytes()).hexdigest() == recorded["sha256"]
        assert file.stat().st_size <= 5_100_000
        assert "/" not in json.dumps(json.loads(twin.read_metadata(file)["config"])["data"])


def test_a_sentence_has_the_recorded_likelihood_and_shuffled_characters_a_worse_one():
    x0 = np.array([" abcdefghijklmnopqrstuvwxyz".index(character) for character in SENTENCE], np.int32)
    texts = np.stack([x0, np.random.default_rng(0).permutation(x0)])
    network = exported.denoiser(LETTERS)
    mask_id = 27

    @jax.jit
    def bits(x0):
        left_to_right = jnp.broadcast_to(jnp.arange(x0.shape[1]), x0.shape) / x0.shape[1]
        nats = likelihood.chain_rule(lambda xt: network(xt, jnp.ones(2, int)), x0, left_to_right, mask_id)
        return nats.mean(1) / np.log(2)

    sentence, shuffled = bits(texts)
    recorded = json.loads(LETTERS.with_suffix(".json").read_text())["bits_of_sentence"]
    np.testing.assert_allclose(sentence, recorded, rtol=1e-4)
    assert shuffled > 2 * sentence


def test_rows_of_bits_have_the_recorded_likelihood_and_drawn_ones_a_worse_one():
    none_and_first = np.stack([np.zeros(16, np.int32), np.eye(16, dtype=np.int32)[0]])
    drawn_rows = np.random.default_rng(0).integers(2, size=(6, 16), dtype=np.int32)
    rows = np.concatenate([none_and_first, drawn_rows])
    network = exported.denoiser(BITS)
    left_to_right = jnp.broadcast_to(jnp.arange(16), rows.shape) / 16
    mask_id = 2

    @jax.jit
    def nats(x0):
        nats = likelihood.chain_rule(lambda xt: network(xt, jnp.ones(8, int)), x0, left_to_right, mask_id)
        return nats.sum(1)

    actual = nats(rows)
    recorded = json.loads(BITS.with_suffix(".json").read_text())["nats_of_rows"]
    np.testing.assert_allclose(actual[:2], recorded, rtol=1e-4)
    assert actual[2:].mean() > 2 * actual[:2].max()


def test_hidden_notes_of_chords_have_the_recorded_likelihood_and_those_of_a_wrong_tenor_a_worse_one(tmp_path):
    example = FOLDER.parent / "examples" / "chorales.py"
    runs.import_weights(NOTES, config_io.load_module(example).get_config(), tmp_path / "run")
    run = runs.open(tmp_path / "run", example)
    notes = np.repeat(np.array(CHORDS * 2, np.int32), 4, axis=0)
    frame, voice = np.indices((64, 4))
    x0 = np.stack([notes, notes + (voice == 2)])
    is_hidden = (frame // 4 + voice) % 4 == 0
    logits = run.predict(np.where(is_hidden, 82, x0), np.ones(2, np.int32))
    nats = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), x0[..., None], axis=3)[..., 0]
    right, wrong = nats[:, is_hidden].mean(axis=1)
    recorded = json.loads(NOTES.with_suffix(".json").read_text())["nats_of_hidden_notes"]
    np.testing.assert_allclose(right, recorded, rtol=1e-4)
    assert wrong > 2 * right


def test_boards_of_sudoku_have_the_recorded_likelihood_and_shuffled_ones_a_worse_one():
    boards = read_boards()
    shuffled = np.random.default_rng(0).permuted(boards.reshape(2, 36), axis=1).reshape(2, 6, 6)
    boards = np.concatenate([boards, shuffled])
    network = exported.denoiser(SUDOKU)
    mask_id = 6

    @jax.jit
    def nats(x0):
        row_by_row = jnp.broadcast_to(jnp.arange(36).reshape(6, 6), x0.shape) / 36
        nats = likelihood.chain_rule(lambda xt: network(xt, jnp.ones(4, int)), x0, row_by_row, mask_id)
        return nats.sum((1, 2))

    actual = nats(boards)
    recorded = json.loads(SUDOKU.with_suffix(".json").read_text())["nats_of_boards"]
    np.testing.assert_allclose(actual[:2], recorded, rtol=1e-4)
    assert actual[2:].min() > 2 * actual[:2].max()


@pytest.mark.parametrize(
    "file", [FILE, *(pytest.param(file, marks=pytest.mark.slow) for file in IMAGES if file != FILE)], ids=STEM
)
def test_two_drawn_digits_have_the_recorded_bound_and_shuffled_pixels_a_worse_one(file):
    categories = count_categories(file)
    digits = (categories - 1) * np.stack([drawn(SEVEN), drawn(TWO)])
    shuffled = np.random.default_rng(0).permutation(digits.reshape(2, -1), axis=1).reshape(digits.shape)
    config = config_io.from_json(json.loads(twin.read_metadata(file)["config"]))
    all_steps = config.process.build()
    network = exported.denoiser(file)
    process = respace(all_steps, even_grid(all_steps.T, STEPS))
    term = partial(losses.posterior_kl, **logits_keywords(config.loss))

    @jax.jit
    def bound(x0):
        return likelihood.estimate_bound(jax.random.key(0), network, process, x0, jnp.arange(4), term).total()

    nats = bound(np.concatenate([digits, shuffled]))
    recorded = json.loads(file.with_suffix(".json").read_text())["nats_of_drawn_digits"]
    np.testing.assert_allclose(nats[:2], recorded, rtol=1e-4)
    assert nats[2:].min() > 3 * nats[:2].max()


@pytest.mark.slow  # networks and files of both have tests in parity_tests
@pytest.mark.parametrize("file", [*IMAGES, LETTERS, BITS, SUDOKU], ids=STEM)
def test_pytorch_has_the_same_logits(file):
    rng = np.random.default_rng(0)
    if file == LETTERS:
        xt = rng.integers(28, size=(2, 128))
    elif file == BITS:
        xt = rng.integers(3, size=(2, 16))
    elif file == SUDOKU:
        xt = np.where(rng.random((2, 6, 6)) < 0.5, read_boards(), 6)  # the mask
    else:
        xt = (count_categories(file) - 1) * np.stack([drawn(SEVEN), drawn(TWO)])
    if file == GREY:
        xt = np.where(rng.random(xt.shape) < 0.5, 256, xt)  # the mask
    t = np.array([3, 30])
    with torch.no_grad():
        theirs = torch_exported.denoiser(file)(torch.tensor(xt), torch.tensor(t)).numpy()
    ours = jax.jit(exported.denoiser(file))(xt, t)
    largest = np.abs(theirs[np.isfinite(theirs)]).max()  # the logit of a mask is -inf
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * largest)
