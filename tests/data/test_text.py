"""Texts as data: what their tokens and splits are, and one line for what cannot be."""

import hashlib
import itertools
import lzma
import zipfile
from fractions import Fraction

import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.config import data as specs
from d3pm_jax.data import DatasetError, text
from tests.data.texts import text_of, write

ODD = "Größe: 3 €, 🎈 and\ttabs.\n\nNaïve lines\nwith no end 漢字"


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
    for name, content in (("b.txt", "bé"), ("a.txt", "a"), ("c.md", "no"), (".d.txt", "no")):
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
    with pytest.raises(DatasetError, match=r"holds 'T' at character 8, which is not one of letters27"):
        config.Text(write(tmp_path, "the zoo The"), tokenizer="letters27").describe()


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
        "the shares of train, valid and test must sum to 1": lambda: config.Text(
            good, split=(0.9, 0.05, 0.1)
        ),
        "those of train and test must be above 0": lambda: config.Text(good, split=(0.9, 0.1, 0.0)),
        "with data.test: a split cuts a single text": lambda: config.Text(
            good, short, split=(0.5, 0.25, 0.25)
        ),
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


def test_a_text_of_two_files_has_no_valid_split(tmp_path):
    path = write(tmp_path, "hello " * 20)
    with pytest.raises(DatasetError, match=r"^there is no split 'valid': take train or test$"):
        config.Text(path, path, length=4).open("valid")
