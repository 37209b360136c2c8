"""What functions of noise promise of every noise they keep in every float type: at its ends, and far out.

`python -m tests.checks.test_every_noise` prints the counts.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import flows, timesteps
from d3pm_jax.flows import codes
from d3pm_jax.losses import continuous
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.sampling import steering
from d3pm_jax.schedules.continuous import Level

TYPES = ("float16", "bfloat16", "float32", "float64")
K = 3
# More than a float16 holds, and more than a sum of ones in bfloat16 can count.
LARGE = 100_000
PARTICLES = 1_000


def far_noise(dtype: str) -> np.ndarray:
    """Rows [N, K] of numbers of any size: every choice of three from those at which exponentials end."""
    ends = [
        0.0,
        1,
        5,
        8,
        9.5,
        10,
        12,
        17,
        18,
        28,
        29,
        37,
        38,
        60,
        88,
        90,
        104,
        200,
        float(jnp.finfo(dtype).tiny),
    ]
    ends = np.array([*ends, *(-x for x in ends[1:])])
    return np.array(np.meshgrid(ends, ends, ends)).reshape(3, -1).T


def uniforms(dtype: str) -> jax.Array:
    """[N] in [0, 1): 0, the smallest, and the largest below 1."""
    below_1 = jnp.nextafter(jnp.asarray(1, dtype), jnp.asarray(0, dtype))
    inside = jnp.asarray([0, float(jnp.finfo(dtype).tiny), 1e-3, 0.25, 0.5, 0.9], dtype)
    return jnp.append(inside, below_1)


def is_in(x: jax.Array, low: int, high: int) -> jax.Array:
    return (low <= x) & (x < high)


def is_at(x: jax.Array, u: jax.Array, n: int) -> jax.Array:
    """Whether x is floor(u n), or beside it for rounding, the last beside the first."""
    exact = jnp.floor(u.astype(jnp.float64) * n).astype(jnp.int32)
    return (x - exact + 1) % n <= 2


def lifted(v: jax.Array, log: jax.Array, x: jax.Array) -> jax.Array:
    """Whether argmax v = x, and neither is NaN, nor v infinite."""
    return (jnp.argmax(v, axis=-1) == x) & jnp.all(jnp.isfinite(v), axis=-1) & ~jnp.isnan(log)


def all_noise(time: jax.Array) -> Level:
    """Nothing is left of x_0 at any time."""
    return Level(0 * time, 0 * time + 1)


def keep_promises(u: jax.Array, far: jax.Array, phi: jax.Array) -> dict[str, jax.Array]:
    """By function, whether each of its results is what it promises."""
    x = jnp.arange(len(far), dtype=jnp.int32) % K
    v, log_det = flows.gumbel_threshold(far, x, phi)
    slope = jax.grad(lambda far: sum(jnp.sum(part) for part in flows.gumbel_threshold(far, x, phi)))(far)
    signed, log_slope = flows.signed_softplus(far[:, 0], x % 2)
    zeros = jnp.zeros(len(u), jnp.int32)
    code, log_n = codes.draw_code(zeros, 2, LARGE + LARGE, u)
    times = timesteps.antithetic(u[-1], 7)
    process = d3pm.uniform(d3pm.cosine(5), K)
    moved = process.draw_step(zeros, zeros + 3, u)
    even = steering.resample(jnp.zeros((len(u), PARTICLES), u.dtype), u)
    log_p = jnp.zeros((len(u), K), u.dtype)
    return {
        "softplus_threshold": lifted(*flows.softplus_threshold(far, x), x),
        "gumbel": lifted(*flows.gumbel(phi, x, far), x),
        "gumbel_threshold": lifted(v, log_det, x) & jnp.isfinite(log_det) & jnp.all(jnp.isfinite(slope), -1),
        "signed_softplus": ((signed > 0) == (x % 2 == 1)) & jnp.isfinite(signed) & jnp.isfinite(log_slope),
        "draw_code": is_at(code // 2, u, LARGE) & (code % 2 == 0) & jnp.isfinite(log_n),
        "timesteps.uniform": is_at(timesteps.uniform(u, LARGE) - 1, u, LARGE),
        "timesteps.stratified": is_at(timesteps.stratified(u[None], LARGE)[0] - 1, u[None], LARGE),
        "timesteps.low_discrepancy": is_in(timesteps.low_discrepancy(u[-1], 7, LARGE), 1, LARGE + 1),
        "timesteps.antithetic": (times > 0) & (times <= 1),
        "resample": even == jnp.arange(PARTICLES)[None],
        "uniform_draw": is_at(continuous.uniform_draw(all_noise, zeros + LARGE - 1, u, u, LARGE), u, LARGE),
        "categorical": is_in(inverse_cdf.categorical(log_p, u), 0, K),
        "q_sample": is_in(d3pm.q_sample(process, zeros, zeros + 3, u), 0, K),
        "draw_prior": is_in(process.draw_prior(u), 0, K),
        "draw_step": is_in(moved, 0, K),
        "p_sample": is_in(d3pm.p_sample(process, log_p, zeros, zeros + 1, u), 0, K),
    }


def list_kept(dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    far = jnp.asarray(far_noise(dtype), dtype)
    phi = jnp.asarray(2 * np.random.default_rng(0).normal(size=far.shape), dtype)
    compiled: Callable[..., dict[str, jax.Array]] = jax.jit(keep_promises)
    for name, kept in compiled(uniforms(dtype), far, phi).items():
        yield name, np.asarray(kept)


@pytest.mark.parametrize(
    "dtype", [pytest.param(x, marks=[] if x == "float16" else pytest.mark.slow) for x in TYPES]
)
def test_every_noise_keeps_the_promise(x64, dtype):
    broken = {name: int(np.sum(~kept)) for name, kept in list_kept(dtype) if not np.all(kept)}
    assert not broken


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for dtype in TYPES:
        results = dict(list_kept(dtype))
        total = sum(kept.size for kept in results.values())
        print(
            dtype,
            f"{len(results)} functions, {total} results, {sum(np.sum(~k) for k in results.values())} wrong",
        )
