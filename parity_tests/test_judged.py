"""A sampler in PyTorch is given tensors, and is judged as the same rule in NumPy is."""

import numpy as np
import pytest
import torch

from d3pm_jax import judge
from d3pm_jax.errors import UserError
from d3pm_jax.judge.subjects import Denoise
from d3pm_jax.judge.targets import known_target, random_chain

CHAIN = random_chain(3)


def test_tensors_are_answered_by_tensors():
    target = known_target(CHAIN, "mask")
    denoise = Denoise(target)
    x = torch.full((4, 3), target.K)
    x[:, 1] = torch.arange(4)
    for ask in (denoise, denoise.leave_one_out, denoise.log_scores):
        said = ask(x, torch.full((4,), 0.5, requires_grad=True))
        assert (said.dtype, said.device) == (torch.float32, x.device)
        np.testing.assert_array_equal(said.numpy(), ask(x.numpy(), 0.5))
        said[0] = 0  # it is the sampler's own
    with pytest.raises(UserError, match=r"x is float32 \[4, 3\]: pass integers"):
        denoise(x.float(), 0.5)


def in_torch(temperature):
    def sample(denoise, K, L, n, seed, calls):
        noise = torch.Generator().manual_seed(seed)
        x = torch.full((n, L), K)
        rows = torch.arange(n)
        for place in torch.rand(n, L, generator=noise).argsort(1).T:
            p = (denoise(x, (x != K).float().mean(1)) / temperature).exp()[rows, place]
            x[rows, place] = torch.multinomial(p, 1, generator=noise)[:, 0]
        return x

    return judge.function_subject("in torch", sample)


@pytest.mark.slow
def test_a_sampler_in_torch_is_judged():
    protocol = judge.Protocol(calls=(3,), num=30_000)
    verdicts = [judge.judge(in_torch(t), CHAIN, protocol)["verdict"] for t in (1.0, 0.9)]
    assert verdicts == ["not told apart", "another law"]
