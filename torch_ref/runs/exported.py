"""Opens the network of a run from the file of `d3pm export RUN --to torch`: JAX is not needed.

The file holds the tensors by the names of `torch_ref.models`, and as metadata in JSON the config of the run,
what its data is, and K and T of its process.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref import heads, models
from torch_ref.beliefs import Belief
from torch_ref.blocks import Layout, fill_blocks

__all__ = ["denoiser", "logits_keywords", "network"]


def network(file: str | Path) -> nn.Module:
    """Returns the network with its weights, in eval mode: xt [B, *S], t [B], label [B] -> input of the head.

    Networks of data with conditions take them too, as `condition` [B, *C].

    A network that was trained to do without labels or conditions, by `train.drop_condition`, has one label
    more, the null label. Its conditions have one feature more at the end of the last axis: it is 0, and in a
    null condition it is 1 and all else is 0.

    A classifier of noised examples takes one-hots [B, *S, K] and t [B], and gives logits of the label.

    Raises:
        ValueError: the file is not of `d3pm export`, or the network is one of the user's own.
    """
    config, data, process = metadata(file)
    options: dict[str, Any] = dict(config["model"])
    name = options.pop("class")
    # A module of PyTorch computes in the type of its weights, and keeps what its backward pass needs.
    for only_in_jax in ("attention", "compute", "remat"):
        options.pop(only_in_jax, None)
    if name not in models.__all__:
        raise ValueError(
            f"{name} is not one of {models.__all__}: build your own network, and load the tensors into it"
        )
    K = process["K"]
    T = options.pop("max_time", None) or process["T"]
    shape = tuple(data["shape"])
    if name == "NoisyClassifier":
        options["shape"] = shape
        options["classes"] = data["classes"]
    else:
        options["num_classes"] = options.pop("classes")
        if options["num_classes"] is not None and drops_inputs(config):
            options["num_classes"] += 1
    if name in ("UNet", "Transformer", "MLP"):
        options["condition"] = None
        if data["condition"] is not None:
            condition = list(data["condition"])
            if drops_inputs(config):
                condition[-1] += 1
            options["condition"] = tuple(condition)
    if name in ("UNet", "ScoreNet"):
        options["channels"] = shape[-1]
    if name == "UNet":
        options["size"] = shape[:-1]
        options["outputs"] = None
        if config["head"]["class"] == "LogisticHead":
            options["outputs"] = 2
    sizes = data.get("sizes")
    if name == "Transformer":
        options["sizes"] = sizes
        if sizes is not None or options.get("positions", "rotary") != "rotary":
            options["shape"] = shape
    if name == "MLP":
        max_time = T if options.pop("see_time") else None
        num_classes = options.pop("num_classes")
        condition = options.pop("condition")
        inputs = models.Inputs(shape, K, max_time, num_classes, condition, sizes)
        module = models.MLP(inputs, **options)
    else:
        module = getattr(models, name)(K=K, max_time=T, **options)
    module.load_state_dict(safetensors.torch.load_file(file))
    return module.eval()


def denoiser(file: str | Path) -> Callable[..., Tensor]:
    """Returns the network with its head: (xt [B, *S], t [B], label, weight) -> logits of x_0 [B, *S, K].

    A network of data with conditions takes a fifth argument, `condition` [B, *C].

    Raises:
        ValueError: as `network`, or the head is one of the user's own, or the file holds a classifier or a
            network of log scores.
    """
    module = network(file)
    if isinstance(module, models.NoisyClassifier):
        raise ValueError(f"{file} holds a classifier, which has no logits of x_0: take network(file)")
    config, data, process = metadata(file)
    head = config["head"]
    K = process["K"]
    extended = drops_inputs(config)
    if head["class"] == "ScoreHead":
        raise ValueError(f"{file} holds a network of log scores, not of logits of x_0: take network(file)")
    if head["class"] not in ("Head", "LogisticHead"):
        raise ValueError(f"{head['class']} is a head of your own: call it on what `network` gives")
    if "extra_mask" not in process:
        raise ValueError(f"{file} has no 'extra_mask' in its metadata: write it with d3pm export")

    def apply_head(output: Tensor, xt: Tensor) -> Tensor:
        if head["class"] == "Head":
            x = output
            if head["residual"]:
                x = heads.residual(output, xt)
        elif not head["residual"]:
            x = heads.bounded_logistic(output, K)
        elif head.get("input_range") is None:
            x = heads.residual_logistic(output, xt, K)
        else:
            least, greatest = head["input_range"]
            scaled = 2 * (xt.to(output.dtype) - least) / (greatest - least) - 1
            x = heads.bounded_logistic(output + F.pad(scaled[..., None], (0, 1)), K)

        if process["extra_mask"] is not None:
            x = heads.forbid(x, process["extra_mask"])
            x = heads.forbid_beyond(x, np.full(x.shape[1:-1], data["categories"]))
        if data.get("sizes") is not None:
            x = heads.forbid_beyond(x, np.array(data["sizes"]))
        return x

    def logits(
        xt: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        weight: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        # Only a network of sequences takes a weight, which is 0 on padding, and only a U-Net a condition.
        extra_inputs: dict[str, Any] = {}
        if weight is not None:
            extra_inputs["weight"] = weight
        if condition is not None and extended and tuple(condition.shape[1:]) == tuple(data["condition"]):
            condition = F.pad(condition, (0, 1))  # no condition is null
        if condition is not None:
            extra_inputs["condition"] = condition
        if xt.is_floating_point():
            raise ValueError(f"xt is {xt.dtype}: pass integers, categories in 0..{K - 1}")
        if not isinstance(t, Tensor) or t.shape != xt.shape[:1]:
            raise ValueError(f"t is {t}: pass a tensor [{len(xt)}], a step for each of xt")

        def call(x: Tensor, layout: Layout | None = None) -> Tensor:
            inputs: dict[str, Any] = dict(extra_inputs)
            if layout is not None:
                inputs["layout"] = layout
            if layout is not None and weight is not None:
                inputs["weight"] = weight[:, layout.places]
            return module(x, t, label, **inputs)

        loss = config.get("loss", {})  # a file of `d3pm import` has none
        call_of_loss = fill_blocks(call, loss["block"]) if loss.get("class") == "Blocks" else call
        try:
            return apply_head(call_of_loss(xt), xt)
        except (IndexError, RuntimeError) as error:
            # Values are looked at only where they could not be embedded: to read them at every call would
            # break a compiled function in two, and wait for the device.
            if xt.numel() and (xt.min() < 0 or xt.max() >= K):
                limits = f"{xt.min()}..{xt.max()}"
                raise ValueError(f"xt is {xt.dtype} in {limits}: pass categories in 0..{K - 1}") from error
            if isinstance(error, IndexError) and data.get("sizes") is not None:
                raise ValueError(
                    f"xt holds a category that its place lacks: the places have {data['sizes']}"
                ) from error
            raise

    return logits


def drops_inputs(config: dict[str, Any]) -> bool:
    """Tells whether a run drops labels and conditions of examples, so that its network takes null inputs."""
    return config.get("train", {}).get("drop_condition", 0.0) > 0


def logits_keywords(file: str | Path) -> dict[str, Belief]:
    """Returns what the logits are: the keyword `belief` of `p_logits` and `posterior_kl`."""
    return {"belief": metadata(file)[0]["loss"].get("belief", "d3pm")}


def metadata(file: str | Path) -> list[dict[str, Any]]:
    """Reads the config, the data and the process of the run.

    Raises:
        ValueError: the file is not of `d3pm export`.
    """
    cure = "pass the file that d3pm export RUN --to torch writes"
    if Path(file).is_dir():
        raise ValueError(f"{file} is a folder: {cure}")
    try:
        with safetensors.safe_open(file, "pt") as opened:
            texts = opened.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file ({error}): {cure}") from error
    try:
        return [json.loads(texts[name]) for name in ("config", "data", "process")]
    except KeyError as error:
        raise ValueError(f"{file} has no {error} in its metadata: write it with d3pm export") from error
