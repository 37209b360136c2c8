"""Computes the numbers of other programs, a module for each; `docs/compat.md` says which call gives which."""

from d3pm_jax.compat.official_images import EPS, logistic, p_logits, prior_bits, q_posterior, vb_bits

__all__ = ["EPS", "logistic", "p_logits", "prior_bits", "q_posterior", "vb_bits"]
