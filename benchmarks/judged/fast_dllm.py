"""Fast-dLLM's sampler without a cache (NVlabs/Fast-dLLM, v1/llada, `generate`). FAST_DLLM is a checkout.

FAST_DLLM_OPTIONS: threshold=0.9, or 0 for none; factor=0 for none; temperature=0, its default, or 1;
remasking=low_confidence, its default, or random. A threshold or a factor takes as many calls as it takes.
"""

import checkout
import torch

FOLDER = checkout.open_folder("FAST_DLLM", "https://github.com/NVlabs/Fast-dLLM", "v1/llada/generate.py")
OPTIONS = checkout.read_options(
    "FAST_DLLM_OPTIONS", threshold=0.9, factor=0.0, temperature=0.0, remasking="low_confidence"
)
if OPTIONS.temperature == 1 and OPTIONS.remasking == "low_confidence":
    claims = f"fast_dllm_threshold:threshold={OPTIONS.threshold}"
    if OPTIONS.factor:
        claims = f"fast_dllm_factor:factor={OPTIONS.factor}"
llada = checkout.load(FOLDER / "v1/llada", "generate", "transformers model")


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)
    settings = dict(
        steps=calls,
        gen_length=L,
        block_length=L,
        temperature=OPTIONS.temperature,
        remasking=OPTIONS.remasking,
    )
    if OPTIONS.factor:
        settings["factor"] = OPTIONS.factor
    elif OPTIONS.threshold:
        settings["threshold"] = OPTIONS.threshold
    x, _ = llada.generate(
        checkout.Untimed(denoise, K), torch.zeros(n, 0, dtype=torch.long), mask_id=K, **settings
    )
    return x
