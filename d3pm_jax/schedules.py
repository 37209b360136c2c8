"""Noise schedules: the probability beta_t of being resampled at step t, as float64 NumPy arrays [T].

Entry i holds beta at t = i + 1. Every schedule is a plain function of T and floats.
"""

import numpy as np

Betas = np.ndarray  # float64 [T]


def linear(T: int, start: float = 1e-4, stop: float = 0.02) -> Betas:
    """beta_t from start (t = 1) to stop (t = T) in equal steps (Ho et al. 2020; D3PM section 4.3).

    Args:
        T: number of steps, at least 1; a single step gets `stop`.
        start, stop: first and last beta, each in (0, 1].

    Returns:
        float64 [T].
    """
    if T == 1:
        return check_betas(np.array([stop], np.float64))
    return check_betas(np.linspace(start, stop, check_steps(T)))


def cosine(T: int, offset: float = 0.008, largest: float = 0.999) -> Betas:
    """beta_t = min(1 - f(t / T) / f((t - 1) / T), largest), f(u) = cos((u + offset) / (1 + offset) pi / 2).

    The form of the official D3PM code: the cosine is not squared.

    Args:
        T: number of steps, at least 1.
        offset: keeps beta_1 away from 0.
        largest: upper limit of beta; without it beta_T would be 1.

    Returns:
        float64 [T].
    """
    f = np.cos((np.arange(check_steps(T) + 1) / T + offset) / (1 + offset) * np.pi / 2)
    return check_betas(np.minimum(1 - f[1:] / f[:-1], largest))


def reciprocal(T: int) -> Betas:
    """beta_t = 1 / (T - t + 1): alpha_bar falls linearly from 1 to exactly 0 (Sohl-Dickstein et al. 2015).

    The mutual-information schedule of an absorbing process (D3PM, section 3.1).

    Args:
        T: number of steps, at least 1.

    Returns:
        float64 [T], the last entry exactly 1.
    """
    return check_betas(1.0 / np.arange(check_steps(T), 0, -1, dtype=np.float64))


def check_steps(T: int) -> int:
    """T itself. Raises ValueError unless it is at least 1."""
    if T < 1:
        raise ValueError(f"T = {T}: a process needs at least 1 step")
    return T


def check_betas(beta: np.ndarray) -> Betas:
    """beta as float64 [T]. Raises ValueError naming the first value outside (0, 1]."""
    beta = np.asarray(beta, np.float64)
    if beta.ndim != 1 or beta.size == 0:
        raise ValueError(f"beta must have shape [T] with T >= 1, got shape {beta.shape}")
    bad = np.flatnonzero(~((beta > 0) & (beta <= 1)))
    if bad.size:
        i = bad[0]
        raise ValueError(
            f"beta = {beta[i]:g} at t = {i + 1} is outside (0, 1]: choose a smaller start or stop "
            f"(a linear schedule in a config is scaled by 1000 / steps unless rescale=False)"
        )
    return beta
