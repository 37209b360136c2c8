"""torch_ref: the PyTorch twin of d3pm_jax, written to be checked against the paper by eye.

It has the names of d3pm_jax, but everything comes from the dense one-step matrices Q by Bayes' rule: no
closed forms, and O(K^2) memory per element. Its float type is `torch.get_default_dtype()`.

The rule of flat names is that of d3pm_jax: the kernels that one needs to write a training loop, a bound and a
chain, of which the flat one is the process (`uniform`) or the table of betas (`linear`) where a sub-package
has the name too (`timesteps.uniform`, `schedules.continuous.linear`). Classes among them are `Process` and
`Denoiser`, with which `sample` draws from a seed and `sampling.run` from noise that is given.

Every sub-package is an attribute, imported when it is first used.
"""

import importlib
from typing import Any

try:
    import torch as torch
except ModuleNotFoundError as error:
    cure = "pip install -e '.[torch]' in the clone ('d3pm-jax[torch]' once it is published)"
    raise ModuleNotFoundError(f"torch_ref needs torch: {cure}", name="torch") from error

from torch_ref.heads import forbid, logistic, residual
from torch_ref.likelihood import (
    all_t_bound,
    bits_per_dim,
    chain_rule,
    estimate_bound,
    mean_and_se,
    strata_bound,
    stratified_bound,
)
from torch_ref.losses import (
    cross_entropy,
    direct_kl,
    hybrid,
    posterior_kl,
    prior_kl,
    smoothed_cross_entropy,
    stochastic_bound,
)
from torch_ref.numerics import (
    categorical,
    kl,
    kl_logits,
    log_add,
    log_matmul,
    log_normalize,
    log_prob,
    log_sum,
)
from torch_ref.posteriors import log_p_x0, p_logits, p_prev, p_sample, q_posterior, q_sample
from torch_ref.processes import (
    Process,
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
from torch_ref.sampling import Denoiser, sample
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

__all__ = [
    "Denoiser",
    "Process",
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
    "enumeration",
    "flows",
    "heads",
    "likelihood",
    "losses",
    "models",
    "numerics",
    "orders",
    "posteriors",
    "processes",
    "projection",
    "runs",
    "sampling",
    "schedules",
    "timesteps",
    "training",
)


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"torch_ref.{name}")
    raise AttributeError(f"module 'torch_ref' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBPACKAGES})
