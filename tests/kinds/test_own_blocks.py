"""Blocks of a kind of one's own: what is no such block is refused by the name of the method, in one line."""

import numpy as np
import pytest

from d3pm_jax import config, kinds
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Chains, Kind, Samples, States
from d3pm_jax.kinds.blocks import Beside, Chain, Film, Histograms, Picture, Strip, Table, TextBlock, Tiles
from d3pm_jax.kinds.files import write_chains

PIXELS = np.zeros((8, 9, 3), np.uint8)
STATES = np.zeros((3, 2, 8, 9, 3), np.uint8)
X = np.zeros((2, 4), int)
SAMPLES = Samples(X, 2)
CHAIN = States(np.stack([X] * 3), [0, 1, 2], 2, 2)
CHAINS = Chains(SAMPLES, CHAIN, [0, 2], lambda: CHAIN.at([0, 2]), SAMPLES)
STRIP = "a Strip whose states are a NumPy array uint8 [R, N, H, W, 3]"
TIMES = "a Strip with a list of 3 times, one for each state, as states.times"
PICTURE = "a Picture whose pixels are a NumPy array uint8 [H, W, 3]"
ANY = "a block of d3pm_jax.kinds.blocks, or None"


class Own(Kind):
    name = "own"
    sample_files = "pictures"

    def show_samples(self, samples):
        return Picture(PIXELS, "samples")

    def show_chain(self, states):
        return Strip(STATES[: len(states.x)], states.times)


def make(**members):
    """A kind with these members of its class."""

    class Data(config.Data):
        def describe(self):
            return Description((4,), 2, kind="own")

        def own_kind(self):
            return type("Own", (Own,), members)

    return kinds.make_kind(Data().describe(), Data())


WRONG = {
    "show_samples": [
        (PIXELS, "uint8 [8, 9, 3]", ANY),
        (Picture(PIXELS / 255, "a"), "Picture(pixels=float64 [8, 9, 3], alt=str)", PICTURE),
        (Picture(PIXELS[..., 0], "a"), "Picture(pixels=uint8 [8, 9], alt=str)", PICTURE),
        (Picture(PIXELS[..., :0], "a"), "Picture(pixels=uint8 [8, 9, 0], alt=str)", PICTURE),
        (
            Tiles(PIXELS, "a"),
            "Tiles(images=uint8 [8, 9, 3], alt=str, columns=None, row_names=tuple)",
            "Tiles whose images are a NumPy array uint8 [N, H, W, 3]",
        ),
        (
            Beside(Picture([], "a"), Picture(PIXELS, "b"), ("a", "b"), "c"),
            "Beside(left=Picture(pixels=list, alt=str), right=Picture(pixels=uint8 [8, 9, 3], alt=str), "
            "titles=(str, str), alt=str)",
            PICTURE,
        ),
        (TextBlock(["a"]), "TextBlock(text=(str))", "a TextBlock of a str"),
    ],
    "show_target": [(TextBlock("a"), "TextBlock(text=str)", "Picture, or None")],
    "show_chain": [
        (
            Strip([Picture(PIXELS, "a")], [0]),
            "Strip(states=(Picture(pixels=uint8 [8, 9, 3], alt=str)), times=(int), what=str)",
            STRIP,
        ),
        (Strip(STATES[0], [0, 1]), "Strip(states=uint8 [2, 8, 9, 3], times=(int, int), what=str)", STRIP),
        (Strip(STATES, [0]), "Strip(states=uint8 [3, 2, 8, 9, 3], times=(int), what=str)", TIMES),
        (
            Strip(STATES, np.arange(3)),
            "Strip(states=uint8 [3, 2, 8, 9, 3], times=int64 [3], what=str)",
            TIMES,
        ),
        (
            Strip(STATES, [4, 5, 6]),
            "Strip(states=uint8 [3, 2, 8, 9, 3], times=(int, int, int), what=str)",
            "a Strip of all states, with states.times",
        ),
        (
            Chain(Strip(STATES, [0, 1, 2]), Table([], [])),
            "Chain(forward=Strip(states=uint8 [3, 2, 8, 9, 3], times=(int, int, int), what=str), "
            "reverse=Table(head=list, rows=list))",
            "a Chain of two Strips",
        ),
    ],
    "show_film": [
        (Picture(PIXELS, "a"), "Picture(pixels=uint8 [8, 9, 3], alt=str)", "Film or TextFilm, or None"),
        (
            Film([], [], 1, "a"),
            "Film(states=list, times=list, columns=int, alt=str)",
            STRIP.replace("Strip", "Film"),
        ),
    ],
}


@pytest.mark.parametrize(
    ("method", "block", "words", "cure"), [(method, *row) for method, rows in WRONG.items() for row in rows]
)
def test_a_wrong_block_names_its_method_and_what_it_must_return(method, block, words, cure, tmp_path):
    def show(self, *args):
        return block

    show.__name__ = method
    with pytest.raises(UserError) as refused:
        write_chains(make(**{method: show}), tmp_path, "", CHAINS, "caption", gif=True)
    place = f"test_own_blocks.py, line {show.__code__.co_firstlineno + 1}, `return block`"
    assert place in str(refused.value)
    assert str(refused.value).endswith(f": {method} returns {words}: return {cure}")
    assert "\n" not in str(refused.value)


def test_blocks_as_they_have_to_be_are_written(tmp_path):
    files = write_chains(make(), tmp_path, "", CHAINS, "caption", gif=True)
    assert sorted(path.name for path in files.values()) == ["chain.gif", "chain.png", "samples.png"]
    for block in (None, TextBlock("a"), Table(["a"], [["b"]]), Histograms([], np.zeros((0, 2)), None, 1)):
        write_chains(make(show_samples=lambda self, samples, block=block: block), tmp_path, "", CHAINS, "")


@pytest.mark.parametrize("value", ["picture", True, ("pictures",)])
def test_other_files_of_samples_are_refused_when_the_kind_is_made(value):
    with pytest.raises(UserError) as refused:
        make(sample_files=value)
    assert str(refused.value) == f"Own.sample_files = {value!r}: it must be 'pictures', 'texts' or None"
