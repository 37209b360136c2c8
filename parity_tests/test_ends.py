"""Value and gradient exactly where a number is raised to an end, or lowered to one.

Frameworks differ there, and versions of one: at its end `torch.clamp` has the gradient 1 in PyTorch 2.13, and
0 in 2.15, and `jnp.maximum` has a half. The twin says which side it takes, and it is that of JAX.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import d3pm_jax
import torch_ref
from d3pm_jax import models
from d3pm_jax.sampling import laws
from parity_tests import frameworks, run
from parity_tests.cases import Case
from parity_tests.frameworks import precision
from torch_ref import models as torch_models
from torch_ref.sampling import laws as torch_laws

INF = np.inf
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}


def _ends(dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """Arguments at and beside the end, by the name of the function."""
    # As near as floats come to where softplus(u) is the smallest number, on both sides.
    log_tiny = np.log(np.finfo(dtype).tiny).astype(dtype)
    around_tiny = [np.nextafter(log_tiny, log_tiny - 1), log_tiny, np.nextafter(log_tiny, log_tiny + 1)]
    return {
        # max(exp(a), 1), where training starts.
        "flows.bounded_log_scale": {
            "raw": np.array([0.7, -2.0, 0.3]),
            "log_bound": np.array([0.0, 0.0, 0.1]),
        },
        # JAX takes the Gumbel for u above 37, the twin above 40.
        "flows.gumbel_threshold": {
            "u": np.array([[37.0, 1.0, -2.0], [40.0, 0.5, 40.0], [38.0, 41.0, 37.0]]),
            "x": np.array([0, 0, 2]),
            "phi": np.array([[0.3, -1.0, 2.0], [0.0, 1.0, 0.5], [2.0, 0.1, -0.3]]),
        },
        "flows.signed_softplus": {"u": np.array([*around_tiny, -1e4]), "bits": np.array([1, 0, 1, 0])},
        # Rates whose sum is 1, below and above.
        "sampling.laws.euler_logits": {
            "log_rate": np.array([[-INF, 0.0, -INF], [-INF, -1.5, -1.0], [-INF, 0.0, 0.5]]),
            "xt": np.zeros(3, int),
        },
    }


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", _ends("float64"))
def test_value_and_gradient_at_an_end(name: str, dtype: str) -> None:
    case = Case("ends", _ends(dtype)[name])
    with precision(dtype):
        twin = run.call_torch(name, case, dtype)
        weights = [frameworks.weight(x, i) for i, x in enumerate(twin.outputs)]
        ours = run.call_jax(name, case, dtype, True, weights)
    assert set(ours.gradients) == set(run.PAIRS[name].differentiable) & set(case.args)
    pairs = list(zip(twin.outputs, ours.outputs, strict=True))
    pairs += [(twin.gradients[argument], gradient) for argument, gradient in ours.gradients.items()]
    for actual, expected in pairs:
        np.testing.assert_allclose(actual, expected, TOLERANCES[dtype], TOLERANCES[dtype])


def test_most_remasked_at_its_end() -> None:
    """min(1, (1 - alpha_s) / alpha_t) of 1 has no gradient, by tables of JAX and by betas of the twin."""
    t = np.array([1])
    with precision("float64"):
        process = d3pm_jax.absorbing(np.array([0.5, 1.0]), 3, 2)
        step = jnp.asarray(t)
        ours, pull_back = jax.vjp(lambda process: laws.most_remasked(process, step, step), process)
        tables = jax.tree.leaves(pull_back(jnp.ones(1))[0])
        beta = torch.tensor([0.5, 1.0], requires_grad=True)
        process = torch_ref.absorbing(beta, 3, 2)
        theirs = torch_laws.most_remasked(process, torch.tensor(t), torch.tensor(t))
        (by_beta,) = torch.autograd.grad(theirs.sum(), [beta], materialize_grads=True)
    assert ours.tolist() == theirs.tolist() == [1]
    assert not any(np.any(x) for x in tables if jnp.issubdtype(x.dtype, jnp.floating))
    np.testing.assert_array_equal(by_beta, 0.0)


def test_weights_of_time_at_their_ends() -> None:
    """Number i of n stands at i T / n: before the first the gradient by t is 0, at each that of a side."""
    K, T = 3, 6
    options: dict[str, Any] = {"K": K, "channels": 1, "max_time": T, "ch": 2, "ch_mult": (1,), "attn": ()}
    options |= {"groups": 1, "num_res_blocks": 1, "time_dependent_weights": (1.0, 3.0, 2.0)}

    # Without the convolutions time enters by its weights alone.
    class Ours(models.ScoreNet):
        def _run(self, x: Any, temb: Any, cemb: Any, key: Any) -> Any:
            return x

    class Twin(torch_models.ScoreNet):
        def run(self, x: Any, temb: Any, cemb: Any = None) -> Any:
            return x.double()

    t = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    with precision("float64"):
        graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Ours(**options, rngs=nnx.Rngs(0))))
        params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        xt = np.zeros((len(t), 1, 1, 1), int)

        def first_logits(t: Any) -> Any:
            return nnx.merge(graphdef, params)(jnp.asarray(xt), t)[..., 0].sum()

        value, gradient = jax.jit(jax.value_and_grad(first_logits))(jnp.asarray(t))
        time = torch.tensor(t, requires_grad=True)
        output = Twin(**options)(torch.tensor(xt), time)[..., 0].sum()
        output.backward()
    assert time.grad is not None
    share = 1 - 1 / K  # of the first logit, less their mean
    np.testing.assert_allclose(gradient, share * np.array([0, 1, 1, -0.5, -0.5, -0.5]), 1e-12)
    np.testing.assert_allclose(time.grad, gradient, 1e-12)
    np.testing.assert_allclose(output.item(), value, 1e-12)
