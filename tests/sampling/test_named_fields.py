"""Samplers by their names: fields as numbers or words, and how they are described."""

import math
import re

import pytest

from d3pm_jax.sampling import Sampler, Shaping, named
from d3pm_jax.sampling.places import Cosine, DrawnProbability, Reveal
from d3pm_jax.schedules import continuous


def test_fields_are_numbers_or_words_for_them():
    reveal = Reveal(DrawnProbability(4.5), Cosine(8))
    expected = Sampler(reveal, shaping=Shaping(top_k=3, top_p=0.9))
    assert named.choose_sampler("maskgit", {"rows": 8, "top_k": 3, "top_p": 0.9}) == expected
    assert named.choose_sampler("maskgit", {"rows": "8", "top-k": "3", "top-p": ".9"}) == expected
    assert named.choose_sampler("psi", {"kappa": 1}) == named.psi(1.0)
    assert named.choose_sampler("entropy_bound", {"bound": "inf"}) == named.entropy_bound(math.inf)
    assert named.choose_sampler("repaint", {"noises-known": "true", "passes": 5}) == named.repaint(5, True)
    for name, make in named.SAMPLERS.items():
        assert named.choose_sampler(name) == make()
        assert set(named.default_fields(name)).isdisjoint(named.SHAPING_FIELDS)


def test_fields_at_their_defaults_are_left_out():
    fields = {"rows": "12", "choice-temperature": "4.50", "temperature": 1, "top_p_below": "0.5"}
    assert named.parse_fields("maskgit", fields) == {"top_p_below": 0.5}


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
        ("psi", {"kappa": "nan"}, "kappa = nan: it must be in [0, 1]"),
        ("remdm_loop", {"alpha": "nan"}, "alpha = nan: it must be in [0, 1]"),
        ("psi", {"top_k": 0}, "top_k = 0: it must be at least 1"),
        ("repaint", {"noises_known": 1}, "sampler.noises_known = 1: it must be true or false"),
        ("first_hitting", {"schedule": "linear"}, "named.first_hitting(schedule=..)"),
    ],
)
def test_what_cannot_be_used_gets_one_line(name, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        named.choose_sampler(name, fields)
    assert "\n" not in str(raised.value)


def test_the_description_of_a_sampler_is_of_its_slots():
    assert named.describe_sampler(named.ancestral()) == "ancestral"
    assert named.describe_sampler(named.blocks(4)) == "block = 4"
    cosine = named.describe_sampler(named.first_hitting(continuous.cosine))
    assert cosine.endswith("FirstHitting(schedule=cosine)")
    descriptions = {named.describe_sampler(make()) for make in named.SAMPLERS.values()}
    assert len(descriptions) == len(named.SAMPLERS)
    assert named.describe_sampler(named.psi(0.5)) != named.describe_sampler(named.psi(0.25))
