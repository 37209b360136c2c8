"""ReMDM's samplers (kuleshov-group/remdm, `Diffusion._sample`). REMDM is the folder of a checkout.

REMDM_OPTIONS: sampler=remdm-cap, remdm-rescale, remdm-loop, remdm-conf, forward-backward or mdlm; eta=0.008,
0.015 and 0.02 in the scripts of the first three; nucleus_p=0.9, as in all of them; t_on, t_off, alpha_on of
the loop. remdm-conf takes bfloat16 alone, as its confidences are.
"""

from types import SimpleNamespace

import checkout
import torch
from torch.nn.functional import pad

FOLDER = checkout.open_folder("REMDM", "https://github.com/kuleshov-group/remdm", "diffusion.py")
OPTIONS = checkout.read_options(
    "REMDM_OPTIONS", sampler="remdm-cap", nucleus_p=0.9, eta=0.008, t_on=0.55, t_off=0.05, alpha_on=0.9
)
diffusion = checkout.load(
    FOLDER, "diffusion", "hydra lightning torchmetrics transformers tqdm dataloader models utils"
)
diffusion.tqdm = iter
DTYPE = torch.bfloat16 if OPTIONS.sampler == "remdm-conf" else torch.float32


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)
    diffusion_model = checkout.hollow(
        diffusion.Diffusion,
        config=SimpleNamespace(
            loader=SimpleNamespace(eval_batch_size=n),
            model=SimpleNamespace(length=L),
            noise=SimpleNamespace(type="loglinear"),
            sampling=SimpleNamespace(noise_removal=True, dfm=False, **vars(OPTIONS)),
        ),
        **dict(parameterization="subs", sampler="ddpm_cache", time_conditioning=True),
        **dict(mask_index=K, vocab_size=K + 1, neg_infinity=-1000000.0, device="cpu"),
        noise=diffusion.noise_schedule.LogLinearNoise(),
        backbone=lambda x, sigma: pad(denoise(x, torch.exp(-sigma)), (0, 1)).to(DTYPE),
    )
    return diffusion_model._sample(num_steps=calls - 1)  # the removal of what is left asks once more
