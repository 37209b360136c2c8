"""LLaDA's sampler without a prompt (ML-GSAI/LLaDA, `generate`). LLADA is the folder of a checkout.

LLADA_OPTIONS: temperature=0, its default, or 1; remasking=low_confidence, its default, or random; blocks=1.
"""

import checkout
import torch

FOLDER = checkout.open_folder("LLADA", "https://github.com/ML-GSAI/LLaDA", "generate.py")
OPTIONS = checkout.read_options("LLADA_OPTIONS", temperature=0.0, remasking="low_confidence", blocks=1)
if OPTIONS.temperature == 1 and OPTIONS.remasking == "low_confidence" and OPTIONS.blocks == 1:
    claims = "llada"
llada = checkout.load(FOLDER, "generate", "transformers")


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)
    nothing = torch.zeros(n, 0, dtype=torch.long)
    return llada.generate(
        checkout.Untimed(denoise, K),
        nothing,
        steps=calls,
        gen_length=L,
        block_length=L // OPTIONS.blocks,
        temperature=OPTIONS.temperature,
        remasking=OPTIONS.remasking,
        mask_id=K,
    )
