"""Shaped logits, and what x_t says beside them."""

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax.sampling import Denoiser, Sampler, Shaping, sample, shaping

K = 4
MASK = 3


def test_what_is_unmasked_stays_though_top_p_would_not_keep_it():
    """Category 2 is by far the likeliest at first, and category 0 later: top-p keeps it alone."""
    process = d3pm.absorbing(d3pm.reciprocal(4), K, MASK)
    first = jnp.log(jnp.array([0.04, 0.06, 0.9, 0.0]))
    later = jnp.log(jnp.array([0.9, 0.06, 0.04, 0.0]))

    def network(x, t):
        return jnp.broadcast_to(jnp.where((t > 2)[:, None, None], first, later), (*x.shape, K))

    @jax.jit
    def draw(key):
        sampler = Sampler(shaping=Shaping(top_p=0.5))
        return sample(key, Denoiser(process, network, "leave_one_out"), (50, 6), sampler, record=(2,))

    chain = draw(jax.random.key(0))
    unmasked = chain.states[0] != MASK
    assert chain.failed_at == 0
    assert 0 < unmasked.mean() < 1
    assert (chain.x0 == jnp.where(unmasked, 2, 0)).all()


def shape_by_hand(row: np.ndarray, slot: Shaping) -> np.ndarray:
    """One row of logits, category by category, the likeliest first and of equal ones the smaller."""
    row = row / slot.temperature
    row[list(slot.forbid)] = -np.inf
    for name in ("top_k", "top_p", "top_p_below"):
        value = getattr(slot, name)
        if value is None or (name != "top_k" and value == 1):
            continue
        p = np.exp(row) / np.exp(row).sum()
        order = sorted(range(K), key=lambda k: (-p[k], k))
        cumulative = np.cumsum(p[order])
        if name == "top_k":
            kept = order[:value]
        elif name == "top_p":  # up to and with the one that reaches p
            kept = order[: np.flatnonzero(cumulative >= value)[0] + 1]
        else:  # those whose sum is no more than p
            kept = order[: max(1, np.sum(cumulative <= value))]
        row = np.where(np.isin(np.arange(K), kept), row, -np.inf)
    return row


SLOTS = (
    Shaping(temperature=0.7),
    Shaping(forbid=(1, 3)),
    Shaping(top_k=2),
    Shaping(top_p=0.6),
    Shaping(top_p=1e-6),
    Shaping(top_p_below=0.6),
    Shaping(top_p_below=1e-6),
    Shaping(temperature=1.4, forbid=(0,), top_k=3, top_p=0.9),
    Shaping(temperature=0.5, top_p_below=0.8),
)


def test_rows_are_shaped_as_by_hand(x64):
    logits = np.random.default_rng(0).normal(size=(200, K))
    logits[:20, 1] = logits[:20, 2]  # of equal ones the first counts
    logits[20:40] = 0.0
    shaped = jax.jit(lambda logits: [slot.apply(logits) for slot in SLOTS])(jnp.asarray(logits))
    for slot, of_slot in zip(SLOTS, shaped, strict=True):
        expected = np.stack([shape_by_hand(row, slot) for row in logits])
        of_slot = np.asarray(of_slot)
        np.testing.assert_array_equal(np.isfinite(of_slot), np.isfinite(expected), err_msg=str(slot))
        p, expected_p = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (of_slot, expected))
        np.testing.assert_allclose(p, expected_p, atol=1e-12, err_msg=str(slot))


def test_numbers_that_keep_all_change_nothing():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(50, K)), jnp.float32)
    slot = Shaping(temperature=1.0, top_k=K, top_p=1.0, top_p_below=1.0)
    np.testing.assert_array_equal(slot.apply(logits), logits)
    np.testing.assert_array_equal(shaping.top_k(logits, K + 3), logits)
    assert slot.changes_nothing(K)
    assert not Shaping(top_k=K - 1).changes_nothing(K)


def test_numbers_that_float32_has_not_shape_as_their_limits():
    """A temperature or a share below its smallest number, and one above its largest."""
    logits = jnp.array([[0.0, 1.0, 2.0, -jnp.inf]])
    is_likeliest = np.array([[0.0, 0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(np.exp(Shaping(temperature=1e-50).apply(logits)), is_likeliest)
    np.testing.assert_array_equal(np.exp(Shaping(temperature=1e50).apply(logits)), [[1.0, 1.0, 1.0, 0.0]])
    for share in (shaping.top_p, shaping.top_p_below):
        np.testing.assert_array_equal(np.exp(share(logits, 1e-50)) > 0, is_likeliest)
