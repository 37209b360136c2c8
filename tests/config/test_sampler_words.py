"""Samplers by their names: fields as numbers or words, and how they are described."""

import math
import re

import pytest

from d3pm_jax.config import samplers
from d3pm_jax.sampling import Sampler, Shaping, named
from d3pm_jax.sampling.places import Cosine, DrawnProbability, Reveal
from d3pm_jax.schedules import continuous


def test_fields_are_numbers_or_words_for_them():
    reveal = Reveal(DrawnProbability(4.5), Cosine(8))
    expected = Sampler(reveal, shaping=Shaping(top_k=3, top_p=0.9))
    assert samplers.choose_sampler("maskgit", {"rows": 8, "top_k": 3, "top_p": 0.9}).sampler == expected
    assert samplers.choose_sampler("maskgit", {"rows": "8", "top-k": "3", "top-p": ".9"}).sampler == expected
    assert samplers.choose_sampler("psi", {"kappa": 1}).sampler == named.psi(1.0)
    assert samplers.choose_sampler("entropy_bound", {"bound": "inf"}).sampler == named.entropy_bound(math.inf)
    assert samplers.choose_sampler("repaint", {"noises-known": "true", "passes": 5}).sampler == named.repaint(
        5, True
    )
    for name, make in named.SAMPLERS.items():
        assert samplers.choose_sampler(name).sampler == make()
        assert set(samplers.default_fields(name)).isdisjoint(samplers.SHAPING_FIELDS)


def test_fields_at_their_defaults_are_left_out():
    fields = {"rows": "12", "choice-temperature": "4.50", "temperature": 1, "top_p_below": "0.5"}
    assert samplers.choose_sampler("maskgit", fields).fields == {"top_p_below": 0.5}
    # Files have one name, in whatever order the words come.
    words = {"top-k": "2", "choice-temperature": "1", "rows": "8"}
    assert list(samplers.choose_sampler("maskgit", words).options) == [
        "sampler",
        "rows",
        "choice_temperature",
        "top_k",
    ]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("MaskGIT", {}, "'MaskGIT': there is none of this name; "),
        ("remdm", {}, "did you mean remdm_"),
        ("q" * 500, {}, "--sampler help` lists all"),
        ("ancestral", {"rows": 3}, "sampler.rows: ancestral has no such field; it has temperature, top_k"),
        ("maskgit", {"rows": 2.5}, "sampler.rows = 2.5: it must be a whole number"),
        ("maskgit", {"rows": True}, "sampler.rows = True: it must be a whole number"),
        ("maskgit", {"rows": "8.0"}, "sampler.rows = '8.0': it must be a whole number"),
        ("psi", {"kappa": "much"}, "sampler.kappa = 'much': it must be a number"),
        ("psi", {"kappa": "nan"}, "kappa = nan: it must be a finite number in [0, 1]"),
        ("remdm_loop", {"alpha": "nan"}, "alpha = nan: it must be a finite number in [0, 1]"),
        ("psi", {"top_k": 0}, "top_k = 0: it must be a whole number in 1.."),
        ("repaint", {"noises_known": 1}, "sampler.noises_known = 1: it must be true or false"),
        ("first_hitting", {"schedule": "linear"}, "named.first_hitting(schedule=..)"),
    ],
)
def test_what_cannot_be_used_gets_one_line(name, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        samplers.choose_sampler(name, fields)
    assert "\n" not in str(raised.value)


def test_the_description_of_a_sampler_is_of_its_slots():
    assert samplers.describe_sampler(named.ancestral()) == "ancestral"
    assert samplers.describe_sampler(named.blocks(4)) == "block = 4"
    cosine = samplers.describe_sampler(named.first_hitting(continuous.cosine))
    assert cosine.endswith("FirstHitting(schedule=cosine)")
    descriptions = {samplers.describe_sampler(make()) for make in named.SAMPLERS.values()}
    assert len(descriptions) == len(named.SAMPLERS)
    assert samplers.describe_sampler(named.psi(0.5)) != samplers.describe_sampler(named.psi(0.25))
