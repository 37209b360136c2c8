"""Arithmetic of probabilities: `logspace`, `log_matmul`, and draws from uniform noise, `inverse_cdf`."""

from torch_ref.numerics.inverse_cdf import categorical
from torch_ref.numerics.log_matmul import log_matmul, smallest_entry
from torch_ref.numerics.logspace import kl, kl_logits, log1mexp, log_add, log_normalize, log_prob, log_sum

__all__ = [
    "categorical",
    "kl",
    "kl_logits",
    "log1mexp",
    "log_add",
    "log_matmul",
    "log_normalize",
    "log_prob",
    "log_sum",
    "smallest_entry",
]
