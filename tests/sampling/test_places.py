"""How many places are revealed."""

import jax.numpy as jnp
import pytest

from d3pm_jax.sampling import places
from d3pm_jax.sampling.places import Candidates, EntropyBound, LeastEntropy, Reveal


@pytest.mark.parametrize(
    ("bound", "expected"), [(0.0, [True, False, False]), (float("inf"), [True, True, True])]
)
def test_an_entropy_bound_may_be_0_or_infinite(bound, expected):
    p = jnp.array([[[0.9, 0.1], [0.6, 0.4], [0.5, 0.5], [0.5, 0.5]]])
    masked = jnp.array([[True, True, True, False]])
    drawn = jnp.zeros((1, 4), jnp.int32)
    candidates = Candidates(jnp.log(p), drawn, masked, jnp.array([4]), lambda: p[..., 0], jnp.asarray(1), 4)
    chosen = Reveal(LeastEntropy(), EntropyBound(bound)).choose(candidates)
    assert chosen.tolist() == [[*expected, False]]


def test_half_of_the_masks_stay_where_the_cosine_is_one_half():
    """It is so after two thirds of the rows; in float64 it comes out below for 39 rows, 51, and others."""
    for rows in range(3, 150, 3):
        assert places.cosine_counts(8, rows)[:, 2 * rows // 3].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
        assert not places.cosine_counts(8, rows)[:, rows].any()


def test_a_factor_counts_one_place_more_than_it_reveals():
    p = jnp.array([[0.9, 0.8, 0.3], [0.99, 0.98, 0.97], [0.2, 0.1, 0.0]])
    # (n + 1) (1 - p_n): .2, .6, 2.8; .02, .06, .12; 1.6, 2.7, 4.
    assert places.count_by_factor(p, 0.5).tolist() == [1, 3, 1]
    assert places.count_by_factor(p, 1.0).tolist() == [2, 3, 1]
