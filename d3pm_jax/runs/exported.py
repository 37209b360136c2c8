"""Builds the network of a file that `d3pm export` or `d3pm import` wrote; no run is needed.

The file holds the tensors by the names of `torch_ref.models`. Its metadata describes in JSON the model and
the head, the data, and K, T and any extra mask of the process.
"""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from d3pm_jax.blocks import Layout
from d3pm_jax.config import (
    DIFFUSION,
    AnyPath,
    Config,
    Head,
    Model,
    Objective,
    Spec,
    Trained,
    check_instance,
    checks_arguments,
    io as config_io,
    make_logits,
)
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.files import parse_json
from d3pm_jax.models.variables import SplitModule, split_module
from d3pm_jax.program.parts import inputs
from d3pm_jax.program.parts.network import make_dropping, make_spec
from d3pm_jax.program.storage import run_folder
from d3pm_jax.runs.run import Run
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.weights import twin


@checks_arguments
def export(run: Run, path: AnyPath, raw: bool = False) -> None:
    """Writes the weights of a run to a file of safetensors, for `denoiser` here and in `torch_ref`.

    Args:
        run: at the checkpoint that is wanted.
        path: of the file; one that is there is replaced, once the new one is whole.
        raw: write the last weights, in place of their moving average.

    Raises:
        UserError: two arrays of the network would have one name.
        OSError: it cannot be written.
    """
    check_instance("run", run, Run, "pass a run, as runs.open(folder) gives it")
    # A file of noise is one of this machine, and would make the config useless on another.
    train = dataclasses.replace(run.config.train, noise=None)
    config = config_io.to_json(dataclasses.replace(run.config, train=train))
    if raw:
        weights = "raw"
        params = run.parts.state.params
    else:
        weights = "ema"
        params = run.params
    recipe = run.parts.recipe
    metadata = make_metadata(
        config,
        run.parts.description,
        recipe.K,
        recipe.num_steps,  # T, and 0 of a flow
        run.step,
        weights,
        recipe.extra_mask,
    )
    with as_user_error():
        twin.save(Path(path), params, metadata)


def make_metadata(
    config: Any,
    description: Description,
    K: int,
    T: int,
    step: int,
    weights: str,
    extra_mask: int | None = None,
) -> dict[str, str]:
    """Makes the metadata of a file of weights: texts by name.

    Args:
        config: in JSON: that of a run, or {"model", "head"} alone.
        description: of the data.
        K, T: of the process.
        step: how many updates the weights have seen.
        weights: "ema" for averaged weights, or "raw" for the last ones.
        extra_mask: a mask of the process that the network never predicts, if there is one.
    """
    return {
        "config": json.dumps(config, indent=2),
        "step": str(step),
        "weights": weights,
        "data": json.dumps(dataclasses.asdict(description)),
        "process": json.dumps({"K": K, "T": T, "extra_mask": extra_mask}),
    }


def read_config(file: Path) -> Config:
    """Reads the config that `export` wrote beside the weights.

    Raises:
        UserError: the file is damaged, or holds none that can be read.
    """
    cure = f"pass one, as in d3pm import {shlex.quote(str(file))} CONFIG --workdir DIR"
    with as_user_error():
        text = twin.read_metadata(file).get("config")
    if text is None:
        raise UserError(f"{file} holds no config: {cure}")
    try:
        tree = parse_json(text.encode())
        own_names = config_io.own_names(tree)
        if own_names:
            raise UserError(f"it has parts of its own, {', '.join(own_names)}")
        return config_io.from_json(tree)
    except (ValueError, UserError) as error:
        raise UserError(f"the config in {file} cannot be read ({one_line(error)}): {cure}") from error


