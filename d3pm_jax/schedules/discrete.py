"""Makes noise schedules: the probability beta_t of being resampled at step t, as float64 NumPy arrays [T].

Entry i holds beta at t = i + 1. Every schedule is a plain function of T and floats.
The other conventions in use, as calls of these functions (official text code: t counted from 0):

| where | schedule | here |
|---|---|---|
| official code, images | linear, cosine, jsd | `linear`, `cosine`, `reciprocal` |
| official code, text | standard, cosine | `reciprocal(T, scale)`, `cosine` |
| official code, text | linear, which stops one step before beta_max | see `linear` |
| Multinomial Diffusion | cosine_beta_schedule | `cosine_squared` |
| MDLM, SEDD | loglinear | `log_linear` |
| MD4 | linear, polyN (without its squeeze) | `reciprocal`, `polynomial(T, N)` |

Schedules that follow the data are in `schedules.information`.
"""

import numpy as np

from d3pm_jax.checks import BELOW_1, NUM_STEPS, POSITIVE, PROBABILITY, at_least, declared

Betas = np.ndarray  # float64 [T]


@declared(T=NUM_STEPS)
def linear(T: int, start: float = 1e-4, stop: float = 0.02) -> Betas:
    """Takes beta_t from start (t = 1) to stop (t = T) in equal steps (Ho et al. 2020; D3PM section 4.3).

    The text code's linear schedule never reaches its beta_max: it is
    linear(T, beta_min, beta_min + (beta_max - beta_min) (T - 1) / T).

    Args:
        T: number of steps, at least 1; a single step gets `stop`.
        start, stop: first and last beta, each in (0, 1].

    Returns:
        float64 [T].
    """
    if T == 1:
        return check_betas(np.array([stop], np.float64))
    return check_betas(np.linspace(start, stop, T))


@declared(T=NUM_STEPS, offset=at_least(0), largest=PROBABILITY)
def cosine(T: int, offset: float = 0.008, largest: float = 0.999) -> Betas:
    """beta_t = min(1 - f(t / T) / f((t - 1) / T), largest), f(u) = cos((u + offset) / (1 + offset) pi / 2).

    The form of the official D3PM code, images and text: the cosine is not squared.

    Args:
        T: number of steps, at least 1.
        offset: at least 0; keeps beta_1 away from 0.
        largest: upper limit of beta, in (0, 1]; at 1 the last step removes everything.

    Returns:
        float64 [T].
    """
    # With n = T - t + 1 steps left, f((t - 1) / T) = sin(n h) and f(t / T) = sin((n - 1) h). beta is 1 less
    # their ratio, and the difference of sines, written as a product, keeps the digits of a small beta.
    h = np.pi / 2 / (1 + offset) / T
    n = np.arange(T, 0, -1)
    beta = 2 * np.cos((n - 0.5) * h) * np.sin(h / 2) / np.sin(n * h)
    beta[-1] = 1.0  # f(1) = 0, so it is that exactly; the product may be the float before it
    return check_betas(np.minimum(beta, largest))


@declared(T=NUM_STEPS, offset=at_least(0), smallest=BELOW_1)
def cosine_squared(T: int, offset: float = 0.008, smallest: float = 0.001) -> Betas:
    """alpha_t = sqrt(max(f(t / T)^2 / f((t - 1) / T)^2, smallest)), with f as in `cosine`.

    The schedule of Multinomial Diffusion, as its program `cosine_beta_schedule` computes it: T ratios of
    T + 1 values at u = 0, 1/T, .., 1 (its x / steps, for T + 1 points from 0 to steps = T + 1), clipped and
    then rooted. The root undoes the square, so this is `cosine` with another limit at the last step.

    Args:
        T: number of steps, at least 1.
        offset: at least 0; keeps beta_1 away from 0.
        smallest: lower limit of alpha_t^2, in [0, 1); at 0 the last step removes everything.

    Returns:
        float64 [T].
    """
    return cosine(T, offset, 1 - smallest**0.5)


