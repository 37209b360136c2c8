"""Duo's sampler of uniform noise (s-sahoo/duo, `generate_samples`). DUO is the folder of a checkout.

DUO_OPTIONS: noise_removal=ancestral, its default, or greedy, the paper's greedy tail; p_nucleus=1;
belief=leave_one_out, with which its step is Bayes' rule, or denoiser.
"""

from types import SimpleNamespace

import checkout
import torch

FOLDER = checkout.open_folder("DUO", "https://github.com/s-sahoo/duo", "algo.py")
OPTIONS = checkout.read_options(
    "DUO_OPTIONS", noise_removal="ancestral", p_nucleus=1.0, belief="leave_one_out"
)
algo = checkout.load(FOLDER, "algo", "hydra lightning transformers timm fsspec dataloader metrics models")
noise = "uniform"


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)
    ask = denoise.leave_one_out if OPTIONS.belief == "leave_one_out" else denoise
    profile = SimpleNamespace(time_profile="linear")
    settings = SimpleNamespace(
        predictor="ancestral", guid_weight=None, use_float64=True, psi=profile, **vars(OPTIONS)
    )
    diffusion_model = checkout.hollow(
        algo.DUO_BASE,
        config=SimpleNamespace(sampling=settings),
        noise=algo.trainer_base.LogLinear(1e-3),
        backbone=lambda x, sigma, class_cond, weights: ask(x, torch.exp(-sigma)),
        **dict(sampler="ancestral", p_nucleus=OPTIONS.p_nucleus),
        **dict(vocab_size=K, num_tokens=L, num_classes=None, class_conditional=False, time_conditioning=True),
        **dict(device="cpu", dtype=torch.float32),
    )
    return diffusion_model.generate_samples(n, num_steps=calls - 1)  # the removal of noise asks once more
