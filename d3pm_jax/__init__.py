"""d3pm_jax: exact diffusion on discrete data in JAX.

The names here are the pure kernels. Networks are in `d3pm_jax.models`, data in `d3pm_jax.data`, the
trainer in `d3pm_jax.training`; none of them is imported with this package.
"""

from d3pm_jax import (
    continuous,
    heads,
    likelihood,
    losses,
    numerics,
    sampling,
    schedules,
    timesteps,
    transitions,
)
from d3pm_jax.diffusion import log_p_x0, p_logits, p_prev, p_sample, q_posterior, q_sample
from d3pm_jax.drawing import categorical
from d3pm_jax.heads import forbid, logistic, residual
from d3pm_jax.information import mutual_information, mutual_information_steps
from d3pm_jax.likelihood import (
    all_t_bound,
    bits_per_dim,
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
from d3pm_jax.numerics import kl, kl_logits, log_add, log_matmul, log_normalize, log_prob, log_sum
from d3pm_jax.sampling import ancestral, sample
from d3pm_jax.schedules import (
    cosine,
    cosine_squared,
    from_alpha_bar,
    linear,
    log_linear,
    polynomial,
    reciprocal,
)
from d3pm_jax.timesteps import low_discrepancy
from d3pm_jax.transitions import (
    absorbing,
    banded,
    dense,
    from_rate,
    gaussian,
    knn_graph,
    knn_rate,
    marginal,
    masked,
    random_walk,
    respace,
    uniform,
)

__version__ = "0.1.0"

__all__ = [
    "absorbing",
    "all_t_bound",
    "ancestral",
    "banded",
    "bits_per_dim",
    "categorical",
    "continuous",
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
    "heads",
    "hybrid",
    "kl",
    "kl_logits",
    "knn_graph",
    "knn_rate",
    "likelihood",
    "linear",
    "log_add",
    "log_linear",
    "log_matmul",
    "log_normalize",
    "log_p_x0",
    "log_prob",
    "log_sum",
    "logistic",
    "losses",
    "low_discrepancy",
    "marginal",
    "masked",
    "mean_and_se",
    "mutual_information",
    "mutual_information_steps",
    "numerics",
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
    "sampling",
    "schedules",
    "smoothed_cross_entropy",
    "stochastic_bound",
    "strata_bound",
    "stratified_bound",
    "timesteps",
    "transitions",
    "uniform",
]
