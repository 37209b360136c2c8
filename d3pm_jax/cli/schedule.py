"""d3pm schedule: what the forward process of a config does to one element, without data or a network."""

import argparse
import bisect
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array

from d3pm_jax import losses, plots
from d3pm_jax.cli import overrides
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.training import run
from d3pm_jax.transitions import Transition

SHOWN = 100  # steps in the picture
WEIGHT = "weight in the bound\n[nats per nat of CE]"
ENTRIES = 2**20  # of the largest array of probabilities


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Draws and prints; returns the exit status."""
    config = overrides.from_file(args, rest, "[--out FILE.png]")
    if args.out.suffix != ".png":
        raise UserError(f"--out {args.out}: the picture is a PNG, name it FILE.png")
    try:
        tr = config.process.build()
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    x0 = _categories(config)
    _plot(args.out, tr, x0)
    prior = np.asarray(bits_per_dim(losses.prior_kl(tr, x0), 1), np.float64)
    half = half_left(tr, x0)
    print(f"process: {config.process}")
    print(f"prior KL(q(x_T | x_0) || p(x_T)): {prior.mean():.3g} bits/dim, at most {prior.max():.3g}")
    where = "never: raise beta or the number of steps" if half is None else f"at t = {half} of {tr.T}"
    print(f"half of the information is left {where}")
    print(f"what each step does: {args.out}")
    return 0


def _categories(config: Config) -> Array:
    """What the data may be; for a very large K as many of them, evenly spread, as fit into `ENTRIES`."""
    levels, K = run.num_levels(config), config.process.K
    if levels < 2:
        raise UserError(
            f"process.K = {K} leaves the data a single category: there is no information to remove"
        )
    shown = np.linspace(0, levels - 1, min(levels, max(2, ENTRIES // K)))
    return jnp.asarray(shown.round(), jnp.int32)


class Effect(NamedTuple):
    """What t steps do to one element with uniform p(x_0)."""

    kept: float  # q(x_t = x_0 | x_0), the mean diagonal of Qbar[t]: alpha_bar_t for an extra mask
    lost: float  # H(x_0 | x_t) / H(x_0): the part of the information I(x_t; x_0) that is gone


def effect(tr: Transition, x0: Array, t: int) -> Effect:
    """The effect of steps 1..t.

    Args:
        tr: the forward process.
        x0: [N], the categories that the element may be, at least 2.
        t: a step 0..T.
    """
    q = np.exp(np.asarray(tr.log_q_probs(x0, jnp.asarray(t, jnp.int32)), np.float64))  # [N, K]
    p_xt = q.mean(0)
    posterior = q / np.where(p_xt > 0, p_xt * len(x0), 1.0)  # p(x_0 | x_t), [N, K]
    left_open = scipy.special.entr(posterior).sum(0) @ p_xt
    return Effect(float(q[np.arange(len(x0)), x0].mean()), float(left_open / math.log(len(x0))))


def weight(before: Effect, after: Effect) -> float:
    """(I(x_{t-1}; x_0) - I(x_t; x_0)) / H(x_0 | x_t): nats of the bound at t per nat of cross entropy.

    Both for the ideal network of one element with uniform p(x_0). For an absorbing process it is the weight
    (alpha_bar_{t-1} - alpha_bar_t) / (1 - alpha_bar_t) of the cross entropy of a masked element. NaN where
    x_t is certain of x_0.
    """
    return (after.lost - before.lost) / after.lost if after.lost > 0 else math.nan


def half_left(tr: Transition, x0: Array) -> int | None:
    """The t at which the information left is nearest to a half; None if more is left even at T."""

    def lost(t: int) -> float:
        return effect(tr, x0, t).lost

    t = bisect.bisect_left(range(tr.T + 1), 0.5, key=lost)
    return None if t > tr.T else min((t - 1, t), key=lambda t: abs(lost(t) - 0.5))


def _plot(path: Path, tr: Transition, x0: Array) -> None:
    spread = (
        *np.geomspace(1, tr.T, SHOWN // 2),
        *np.linspace(1, tr.T, SHOWN // 2),
    )  # early steps matter most
    ts = sorted({round(t) for t in spread})
    at = {t: effect(tr, x0, t) for t in sorted({s for t in ts for s in (t - 1, t)})}
    curves = {
        "x_t is still x_0\n[probability]": [at[t].kept for t in ts],
        "information left\nI(x_t; x_0) / H(x_0)": [1 - at[t].lost for t in ts],
        WEIGHT: [weight(at[t - 1], at[t]) for t in ts],
    }
    plots.save_curves(path, ts, curves, "t", log=(WEIGHT,))
