"""Holds argmax flows: densities of real vectors whose argmax is the data (arXiv 2102.05379)."""

from torch_ref.flows.argmax import (
    gumbel,
    gumbel_threshold,
    log_gumbel,
    log_gumbel_posterior,
    signed_softplus,
    softplus_threshold,
)
from torch_ref.flows.bounds import importance_bound
from torch_ref.flows.codes import count_digits, draw_code, from_code, from_digits, to_digits
from torch_ref.flows.elementwise import (
    Transformed,
    affine,
    bounded_log_scale,
    invert_affine,
    invert_mixture_affine,
    invert_mixture_logit,
    mixture_affine,
    mixture_logit,
)
from torch_ref.flows.layers import (
    autoregressive,
    coupling,
    invert_autoregressive,
    invert_coupling,
    invert_linear,
    linear,
)

__all__ = [
    "Transformed",
    "affine",
    "autoregressive",
    "bounded_log_scale",
    "count_digits",
    "coupling",
    "draw_code",
    "from_code",
    "from_digits",
    "gumbel",
    "gumbel_threshold",
    "importance_bound",
    "invert_affine",
    "invert_autoregressive",
    "invert_coupling",
    "invert_linear",
    "invert_mixture_affine",
    "invert_mixture_logit",
    "linear",
    "log_gumbel",
    "log_gumbel_posterior",
    "mixture_affine",
    "mixture_logit",
    "signed_softplus",
    "softplus_threshold",
    "to_digits",
]
