"""The U-Net beside its twin: the same weights, none of them zero, and the same input."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from d3pm_jax import models
from d3pm_jax.models import convert
from parity_tests import compare
from parity_tests.compare import Row
from parity_tests.frameworks import precision
from torch_ref import models as torch_models

# On the scale of the largest entry of the arrays of a layer: the gradient of a key's bias is exactly 0.
TOLERANCES = {
    "float64": {"forward": 1e-11, "gradient": 1e-10},
    "float32": {"forward": 1e-5, "gradient": 1e-4},
}
SHAPE = (3, 8, 8, 1)
COMMON = {"K": 5, "channels": 1, "size": 8, "max_time": 100, "ch": 8, "groups": 4}
CASES = {
    "attention everywhere": COMMON | {"ch_mult": (1, 2), "num_res_blocks": 2, "attn_resolutions": (8, 4)},
    "one-hot input": COMMON | {"ch_mult": (1, 2, 2), "num_res_blocks": 1, "onehot_input": True},
}


def rows(dtype: str) -> Iterator[Row]:
    """The forward pass and the gradient of sum(w * output) with respect to every parameter."""
    for case, options in CASES.items():
        with precision(dtype):
            ours, theirs = _evaluate(options, dtype)
        for name, tensor in theirs.items():
            what = "forward" if name == "output" else "gradient"
            layer = name.rpartition(".")[0]
            scale = np.max([np.abs(x).max() for k, x in theirs.items() if k.rpartition(".")[0] == layer])
            difference, note = compare.arrays(tensor, ours[name], scale, dtype)
            label = f"{case}, {name}"
            yield Row("UNet", label, dtype, f"torch = jit {what}", *difference, TOLERANCES[dtype][what], note)


def _evaluate(options: dict, dtype: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The output and every gradient, by the names of the twin, from JAX and from PyTorch."""
    rng = np.random.default_rng(0)
    xt, t = rng.integers(0, options["K"], SHAPE), np.array([1, 40, 100])
    weight = rng.normal(size=(*SHAPE, options["K"])).astype(dtype)
    graphdef, params = nnx.split(models.UNet(**options, rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.2, dtype), params)

    @jax.jit
    def jax_loss(params, xt, t):
        output = nnx.merge(graphdef, params)(xt, t)
        return jnp.sum(output * jnp.asarray(weight)), output

    gradients, output = jax.grad(jax_loss, has_aux=True)(params, jnp.asarray(xt, jnp.int32), jnp.asarray(t))
    twin = torch_models.UNet(**options).eval()
    twin.load_state_dict({k: torch.tensor(v) for k, v in convert.to_torch(params).items()})
    twin_output = twin(torch.tensor(xt), torch.tensor(t))
    (twin_output * torch.tensor(weight)).sum().backward()
    theirs = {k: p.grad.numpy() for k, p in twin.named_parameters() if p.grad is not None}
    return (
        convert.to_torch(gradients) | {"output": np.asarray(output)},
        theirs | {"output": twin_output.detach().numpy()},
    )
