"""Texts as data: what their tokens, splits, windows and padding are, and one line for what cannot be."""

import errno
import fcntl
import hashlib
import itertools
import json
import lzma
import subprocess
import sys
import threading
import time
import zipfile
from fractions import Fraction

import filelock
import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.config import data as specs
from d3pm_jax.data import DatasetError, prepared, read_batch, text, tokenizers, train_batches
from d3pm_jax.data.windows import Overlapping, Padded, Wrapped, random_window

DUMPS = json.dumps
ODD = "Größe: 3 €, 🎈 and\ttabs.\n\nNaïve lines\nwith no end 漢字"


@pytest.fixture(autouse=True)
def cache(text_cache):
    return text_cache


@pytest.fixture
def small_parts(monkeypatch):
    """Files are read three bytes at a time, and lines of more than five characters are cut."""
    monkeypatch.setattr(text, "PART", 3)
    monkeypatch.setattr(text, "LONGEST", 5)


def write(folder, content, name="a.txt"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def text_of(data, split):
    """All tokens of a split, as text."""
    description = data.describe()
    return description.text(prepared.prepare_corpus(data.corpus()).open(split).x)


@pytest.mark.parametrize("tokenizer", ["characters", "bytes"])
def test_tokens_are_the_text_cut_by_characters(tmp_path, tokenizer, small_parts):
    path = write(tmp_path, ODD)
    data = config.Text(path, split=(0.7, 0.2, 0.1), tokenizer=tokenizer, length=4)
    n = len(ODD)
    cuts = [0, n * 7 // 10, n * 9 // 10, n]
    actual = [text_of(data, split) for split in ("train", "valid", "test")]
    assert actual == [ODD[a:b] for a, b in itertools.pairwise(cuts)]
    symbols = data.describe().symbols
    assert symbols == tuple(sorted(set(ODD))) if tokenizer == "characters" else len(symbols) == 256


def test_shares_are_decimal_fractions(tmp_path):
    """0.7 + 0.2 < 0.9 in floating point, and 10 x 0.9 is 9."""
    data = config.Text(write(tmp_path, "abcdefghij"), split=(0.7, 0.2, 0.1), length=1)
    assert Fraction(0.7) + Fraction(0.2) < Fraction("0.9")
    assert [text_of(data, split) for split in ("train", "valid", "test")] == ["abcdefg", "hi", "j"]


def test_texts_of_folders_are_joined_by_name_and_splits_may_be_named(tmp_path):
    for name, content in (("b.txt", "bé"), ("a.txt", "a"), ("c.md", "no")):
        write(tmp_path / "train", content, name)
    test = write(tmp_path, "ab", "test.txt")
    valid = write(tmp_path, "x", "valid.txt")
    data = config.Text(str(tmp_path / "train"), test, length=1)
    assert text_of(data, "train") == "a\nbé"
    assert not data.has_valid
    more = config.Text(str(tmp_path / "train"), test, valid, length=1)
    assert more.has_valid
    assert more.describe().symbols == tuple("\nabxé")
    assert text_of(more, "valid") == "x"


def test_lines_are_cut_by_what_is_in_them_not_by_how_they_are_read(monkeypatch):
    content = "a bc def ghij\nklmnopqrs\n\nab"
    monkeypatch.setattr(text, "LONGEST", 5)
    expected = ["a bc ", "def ", "ghij\n", "klmno", "pqrs\n", "\n", "ab"]
    for size in (1, 2, 3, 7, 100):
        parts = [content[i : i + size] for i in range(0, len(content), size)]
        assert [line for lines in text.split_lines(parts) for line in lines] == expected


def test_letters27_are_space_and_a_to_z(tmp_path):
    data = config.Text(write(tmp_path, "the zoo " * 5), tokenizer="letters27", length=4)
    assert data.describe().symbols == tuple(" abcdefghijklmnopqrstuvwxyz")
    np.testing.assert_array_equal(data.open("train")[0]["x"], [20, 8, 5, 0])
    with pytest.raises(DatasetError, match=r"holds 'T' at character 8, which is none of letters27"):
        config.Text(write(tmp_path, "the zoo The"), tokenizer="letters27").describe()


def test_windows_follow_each_other_and_the_rest_is_left_out():
    source = Wrapped(np.arange(11, dtype=np.uint8), 3)
    np.testing.assert_array_equal(read_batch(source, 11)["x"], np.arange(9).reshape(3, 3))


def test_windows_of_the_training_begin_everywhere_and_see_nothing_later():
    source = Overlapping(np.arange(14), 4)
    starts = set()
    for epoch in range(60):
        for i in range(len(source)):
            x = random_window(source[i], 4, np.random.default_rng([epoch, i]))["x"]
            np.testing.assert_array_equal(np.diff(x), 1)
            assert x[-1] < 4 * (i + 1)
            starts.add(int(x[0]))
    assert starts == set(range(9))


def test_every_epoch_has_windows_of_its_own(tmp_path):
    data = config.Text(write(tmp_path, "abcdefghijklmnopqrstuvwxyz" * 8), length=10)
    batches = train_batches(
        data.open_training(), 6, 0, 26, random_map=data.random_map, description=data.describe()
    )
    actual = np.concatenate([next(batches)["x"][:, 0] for _ in range(30)])
    assert set(actual.tolist()) == set(range(26))


def test_documents_are_lines_in_pieces_with_weights(tmp_path, small_parts):
    path = write(tmp_path, "abcdefg\n\nhi\nabcd\nx")
    data = config.Text(path, path, length=4, packing="padded")
    assert data.describe().padded
    assert data.describe().symbols == tuple("abcdefghix")
    batch = read_batch(data.open("test"), 10, description=data.describe())
    np.testing.assert_array_equal(batch["weight"].sum(1), [4, 3, 2, 4, 1])
    rows = zip(batch["x"], batch["weight"], strict=True)
    assert [data.describe().text(x[w > 0]) for x, w in rows] == ["abcd", "efg", "hi", "abcd", "x"]
    assert not batch["x"][batch["weight"] == 0].any()
    assert len(data.open_training()) == 5


def test_documents_of_many_lengths_lose_no_token():
    lengths = np.random.default_rng(0).integers(0, 9, 50)
    source = Padded(np.arange(lengths.sum(), dtype=np.uint16), np.cumsum(lengths), 3)
    rows = [source[i] for i in range(len(source))]
    np.testing.assert_array_equal(
        np.concatenate([r["x"][r["weight"] > 0] for r in rows]), range(lengths.sum())
    )
    pieces = [-(-n // 3) for n in lengths]
    assert len(rows) == sum(pieces)
    last = [i for i in range(len(source)) if source.ends_document(i)]
    assert last == [stop - 1 for stop, n in zip(np.cumsum(pieces), pieces, strict=True) if n]


def test_a_text_is_prepared_once_wherever_it_lies(tmp_path, cache, monkeypatch):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    before = data.describe()
    (folder,) = (x for x in cache.iterdir() if x.is_dir())
    monkeypatch.setattr(prepared, "_write_folder", None)
    moved = config.Text(write(tmp_path / "there", "hello " * 20, "b.txt"), length=4)
    assert moved.describe() == before
    assert before.digest.startswith(folder.name)
    other = config.Text(write(tmp_path, "hallo " * 20), length=4)
    with pytest.raises(TypeError):
        other.describe()


def killed(x):
    """json.dumps, which is killed where all tokens are written."""
    if "counts" in x:
        raise KeyboardInterrupt
    return DUMPS(x)


def test_a_killed_preparation_is_not_taken_for_whole_and_is_cleaned_up(tmp_path, cache, monkeypatch):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    with monkeypatch.context() as patch:
        patch.setattr(prepared.json, "dumps", killed)
        patch.setattr(prepared.shutil, "rmtree", lambda *args, **options: None)  # a kill cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            prepared.prepare_corpus(data.corpus())
    (left,) = (x for x in cache.iterdir() if x.is_dir())
    assert left.name.endswith(".partial")
    assert (left / "test.tokens").stat().st_size
    assert len(data.open("train")) == 27
    assert not left.exists()


def test_a_second_process_waits_for_the_first(tmp_path, cache):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    name = prepared._digest(data.corpus())[:32]
    actual = []
    cache.mkdir(parents=True)
    with (cache / f"{name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: actual.append(data.describe()))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()
    assert actual[0].categories == 5


PREPARING = """
import sys
import time

from d3pm_jax.data import prepared

write_folder = prepared._write_folder


def write_slowly(corpus, folder):
    print("writing", flush=True)
    time.sleep(0.5)
    write_folder(corpus, folder)


prepared._write_folder = write_slowly
corpus = prepared.Corpus((("all", sys.argv[1]),), (0.9, 0.05, 0.05), "characters")
print("ready", flush=True)
print(len(prepared.prepare_corpus(corpus).open("train").x))
"""


def test_of_two_processes_one_prepares_a_text_and_both_read_it(tmp_path, monkeypatch):
    """Both wait for a third, which is this one: so the text is prepared by none before both have asked."""
    path = write(tmp_path, "hello " * 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = tmp_path / "home" / "d3pm_jax" / "text"
    cache.mkdir(parents=True)
    corpus = prepared.Corpus((("all", path),), (0.9, 0.05, 0.05), "characters")
    command = [sys.executable, "-c", PREPARING, path]
    with filelock.FileLock(cache / f"{prepared._digest(corpus)[:32]}.lock"):
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]
        time.sleep(0.3)
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(outputs) == ["108\n", "writing\n108\n"]
    assert [path.name for path in cache.iterdir() if path.name.endswith(".partial")] == []


def test_a_file_system_without_locks_prepares_without(tmp_path, cache, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOTSUP, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert config.Text(write(tmp_path, "hello " * 20), length=4).describe().categories == 5


def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    config.Text(write(tmp_path, "hello " * 20), length=4).describe()
    assert list((tmp_path / "mine" / "d3pm_jax" / "text").iterdir())


def test_damaged_tokens_are_refused(tmp_path, cache):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    data.describe()
    for path in cache.glob("*/train.tokens"):
        path.write_bytes(b"abc")
    with pytest.raises(DatasetError, match="is damaged: delete it"):
        data.open("train")


def test_text8_and_enwik8_are_standard_files(tmp_path, monkeypatch):
    monkeypatch.setattr(specs, "STANDARD", 100)
    with pytest.raises(DatasetError, match=r"no file .*text8, nor text8.zip: download mattmahoney.net/dc/"):
        config.Text8(str(tmp_path)).describe()
    write(tmp_path, "abcd " * 20, "text8")
    content = bytes(range(156, 256))
    with zipfile.ZipFile(tmp_path / "enwik8.zip", "w") as file:
        file.writestr("enwik8", content)
    for data in (config.Text8(str(tmp_path), length=5), config.Enwik8(str(tmp_path), length=5)):
        assert [len(data.open(split)) for split in ("train", "valid", "test")] == [18, 1, 1]
        assert data.has_valid
    np.testing.assert_array_equal(data.open("test")[0]["x"], list(content[95:]))
    write(tmp_path, "abc", "text8")
    with pytest.raises(DatasetError, match=r"text8 has 3 bytes, expected 100: download"):
        config.Text8(str(tmp_path)).describe()


def test_the_plays_are_those_of_their_hash():
    data = config.Shakespeare()
    plain = lzma.decompress(specs.BUNDLED.read_bytes())
    digest = specs.BUNDLED.with_name("shakespeare.md").read_text().split()[-1]
    assert hashlib.sha256(plain).hexdigest() == digest
    assert "".join(text_of(data, split) for split in ("train", "valid", "test")) == plain.decode()


def opened(make):
    data = make()
    data.check()
    data.describe()
    return data.open("test")


def refused(make):
    with pytest.raises((DatasetError, ValueError)) as error:
        opened(make)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_is_one_line(tmp_path):
    good = write(tmp_path, "hello " * 20)
    short = write(tmp_path, "hello", "short.txt")
    (tmp_path / "empty").mkdir()
    wrong = write(tmp_path, b"\xe2\x82\xac" * 3 + b"caf\xe9 is latin-1", "wrong.txt")
    torn = write(tmp_path, lzma.compress(b"abc" * 1000)[:-20], "torn.xz")
    cases = {
        "wrong.txt is not UTF-8 at byte 12 (": lambda: config.Text(wrong),
        "the tokens of the text have 1 categories: take": lambda: config.Text(
            write(tmp_path, "aaa", "one.txt")
        ),
        "is empty: name a text": lambda: config.Text(write(tmp_path, "", "no.txt")),
        "the test split has 1 tokens, less than data.length = 256": lambda: config.Text(short),
        "the test split has 0 tokens, less than a line": lambda: config.Text(
            good, write(tmp_path, "\n\n", "blank.txt"), packing="padded"
        ),
        "no file or folder gone.txt (from": lambda: config.Text("gone.txt"),
        "has no *.txt: put the texts there": lambda: config.Text(str(tmp_path / "empty")),
        "torn.xz cannot be read (": lambda: config.Text(torn),
        "shares that sum to 1": lambda: config.Text(good, split=(0.9, 0.05, 0.1)),
        "train and test not 0": lambda: config.Text(good, split=(0.9, 0.1, 0.0)),
        "with data.test: nothing is cut": lambda: config.Text(good, short, split=(0.5, 0.25, 0.25)),
        "without data.test: name both": lambda: config.Text(good, valid=short),
        "data.tokenizer = 'charcters': there is no such file (from": lambda: config.Text(
            good, tokenizer="charcters"
        ),
    }
    for words, make in cases.items():
        assert words in refused(make)
    few = config.Text(short, split=(0.4, 0.0, 0.6), length=1)
    few.check()
    assert not few.has_valid
    assert len(few.open("test")) == 3
    with pytest.raises(DatasetError, match=r"cannot write to .*: set|cannot write to .*XDG_CACHE_HOME"):
        blocked(tmp_path, good)


def blocked(tmp_path, good):
    """A file where the cache would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_cache_dir", lambda *name: write(tmp_path, "x", "file"))
        config.Text(good, length=3).describe()


def test_symbols_of_parts_of_characters_join_to_characters():
    x, _ = tokenizers.Bytes().encode(["é🎈"])
    symbols = [tokenizers.Bytes().symbols[k] for k in x]
    assert tokenizers.join_symbols(symbols) == "é🎈"
    assert tokenizers.join_symbols(symbols[1:]) == "\ufffd🎈"
    for cuts in itertools.combinations_with_replacement(range(7), 2):
        parts = [symbols[a:b] for a, b in itertools.pairwise([0, *cuts, 6])]
        assert "".join(tokenizers.join_symbol_parts(parts)) == "é🎈"
    assert [*tokenizers.join_symbol_parts([symbols[:3], ["a"], symbols[:1]])] == [
        "é",
        "\ufffda",
        "",
        "\ufffd",
    ]
