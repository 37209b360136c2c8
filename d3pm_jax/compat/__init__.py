"""Numbers of other programs, one module for each; `docs/compat.md` says which call gives which number."""

from d3pm_jax.compat.official_images import EPS, logistic, p_logits, prior_bits, q_posterior, vb_bits

__all__ = ["EPS", "logistic", "p_logits", "prior_bits", "q_posterior", "vb_bits"]
