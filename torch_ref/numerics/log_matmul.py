"""Takes the log of a product of probabilities and a table."""

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics.logspace import log_sum


def smallest_entry(dtype: torch.dtype) -> float:
    """Returns the smallest non-zero entry of the tables of `processes.dense`."""
    if dtype == torch.float64:
        return 2.0**-580
    return 2.0**-80


@declared(log_p="*L M K floats", table="*L K J from_0")
def log_matmul(log_p: Tensor, table: Tensor) -> Tensor:
    """log(exp(log_p) @ table), [.., M, K] x [.., K, J]; no gradient reaches the table.

    Arguments as in `d3pm_jax.log_matmul`.
    """
    terms = log_p[..., :, :, None] + table.detach().log()[..., None, :, :]
    return log_sum(terms.mT)
