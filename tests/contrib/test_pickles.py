"""Pickles as no torch.save writes them: what they may hold, byte by byte, and what would harm a process."""

import pickle
import struct
import zipfile

import numpy as np
import pytest

from d3pm_jax.contrib import checkpoints, pickles
from d3pm_jax.contrib.layout import ImportOptions

STORAGE = np.arange(4, dtype="<f4").tobytes()


def number(n):
    return b"\x8a\x08" + struct.pack("<q", n)


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def numbers(ns):
    return b"(" + b"".join(map(number, ns)) + b"t"


def tensor(offset, size, stride, kind="Float", entries=4, key="0"):
    storage = (
        text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number(entries)
    )
    made = b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"tQ"
    return made + number(offset) + numbers(size) + numbers(stride) + b"tR"


def put(folder, content, storage=STORAGE, order=None):
    file = folder / "x.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("x/data/0", storage)
        if order:
            archive.writestr("x/byteorder", order)
    return file


PLAIN = {
    "numbers": [0, 1, -2, 300, 70_000, 2**40, -(2**70), 2**3000, 3.5, True, False, None],
    "texts": ["", "a", "\u00e9\n", "x" * 300],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "bytes": [b"\xff", b"x" * 300],
    7: {"dicts": [{}, {"a": []}, {i: str(i) for i in range(2000)}]},
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_as_pickle_reads_them(protocol, tmp_path):
    same = [PLAIN, PLAIN["texts"]]
    content = put(tmp_path, pickle.dumps(same, protocol), storage=b"x" * 100_000)
    loaded = pickles.read_torch_file(content)
    assert loaded == same
    assert repr(loaded) == repr(same)  # True is not 1
    assert loaded[0]["texts"] is loaded[1]


def test_a_tensor_is_the_part_of_its_storage_that_it_says(tmp_path):
    cases = {
        (1, (3,), (1,)): [1, 2, 3],
        (0, (2, 2), (1, 2)): [[0, 2], [1, 3]],
        (3, (3,), (0,)): [3, 3, 3],  # torch.Tensor.expand
        (2, (), ()): 2,
        (9, (0, 5), (5, 1)): [],
    }
    for said, expected in cases.items():
        assert pickles.read_torch_file(put(tmp_path, tensor(*said))).tolist() == expected
    half = np.arange(4, dtype=">f2").tobytes()
    loaded = pickles.read_torch_file(put(tmp_path, tensor(0, (4,), (1,), "Half"), half, "big"))
    assert (loaded.dtype, loaded.tolist()) == (np.float16, [0, 1, 2, 3])


def test_a_tensor_that_is_not_in_its_storage_is_refused(tmp_path):
    cases = [
        (tensor(3, (2,), (1,)), r"of shape \(2,\) is larger than its storage"),
        (tensor(4, (1,), (1,)), "larger than its storage"),
        (tensor(0, (2, 2), (3, 1)), "larger than its storage"),
        (tensor(3, (2,), (-1,)), "no whole numbers"),
        (tensor(-1, (2,), (1,)), "no whole numbers"),
        (tensor(0, (-1,), (1,)), "no whole numbers"),
        (tensor(0, (2, 2), (1,)), "without a shape"),
        (tensor(0, (1,) * 99, (1,) * 99), "without a shape"),
        (tensor(0, (5,), (1,), entries=5), "storage 0 has 4 entries, expected 5"),
        (tensor(0, (1,), (1,), "Double"), "storage 0 has 2 entries, expected 4"),
        (tensor(0, (1,), (1,), key="../0"), r"no item named 'x/data/\.\./0'"),
    ]
    for content, message in cases:
        with pytest.raises(ValueError, match=message):
            pickles.read_torch_file(put(tmp_path, content))


def test_tensors_are_no_more_than_four_times_the_file(tmp_path):
    size = put(tmp_path, tensor(0, (1,), (0,))).stat().st_size
    assert pickles.read_torch_file(put(tmp_path, tensor(0, (size - 10,), (0,)))).nbytes == 4 * (size - 10)
    for content in (tensor(0, (size,), (0,)), b"](" + tensor(0, (size,), (0,)) * 3 + b"e"):
        with pytest.raises(ValueError, match="more than 4 times the size of the file"):
            pickles.read_torch_file(put(tmp_path, content))
    many = b"](" + tensor(0, (2, 2), (1, 2)) * 500 + b"e"
    first, *_, last = pickles.read_torch_file(put(tmp_path, many))
    assert np.shares_memory(first, last)


HARMFUL = {
    "a key of nested tuples": (b"})" + b"\x85" * 400_000 + b"Ns", "keys are neither"),
    "the same in SETITEMS": (b"}()" + b"\x85" * 9 + b"Nu", "keys are neither"),
    "the same in DICT": (b"()" + b"\x85" * 9 + b"Nd", "keys are neither"),
    "a key of 2^45 entries": (b"})" + b"2\x86" * 45 + b"Ns", "keys are neither"),
    "a set of them": (b"\x8f()" + b"2\x86" * 45 + b"\x90", "a set or an object"),
    "a frozen set of them": (b"()" + b"2\x86" * 45 + b"\x91", "a set or an object"),
    "pairs of them for OrderedDict": (b"ccollections\nOrderedDict\n(](()NtetR", "TypeError"),
    "2^40 bytes": (b"\x96" + struct.pack("<Q", 2**40), "is damaged, or not a file of torch.save"),
    "bytes that can be written to": (b"\x96" + struct.pack("<Q", 1) + b"a", "a set or an object"),
    "an object": (b"ctorch\nSize\n)\x81", "a set or an object"),
    "a list that is a dict": (b"}Na", "items of what is no list"),
    "a state for a tensor": (tensor(0, (1,), (1,)) + b"}b", "holds an object"),
    "a tensor as a dict": (tensor(0, (1,), (1,)) + text("a") + b"Ns", "entries of what is no dict"),
    "nested tuples": (b")" + b"\x85" * 200_000, "holds no weights"),
    "a tuple of 2^45 entries": (b")" + b"2\x86" * 45, "holds no weights"),
    "nested dicts": ((b"}" + text("model")) * 3000 + b"N" + b"s" * 3000, "too deep"),
    "a dict of 2^45 entries": (
        b"}" + (b"q\0}" + text("a") + b"h\0s" + text("b") + b"h\0s") * 45,
        "no weights",
    ),
    "a module of 2^60 entries": (b")" + b"2\x86" * 60 + b"\x8c\x01x\x93", "a name that is no text"),
    "a name of nested tuples": (b"\x8c\x01x)" + b"\x85" * 200_000 + b"\x93", "a name that is no text"),
    "a storage of 2^60 entries": (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + b")"
        + b"2\x86" * 60
        + b"tQ",
        "a tensor without a storage",
    ),
    "a protocol to come": (b"\x80\x06N", "unsupported pickle protocol: 6"),
    "a name with an escape": (b"cos\x1b[31m\nsystem\n", r"holds os\[31m\.system, which"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_pickle_that_would_harm_is_refused_in_a_line(name, tmp_path):
    content, message = HARMFUL[name]
    with pytest.raises(ValueError, match=message) as raised:
        checkpoints.read_network(put(tmp_path, content), ImportOptions())
    assert str(raised.value).isprintable()
