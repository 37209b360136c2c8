"""Writes the page on which a reader explores forward processes, as one file with all its numbers.

The kernels of the library compute every number, and the page only looks them up. `explorer.html` is the page
without them; the build of the site fills it in. To have the page alone:

    python docs/explore.py explorer.html
"""

import argparse
import base64
import functools
import json
import math
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array
from sklearn.datasets import load_digits

import d3pm_jax as d3pm
from d3pm_jax.processes import Process

TEMPLATE = Path(__file__).with_name("explorer.html")
FAVICON = Path(__file__).with_name("images") / "favicon.svg"

PROCESSES = ("uniform", "absorbing", "gaussian")
SCHEDULES = ("cosine", "linear", "reciprocal", "information")
LEVELS = (4, 6, 8)
STEPS = (25, 50, 100)
LONGEST = max(STEPS)
PICTURE = 0  # which of the digits goes through the chain
LEAST_CROSS_ENTROPY = 1e-9  # in nats: the rounding of what is less would show in its quotient


class NotOffered(Exception):
    """Says why the page does not have a choice."""


@functools.cache
def load_pictures(levels: int) -> np.ndarray:
    """Loads the digits of scikit-learn, int32 [N, 8, 8], and makes `levels` of their 17 grey levels."""
    return load_digits().images.astype(np.int32) * levels // 17


def count_categories(name: str, levels: int) -> int:
    """Returns K. A mask is one category more than the data has, and the last."""
    return levels + 1 if name == "absorbing" else levels


def measure_histogram(name: str, levels: int) -> np.ndarray:
    """Returns how often the data has each category, float64 [K]."""
    counts = np.bincount(load_pictures(levels).ravel(), minlength=count_categories(name, levels))
    return counts / counts.sum()


def make_betas(name: str, schedule: str, levels: int, T: int) -> np.ndarray:
    """Makes beta, float64 [T]. Raises NotOffered where a schedule is not for this process."""
    if schedule == "cosine":
        return d3pm.cosine(T, largest=1.0)
    if schedule == "linear":
        # The published one is for 1,000 steps; this one adds as much noise in T.
        return d3pm.linear(T, 1e-4 * 1000 / T, 0.02 * 1000 / T)
    if schedule == "reciprocal":
        return d3pm.reciprocal(T)
    if name == "absorbing":
        raise NotOffered("for masks it is the reciprocal schedule")
    if name == "gaussian":
        raise NotOffered("it is for processes that draw a new value")
    return d3pm.mutual_information(T, measure_histogram(name, levels), np.full(levels, 1 / levels))


