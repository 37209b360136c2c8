"""A schedule of a user's own beside the one of ours that it is meant to be."""

from collections.abc import Iterator
from functools import partial

import jax.numpy as jnp
import numpy as np
import torch

import d3pm_jax
from d3pm_jax.schedules import continuous
from parity_tests.against.comparing import Finding, Unfit, measure
from parity_tests.against.program import CONTINUOUS, STEPS, Program, Slip, as_array, call, fitting_slips
from parity_tests.compare import TOLERANCES

NUM_TIMES = 41
NUM_STEPS = (2, 7, 50)


def check_alpha(program: Program, finding: Finding) -> Iterator[Finding]:
    """alpha(t) at times from 0 on; at 1 a log would be infinite, or nearly so."""
    t = torch.arange(NUM_TIMES) / NUM_TIMES
    theirs = as_array(call(program.functions["alpha"], t), (NUM_TIMES,))
    yield _compare(program, finding, theirs, t.numpy())


def check_alpha_bar(program: Program, finding: Finding) -> Iterator[Finding]:
    """alpha_bar at t = 1..T for some T."""
    for T in NUM_STEPS:
        theirs = as_array(call(program.functions["alpha_bar"], T), (T,))
        yield _compare(program, finding._replace(input=f"T = {T}"), theirs, np.arange(1, T + 1), T)


def check_derivative(program: Program, finding: Finding) -> Iterator[Finding]:
    """alpha_derivative(t), after 0, where it may be infinite."""
    t = torch.arange(1, NUM_TIMES) / NUM_TIMES
    theirs = as_array(call(program.functions["alpha_derivative"], t), (NUM_TIMES - 1,))
    level, rate = (x.numpy() for x in program.level_and_rate(t))
    ours = -rate
    slips = [
        ("with the other sign", lambda: rate),
        ("divided by alpha, as of log alpha", lambda: ours / level),
        ("divided by 1 - alpha", lambda: ours / (1 - level)),
        ("divided by alpha and with the other sign, as of -log alpha", lambda: rate / level),
    ]
    yield _measure(finding, theirs, ours, t.numpy(), slips)


def _compare(
    program: Program, finding: Finding, theirs: np.ndarray, t: np.ndarray, T: int | None = None
) -> Finding:
    """Compares with the schedule that it is meant to be, or else sees that it falls from 1 to 0."""
    if program.schedule not in (CONTINUOUS if T is None else STEPS):
        _check_falls(theirs, t)
        return finding._replace(size=theirs.size)
    ours = partial(_ours, program.schedule, T)
    return _measure(finding, theirs, ours(t), t, list(_slips(program.schedule, T, t)))


def _ours(name: str, T: int | None, t: np.ndarray) -> np.ndarray:
    """alpha at times in [0, 1], or of T steps at some of these."""
    if T is None:
        level = getattr(continuous, name)(jnp.asarray(t, t.dtype))
        return np.asarray(level.alpha)
    beta = getattr(d3pm_jax, name)(T)
    return np.concatenate([[1.0], np.cumprod(1 - beta)])[t]


def _check_falls(alpha: np.ndarray, t: np.ndarray) -> None:
    rises = np.flatnonzero(np.diff(np.append(1.0, alpha)) > 1e-6)
    if not ((alpha >= -1e-6) & (alpha <= 1 + 1e-6)).all() or rises.size:
        i = rises[0] if rises.size else np.argmax(np.abs(alpha - 0.5))
        raise Unfit(f"is {alpha[i]:.6g} at t = {t[i]:g}: it falls from 1, clean data, and stays in [0, 1]")


def _slips(name: str, T: int | None, t: np.ndarray) -> Iterator[Slip]:
    alpha = _ours(name, T, t)
    yield "squared, as iDDPM has it", lambda: alpha**2
    yield "without its square, as a root", lambda: np.sqrt(alpha)
    yield "as 1 - alpha", lambda: 1 - alpha
    yield "as its log", lambda: np.log(alpha)
    yield "as minus its log", lambda: -np.log(alpha)
    if T is None:
        yield "with time from noise to data", lambda: _ours(name, T, 1 - t)
        other = "as 1 - cos(pi (1 - t) / 2): leave `schedule` out if that is meant"
        yield other, lambda: 1 - np.cos(np.pi / 2 * (1 - t))
        return
    beta = getattr(d3pm_jax, name)(T)
    limited = np.minimum(1 - (1 - beta) ** 2, beta.max())
    yield "squared, as iDDPM has it", lambda: np.cumprod(1 - limited)
    yield "one step later", lambda: _ours(name, T, np.minimum(t + 1, T))
    yield "one step earlier", lambda: _ours(name, T, t - 1)
    yield "with beta and 1 - beta exchanged", lambda: np.cumprod(beta)
    yield "of one step, without the product", lambda: 1 - beta
    yield "as beta", lambda: beta


def _measure(
    finding: Finding, theirs: np.ndarray, ours: np.ndarray, t: np.ndarray, slips: list[Slip]
) -> Finding:
    scale = np.maximum(np.abs(ours), 1.0).astype(ours.dtype)
    tolerance = TOLERANCES[finding.dtype]["yours"]
    return measure(
        finding,
        theirs,
        ours,
        scale,
        lambda: fitting_slips(slips, theirs, ours, scale, tolerance),
        lambda at: f"t = {t[at]:g}",
    )
