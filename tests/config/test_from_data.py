""" "data" in place of numbers: filled in once, saved, and equal to any number afterwards."""

import dataclasses
import json
from typing import Literal

import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.cli import reading as overrides
from d3pm_jax.config import (
    Absorbing,
    Autoregressive,
    Cosine,
    Marginal,
    Masked,
    MutualInformation,
    Reciprocal,
    Uniform,
    io,
)
from d3pm_jax.config.from_data import PlaceCounts, fill, fill_from_saved, needs_data
from d3pm_jax.errors import UserError

COUNTS = np.array([6, 0, 2])
SHARES = (0.75, 0.0, 0.25)


@dataclasses.dataclass(frozen=True)
class Own(config.Process):
    """A process that is no part of the library."""

    K: int | Literal["data"] = "data"
    name: str = "data"

    def build(self):
        raise NotImplementedError


FILLED = [
    (Uniform("data", 4, Cosine()), Uniform(3, 4, Cosine())),
    (Absorbing("data", 4, Reciprocal(), "data"), Absorbing(4, 4, Reciprocal(), 3)),
    (Absorbing("data", 4, Reciprocal(), 1), Absorbing(3, 4, Reciprocal(), 1)),
    (Absorbing(9, 4, Reciprocal(), "data"), Absorbing(9, 4, Reciprocal(), 3)),
    (Marginal(4, MutualInformation(), "data"), Marginal(4, MutualInformation(SHARES), SHARES)),
    (
        Masked(Uniform("data", 4, MutualInformation()), Reciprocal()),
        Masked(Uniform(3, 4, MutualInformation(SHARES)), Reciprocal()),
    ),
    (Autoregressive("data", 4, "data"), Autoregressive(4, 4, 3)),
    (Own(), Own(3)),
]


def full(process):
    return config.Config(
        data=config.TfdsImages("data"), process=process, model=config.UNet(), train=config.Train(steps=1)
    )


@pytest.mark.parametrize(("spec", "expected"), FILLED)
def test_data_is_filled_in_wherever_it_stands(spec, expected):
    calls = []

    def counts():
        calls.append(None)
        return COUNTS

    assert needs_data(spec)
    assert not needs_data(expected)
    assert fill(spec, 3, counts) == expected
    assert len(calls) == ("MutualInformation" in repr(spec))
    assert fill(expected, 5, lambda: pytest.fail("nothing to count for")) == expected


def test_a_mask_that_the_data_does_not_have_needs_one_more_category():
    with pytest.raises(UserError) as refused:
        fill(Absorbing("data", 4, Reciprocal(), 3), 3, lambda: COUNTS)
    assert str(refused.value) == (
        'Absorbing.mask_id = 3, outside 0..2: K = "data" counts the 3 categories of the data; for a mask as '
        'one more write "data" for both, or K = 4 and mask_id = 3'
    )
    assert fill(Absorbing("data", 4, Reciprocal(), 2), 3, lambda: COUNTS).mask_id == 2


def test_of_a_whole_config_only_numbers_are_filled_in():
    from_data = full(FILLED[5][0])
    assert needs_data(from_data)
    filled = fill(from_data, 3, lambda: COUNTS)
    assert filled == full(FILLED[5][1])
    assert not needs_data(filled)
    assert filled.data.name == "data"


@pytest.mark.parametrize(("spec", "saved"), FILLED)
def test_data_equals_any_saved_number(spec, saved):
    assert fill_from_saved(saved, spec) == saved
    assert fill_from_saved(saved, saved) == saved


