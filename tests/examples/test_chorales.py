"""examples/chorales.py: parallels by brute force, pieces, bad ones, pictures, MIDI files and commands."""

import itertools
import json
import runpy
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import tests
from d3pm_jax import kinds
from d3pm_jax.config import io
from d3pm_jax.errors import UserError
from d3pm_jax.sampling.places import Candidates
from tests.cli.commands import error, status

ROOT = Path(tests.__file__).parents[1]
FILE = ROOT / "examples" / "chorales.py"
JSB = ROOT.parent / "shared" / "data" / "jsb" / "jsb16.npz"
chorales = io.load_module(FILE)
parallels = io.load_module(ROOT / "benchmarks" / "parallels.py")
ORDER = ("soprano", "alto", "tenor", "bass")
MASK = 82


def make_pieces(lengths, voices=4, seed=0):
    """Pieces in which each voice goes about in the middle of its range."""
    rng = np.random.default_rng(seed)
    middle = (chorales.LOWEST + chorales.HIGHEST)[:voices] // 2
    return [middle + rng.integers(-4, 5, (-(-n // 4), voices)).repeat(4, axis=0)[:n] for n in lengths]


def write_npz(path, train, test):
    arrays = {}
    for split, pieces in {"train": train, "test": test}.items():
        arrays[split] = np.concatenate(pieces).astype(np.int16)
        arrays[f"{split}_lengths"] = np.array([len(piece) for piece in pieces])
    np.savez(path, **arrays)
    return str(path)


def write_json(path, train, test):
    pieces = {"train": [piece.tolist() for piece in train], "test": [piece.tolist() for piece in test]}
    path.write_text(json.dumps(pieces))
    return str(path)


def read_all(source):
    return np.stack([source[i]["x"] for i in range(len(source))])


def test_both_files_give_the_same_windows(tmp_path):
    train, test = make_pieces([100, 64]), make_pieces([130])
    train[0][3, 1] = -1
    from_npz = chorales.Chorales(write_npz(tmp_path / "a.npz", train, test))
    from_json = chorales.Chorales(write_json(tmp_path / "a.json", train, test))
    for split in ("train", "test"):
        windows = read_all(from_npz.open(split))
        np.testing.assert_array_equal(windows, read_all(from_json.open(split)))
    expected = [train[0][start : start + 64] for start in (0, 16, 32)] + [train[1]]
    np.testing.assert_array_equal(read_all(from_npz.open("train")), np.maximum(expected, 0))
    np.testing.assert_array_equal(read_all(from_npz.open("test")), [test[0][:64], test[0][64:128]])


def test_transpositions_keep_each_voice_in_its_range(tmp_path):
    notes = make_pieces([64])[0]
    notes[5, 2] = 0
    notes[7, 0] = chorales.HIGHEST[0] - 2
    data = chorales.Chorales()
    seen = [data.random_map({"x": notes}, np.random.default_rng(n))["x"] for n in range(60)]
    shifts = {tuple(np.unique((moved - notes)[notes > 0])) for moved in seen}
    assert shifts == {(shift,) for shift in range(-6, 3)}
    assert all(moved[5, 2] == 0 for moved in seen)
    silence = np.zeros((64, 4), int)
    np.testing.assert_array_equal(data.random_map({"x": silence}, np.random.default_rng(0))["x"], silence)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda piece: piece[:50], r"piece 1 of test has 50 frames: drop it, or use --data.frames 50"),
        (
            lambda piece: np.where(np.arange(64)[:, None] == 7, [70, 99, 60, 50], piece),
            "piece 1 of test: alto 99 in frame 7 is out of range: transpose the piece, or widen VOICES",
        ),
        (lambda piece: np.where(np.arange(4) == 3, 30, piece), "bass 30 in frame 0 is out of range"),
    ],
)
@pytest.mark.parametrize("write", [write_npz, write_json])
def test_a_bad_piece_gets_one_line(write, change, message, tmp_path):
    pieces = make_pieces([64, 64])
    file = write(tmp_path / f"a.{write.__name__[-4:].strip('_')}", pieces, [pieces[0], change(pieces[1])])
    with pytest.raises(UserError, match=message) as caught:
        chorales.Chorales(file).open("test")
    assert "\n" not in str(caught.value)


def test_a_missing_file_gets_one_line(tmp_path, capsys):
    for name in ("none.npz", "none.json"):
        args = ("train", FILE, "--workdir", tmp_path / "run", "--data.file", tmp_path / name)
        assert "No such file or directory" in error(capsys, *args)


def count_slowly(x):
    """Parallels of one window [F, V], by the definition."""
    count = 0
    for frame, (a, b) in itertools.product(range(1, len(x)), itertools.combinations(range(x.shape[1]), 2)):
        before, after = x[frame - 1, [a, b]].tolist(), x[frame, [a, b]].tolist()
        both_rise = after[0] > before[0] and after[1] > before[1]
        both_fall = after[0] < before[0] and after[1] < before[1]
        intervals = [abs(pair[0] - pair[1]) % 12 for pair in (before, after)]
        sounds = 0 not in before + after
        count += sounds and (both_rise or both_fall) and intervals in ([0, 0], [7, 7])
    return count


def test_parallels_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    # Few pitches, so that there are many parallels, and silences among them.
    x = rng.choice([0, 48, 50, 55, 57, 60, 62, 67, 69], (40, 30, 4), p=[0.12] + [0.11] * 8)
    counts = np.array([count_slowly(window) for window in x])
    assert counts.min() < 3
    assert counts.max() > 5
    figures = chorales.measure(x).figures
    per_thousand = 1000 * counts / 29
    assert figures["parallels"] == pytest.approx(per_thousand.mean())
    assert figures["error"] == pytest.approx(per_thousand.std() / np.sqrt(40))
    assert figures["moves"] == pytest.approx(np.mean([[w[1:] != w[:-1]] for w in x]))
    # A fifth and a twelfth, and contrary motion, which is none.
    windows = np.array(
        [[[67, 60], [69, 62]], [[67, 60], [81, 62]], [[67, 60], [62, 67]], [[60, 48], [62, 50]]]
    )
    assert [count_slowly(window) for window in windows] == [1, 1, 0, 1]
    assert chorales.measure(windows).figures["parallels"] == 750


def test_simple_laws_are_laws():
    """Their probabilities sum to 1 over all notes that may come."""
    rng = np.random.default_rng(0)
    train = rng.integers(0, 5, (20, 6, 2))
    every_note = np.stack([np.tile([[[2, 3]], [[note, note]]], (1, 1, 1)).reshape(2, 2) for note in range(5)])
    for p in parallels.compute_laws(train, every_note).values():
        np.testing.assert_allclose(p[:, 1].sum(axis=0), 1)


def test_evenly_many_are_revealed():
    count = parallels.Evenly(8)
    masked = jnp.ones((1, 256), bool)
    taken = []
    for i in range(1, 9):
        left = jnp.arange(256)[None] < 256 - sum(taken)
        shown = Candidates(None, None, left & masked, jnp.array([256]), None, jnp.asarray(i), 8)
        taken.append(int(count.count(shown, None)[0]))
    assert taken == [32] * 8


def make_kind(frames=64):
    data = chorales.Chorales(frames=frames)
    return kinds.make_kind(data.describe(), data)


def test_words_say_what_is_known():
    kind = make_kind()
    shape = (64, 4)
    for voice, name in enumerate(ORDER):
        known = kind.parse_known(name, shape)
        assert known[:, voice].all()
        assert known.sum() == 64
        np.testing.assert_array_equal(kind.parse_known(f"not {name}", shape), ~known)
    known = kind.parse_known("not bar3", shape)
    assert not known[32:48].any()
    assert known.sum() == 48 * 4
    for word in ("bar5", "sopran", "not", "bar0"):
        with pytest.raises(
            UserError, match=f"--known {word}: take a .npy file, or soprano, alto, .*not bar4"
        ):
            kind.parse_known(word, shape)


def test_rolls_have_a_colour_for_each_voice_and_masks_below():
    x = np.array([[[72, 67, 60, 48]] * 16 + [[MASK] * 4] * 16])
    rolls = chorales.draw_rolls(x)
    assert rolls.shape == (1, 12 + 4 * 52, 8 * 32, 3)
    # Below the names of the voices; rows of four pixels, from a semitone above the highest pitch.
    for voice, (pitch, colour) in enumerate(zip(x[0, 0], chorales.COLOURS, strict=False)):
        row = 12 + 4 * (82 - pitch) + 1
        assert (rolls[0, row, :128] == colour).all()
        assert not (rolls[0, row, 128:] == colour).all(axis=-1).any()
        assert (rolls[0, 12 + 4 * (82 - 34 + voice) + 1, 128:] == colour).all()
    states = kinds.States(np.stack([x, x]), [0, 5], steps=512, levels=82)
    np.testing.assert_array_equal(make_kind(32).show_chain(states).states, [rolls[:, 12:]] * 2)


def test_midi_files_have_the_notes(tmp_path, monkeypatch):
    import symusic

    notes = make_pieces([32])[0]
    notes[4:9, 1] = 0
    np.save(tmp_path / "samples.npy", np.stack([notes, notes]))
    monkeypatch.setattr("sys.argv", ["", str(tmp_path / "samples.npy"), str(tmp_path / "song")])
    runpy.run_path(FILE, run_name="__main__")
    for file in (tmp_path / "song0.mid", tmp_path / "song1.mid"):
        score = symusic.Score(file)
        assert [track.name for track in score.tracks] == list(ORDER)
        read = np.zeros_like(notes)
        for voice, track in enumerate(score.tracks):
            for note in track.notes:
                read[4 * note.time // score.tpq : 4 * note.end // score.tpq, voice] = note.pitch
        np.testing.assert_array_equal(read, notes)
    monkeypatch.setattr("d3pm_jax.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs symusic: pip install -e '\.\[midi\]'"):
        chorales.write_midi(notes, tmp_path / "none.mid")


SMALL = ("--data.frames", "32", "--model.width", "16", "--process.steps", "4", "--train.batch-size", "4")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chorales")
    file = write_npz(folder / "pieces.npz", make_pieces([48] * 4), make_pieces([48] * 2, seed=1))
    steps = ("--train.steps", "2", "--train.log-every", "1")
    assert status("train", FILE, "--workdir", folder / "run", "--data.file", file, *SMALL, *steps) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_soprano_stays_and_a_bar_is_drawn_anew(workdir, capsys):
    notes = make_pieces([32], seed=3)[0]
    np.save(workdir.parent / "given.npy", notes)
    given = ("--config", FILE, "--num", 2, "--given", workdir.parent / "given.npy")
    assert status("sample", workdir, *given, "--known", "soprano") == 0
    x = np.load(workdir / "samples_given_knownsoprano.npy")
    np.testing.assert_array_equal(x[..., 0], [notes[:, 0]] * 2)
    assert status("sample", workdir, *given, "--known", "not bar2", "--gif") == 0
    (file,) = workdir.glob("samples_given_knownnot*bar2.npy")
    np.testing.assert_array_equal(np.load(file)[:, :16], [notes[:16]] * 2)
    assert file.with_suffix(".png").is_file()
    assert len(list(workdir.glob("*.gif"))) == 1
    assert "--known tenr: take" in error(capsys, "sample", workdir, *given, "--known", "tenr")


@pytest.mark.slow
def test_samples_are_measured_and_reported(workdir, capsys):
    assert status("eval", workdir, "--config", FILE, "--samples", 4, "--steps", "2,4") == 0
    printed = capsys.readouterr().out
    assert "parallels" in printed
    assert "test bits/dim" in printed
    assert status("report", workdir, "--config", FILE) == 0
    assert (workdir / "report.html").is_file()


@pytest.mark.slow
def test_two_voices_need_one_line_changed(tmp_path):
    code = FILE.read_text()
    (line,) = [line for line in code.splitlines() if line.startswith("VOICES = ")]
    file = tmp_path / "duets.py"
    file.write_text(code.replace(line, 'VOICES = {"soprano": (60, 81), "bass": (36, 66)}'))
    pieces = [piece[:, [0, 3]] for piece in make_pieces([48] * 4)]
    data = write_json(tmp_path / "duets.json", pieces, pieces)
    args = ("--workdir", tmp_path / "run", "--data.file", data, *SMALL, "--train.steps", "2")
    assert status("train", file, *args) == 0
    np.save(tmp_path / "given.npy", pieces[0][:32])
    given = ("--given", tmp_path / "given.npy", "--known", "soprano")
    assert status("sample", tmp_path / "run", "--config", file, "--num", 2, *given) == 0
    assert np.load(tmp_path / "run" / "samples_given_knownsoprano.npy").shape == (2, 32, 2)


@pytest.mark.skipif(not JSB.is_file(), reason=f"there is no {JSB}")
def test_bach_has_few_parallels():
    data = chorales.Chorales(str(JSB))
    assert len(data.open("train")) == 2718
    figures = chorales.measure(read_all(data.open("test"))).figures
    assert figures["n"] == 271
    assert figures["parallels"] == pytest.approx(1.17, abs=0.01)
