"""Does arithmetic of probabilities, exact where ordinary formulas are not; all kernels build on it.

`logspace` has sums, normalisation and divergences of logs, `log_matmul` the product with a table,
`double_float` sums of two floats, `inverse_cdf` draws from uniform noise, `tiles` work by parts on CPUs.
"""

from d3pm_jax.numerics.inverse_cdf import categorical
from d3pm_jax.numerics.log_matmul import band_width, log_matmul, smallest_entry
from d3pm_jax.numerics.logspace import kl, kl_logits, log1mexp, log_add, log_normalize, log_prob, log_sum

__all__ = [
    "band_width",
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
