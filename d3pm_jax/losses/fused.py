"""Says which fast form stands for which definition of `variational`, by the family of the process.

A family without an entry has the definition. A process of your own may register one in the same way; tests
hold every entry against the definition.
"""

from d3pm_jax.losses import fused_by_parts, fused_dense, fused_masked, fused_mixing, variational
from d3pm_jax.processes import Dense, Masked, Mixing

variational.dispatch_kl_and_ce.register(Mixing, fused_mixing.kl_and_ce)
variational.dispatch_kl_and_ce.register(Masked, fused_masked.kl_and_ce)
variational.dispatch_kl_and_ce.register(Dense, fused_dense.kl_and_ce)

variational.dispatch_marginal_kl.register(Mixing, fused_mixing.marginal_kl)

variational.dispatch_prior_kl.register(Mixing, fused_mixing.prior_kl)
variational.dispatch_prior_kl.register(Masked, fused_masked.prior_kl)

fused_by_parts.numbers_per_element.register(Mixing, lambda process: process.K)


@fused_by_parts.numbers_per_element.register
def _(process: Masked) -> int:
    """Counts what the loss of the inner process reads, a matrix or a row, with the mask."""
    inner_reads_matrix = fused_by_parts.numbers_per_element(process.inner) > process.inner.K
    if inner_reads_matrix:
        return process.K**2
    return process.K
