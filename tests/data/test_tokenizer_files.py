"""Files of the tokenizers library: their tokens, and what each is written as."""

import sys

import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.data import DatasetError, prepared
from d3pm_jax.data.tokenizers import FileTokenizer, join_symbols
from d3pm_jax.extras import MissingExtra

tokenizers = pytest.importorskip("tokenizers")

TEXT = "The naïve 🎈 ballon,\nthe thin thing\n\n and so  on: it's théâtre\n" * 3


def byte_level():
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [TEXT],
        tokenizers.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False),
    )
    made.add_special_tokens(["<|end|>"])
    return made


def word_piece():
    pieces = ["[UNK]", "the", "th", "##in", "##g", ",", "so", "Ġ"]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({x: i for i, x in enumerate(pieces)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    return made


def unigram():
    pieces = [("<unk>", 0.0), *((f"<0x{x:02X}>", -9.0) for x in range(256)), ("▁", -2.0)]
    pieces += [(x, -3.0) for x in ("▁th", "in", "g", "▁so", "\n")]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0, byte_fallback=True))
    decoders = tokenizers.decoders
    made.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


def words():
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "the": 1, "thing": 3}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return made


def save(made, folder, name="tokenizer.json"):
    made.save(str(folder / name))
    return folder / name


def written(made, folder, *lines):
    """What FileTokenizer makes of lines, as text."""
    actual = FileTokenizer(save(made, folder))
    x, lengths = actual.encode(lines)
    assert sum(lengths) == len(x)
    assert [len(made.encode(line).ids) for line in lines] == lengths
    return join_symbols(actual.symbols[i] for i in x)


def test_byte_level_tokens_are_the_text_to_the_byte(tmp_path):
    lines = [line + "\n" for line in TEXT.split("\n")]
    assert written(byte_level(), tmp_path, *lines) == "".join(lines)
    symbols = FileTokenizer(tmp_path / "tokenizer.json").symbols
    assert symbols[-1] == "<|end|>"
    assert len(symbols) == 281
    assert all("\ufffd" not in symbol for symbol in symbols)


def test_unigram_with_bytes_is_the_text_to_the_byte(tmp_path):
    assert written(unigram(), tmp_path, "thing so é🎈\n", " thin") == "thing so é🎈\n thin"


def test_pieces_of_words_are_joined_and_words_are_set_apart(tmp_path):
    assert written(word_piece(), tmp_path, "thing, so the thin") == " thing , so the thin"
    assert written(words(), tmp_path, "the thing the") == " the thing the"
    assert FileTokenizer(save(words(), tmp_path)).symbols[2] == ""  # a number without a token


def test_padding_truncation_and_special_tokens_of_the_file_are_left_out(tmp_path):
    plain = word_piece()
    made = word_piece()
    made.enable_truncation(2)
    made.enable_padding(length=9)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[UNK] $A", special_tokens=[("[UNK]", 0)]
    )
    x, lengths = FileTokenizer(save(made, tmp_path)).encode(["thing so the", "so"])
    np.testing.assert_array_equal(x, plain.encode("thing so the").ids + plain.encode("so").ids)
    assert lengths == [5, 1]


def test_a_file_makes_data_and_another_file_other_data(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    tokenizer = save(byte_level(), tmp_path)
    data = config.Text(str(text), str(text), tokenizer=str(tokenizer), length=8)
    description = data.describe()
    assert description.categories == 281
    tokens = prepared.prepare_corpus(data.corpus()).open("train").x
    assert tokens.dtype == np.uint16
    assert description.text(tokens) == TEXT
    padded = config.Text(str(text), str(text), tokenizer=str(tokenizer), length=64, packing="padded")
    rows = [padded.open("test")[i] for i in range(9)]
    assert [description.text(r["x"][r["weight"] > 0]) for r in rows] == [x for x in TEXT.split("\n") if x]
    moved = config.Text(str(text), str(text), tokenizer=str(save(byte_level(), tmp_path, "b.json")), length=8)
    assert moved.describe() == description
    save(word_piece(), tmp_path, "b.json")
    assert moved.describe().digest != description.digest


def test_files_that_cannot_be_read_are_one_line(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    with pytest.raises(
        DatasetError, match=r"text.txt is not a file of the tokenizers library \(.*\): save it"
    ):
        config.Text(str(text), tokenizer=str(text)).describe()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setattr("d3pm_jax.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs tokenizers: pip install -e '\.\[text\]' in the clone"):
        config.Text(str(text), tokenizer=str(text)).describe()


NO_SPACES = str.maketrans("", "", " Ġ▁")


def bpe_without_unknown(pre_tokenizer=None, **options):
    made = tokenizers.Tokenizer(tokenizers.models.BPE(**options))
    made.pre_tokenizer = pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(special_tokens=["[PAD]"], show_progress=False, **options)
    made.train_from_iterator(["the cat sat"], trainer)
    return made


@pytest.mark.parametrize("name", ["ByteLevel", "Whitespace", "Metaspace"])
def test_bpe_would_leave_out_what_it_does_not_know(tmp_path, name):
    tokenizer = FileTokenizer(save(bpe_without_unknown(getattr(tokenizers.pre_tokenizers, name)()), tmp_path))
    ids, _ = tokenizer.encode(["the cat", "sat"])
    assert join_symbols(tokenizer.symbols[k] for k in ids).translate(NO_SPACES) == "thecatsat"
    assert ids.max() < len(tokenizer.symbols)
    for text, character in (("a zest", "z"), ("thé", "é"), ("the P", "P")):  # P is in a special token
        with pytest.raises(
            DatasetError, match=rf"tokenizer\.json has no token for '{character}', which the text"
        ):
            tokenizer.encode(["the cat", text])


def test_bpe_with_normalizers_and_suffixes_leaves_out_what_they_leave_out(tmp_path):
    made = bpe_without_unknown()
    made.normalizer = tokenizers.normalizers.Replace("\r\n", " ")
    x, _ = FileTokenizer(save(made, tmp_path)).encode(["the\r\ncat"])
    np.testing.assert_array_equal(x, made.encode("the cat").ids)
    # Of words that end with t alone, h is known inside of words only.
    suffixed = bpe_without_unknown(tokenizers.pre_tokenizers.Whitespace(), end_of_word_suffix="</w>")
    with pytest.raises(DatasetError, match="has no token for 'h'"):
        FileTokenizer(save(suffixed, tmp_path)).encode(["cath"])


def test_words_without_a_token_for_the_unknown_are_refused(tmp_path):
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "thing": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    with pytest.raises(
        DatasetError, match=r"cannot cut the text into tokens \(.*\): give its model an unk_token"
    ):
        FileTokenizer(save(made, tmp_path)).encode(["the cat"])
