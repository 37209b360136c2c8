"""The networks beside their twins: the same weights, none of them zero, and the same input."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from d3pm_jax import blocks, models
from d3pm_jax.weights import twin as twin_weights
from parity_tests import compare
from parity_tests.compare import TOLERANCES, Row, without_tolerance
from parity_tests.frameworks import precision, to_jax, to_torch
from torch_ref import blocks as torch_blocks, models as torch_models

Arrays = dict[str, np.ndarray]
B = 3
MAX_TIME = 100
OUTPUTS = "output", "output without labels"


class NetworkCase(NamedTuple):
    """A network by the name of its class in both libraries, the shape of its input, and its options."""

    network: str
    shape: tuple[int, ...]  # *S of x_t
    options: dict[str, Any]
    block: int | None = None  # x_t is two examples beside each other, in blocks of so many places


UNET = {"K": 5, "channels": 1, "max_time": MAX_TIME, "ch": 8, "groups": 4}
CASES = {
    "two levels": NetworkCase(
        "UNet",
        (8, 8, 1),
        UNET
        | {"size": 8, "ch_mult": (1, 2), "num_res_blocks": 0, "attn_resolutions": (8, 4)}
        | {"onehot_input": True, "num_heads": 2, "groups": 32, "channels_per_group": 4}
        | {"attention_eps": 1e-2, "input_range": (-1.0, 9.0)},
    ),
    "padded, with classes": NetworkCase(
        "UNet",
        (7, 6, 2),
        UNET
        | {"channels": 2, "size": (7, 6), "ch_mult": (1, 1), "num_res_blocks": 2}
        | {"outputs": 2, "num_classes": 3},
    ),
    "vector as condition": NetworkCase(
        "UNet",
        (8, 8, 1),
        UNET | {"size": 8, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": (), "condition": (3,)},
    ),
    # Rows are doubled and columns are made four.
    "image as condition, with classes": NetworkCase(
        "UNet",
        (6, 4, 2),
        UNET
        | {"channels": 2, "size": (6, 4), "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": ()}
        | {"onehot_input": True, "num_classes": 3, "condition": (3, 1, 2)},
    ),
    "binary, with classes": NetworkCase(
        "ScoreNet",
        (4, 7, 1),
        {"K": 2, "channels": 1, "max_time": MAX_TIME, "ch": 8, "groups": 2, "ch_mult": (1, 2), "attn": (0,)}
        | {"num_res_blocks": 1, "time_dependent_weights": (1.0, 3.0, 2.0), "num_classes": 3},
    ),
    "sequences, with classes and padding": NetworkCase(
        "Transformer",
        (9,),
        {"K": 5, "max_time": MAX_TIME, "width": 12, "num_layers": 3, "num_heads": 3, "num_classes": 3},
    ),
    "noised images": NetworkCase(
        "NoisyClassifier",
        (3, 4, 1),
        {"shape": (3, 4, 1), "K": 5, "classes": 3, "max_time": MAX_TIME, "width": 12, "embedding": 2},
    ),
    # One place has more categories than are made one-hots, and all have a mask.
    "places of several sizes, with classes": NetworkCase(
        "MLP",
        (2, 3),
        {"K": 71, "max_time": MAX_TIME, "width": 12, "num_layers": 2, "num_classes": 3}
        | {"shape": (2, 3), "condition": (2, 2), "sizes": ((2, 2, 5), (70, 3, 2))},
    ),
    "tied weights": NetworkCase(
        "Transformer",
        (6,),
        {"K": 5, "max_time": MAX_TIME, "width": 8, "num_layers": 2, "num_heads": 2, "tied": True},
    ),
    "a grid": NetworkCase(
        "Transformer",
        (2, 3),
        {"K": 5, "max_time": MAX_TIME, "width": 12, "num_layers": 2, "num_heads": 3, "see_time": False}
        | {"positions": "grid", "shape": (2, 3), "condition": (3,)},
    ),
    "learned positions of several sizes": NetworkCase(
        "Transformer",
        (2, 3),
        {"K": 6, "max_time": MAX_TIME, "width": 8, "num_layers": 2, "num_heads": 1, "num_classes": 3}
        | {"positions": "learned", "shape": (2, 3), "sizes": ((2, 2, 5), (3, 3, 2))},
    ),
    "a layout of blocks, with padding": NetworkCase(
        "Transformer",
        (8,),
        {"K": 5, "max_time": MAX_TIME, "width": 8, "num_layers": 2, "num_heads": 2, "see_time": False}
        | {"positions": "learned", "shape": (4,)},
        block=2,
    ),
    "sequences, without time": NetworkCase(
        "Transformer",
        (6,),
        {"K": 3, "max_time": MAX_TIME, "width": 8, "num_layers": 2, "num_heads": 1, "see_time": False},
    ),
}


def rows(dtype: str, *names: str) -> Iterator[Row]:
    """The output, without labels too, and the gradient of sum(w * output) for every trained parameter.

    Of the cases of these names, or of all. The scale is the largest entry of a layer: the gradient of the
    bias of `k` alone is exactly 0.
    """
    for name in names or CASES:
        with precision(dtype), jax.default_matmul_precision("highest"):
            in_jax, in_torch = _evaluate(CASES[name], dtype)
        yield from _compare(name, dtype, "torch = jit", in_torch, in_jax)


def cost(matmul: str) -> Iterator[Row]:
    """The rows of JAX with this matmul precision beside JAX with the highest, held to no tolerance."""
    for name, case in CASES.items():
        with precision("float32"), jax.default_matmul_precision(matmul):
            cheaper, _ = _evaluate(case, "float32")
        with precision("float32"), jax.default_matmul_precision("highest"):
            best, _ = _evaluate(case, "float32")
        for row in _compare(name, "float32", f"{matmul} = highest", cheaper, best):
            yield without_tolerance(row)


def _compare(name: str, dtype: str, sides: str, actual: Arrays, expected: Arrays) -> Iterator[Row]:
    largest: dict[str, float] = {}  # of each layer, by its name
    for parameter, x in actual.items():
        layer = _layer(parameter)
        # Logits of what a place cannot be are -inf.
        largest[layer] = max(np.abs(x[np.isfinite(x)]).max(), largest.get(layer, 0.0))

    for parameter, x in actual.items():
        quantity = "forward" if parameter in OUTPUTS else "parameter"
        scale = np.asarray(largest[_layer(parameter)])
        difference = compare.compare_arrays(x, expected[parameter], scale, dtype)
        yield compare.make_row(
            CASES[name].network,
            f"{name}, {parameter}",
            dtype,
            f"{sides} {quantity}",
            difference,
            TOLERANCES[dtype][quantity],
        )


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def bfloat16_errors(name: str) -> tuple[float, float]:
    """The error of the output in bfloat16, of our network and of PyTorch's, in root mean square.

    Both compute from the same weights and are held to float64. The twin is cast as a whole, but for the
    frequencies of time: at 100 turns for t = T, PyTorch would lose the time itself.
    """
    case = CASES[name]
    with precision("float64"):
        inputs = _inputs(case)
        state_dict = twin_weights.to_torch(_parameters(case, "float32"))
        exact = _twin(case, state_dict)(**_tensors(case, inputs)).detach().numpy()
    with precision("float32"):
        twin = _twin(case, state_dict).bfloat16()
        if "frequencies" in state_dict:
            twin.frequencies.data = torch.tensor(state_dict["frequencies"])
        in_torch = twin(**_tensors(case, inputs)).detach().double().numpy()
        model = _function(case, jnp.bfloat16)
        in_jax = jax.jit(model)(_parameters(case, "float32"), {k: to_jax(x) for k, x in inputs.items()})
    assert in_jax.dtype == jnp.float32
    return _root_mean_square(np.asarray(in_jax) - exact), _root_mean_square(in_torch - exact)


def _root_mean_square(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


def twin_and_inputs(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """The twin of a case, in float32, and its arguments."""
    case = CASES[name]
    with precision("float32"):
        return _twin(case, twin_weights.to_torch(_parameters(case, "float32"))), _tensors(case, _inputs(case))


def _evaluate(case: NetworkCase, dtype: str) -> tuple[Arrays, Arrays]:
    """The outputs and every gradient, by the names of the twin, from JAX and from PyTorch."""
    params = _parameters(case, dtype)
    inputs = _inputs(case)
    model = _function(case)
    jax_inputs = {k: to_jax(x) for k, x in inputs.items()}
    shape = jax.eval_shape(model, params, jax_inputs).shape
    w = np.random.default_rng(1).normal(size=shape).astype(dtype)

    def loss(params: Any, inputs: Any, w: Any) -> Any:
        outputs = {k: model(params, x) for k, x in _calls(inputs).items()}
        return jnp.sum(outputs["output"] * w), outputs

    gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(params, jax_inputs, to_jax(w))
    in_jax = twin_weights.to_torch(gradients) | {k: np.asarray(y) for k, y in outputs.items()}
    return in_jax, _evaluate_twin(case, _twin(case, twin_weights.to_torch(params)), inputs, w)


def _inputs(case: NetworkCase) -> Arrays:
    rng = np.random.default_rng(0)
    xt = rng.integers(0, case.options["K"], (B, *case.shape))
    if "sizes" in case.options:
        # Half of the places hold the mask, the last category.
        is_masked = rng.random(xt.shape) < 0.5
        xt = np.where(is_masked, case.options["K"] - 1, xt % np.array(case.options["sizes"]))
    if case.network == "NoisyClassifier":
        # Clean examples too, and one-hots that are none, as a gradient in them is taken.
        one_hots = np.eye(case.options["K"])[xt] + rng.normal(size=(*xt.shape, case.options["K"])) / 9
        return {"one_hots": one_hots, "t": np.array([0, 40, MAX_TIME])}
    inputs = {"xt": xt, "t": np.array([1, 40, MAX_TIME])}
    if case.network == "Transformer":
        inputs["weight"] = (xt < 3).astype(np.float32)
    if case.block is not None:
        inputs["weight"][:, :: case.block] = 1.0  # a block of padding alone would see nothing
    if "num_classes" in case.options:
        inputs["label"] = np.array([2, 0, 1])
    condition = case.options.get("condition")
    if condition is not None and len(condition) == 3:
        # An image has integers, which the networks convert.
        inputs["condition"] = rng.integers(0, case.options["K"], (B, *condition))
    elif condition is not None:
        inputs["condition"] = rng.normal(size=(B, *condition)).astype(np.float32)
    return inputs


def _calls(inputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The arguments of each output: a network with classes is called without labels too."""
    output, output_without_labels = OUTPUTS
    calls = {output: inputs}
    if "label" in inputs:
        calls[output_without_labels] = {k: x for k, x in inputs.items() if k != "label"}
    return calls


