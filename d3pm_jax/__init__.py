"""d3pm_jax is a library for exact diffusion on discrete data in JAX.

Flat names are the kernels that one needs to write a training loop, a bound and a chain. What only one topic
needs stays in its sub-package (`timesteps.importance`, `losses.continuous`, `compat`). Where two have one
name, the process (`uniform`) or the table of betas (`linear`, `cosine`, `polynomial`) is flat, and the other
is reached through its sub-package (`timesteps.uniform`, `schedules.continuous.linear`).

Every public sub-package is an attribute, imported when it is first used: kernels need neither Flax nor a
trainer. What runs are made of (`program`), and what serves all rooms (`extras`, `files`, `lazy`, `placing`),
is none of them.
"""

from d3pm_jax.heads import forbid, logistic, residual
from d3pm_jax.lazy import submodules
from d3pm_jax.likelihood import (
    all_t_bound,
    bits_per_dim,
    chain_rule,
    estimate_bound,
    mean_and_se,
    strata_bound,
    stratified_bound,
)
from d3pm_jax.losses import (
    cross_entropy,
    direct_kl,
    hybrid,
    posterior_kl,
    prior_kl,
    smoothed_cross_entropy,
    stochastic_bound,
)
from d3pm_jax.numerics import (
    categorical,
    kl,
    kl_logits,
    log_add,
    log_matmul,
    log_normalize,
    log_prob,
    log_sum,
)
from d3pm_jax.posteriors import log_p_x0, p_logits, p_prev, p_sample, q_posterior, q_sample
from d3pm_jax.processes import (
    absorbing,
    autoregressive,
    banded,
    by_place,
    dense,
    from_rate,
    gaussian,
    hierarchical_rate,
    interpolating,
    knn_graph,
    knn_rate,
    marginal,
    masked,
    random_walk,
    respace,
    uniform,
)
from d3pm_jax.sampling import Denoiser, sample
from d3pm_jax.schedules import (
    cosine,
    cosine_squared,
    from_alpha_bar,
    linear,
    log_linear,
    mutual_information,
    mutual_information_steps,
    polynomial,
    reciprocal,
)
from d3pm_jax.timesteps import low_discrepancy

__version__ = "0.2.0"

__all__ = [
    "Denoiser",
    "absorbing",
    "all_t_bound",
    "autoregressive",
    "banded",
    "bits_per_dim",
    "by_place",
    "categorical",
    "chain_rule",
    "cosine",
    "cosine_squared",
    "cross_entropy",
    "dense",
    "direct_kl",
    "estimate_bound",
    "forbid",
    "from_alpha_bar",
    "from_rate",
    "gaussian",
    "hierarchical_rate",
    "hybrid",
    "interpolating",
    "kl",
    "kl_logits",
    "knn_graph",
    "knn_rate",
    "linear",
    "log_add",
    "log_linear",
    "log_matmul",
    "log_normalize",
    "log_p_x0",
    "log_prob",
    "log_sum",
    "logistic",
    "low_discrepancy",
    "marginal",
    "masked",
    "mean_and_se",
    "mutual_information",
    "mutual_information_steps",
    "p_logits",
    "p_prev",
    "p_sample",
    "polynomial",
    "posterior_kl",
    "prior_kl",
    "q_posterior",
    "q_sample",
    "random_walk",
    "reciprocal",
    "residual",
    "respace",
    "sample",
    "smoothed_cross_entropy",
    "stochastic_bound",
    "strata_bound",
    "stratified_bound",
    "uniform",
]

_SUBPACKAGES = (
    "beliefs",
    "blocks",
    "checks",
    "compat",
    "config",
    "contrib",
    "cpu",
    "data",
    "enumeration",
    "errors",
    "evaluation",
    "flows",
    "heads",
    "judge",
    "kinds",
    "likelihood",
    "losses",
    "models",
    "numerics",
    "oracles",
    "orders",
    "posteriors",
    "processes",
    "projection",
    "report",
    "runs",
    "sampling",
    "schedules",
    "show",
    "timesteps",
    "training",
    "types",
    "weights",
)

__getattr__ = submodules(__name__, _SUBPACKAGES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBPACKAGES})
