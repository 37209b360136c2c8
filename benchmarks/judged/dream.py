"""Dream's sampler in Fast-dLLM's copy (v1/dream, `_sample`). FAST_DLLM is the folder of a checkout.

DREAM_OPTIONS: alg=origin, its default, maskgit_plus, topk_margin or entropy; temperature=0, its default.
"""

from types import SimpleNamespace

import checkout
import torch
from torch.nn.functional import pad

FOLDER = checkout.open_folder(
    "FAST_DLLM", "https://github.com/NVlabs/Fast-dLLM", "v1/dream/model/generation_utils.py"
)
OPTIONS = checkout.read_options("DREAM_OPTIONS", alg="origin", temperature=0.0)
dream = checkout.load(FOLDER / "v1/dream/model", "generation_utils", "transformers")
dream.print = lambda *words: None  # it reports steps and time of each draw


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)

    def network(x, attention_mask, positions):
        x = x[:, 1:]
        log_p = denoise(x, (x != K).float().mean(1))  # it is told no time: the share of what is visible
        return SimpleNamespace(logits=pad(log_p, (0, 0, 0, 1)))  # at a place it is about the next one

    class Dream(dream.DreamGenerationMixin):
        device = torch.device("cpu")
        __call__ = staticmethod(network)

    config = dream.DreamGenerationConfig(max_length=L + 1, mask_token_id=K, steps=calls, **vars(OPTIONS))
    first = torch.zeros(n, 1, dtype=torch.long)  # of a prompt, cut off below
    # The last two are hooks of its users.
    x = Dream()._sample(first, None, config, lambda step, x, logits: x, lambda step, x, logits: logits)
    return x[:, 1:]