def make_twin(case: NetworkCase) -> Any:
    """The network of PyTorch."""
    return getattr(torch_models, case.network)(**_arguments(torch_models, case))


def split(case: NetworkCase, **more: Any) -> tuple[Any, Any]:
    """The network of JAX without its parameters, and their shapes."""
    network = getattr(models, case.network)
    arguments = _arguments(models, case) | more
    return nnx.split(nnx.eval_shape(lambda: network(**arguments, rngs=nnx.Rngs(0))))


def _arguments(library: Any, case: NetworkCase) -> dict[str, Any]:
    """The options of a network as its arguments: some networks have their inputs as one."""
    if case.network != "MLP":
        return case.options
    names = library.Inputs.__annotations__
    inputs = library.Inputs(**{name: x for name, x in case.options.items() if name in names})
    return {"inputs": inputs} | {name: x for name, x in case.options.items() if name not in names}


def _parameters(case: NetworkCase, dtype: str) -> Any:
    """Normal of standard deviation 0.2, but 30 for the frequencies of time."""
    rng = np.random.default_rng(2)

    def draw(path: tuple, x: Any) -> jax.Array:
        is_frequency = "frequencies" in jax.tree_util.keystr(path)
        deviation = 30.0 if is_frequency else 0.2
        return jnp.asarray(rng.normal(size=x.shape) * deviation, dtype)

    return jax.tree_util.tree_map_with_path(draw, split(case)[1])