def read_description(file: Path) -> Description | None:
    """Reads the description of the data that `export` wrote, or returns None if the file has none.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = twin.read_metadata(file).get("data")
        if text is None:
            return None
        return run_folder.description_from_json(text.encode())
    except (ValueError, TypeError, UserError) as error:
        command = f"d3pm import {shlex.quote(str(file))} CONFIG --workdir DIR"
        cure = f"pass a config, as in {command}, which describes it"
        raise UserError(
            f"the description of the data in {file} cannot be read ({one_line(error)}): {cure}"
        ) from error


@checks_arguments
def network(file: AnyPath) -> nnx.Module:
    """Builds the network with its weights: xt [B, *S], t [B], label=None [B] -> what the head takes.

    A network of data with conditions takes them too, as `condition` [B, *C]; one that was trained to do
    without, by `train.drop_condition`, takes them as `training.dropping.Dropping` extends them. A flow is a
    `models.ArgmaxFlow`, f(x, u, normal) -> log weights [B], and a classifier a `models.NoisyClassifier`.

    It computes in JAX's default type of floats: float64 where that is enabled.

    Raises:
        ValueError: the file is damaged, or does not describe its network.
        OSError: it cannot be read.
    """
    return _load_network(Path(file)).module


@checks_arguments
def denoiser(file: AnyPath) -> Callable[..., Array]:
    """Builds the network and its head: (xt [B, *S], t [B], label=None, weight=None) -> logits of x_0.

    A network of data with conditions takes a fifth argument, `condition` [B, *C].

    Raises:
        ValueError: as `network`, or the file holds a flow, a classifier or a network of log scores.
    """
    module, trains, head, spec, description, extra_mask, dropping, objective = _load_network(Path(file))
    if trains not in (None, DIFFUSION):
        raise ValueError(f"{file} holds a {trains.name}, which has no logits of x_0: take network(file)")
    if head.gives != "logits":
        raise ValueError(f"{file} holds a network of {head.gives}, not of logits of x_0: take network(file)")

    def logits(xt: Any, t: Any, label: Any = None, weight: Any = None, condition: Any = None) -> Array:
        xt, t = inputs.read_examples(xt, t, description, spec.K, spec.T)
        label = inputs.read_label(label, spec.classes, len(xt))
        if weight is not None:
            weight = inputs.read_weight(weight, xt.shape)
        condition = inputs.read_condition(condition, description, dropping, len(xt))
        if condition is not None and dropping is not None:
            condition = dropping.extend_condition(jnp.asarray(condition))
        possible_inputs = {"label": label, "weight": weight, "condition": condition}
        extra_inputs = {name: jnp.asarray(x) for name, x in possible_inputs.items() if x is not None}

        def call(x: Array, t: Array, layout: Layout | None = None) -> Array:
            inputs: dict[str, Any] = dict(extra_inputs)
            if layout is not None:
                inputs["layout"] = layout
            if layout is not None and weight is not None:
                inputs["weight"] = extra_inputs["weight"][:, layout.places]
            return module(x, t, **inputs)  # pyright: ignore[reportCallIssue]

        output = objective.without_layout(call)(xt, t)
        return make_logits(head, output, xt, spec.K, extra_mask, description)

    return logits


def split_model(model: Model, spec: Spec) -> tuple[SplitModule, Any]:
    """Splits the network of a spec into what merges it and the shapes of its variables; nothing is computed.

    Raises:
        ValueError: there is no such network.
    """
    return split_module(lambda key: model.build(spec, nnx.Rngs(key)))


def in_default_type(params: Any) -> Any:
    """Returns variables with their floats in JAX's default type."""

    def convert(x: Any) -> Array:
        if jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.asarray(x, float)
        return jnp.asarray(x)

    return jax.tree.map(convert, params)


class _Loaded(NamedTuple):
    """Holds what a file says of a network."""

    module: nnx.Module  # with its weights
    trains: Trained | None  # what it is of; None: a network of the user's own
    head: Head
    spec: Spec  # the sizes that it was built for
    description: Description  # of the data
    extra_mask: int | None  # that the network never predicts
    dropping: Dropping | None  # of labels and conditions in its training
    objective: Objective  # that it was trained with; where that is the user's own, or not known, the base


def _load_network(file: Path) -> _Loaded:
    """Builds the network of a file, with its weights."""
    if file.is_dir():
        raise ValueError(run_folder.explain_folder(file))
    texts = twin.read_metadata(file)
    try:
        config = parse_json(texts["config"].encode())
        process = parse_json(texts["process"].encode())
        extra_mask = process["extra_mask"]
        model = config_io.part_from_json(config["model"])
        head = config_io.part_from_json(config["head"])
        objective = Objective()
        if "loss" in config and not config_io.own_names(config["loss"]):
            objective = config_io.part_from_json(config["loss"])
        description = run_folder.description_from_json(texts["data"].encode())
        classes = getattr(model, "classes", description.classes)
        rate = config.get("train", {}).get("drop_condition", 0.0)  # a file of `d3pm import` has none
        dropping = make_dropping(rate, classes, description)
        spec = make_spec(description, head, process["K"], process["T"], classes, dropping)
        module, _ = split_model(model, spec)
    except KeyError as error:
        raise ValueError(f"{file} has no {error} in its metadata: write it with d3pm export") from error
    except (ValueError, TypeError, AttributeError, UserError) as error:
        why = one_line(error)
        raise ValueError(f"{file} does not describe its network ({why}): export it again") from error

    # Files hold float32, also where JAX computes in float64: they are loaded as they are, and converted then.
    with jax.enable_x64(False):
        _, shapes = split_model(model, spec)
        params = twin.load(file, shapes)
    module = module.merge(in_default_type(params))
    return _Loaded(module, model.trains, head, spec, description, extra_mask, dropping, objective)
