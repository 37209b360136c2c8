"""Cross entropy of hidden states and a kernel, with weights: both libraries beside functions of PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import d3pm_jax as d3pm
import torch_ref
from d3pm_jax import losses, projection

N, WIDTH = 300, 8


def inputs(K: int) -> list[np.ndarray]:
    """Hidden states, a kernel [K, width], a bias, and weights of which some are 0; x_0."""
    rng = np.random.default_rng(K)
    floats = [rng.normal(size=size) for size in ((N, WIDTH), (K, WIDTH), (K,))]
    return [*floats, rng.exponential(1.0, N) * (rng.random(N) < 0.7), rng.integers(0, K, N)]


@pytest.mark.parametrize("K", [27, 50_257])
def test_cross_entropy_is_that_of_pytorch(K: int) -> None:
    hidden, kernel, bias, weight, x0 = inputs(K)
    parts = [torch.tensor(x, requires_grad=True) for x in (hidden, kernel, bias)]
    weights, labels = torch.tensor(weight), torch.tensor(x0)

    def collect(total: torch.Tensor, values: torch.Tensor) -> list[np.ndarray]:
        gradients = torch.autograd.grad(total, parts)
        return [x.detach().numpy() for x in (total, torch.where(weights > 0, values, 0.0), *gradients)]

    nats = torch.nn.functional.cross_entropy(parts[0] @ parts[1].T + parts[2], labels, reduction="none")
    expected = collect((weights * nats).sum(), nats)
    fused = torch.nn.functional.linear_cross_entropy(
        parts[0],
        parts[1],
        labels,
        linear_bias=parts[2],
        reduction="none",
        options=torch.nn.LinearCrossEntropyOptions(),
    )
    np.testing.assert_array_less(0, np.abs(expected[2]).max())
    for theirs, x in zip(collect((weights * fused).sum(), fused), expected, strict=True):
        np.testing.assert_allclose(theirs, x, rtol=1e-9, atol=1e-12)

    with jax.enable_x64(True):
        process = d3pm.uniform(np.ones(1), K)

        @jax.jit
        def ours(
            parts: tuple[jax.Array, jax.Array, jax.Array], x0: jax.Array, weight: jax.Array
        ) -> losses.Projected:
            logits = projection.Projection(*parts, x0, lambda output, xt: output, tied=True)
            return losses.projected(process, losses.cross_entropy, logits, (x0,), weight)

        arrays = tuple(map(jnp.asarray, (hidden, kernel, bias)))
        (total, values), gradients = jax.value_and_grad(ours, has_aux=True)(
            arrays, jnp.asarray(x0), jnp.asarray(weight)
        )
        for x, y in zip((total, values, *gradients), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)

    if K == 27:  # matrices of the twin are dense
        logits = torch_ref.projection.Projection(*parts, labels, lambda output, xt: output, tied=True)
        twin = torch_ref.uniform(torch.ones(1, dtype=torch.float64), K)
        total, values = torch_ref.losses.projected(twin, torch_ref.cross_entropy, logits, (labels,), weights)
        assert not values.requires_grad
        for x, y in zip(collect(total, values), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)


def test_a_place_without_weight_may_have_an_infinite_loss() -> None:
    kernel = torch.tensor([[1.0, -1.0]], requires_grad=True)
    x0, weight = torch.tensor([1, 0]), torch.tensor([0.0, 2.0])
    process = torch_ref.absorbing(torch.ones(1), 2, 1)
    logits = torch_ref.projection.Projection(
        torch.ones(2, 1), kernel, None, x0, lambda output, xt: torch_ref.forbid(output, 1)
    )
    total, values = torch_ref.losses.projected(process, torch_ref.cross_entropy, logits, (x0,), weight)
    total.backward()
    assert (total, values.tolist()) == (0, [0, 0])
    assert kernel.grad is not None
    np.testing.assert_array_equal(kernel.grad, 0.0)


def test_a_projection_has_the_same_fields() -> None:
    ours, twins = (
        {field.name: field.default for field in dataclasses.fields(module.Projection)}
        for module in (projection, torch_ref.projection)
    )
    del ours["spread"]  # of devices
    assert ours == twins
