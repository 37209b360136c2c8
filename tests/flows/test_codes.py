"""Codes of a symbol are drawn equally often, their bound is that of all, and none leaves the alphabet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from d3pm_jax import flows


@pytest.mark.parametrize(("base", "digits"), [(2, 5), (2, 31), (1290, 3)])
def test_digits_are_those_of_a_number(base, digits):
    last = base**digits - 1
    code = np.array([0, 1, base - 1, last // 3, last // 2, last - 1, last], np.int64)
    written = flows.to_digits(jnp.asarray(code, jnp.int32), base, digits)
    right = [[int(c) // base**i % base for i in reversed(range(digits))] for c in code]
    np.testing.assert_array_equal(written, right)
    np.testing.assert_array_equal(flows.from_digits(written, base), code)


def test_the_number_of_digits_is_the_smallest_that_is_enough():
    bases = {27: {2: 5, 3: 3, 6: 2, 27: 1, 100: 1}, 256: {2: 8, 16: 2}, 257: {2: 9}, 2: {2: 1}}
    for K, digits_by_base in bases.items():
        assert {base: flows.count_digits(K, base) for base in digits_by_base} == digits_by_base


@pytest.mark.parametrize(("K", "num_codes"), [(5, 8), (27, 32), (3, 4), (8, 8), (2, 9)])
def test_every_code_of_a_symbol_is_drawn_equally_often(K, num_codes):
    n = 840  # which every number of codes divides
    blocks = np.arange(27) % K  # a symbol has a block, or more, of all noise
    u = jnp.asarray(np.tile((np.arange(n) + 0.5) / n, len(blocks)), jnp.float32)
    x = np.repeat(blocks, n)
    codes, log_n = flows.draw_code(jnp.asarray(x, jnp.int32), K, num_codes, u)
    np.testing.assert_array_equal(flows.from_code(codes, K), x)
    symbol_of_code = np.arange(num_codes) % K
    codes_of_symbol = np.bincount(symbol_of_code)
    draws_of_symbol = np.bincount(x)
    counts = np.bincount(codes, minlength=num_codes)
    np.testing.assert_array_equal(counts, (draws_of_symbol // codes_of_symbol)[symbol_of_code])
    np.testing.assert_allclose(log_n, np.log(codes_of_symbol[x]), rtol=1e-6)


def test_the_largest_noise_stays_below_the_number_of_codes():
    u = jnp.full(5, np.nextafter(np.float32(1), np.float32(0)))
    codes, _ = flows.draw_code(jnp.arange(5), 5, 8, u)
    np.testing.assert_array_equal(codes, [5, 6, 7, 3, 4])
    large = 2**31 - 1
    codes, _ = flows.draw_code(jnp.arange(5), 5, large, u)
    assert np.all((codes >= 0) & (codes < large))
    np.testing.assert_array_equal(codes % 5, np.arange(5))


def test_the_coded_bound_is_that_of_all_codes(x64):
    """K = 5 in base 2: of the 8 codes x has those that are x mod 5."""
    K, num_codes, n = 5, 8, 10
    log_p = log_softmax(np.random.default_rng(0).normal(size=num_codes) * 2)
    u = jnp.asarray((np.arange(n) + 0.5) / n)

    @jax.jit
    def weigh(x):
        code, log_n = flows.draw_code(jnp.full(n, x, jnp.int32), K, num_codes, u)
        log_weights = jnp.asarray(log_p)[code] + log_n
        return jnp.mean(log_weights), flows.importance_bound(log_weights[:, None])

    for x in range(K):
        codes = [c for c in range(num_codes) if c % K == x]
        elbo, bound_of_all = weigh(x)
        enumerated = np.mean([log_p[c] for c in codes]) + np.log(len(codes))
        np.testing.assert_allclose(elbo, enumerated, rtol=1e-12)
        # The importance bound over all codes is the probability of x itself.
        exact = logsumexp([log_p[c] for c in codes])
        np.testing.assert_allclose(bound_of_all, [exact], rtol=1e-12)
        assert enumerated <= exact + 1e-15


@pytest.mark.parametrize(("K", "base"), [(27, 2), (5, 2), (256, 6)])
def test_no_vector_is_a_symbol_outside_of_the_alphabet(K, base):
    digits = flows.count_digits(K, base)
    v = np.random.default_rng(1).normal(size=(50_000, digits, base)) * 100
    code = flows.from_digits(jnp.asarray(v.argmax(axis=-1), jnp.int32), base)
    x = np.asarray(flows.from_code(code, K))
    assert np.all((x >= 0) & (x < K))
    assert len(np.unique(x)) == K
    assert np.max(code) == base**digits - 1


def test_what_codes_cannot_hold_is_refused():
    with pytest.raises(
        ValueError, match=r"num_codes = 16 is below K = 27: take a larger base or more digits"
    ):
        flows.draw_code(jnp.zeros(2, jnp.int32), 27, 16, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"x contains 27, outside 0\.\.26"):
        flows.draw_code(jnp.array([0, 27]), 27, 32, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"code contains 16, outside 0\.\.15: digits = 4 of base = 2"):
        flows.to_digits(jnp.array([0, 16]), 2, 4)
    with pytest.raises(ValueError, match=r"digits contains 2, outside 0\.\.1: .* base = 2"):
        flows.from_digits(jnp.array([[0, 2]]), 2)
    with pytest.raises(ValueError, match=r"base = 3 to the power of 20 digits is above 2\^31: take fewer"):
        flows.to_digits(jnp.zeros(2, jnp.int32), 3, 20)


def test_what_codes_cannot_hold_is_marked():
    @jax.jit
    def all_of(x, code, digits):
        drawn, _ = flows.draw_code(x, 27, 32, jnp.zeros(x.shape))
        return drawn, flows.to_digits(code, 2, 4), flows.from_digits(digits, 2)

    drawn, digits, code = all_of(jnp.array([26, 27]), jnp.array([15, 16]), jnp.array([[1, 1], [0, 2]]))
    np.testing.assert_array_equal(drawn, [26, -1])
    np.testing.assert_array_equal(digits, [[1] * 4, [-1] * 4])
    np.testing.assert_array_equal(code, [3, -1])
