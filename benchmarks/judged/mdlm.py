"""MDLM's sampler (kuleshov-group/mdlm, `Diffusion._sample`). MDLM is the folder of a checkout.

MDLM_OPTIONS: predictor=ddpm_cache (its default), ddpm or analytic; noise_removal=1, its default, or 0.
"""

from types import SimpleNamespace

import checkout
import torch
from torch.nn.functional import pad

FOLDER = checkout.open_folder("MDLM", "https://github.com/kuleshov-group/mdlm", "diffusion.py")
OPTIONS = checkout.read_options("MDLM_OPTIONS", predictor="ddpm_cache", noise_removal=1)
diffusion = checkout.load(
    FOLDER, "diffusion", "hydra lightning torchmetrics transformers dataloader models utils"
)


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)
    steps = calls - OPTIONS.noise_removal  # the removal asks once more
    diffusion_model = checkout.hollow(
        diffusion.Diffusion,
        config=SimpleNamespace(
            loader=SimpleNamespace(eval_batch_size=n),
            model=SimpleNamespace(length=L),
            noise=SimpleNamespace(type="loglinear"),
            sampling=SimpleNamespace(noise_removal=bool(OPTIONS.noise_removal)),
        ),
        parameterization="subs",
        sampler=OPTIONS.predictor,
        noise=diffusion.noise_schedule.LogLinearNoise(),
        backbone=lambda x, sigma: pad(denoise(x, torch.exp(-sigma)), (0, 1)),
        time_conditioning=True,
        mask_index=K,
        vocab_size=K + 1,
        neg_infinity=-1000000.0,
        device="cpu",
    )
    return diffusion_model._sample(num_steps=steps)