def _function(case: NetworkCase, dtype: Any = None) -> Callable[[Any, dict], jax.Array]:
    """The network as a function (params, inputs) -> output, which computes in dtype."""
    # A classifier computes in the type of its parameters alone.
    options = {} if dtype is None else {"dtype": dtype}
    graphdef = split(case, **options)[0]
    return lambda params, inputs: nnx.merge(graphdef, params)(**inputs, **_layout(blocks, case))


def _twin(case: NetworkCase, state_dict: Arrays) -> Any:
    twin = make_twin(case).eval()
    twin.load_state_dict({k: torch.tensor(v) for k, v in state_dict.items()})
    return twin


def _tensors(case: NetworkCase, inputs: Arrays) -> dict[str, Any]:
    return {k: to_torch(x) for k, x in inputs.items()} | _layout(torch_blocks, case)


def _layout(library: Any, case: NetworkCase) -> dict[str, Any]:
    """The layout of the places as an argument, where a case has one."""
    if case.block is None:
        return {}
    return {"layout": library.block_layout(case.shape[0] // 2, case.block)}


def _evaluate_twin(case: NetworkCase, twin: Any, inputs: Arrays, w: np.ndarray) -> Arrays:
    outputs = {k: twin(**_tensors(case, x)) for k, x in _calls(inputs).items()}
    trained = {k: p for k, p in twin.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad((outputs["output"] * to_torch(w)).sum(), list(trained.values()))
    arrays = {k: g.numpy() for k, g in zip(trained, gradients, strict=True)}
    return arrays | {k: y.detach().numpy() for k, y in outputs.items()}