def test_a_number_differs_from_a_saved_one_and_so_does_another_part():
    saved = full(Absorbing(4, 8, Reciprocal(), 3))
    changed = full(Absorbing("data", 9, Reciprocal(), 2))
    differences = io.differences(saved, fill_from_saved(saved, changed))
    assert differences == {"process.mask_id": (3, 2), "process.steps": (8, 9)}
    other = full(Uniform("data", 8, Reciprocal()))
    assert fill_from_saved(saved, other) == other


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Uniform("data", 4, Cosine()), "Uniform.K"),
        (Absorbing(4, 4, Cosine(), "data"), "Absorbing.mask_id"),
        (Masked(Uniform("data", 4, Cosine()), Cosine()), "Uniform.K"),
        (config.Gaussian("data", 4, Cosine()), "Gaussian.K"),
        (config.Banded("data", 4, Cosine(), 2), "Banded.K"),
        (Autoregressive(4, 4, "data"), "Autoregressive.mask_id"),
        (Marginal(4, Cosine(), "data"), "Marginal.pi"),
        (Uniform(3, 4, MutualInformation()), "MutualInformation.p0"),
    ],
)
def test_what_is_not_filled_in_cannot_be_built(spec, field):
    with pytest.raises(ValueError, match=f'^{field} = "data" is not filled in yet: .* or write the number'):
        spec.build()


@pytest.mark.parametrize("counts", [np.ones(4), np.zeros(3), np.array([1, -1, 1])])
def test_counts_of_other_categories_are_refused(counts):
    with pytest.raises(ValueError, match="expected how often each of the 3 categories occurs"):
        fill(Marginal(4, Cosine(), "data"), 3, lambda: counts)


def test_parts_survive_json_with_data_and_with_numbers():
    for process in [
        *(x for pair in FILLED[:7] for x in pair),
        config.Dense("Q.npy", "prior.npy"),
        config.RandomWalk("x.npy", 2, 4, Cosine()),
        config.FromRate("x.npy", 2, 4, MutualInformation(SHARES), speed=2.0),
    ]:
        whole = full(process)
        assert io.from_json(json.loads(io.dump_config(whole))) == whole


def test_the_command_line_takes_numbers_and_data(capsys):
    def apply(process, line):
        return overrides.apply_overrides(full(process), line.split(), "").process

    masked = Masked(Uniform("data", 4, Cosine()), Reciprocal())
    line = "--process.inner.K 5 --process.inner.beta.offset 0.5 --process.gamma.scale 2"
    assert apply(masked, line) == Masked(Uniform(5, 4, Cosine(0.5)), Reciprocal(2.0))
    assert apply(masked, "") == masked
    absorbing = apply(Absorbing(5, 4, Cosine(), 4), "--process.K data --process.mask-id data")
    assert absorbing == Absorbing("data", 4, Cosine(), "data")
    marginal = Marginal(4, MutualInformation(), "data")
    assert apply(marginal, "--process.pi 0.5 0.5") == dataclasses.replace(marginal, pi=(0.5, 0.5))
    with pytest.raises(SystemExit):
        apply(masked, "--help")
    assert "--process.inner.K INT|{data}" in capsys.readouterr().out


PLACES = PlaceCounts(np.array([2, 3, 3]), lambda: np.array([[1, 3, 0], [0, 2, 2], [4, 0, 0]]))


@pytest.mark.parametrize("places", ["data", (3,)])
@pytest.mark.parametrize("is_tuple", [False, True])
def test_what_is_by_place_has_the_numbers_of_its_place(places, is_tuple):
    part = config.Marginal(4, Cosine(), "data")
    spec = config.ByPlace((part, part, part) if is_tuple else part, places=places)
    filled = fill(spec, 3, lambda: np.zeros(3), PLACES)
    pi = ((1.5 / 5, 3.5 / 5), (0.5 / 5.5, 2.5 / 5.5, 2.5 / 5.5), (4.5 / 5.5, 0.5 / 5.5, 0.5 / 5.5))
    assert filled == config.ByPlace(tuple(config.Marginal(4, Cosine(), p) for p in pi), places=(3,))
    assert not needs_data(filled)
    assert fill_from_saved(filled, spec) == filled


def test_places_of_another_shape_are_refused():
    spec = config.ByPlace(config.Uniform("data", 4, Cosine()), places=(2,))
    with pytest.raises(UserError, match=r"ByPlace.places = \(2,\), but examples have shape \(3,\)"):
        fill(spec, 3, lambda: np.zeros(3), PLACES)
    spec = config.ByPlace((config.Uniform("data", 4, Cosine()),) * 2)
    with pytest.raises(UserError, match="ByPlace has 2 processes, the data 3 places: give each one"):
        fill(spec, 3, lambda: np.zeros(3), PLACES)