@declared(T=NUM_STEPS, scale=at_least(1))
def reciprocal(T: int, scale: float = 1.0) -> Betas:
    """beta_t = 1 / (scale T - t + 1): alpha_bar_t = 1 - t / (scale T) (Sohl-Dickstein et al. 2015).

    With scale = 1, alpha_bar reaches exactly 0: the mutual-information schedule of an absorbing process
    (D3PM, section 3.1). The text code's schedule "standard".

    Args:
        T: number of steps, at least 1.
        scale: at least 1; above 1, x_T keeps 1 - 1 / scale of alpha_bar.

    Returns:
        float64 [T]; with scale = 1 the last entry is exactly 1.
    """
    steps_beyond_T = T * (scale - 1)  # after which alpha_bar would reach 0
    return check_betas(1.0 / (np.arange(T, 0, -1, dtype=np.float64) + steps_beyond_T))


@declared(T=NUM_STEPS, eps=BELOW_1)
def log_linear(T: int, eps: float = 1e-3) -> Betas:
    """-log alpha_bar_t = -log(1 - (1 - eps) t / T): alpha_bar falls linearly from 1 to eps (SEDD; MDLM).

    Args:
        T: number of steps, at least 1.
        eps: alpha_bar_T, in [0, 1).

    Returns:
        float64 [T], the same as reciprocal(T, 1 / (1 - eps)).
    """
    return reciprocal(T, 1 / (1 - eps))


@declared(T=NUM_STEPS, power=POSITIVE)
def polynomial(T: int, power: float = 2.0) -> Betas:
    """alpha_bar_t = 1 - (t / T)^power: slow at first where power > 1 (MD4, without its squeeze of alpha_bar).

    Args:
        T: number of steps, at least 1.
        power: above 0; 1 is `reciprocal`.

    Returns:
        float64 [T], the last entry exactly 1.
    """
    # beta_t = (alpha_bar_{t-1} - alpha_bar_t) / alpha_bar_{t-1}. Both differences, (t / T)^power - ((t - 1) /
    # T)^power and 1 - ((t - 1) / T)^power, are written as 1 - exp(log) with expm1 and log1p, which keep the
    # digits of small ones. At t = 1 the log is that of 0.
    t = np.arange(1, T + 1)
    with np.errstate(divide="ignore"):
        fall = (t / T) ** power * -np.expm1(power * np.log1p(-1 / t))
        before = -np.expm1(power * np.log1p(-(T - t + 1) / T))
    return check_betas(fall / before)


@declared()
def from_alpha_bar(alpha_bar: np.ndarray) -> Betas:
    """beta_t = (alpha_bar_{t-1} - alpha_bar_t) / alpha_bar_{t-1}, for a schedule of your own.

    Args:
        alpha_bar: [T + 1], from exactly 1 at t = 0, strictly falling; only the last may be 0.

    Returns:
        float64 [T].

    Raises:
        ValueError: alpha_bar does not start at 1, or does not fall at some step.
    """
    if alpha_bar.ndim != 1 or alpha_bar.size < 2 or alpha_bar[0] != 1:
        raise ValueError(
            f"alpha_bar must have shape [T + 1] with T >= 1 and start at 1, got shape {alpha_bar.shape} "
            f"starting {alpha_bar.ravel()[:2]}"
        )
    before = alpha_bar[:-1]
    after = alpha_bar[1:]
    bad = np.flatnonzero(~((after < before) & (after >= 0)))
    if bad.size:
        i = bad[0]
        raise ValueError(
            f"alpha_bar goes from {before[i]:g} to {after[i]:g} at t = {i + 1}: it must fall at every step, "
            f"and not below 0; steps too small for float64 need beta itself"
        )
    return check_betas((before - after) / before)


@declared()
def check_betas(beta: np.ndarray, name: str = "beta") -> Betas:
    """Returns beta as float64 [T]. Raises ValueError naming the first value outside (0, 1]."""
    if beta.ndim != 1 or beta.size == 0:
        raise ValueError(
            f"{name} must have shape [T] with T >= 1, got shape {beta.shape}: pass a schedule, as cosine(100)"
        )
    bad = np.flatnonzero(~((beta > 0) & (beta <= 1)))
    if bad.size:
        i = bad[0]
        raise ValueError(
            f"{name} = {beta[i]:g} at t = {i + 1} is outside (0, 1]: change the arguments of the schedule "
            f"(linear: a smaller start or stop, which a config scales by 1000 / steps unless rescale=False)"
        )
    # `declared` has made it float64.
    return beta
