"""Writes categories as digits, so that ceil(log_M K) vectors of M numbers take the place of one of K.

The product of the digits has M^d >= K codes. Where codes are left over, a flow that puts mass on them would
leave the alphabet. Here every code means a symbol, code mod K: a symbol has n codes, of which one is drawn at
random, and the bound on log P(x) gains log n.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import (
    CATEGORIES,
    INDEX,
    NOISE,
    NUM_CATEGORIES,
    AllowedRange,
    at_least,
    check_range,
    declared,
    is_known,
)
from d3pm_jax.numerics.logspace import at_least_float32


@declared(K=NUM_CATEGORIES, base=NUM_CATEGORIES)
def count_digits(K: int, base: int) -> int:
    """Returns the smallest d with base^d >= K.

    Args:
        K: number of categories.
        base: number of values of a digit.
    """
    digits = 1
    while base**digits < K:
        digits += 1
    return digits


@declared(code=INDEX, base=NUM_CATEGORIES, digits=at_least(1, 31))
def to_digits(code: Int[Array, "*S"], base: int, digits: int) -> Int[Array, "*S d"]:
    """Returns the digits of codes in a base, the most significant first.

    Args:
        code: 0..base^digits - 1.
        base: number of values of a digit.
        digits: how many.

    Raises:
        ValueError: base^digits is above 2^31, so that there is no int32 for all codes, or a code has more
            digits.
    """
    powers = _powers(base, digits, code.ndim + 1)
    allowed = AllowedRange(
        0, base**digits - 1, f"digits = {digits} of base = {base} hold no larger code; take more digits"
    )
    is_code = _check_range("code", code, allowed)
    return jnp.where(is_code[..., None], code[..., None] // powers % base, -1)


@declared(digits=INDEX, base=NUM_CATEGORIES)
def from_digits(digits: Int[Array, "*S d"], base: int) -> Int[Array, "*S"]:
    """Returns the codes of digits in a base, of which the most significant comes first.

    Args:
        digits: 0..base - 1.
        base: number of values of a digit.

    Raises:
        ValueError: base^d is above 2^31, or a digit is not below the base.
    """
    powers = _powers(base, digits.shape[-1], digits.ndim)
    allowed = AllowedRange(0, base - 1, f"these are the digits of base = {base}")
    is_digit = _check_range("digits", digits, allowed)
    return jnp.where(jnp.all(is_digit, axis=-1), jnp.sum(digits * powers, axis=-1), -1)


@declared(x=CATEGORIES, K=NUM_CATEGORIES, num_codes=NUM_CATEGORIES, u=NOISE)
def draw_code(
    x: Int[Array, "*S"], K: int, num_codes: int, u: Float[Array, "*S"]
) -> tuple[Int[Array, "*S"], Float[Array, "*S"]]:
    """Draws one of the codes x, x + K, x + 2 K, ... below num_codes, all of which mean x.

    log P(x) = log sum_c P(c) >= E[log P(c)] + log n for c drawn from n codes at random.

    Args:
        x: symbols 0..K - 1.
        K: number of symbols.
        num_codes: number of codes, at least K.
        u: uniform noise.

    Returns:
        The code, and log n.

    Raises:
        ValueError: there are fewer codes than symbols.
    """
    if num_codes < K:
        raise ValueError(f"num_codes = {num_codes} is below K = {K}: take a larger base or more digits")
    n = (num_codes - 1 - x) // K + 1  # [*S]
    # A float of 16 bits holds no large n.
    wide_u = at_least_float32(u)
    wide_n = n.astype(wide_u.dtype)
    # u n may round up to n.
    which_code = jnp.minimum(jnp.floor(wide_u * wide_n).astype(jnp.int32), n - 1)
    return x + K * which_code, jnp.log(wide_n).astype(u.dtype)


@declared(code=INDEX, K=NUM_CATEGORIES)
def from_code(code: Int[Array, "*S"], K: int) -> Int[Array, "*S"]:
    """Returns the symbol that a code means, code mod K.

    Args:
        code: of `from_digits`.
        K: number of symbols.
    """
    return code % K


def _check_range(name: str, x: Array, allowed: AllowedRange) -> Array:
    """Says of each entry whether it is in a range that other arguments end.

    Raises:
        ValueError: an entry that is known is not.
    """
    if is_known(x):
        check_range(name, x, allowed, {})
    return allowed.contains(x, allowed.last({}))


def _powers(base: int, digits: int, ndim: int) -> Array:
    """Returns base^(digits - 1), ..., base, 1 as the last one of ndim axes."""
    if base**digits > 2**31:
        raise ValueError(f"base = {base} to the power of {digits} digits is above 2^31: take fewer digits")
    powers = jnp.asarray([base**i for i in range(digits - 1, -1, -1)], jnp.int32)
    return powers.reshape((1,) * (ndim - 1) + (digits,))
