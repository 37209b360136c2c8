"""examples/chorales.py: parallels by brute force, pieces, bad ones, pictures, MIDI files and commands."""

import itertools
import json
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests
from d3pm_jax import kinds, runs
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


def with_changes(**changes):
    """The arrays of a good .npz of two pieces, with some changed; None leaves one out."""
    pieces = np.concatenate(make_pieces([64, 64])).astype(np.int16)
    lengths = np.array([64, 64])
    arrays = {"train": pieces, "test": pieces, "train_lengths": lengths, "test_lengths": lengths, **changes}
    return {name: array for name, array in arrays.items() if array is not None}


FRAME = [70, 64, 57, 50]
HAS_NONE = "has no pieces of train in its place"
BAD_CONTENT = {
    "floats": ([[[70.7, 64, 57, 50]] * 64], "piece 0 of train is float64"),
    "nan": ([[[float("nan"), 64, 57, 50]] * 64], "piece 0 of train is float64"),
    "negative": ([[[-70, 64, 57, 50]] * 64], "soprano -70 in frame 0 is out of range: transpose"),
    "two voices": ([[[70, 50]] * 64], r"piece 0 of train is int64 \[64, 2\]"),
    "five voices": ([[[*FRAME, 40]] * 64], r"piece 0 of train is int64 \[64, 5\]"),
    "one voice": ([[[70]] * 64], r"piece 0 of train is int64 \[64, 1\]"),
    "flat": ([FRAME * 16], r"piece 0 of train is int64 \[64\]"),
    "ragged": ([[FRAME] * 63 + [[70, 64]]], HAS_NONE),
    "none": ([[[None, 64, 57, 50]] * 64], "piece 0 of train is object"),
    "huge": ([[[2**70, 64, 57, 50]] * 64], "piece 0 of train is object"),
    "strings": ([[["a", "b", "c", "d"]] * 64], "piece 0 of train is <U1"),
    "a string": ("abcd", "piece 0 of train is <U1"),
    "a number": (5, HAS_NONE),
    "a dict of pieces": ({"first": [FRAME] * 64}, "piece 0 of train is <U5"),
    "no pieces": ([], "train of .*holds no examples: pass an array with some"),
    "an empty piece": ([[]], r"piece 0 of train is float64 \[0\]"),
    "short": ([[FRAME] * 50], "has 50 frames: drop it, or use --data.frames 50"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_a_file_of_other_things_gets_one_line(case, tmp_path):
    content, message = BAD_CONTENT[case]
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({"train": content}))
    check_refusal(file, message)


def check_refusal(file, message):
    with pytest.raises(UserError, match=message) as caught:
        chorales.Chorales(str(file)).open("train")
    line = str(caught.value)
    assert str(file) in line
    assert "\n" not in line
    assert len(line) < 400
    form = r"pass \[frames, 4\] of whole pitches of soprano, .* 0 or -1 is silence, or change VOICES"
    cures = (form, "transpose the piece", "drop it", "pass an array", r'write {"train": \[piece, \.\.\.\]')
    assert any(re.search(cure, line) for cure in cures)


BAD_FILES = {
    "no split": ("a.json", b'{"test": []}'),
    "a list": ("a.json", b"[[[70, 64, 57, 50]]]"),
    "no JSON": ("a.json", b"hello"),
    "nothing": ("a.json", b""),
    "MIDI": ("a.mid", b"MThd\x00\xff\xfe"),
    "no npz": ("a.npz", b"hello"),
    "an empty npz": ("a.npz", b""),
    "a damaged npz": ("a.npz", b"PK\x03\x04" + bytes(40)),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_another_file_gets_one_line(case, tmp_path):
    name, content = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    check_refusal(tmp_path / name, HAS_NONE)


BAD_ARRAYS = {
    "too short lengths": ({"train_lengths": np.array([64, 60])}, HAS_NONE),
    "too long lengths": ({"train_lengths": np.array([64, 70])}, HAS_NONE),
    "a negative length": ({"train_lengths": np.array([64, 70, -6])}, HAS_NONE),
    "lengths of floats": ({"train_lengths": np.array([64.0, 64.0])}, HAS_NONE),
    "no lengths": ({"train_lengths": None}, HAS_NONE),
    "no split": ({"train": None}, HAS_NONE),
    "objects": ({"train": np.array([1, None])}, HAS_NONE),
    "floats": ({"train": np.full((128, 4), 64.5)}, "piece 0 of train is float64"),
    "three voices": ({"train": np.full((128, 3), 64)}, r"piece 0 of train is int64 \[64, 3\]"),
    "an empty piece": ({"train_lengths": np.array([64, 0, 64])}, r"piece 1 of train is int16 \[0, 4\]"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_of_other_things_get_one_line(case, tmp_path):
    changes, message = BAD_ARRAYS[case]
    np.savez(tmp_path / "a.npz", **with_changes(**changes))
    check_refusal(tmp_path / "a.npz", message)


def test_a_missing_file_or_a_folder_gets_one_line(tmp_path, capsys):
    for name in ("none.npz", "none.json"):
        args = ("train", FILE, "--workdir", tmp_path / "run", "--data.file", tmp_path / name)
        said = error(capsys, *args)
        assert "No such file or directory" in said
        assert name in said
    args = ("train", FILE, "--workdir", tmp_path / "run", "--data.file", tmp_path)
    assert "Is a directory" in error(capsys, *args)


@pytest.mark.parametrize("frames", ["0", "-1"])
def test_windows_have_frames(frames, tmp_path, capsys):
    file = write_json(tmp_path / "a.json", make_pieces([64]), make_pieces([64]))
    args = ("train", FILE, "--workdir", tmp_path / "run", "--data.file", file, f"--data.frames={frames}")
    assert f"shape = ({frames}, 4): it must be" in error(capsys, *args)


def test_given_notes_are_in_range(tmp_path):
    notes = make_pieces([64])[0]
    kind = make_kind()
    path = tmp_path / "given.npy"
    np.save(path, np.where(np.arange(64)[:, None] == 7, [-1, 64, 57, 50], notes))
    read = kind.read_given(path, (64, 4))
    assert read.shape == (64, 4)
    assert read[7].tolist() == [0, 64, 57, 50]
    np.save(path, np.stack([notes, notes]))
    np.testing.assert_array_equal(kind.read_given(path, (64, 4)), [notes, notes])
    np.save(path, np.where(np.arange(64)[:, None] == 7, [45, 64, 57, 50], notes))
    with pytest.raises(UserError, match=f"--given {path}: soprano 45 in frame 7 is out of range: transpose"):
        kind.read_given(path, (64, 4))


def count_slowly(x):
    """Parallels of one window [F, V], by the definition."""
    count = 0
    for frame, (a, b) in itertools.product(range(1, len(x)), itertools.combinations(range(x.shape[1]), 2)):
        before, after = x[frame - 1, [a, b]].tolist(), x[frame, [a, b]].tolist()
        both_rise = after[0] > before[0] and after[1] > before[1]
        both_fall = after[0] < before[0] and after[1] < before[1]
        intervals = [abs(pair[0] - pair[1]) % 12 for pair in (before, after)]
        cross = intervals == [7, 7] and (before[0] > before[1]) != (after[0] > after[1])
        sounds = 0 not in before + after
        count += sounds and (both_rise or both_fall) and intervals in ([0, 0], [7, 7]) and not cross
    return count


def count_of_all(x):
    return parallels.count_parallels(x) / 1000 * (x.shape[1] - 1)


def test_parallels_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    # Few pitches, so that there are many parallels, and silences among them.
    x = rng.choice([0, 48, 50, 55, 57, 60, 62, 67, 69], (40, 30, 4), p=[0.12] + [0.11] * 8)
    counts = np.array([count_slowly(window) for window in x])
    assert counts.min() < 3
    assert counts.max() > 5
    figures = parallels.measure(x).figures
    per_thousand = 1000 * counts / 29
    assert figures["parallels"] == pytest.approx(per_thousand.mean())
    assert figures["error"] == pytest.approx(per_thousand.std() / np.sqrt(40))
    assert figures["moves"] == pytest.approx(np.mean([[w[1:] != w[:-1]] for w in x]))
    # A fifth and a twelfth, contrary motion, an octave, unisons, and a fifth whose voices cross.
    windows = np.array(
        [
            *([[67, 60], [69, 62]], [[67, 60], [81, 62]], [[67, 60], [62, 67]]),
            *([[60, 48], [62, 50]], [[60, 60], [62, 62]], [[67, 60], [69, 76]]),
        ]
    )
    assert [count_slowly(window) for window in windows] == [1, 1, 0, 1, 1, 0]
    assert count_of_all(windows).tolist() == [1, 1, 0, 1, 1, 0]


def test_errors_over_pieces_are_wider_where_windows_are_alike():
    x = np.repeat([1.0, 3.0, 5.0, 7.0], 4)
    assert parallels.error_over_pieces(x, [4] * 4) == pytest.approx(np.std([1, 3, 5, 7]) / 2)
    assert parallels.error_over_pieces(x, [1] * 16) == pytest.approx(x.std() / 4)


def test_windows_are_moved_to_one_key():
    c_major = np.array([[60, 64, 67, 72], [62, 65, 69, 74], [59, 62, 67, 71], [60, 0, 67, 72]])
    moved = parallels.move_to_one_key(np.stack([np.where(c_major > 0, c_major + n, 0) for n in (-3, 0, 4)]))
    white = {0, 2, 4, 5, 7, 9, 11}
    assert set((moved[moved > 0] % 12).tolist()) <= white
    assert (moved[:, 3, 1] == 0).all()


def test_simple_laws_are_laws():
    """Their probabilities sum to 1 over all notes that may come."""
    rng = np.random.default_rng(0)
    train = rng.integers(0, 5, (20, 6, 2))
    every_note = np.stack([[[2, 3], [note, note]] for note in range(5)])
    for p in parallels.compute_laws(train, every_note).values():
        np.testing.assert_allclose(p[:, 1].sum(axis=0), 1)


def test_simple_laws_of_numbers_by_hand():
    train = np.array([[[0], [0], [1]]])
    laws = parallels.compute_laws(train, np.array([[[0], [0], [1]], [[1], [0], [1]]]))
    p0, p1 = 3 / 5, 2 / 5  # of counts 2 and 1, and one more of each
    np.testing.assert_allclose(laws["unigram"][..., 0], [[p0, p0, p1], [p1, p0, p1]])
    stays = 1 / 2
    np.testing.assert_allclose(laws["last note"][..., 0], [[p0, stays, 1 / 2], [p1, 1 / 2, 1 / 2]])


@pytest.mark.slow
@pytest.mark.parametrize("asked", [8, 7])
@pytest.mark.parametrize("name", parallels.SAMPLERS)
def test_samplers_take_no_more_calls_than_asked(name, asked, workdir):
    run = runs.open(workdir, FILE)
    respaced, sampler = parallels.choose_sampler(run, name, asked)
    drawn = respaced.sample(jax.random.key(0), 1, runs.Draw(sampler=sampler))
    assert drawn.calls[0] <= asked


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
    assert rolls.shape == (1, 4 * 52, 8 * 32, 3)
    # Rows of four pixels, from a semitone above the highest pitch.
    for voice, (pitch, colour) in enumerate(zip(x[0, 0], chorales.COLOURS, strict=False)):
        row = 4 * (82 - pitch) + 1
        assert (rolls[0, row, :128] == colour).all()
        assert not (rolls[0, row, 128:] == colour).all(axis=-1).any()
        assert (rolls[0, 4 * (82 - 34 + voice) + 1, 128:] == colour).all()
    states = kinds.States(np.stack([x, x]), [0, 5], steps=512, levels=82)
    np.testing.assert_array_equal(make_kind(32).show_chain(states).states, [rolls] * 2)


def test_six_voices_are_drawn(monkeypatch):
    monkeypatch.setattr(chorales, "VOICES", dict.fromkeys("abcdef", (60, 81)))
    monkeypatch.setattr(chorales, "LOWEST", np.full(6, 60))
    monkeypatch.setattr(chorales, "HIGHEST", np.full(6, 81))
    assert chorales.draw_rolls(np.full((1, 32, 6), 70)).shape[0] == 1


def test_midi_files_have_the_notes(tmp_path, monkeypatch):
    import symusic

    notes = make_pieces([32])[0]
    notes[4:9, 1] = 0
    np.save(tmp_path / "samples.npy", np.stack([notes, notes]))
    chorales.main(str(tmp_path / "samples.npy"), str(tmp_path / "song"))
    for file in (tmp_path / "song0.mid", tmp_path / "song1.mid"):
        score = symusic.Score(file)
        assert [tempo.qpm for tempo in score.tempos] == [75]
        assert [track.name for track in score.tracks] == list(ORDER)
        read = np.zeros_like(notes)
        for voice, track in enumerate(score.tracks):
            runs_of_notes = [pitch for pitch, _ in itertools.groupby(notes[:, voice].tolist()) if pitch > 0]
            assert [note.pitch for note in track.notes] == runs_of_notes
            for note in track.notes:
                assert note.velocity == 80
                read[4 * note.time // score.tpq : 4 * note.end // score.tpq, voice] = note.pitch
        np.testing.assert_array_equal(read, notes)
    monkeypatch.setattr("d3pm_jax.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs symusic: pip install -e '\.\[midi\]'"):
        chorales.main(str(tmp_path / "samples.npy"), str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.where(np.arange(4) == 0, MASK, x), "sample 1: soprano 82 in frame 0 is out of range"),
        (lambda x: np.where(np.arange(4) == 0, 200, x), "sample 1: soprano 200 in frame 0 is out of range"),
        (lambda x: x + 0.5, r"sample 1 is float64 \[32, 4\]: pass \[frames, 4\] of whole pitches"),
        (lambda x: x[:, :3], r"sample 0 is int64 \[32, 3\]: pass \[frames, 4\] of whole pitches"),
    ],
)
def test_midi_files_are_refused(change, message, tmp_path):
    notes = make_pieces([32])[0]
    changed = change(notes)
    samples = [notes, changed] if changed.shape == notes.shape else [changed]
    path = tmp_path / "samples.npy"
    np.save(path, np.stack(samples).astype(changed.dtype))
    if "is float64" in message:
        message = message.replace("sample 1", "sample 0")
    with pytest.raises(UserError, match=f"{path}, {message}"):
        chorales.main(str(path), str(tmp_path / "song"))
    assert not (tmp_path / "song1.mid").exists()


def run_main(monkeypatch, capsys, *args):
    """Runs the file as a program, and returns its exit status and what it says of an error."""
    monkeypatch.setattr("sys.argv", ["chorales.py", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FILE), run_name="__main__")
    return str(ended.value.code), capsys.readouterr().err


def test_the_program_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, capsys):
    code, said = run_main(monkeypatch, capsys)
    assert code == "2"
    assert "Required options" in said
    assert "Traceback" not in said
    code, _ = run_main(monkeypatch, capsys, tmp_path / "none.npy", tmp_path / "song")
    assert code.startswith(f"error: no file {tmp_path / 'none.npy'}")
    np.save(tmp_path / "one.npy", np.array(70))
    code, _ = run_main(monkeypatch, capsys, tmp_path / "one.npy", tmp_path / "song")
    assert code.startswith(f"error: {tmp_path / 'one.npy'}, sample 0 is int64 []: pass [frames, 4]")
    np.save(tmp_path / "samples.npy", np.stack(make_pieces([32])))
    code, _ = run_main(monkeypatch, capsys, tmp_path / "samples.npy", tmp_path / "none" / "song")
    assert code.startswith("error: [Errno 2] No such file or directory")
    assert f"{tmp_path / 'none' / 'song'}0.mid" in code


SMALL = ("--data.frames", "32", "--model.width", "16", "--process.steps", "8", "--train.batch-size", "4")


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
    assert status("eval", workdir, "--config", FILE) == 0
    printed = capsys.readouterr().out
    assert "test bits/dim" in printed
    parallels.print_samples(runs.open(workdir, FILE), ["ancestral", "gibbs"], [2, 4], 4, 0)
    printed = capsys.readouterr().out
    names = [line.rsplit("  ")[0].split("  ")[0].strip() for line in printed.splitlines()]
    assert names == ["train", "test", "mixed", "mixed, one key", *["ancestral"] * 2, *["gibbs"] * 2]
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
    figures = parallels.measure(read_all(data.open("test"))).figures
    assert figures["n"] == 271
    assert figures["parallels"] == pytest.approx(1.17, abs=0.01)
