"""The twin refuses what JAX refuses, over the pairs: `python -m parity_tests.refusals` has all of them."""

import collections

import jax
import numpy as np
import pytest
import torch

import torch_ref
from parity_tests.pairs import PAIRS
from parity_tests.refusals import calls
from torch_ref.sampling import laws

CATEGORIES_STEPS_NOISE = ("x0", "xt", "x", "t", "u", "u_low", "time")
# Processes of positions; digits, whose end is a number of another argument; a head, which reads no values.
LEFT = ("autoregressive", "flows", "heads.residual_logistic")
OF_VALUES = tuple(name for name in PAIRS if not name.startswith(LEFT))


def count(names, wanted):
    with jax.debug_key_reuse(False):
        outcomes = list(calls(names, wanted))
    assert not [x for x in outcomes if x[0] == "silent"]
    return collections.Counter(kind for kind, _, _ in outcomes)


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_shapes_types_and_values():
    names = ("q_sample", "posterior_kl", "categorical", "timesteps.uniform")
    assert count(names, lambda argument, bad: True)["refused"] > 80


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_values_of_every_pair():
    def is_value(argument, bad):
        is_array = isinstance(bad.value, np.ndarray) and bad.what.startswith("value")
        return argument in CATEGORIES_STEPS_NOISE and is_array

    assert count(OF_VALUES, is_value)["refused"] > 300


def test_twin_takes_what_it_took():
    betas = torch_ref.linear(np.int64(10))  # pyright: ignore[reportArgumentType]
    uniform = torch_ref.uniform(betas, 4)
    xt = torch.tensor([[0, 1, 2], [3, 2, 1]])
    t = torch.tensor([3, 4])
    logits = torch.linspace(-1, 1, 24).reshape(2, 3, 4)

    # A gradient for each example; under `torch.vmap` no value can be read.
    def loss(logits, x0, xt, t):
        return torch_ref.hybrid(uniform, logits, x0, xt, t, 0.1).loss.sum()

    x0 = xt.flip(0)
    (gradient,) = torch.autograd.functional.jacobian(lambda z: loss(z, x0, xt, t), (logits,))
    of_each = torch.vmap(torch.func.grad(loss))(logits, x0, xt, t)
    torch.testing.assert_close(of_each, gradient)

    # s may have more axes than t, or fewer.
    absorbing = torch_ref.absorbing(torch_ref.reciprocal(10), 4, mask_id=3)
    log_denoiser = torch_ref.forbid(logits, 3).log_softmax(-1)
    sigma = torch.zeros(2, 3)
    of_elements = laws.remask_logits(absorbing, log_denoiser, xt, t, torch.full((2, 3), 2), sigma)
    assert torch.equal(
        laws.remask_logits(absorbing, log_denoiser, xt, t, torch.tensor(2), sigma), of_elements
    )
    assert laws.most_remasked(absorbing, t, of_elements.argmax(-1)).shape == (2, 3)
    above_t = torch.tensor([[2, 2, 4], [2, 2, 2]])
    with pytest.raises(ValueError, match=r"s = 4 is outside \[0, t\]"):
        laws.remask_logits(absorbing, log_denoiser, xt, t, above_t, sigma)
