"""torch_ref: the PyTorch twin of d3pm_jax, written to be checked against the paper by eye.

Same names, but everything comes from the dense one-step matrices Q by Bayes' rule: no closed forms, and
O(K^2) memory per element. Its float type is `torch.get_default_dtype()`.
"""

from torch_ref import continuous
from torch_ref.diffusion import log_p_x0, p_logits, p_prev, p_sample, q_posterior, q_sample
from torch_ref.drawing import categorical
from torch_ref.heads import forbid, logistic, residual
from torch_ref.likelihood import all_t_bound, bits_per_dim, mean_and_se, strata_bound
from torch_ref.losses import (
    cross_entropy,
    direct_kl,
    hybrid,
    posterior_kl,
    prior_kl,
    smoothed_cross_entropy,
    stochastic_bound,
)
from torch_ref.numerics import kl, kl_logits, log_add, log_matmul, log_normalize, log_prob, log_sum
from torch_ref.sampling import ancestral
from torch_ref.schedules import (
    cosine,
    cosine_squared,
    from_alpha_bar,
    linear,
    log_linear,
    polynomial,
    reciprocal,
)
from torch_ref.timesteps import low_discrepancy
from torch_ref.transitions import (
    Process,
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

__all__ = [
    "Process",
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
    "forbid",
    "from_alpha_bar",
    "from_rate",
    "gaussian",
    "hybrid",
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
    "smoothed_cross_entropy",
    "stochastic_bound",
    "strata_bound",
    "uniform",
]
