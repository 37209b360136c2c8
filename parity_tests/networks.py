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
from parity_tests.compare import TOLERANCES, Row, free
from parity_tests.frameworks import precision, to_jax, to_torch
from torch_ref import models as torch_models

SHAPE = (3, 8, 8, 1)
COMMON = {"K": 5, "channels": 1, "size": 8, "max_time": 100, "ch": 8, "groups": 4}
CASES = {
    "two levels": COMMON
    | {"ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (8, 4), "onehot_input": True},
    "one level": COMMON | {"ch_mult": (1,), "num_res_blocks": 2, "outputs": 2},
}
Arrays = dict[str, np.ndarray]


def rows(dtype: str) -> Iterator[Row]:
    """The output, and the gradient of sum(w * output) with respect to every parameter.

    The scale is the largest entry of a layer: the gradient of the bias of `k` alone is exactly 0.
    """
    for case, options in CASES.items():
        with precision(dtype), jax.default_matmul_precision("highest"):
            ours, theirs = _evaluate(options, dtype)
        yield from _compare(case, dtype, "torch = jit", theirs, ours)


def cost(matmul: str) -> Iterator[Row]:
    """The same of JAX with this matmul precision beside JAX with the highest, held to no tolerance."""
    for case, options in CASES.items():
        found = {}
        for name in (matmul, "highest"):
            with precision("float32"), jax.default_matmul_precision(name):
                found[name] = _evaluate(options, "float32")[0]
        who = f"{matmul} = highest"
        yield from (free(row) for row in _compare(case, "float32", who, found[matmul], found["highest"]))


def _compare(case: str, dtype: str, who: str, a: Arrays, b: Arrays) -> Iterator[Row]:
    for name, x in a.items():
        what = "forward" if name == "output" else "parameter"
        layer = name.rpartition(".")[0]
        scale = np.max([np.abs(y).max() for k, y in a.items() if k.rpartition(".")[0] == layer])
        parts, note = compare.arrays(x, b[name], scale, dtype)
        yield Row("UNet", f"{case}, {name}", dtype, f"{who} {what}", *parts, TOLERANCES[dtype][what], note)


def _evaluate(options: dict, dtype: str) -> tuple[Arrays, Arrays]:
    """The output and every gradient, by the names of the twin, from JAX and from PyTorch."""
    rng = np.random.default_rng(0)
    xt, t = rng.integers(0, options["K"], SHAPE), np.array([1, 40, 100])
    w = rng.normal(size=(*SHAPE, options.get("outputs", options["K"]))).astype(dtype)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: models.UNet(**options, rngs=nnx.Rngs(0))))
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.2, dtype), params)

    def loss(params, xt, t, w):
        output = nnx.merge(graphdef, params)(xt, t)
        return jnp.sum(output * w), output

    gradients, output = jax.jit(jax.grad(loss, has_aux=True))(params, *map(to_jax, (xt, t, w)))
    twin = torch_models.UNet(**options).eval()
    twin.load_state_dict({k: torch.tensor(v) for k, v in convert.to_torch(params).items()})
    return convert.to_torch(gradients) | {"output": np.asarray(output)}, _of_twin(twin, xt, t, w)


def _of_twin(twin: torch_models.UNet, *args: np.ndarray) -> Arrays:
    xt, t, w = map(to_torch, args)
    output = twin(xt, t)
    gradients = torch.autograd.grad((output * w).sum(), list(twin.parameters()))
    named = zip(dict(twin.named_parameters()), gradients, strict=True)
    return {k: g.numpy() for k, g in named} | {"output": output.detach().numpy()}