def make_process(name: str, beta: np.ndarray, levels: int) -> Process:
    """Makes a process. Raises NotOffered where the library refuses it, or warns of it."""
    K = count_categories(name, levels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            if name == "uniform":
                return d3pm.uniform(beta, K)
            if name == "absorbing":
                return d3pm.absorbing(beta, K, mask_id=levels)
            return d3pm.gaussian(beta, K)
        except (UserWarning, ValueError) as e:
            raise NotOffered(str(e).split(";")[0]) from e


# To compile takes longer than to run: XLA is asked for less of it.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def measure(process: Process, p0: Array, x0: Array, u: Array) -> dict[str, Array]:
    """Computes what the page shows of a process.

    Args:
        process: the forward process.
        p0: [K], how often the data has each category.
        x0: [H, W], a picture.
        u: [T, H, W], uniform noise in [0, 1).

    Returns:
        chain: int32 [T + 1, H, W], a draw of x_0, ..., x_T, each from the one before.
        unchanged: [T + 1], the probability that x_t = x_0.
        information: [T + 1], I(x_0; x_t) in bits.
        posterior: [T, K, K, K], q(x_{t-1} | x_t, x_0) by t, x_0, x_t, x_{t-1}.
        term: [T], the term of the bound in bits, for a network that knows p0 and no other element.
        weight: [T], that term divided by the cross entropy of the same network; NaN where next to nothing is
            divided by next to nothing.
    """

    def take_step(x: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        after = process.draw_step(x, *step)
        return after, after

    _, noisy = lax.scan(take_step, x0, (jnp.arange(1, process.T + 1), u))

    K = process.K
    t, start, end = jnp.meshgrid(jnp.arange(process.T + 1), jnp.arange(K), jnp.arange(K), indexing="ij")
    log_p0 = jnp.log(p0)

    # The information is the mean over x_0 of KL(q(x_t | x_0) || q(x_t)).
    log_q = process.log_q_probs(start[..., 0], t[..., 0])  # [T + 1, K, K]  of x_t given x_0
    log_marginal = process.log_push(jnp.broadcast_to(log_p0, (process.T + 1, K)), t[:, 0, 0])  # [T + 1, K]
    divergence = d3pm.kl(log_q, jnp.broadcast_to(log_marginal[:, None], log_q.shape))  # [T + 1, K]
    information = jnp.where(p0[None] > 0, p0[None] * divergence, 0).sum(1)
    unchanged = p0 @ jnp.exp(jnp.diagonal(log_q, axis1=1, axis2=2)).T

    # A step back from each pair (x_0, x_t), for t = 1..T.
    t, start, end = t[1:], start[1:], end[1:]
    posterior = jnp.exp(d3pm.q_posterior(process, start, end, t))

    # What the other elements say of x_0 is no more than p0: those are the logits of that network.
    logits = jnp.broadcast_to(log_p0, (*start.shape, K))
    losses = d3pm.hybrid(process, logits, start, end, t, 0.0, belief="leave_one_out")
    p_pair = p0[None, :, None] * jnp.exp(log_q[1:])  # [T, K, K]
    kl = jnp.where(p_pair > 0, p_pair * losses.kl, 0).sum((1, 2))
    ce = jnp.where(p_pair > 0, p_pair * losses.ce, 0).sum((1, 2))

    return {
        "chain": jnp.concatenate([x0[None], noisy]),
        "unchanged": unchanged,
        "information": information / math.log(2),
        "posterior": posterior,
        "term": kl / math.log(2),
        "weight": jnp.where(ce > LEAST_CROSS_ENTROPY, kl / ce, jnp.nan),
    }


def compute_case(name: str, schedule: str, levels: int, T: int) -> dict[str, Any]:
    """Computes what the page shows for a choice, as numbers that JSON can hold.

    Raises:
        NotOffered: the page does not have this choice.
    """
    with jax.enable_x64(True):
        beta = make_betas(name, schedule, levels, T)
        alpha_bar = getattr(make_process(name, beta, levels), "alpha_bar", None)

        # Nothing that happens up to step T depends on the steps behind it. With these all processes have
        # LONGEST steps, and those of a name and K share one compiled program.
        longer = make_process(name, np.append(beta, np.ones(LONGEST - T)), levels)
        u = jax.random.uniform(jax.random.key(0), (LONGEST, 8, 8))
        numbers = measure(longer, measure_histogram(name, levels), load_pictures(levels)[PICTURE], u)
        numbers = {key: np.asarray(x) for key, x in numbers.items()}

    return {
        "K": longer.K,
        "chain": ["".join(map(str, x.ravel())) for x in numbers["chain"][: T + 1]],
        "alpha_bar": None if alpha_bar is None else round_all(alpha_bar),
        "unchanged": round_all(numbers["unchanged"][: T + 1]),
        "information": round_all(numbers["information"][: T + 1]),
        "term": round_all(numbers["term"][:T]),
        "weight": round_all(numbers["weight"][:T]),
        # In thousandths, flat: a million of them are most of the page.
        "posterior": np.rint(1000 * numbers["posterior"][:T, :levels]).astype(int).ravel().tolist(),
    }


def round_all(x: Any) -> list[float | None]:
    """Rounds to six digits behind the point; NaN, which JSON lacks, becomes None."""
    rounded = np.round(np.asarray(x), 6) + 0.0  # which makes 0 of -0
    return [None if math.isnan(number) else number for number in rounded.tolist()]


def compute_cases() -> dict[str, Any]:
    """Computes all choices, "uniform cosine 8 50" for example: the numbers of each, or why it has none."""
    cases = {}
    for name in PROCESSES:
        for schedule in SCHEDULES:
            for levels in LEVELS:
                for T in STEPS:
                    try:
                        case = compute_case(name, schedule, levels, T)
                    except NotOffered as e:
                        case = str(e)
                    cases[f"{name} {schedule} {levels} {T}"] = case
    return cases


def build_page(cases: dict[str, Any]) -> str:
    """Puts the numbers into the page, compressed: a browser unpacks them."""
    data = {
        "processes": PROCESSES,
        "schedules": SCHEDULES,
        "levels": LEVELS,
        "steps": STEPS,
        "cases": cases,
    }
    packed = zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)
    page = TEMPLATE.read_text()
    page = page.replace("FAVICON", base64.b64encode(FAVICON.read_bytes()).decode())
    return page.replace("NUMBERS", base64.b64encode(packed).decode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.write_text(build_page(compute_cases()))


if __name__ == "__main__":
    main()
