"""SEDD's samplers (louaaron/Score-Entropy-Discrete-Diffusion, `get_pc_sampler`). SEDD is a checkout.

SEDD_OPTIONS: predictor=analytic or euler; noise_removal=1 or 0; graph=absorb or uniform.
"""

import checkout
import torch

FOLDER = checkout.open_folder(
    "SEDD", "https://github.com/louaaron/Score-Entropy-Discrete-Diffusion", "sampling.py"
)
OPTIONS = checkout.read_options("SEDD_OPTIONS", predictor="analytic", noise_removal=1, graph="absorb")
UNUSED = "model.transformer transformers huggingface_hub omegaconf flash_attn einops"
sampling = checkout.load(FOLDER, "sampling", UNUSED)
graph_lib = checkout.load(FOLDER, "graph_lib", UNUSED)
noise_lib = checkout.load(FOLDER, "noise_lib", UNUSED)
noise = "uniform" if OPTIONS.graph == "uniform" else "mask"


class Scores(torch.nn.Module):
    def __init__(self, denoise):
        super().__init__()
        self.denoise = denoise

    def forward(self, x, sigma):
        return self.denoise.log_scores(x, torch.exp(-sigma))


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)
    graph = graph_lib.Uniform(K) if OPTIONS.graph == "uniform" else graph_lib.Absorbing(K)
    draw = sampling.get_pc_sampler(
        graph,
        noise_lib.LogLinearNoise(),
        (n, L),
        OPTIONS.predictor,
        calls - OPTIONS.noise_removal,  # the removal of noise asks once more
        denoise=bool(OPTIONS.noise_removal),
    )
    return draw(Scores(denoise))
