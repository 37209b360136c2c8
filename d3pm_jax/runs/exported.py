"""Builds the network of a file of `d3pm export` or `d3pm import`: no run is needed.

The file holds the tensors by the names of `torch_ref.models`, and as metadata in JSON what describes the
model and the head, what the data is, and K and T of the process.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from d3pm_jax.config import Config, Head, Model, Spec, io as config_io
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import parse_json
from d3pm_jax.runs.run import Run
from d3pm_jax.storage import run_folder
from d3pm_jax.weights import twin


def export(run: Run, path: Path | str, raw: bool = False) -> None:
    """Writes the weights of a run to a file of safetensors, for `denoiser` here and in `torch_ref`.

    Args:
        run: at the checkpoint that is wanted.
        path: of the file; one that is there is replaced, once the new one is whole.
        raw: write the last weights, in place of their moving average.

    Raises:
        OSError: it cannot be written.
    """
    config = dataclasses.replace(run.config, train=dataclasses.replace(run.config.train, noise=None))
    kind, params = ("raw", run.parts.state.params) if raw else ("ema", run.params)
    K, T, tree = run.process.K, run.process.T, config_io.to_json(config)
    twin.save(Path(path), params, make_metadata(tree, run.parts.description, K, T, run.step, kind))


def make_metadata(
    config: Any, description: Description, K: int, T: int, step: int, weights: str
) -> dict[str, str]:
    """Returns the texts beside the tensors.

    Args:
        config: in JSON: that of a run, or {"model", "head"} alone.
        description: of the data.
        K, T: of the process.
        step: how many updates the weights have seen.
        weights: which they are, "ema" or "raw".
    """
    return {
        "config": json.dumps(config, indent=2),
        "step": str(step),
        "weights": weights,
        "data": json.dumps(dataclasses.asdict(description)),
        "process": json.dumps({"K": K, "T": T}),
    }


def read_config(file: Path) -> Config:
    """Reads the config that `export` wrote beside the weights.

    Raises:
        UserError: the file is damaged, or holds none that can be read.
    """
    cure = f"pass one, as in d3pm import {file} CONFIG --workdir DIR"
    try:
        text = twin.read_metadata(file).get("config")
    except ValueError as error:
        raise UserError(str(error)) from error
    if text is None:
        raise UserError(f"{file} holds no config: {cure}")
    try:
        return config_io.from_json(parse_json(text.encode()))
    except (ValueError, UserError) as error:
        raise UserError(f"the config in {file} cannot be read ({one_line(error)}): {cure}") from error


def read_description(file: Path) -> Description | None:
    """Reads what `export` wrote of the data, if it did.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = twin.read_metadata(file).get("data")
        return None if text is None else run_folder.description_from_json(text.encode())
    except (ValueError, TypeError, UserError) as error:
        cure = f"pass a config, as in d3pm import {file} CONFIG --workdir DIR, which describes it"
        raise UserError(
            f"the description of the data in {file} cannot be read ({one_line(error)}): {cure}"
        ) from error


def network(file: str | Path) -> nnx.Module:
    """Builds the network with its weights: xt [B, *S], t [B], label=None [B] -> what the head takes.

    It computes in JAX's default type of floats: float64 where that is enabled.

    Raises:
        ValueError: the file is damaged, or does not describe its network.
        OSError: it cannot be read.
    """
    return _parts(Path(file))[0]


def denoiser(file: str | Path) -> Callable[..., Array]:
    """Builds the network and its head: (xt [B, *S], t [B], label=None, weight=None) -> logits of x_0.

    Raises:
        ValueError: as `network`.
    """
    module, head, K = _parts(Path(file))

    def logits(xt: Any, t: Any, label: Any = None, weight: Any = None) -> Array:
        named = {"label": label, "weight": weight}
        told = {name: jnp.asarray(x) for name, x in named.items() if x is not None}
        output = module(jnp.asarray(xt), jnp.asarray(t), **told)  # pyright: ignore[reportCallIssue]
        return head.logits(output, jnp.asarray(xt), K)

    return logits


def build_graph(model: Model, spec: Spec) -> tuple[Any, Any]:
    """Returns the graph of a network and the shapes of its parameters; nothing is computed.

    Raises:
        ValueError: there is no such network.
    """
    return nnx.split(nnx.eval_shape(lambda: model.build(spec, nnx.Rngs(0))))


def in_default_type(params: Any) -> Any:
    """Returns parameters in JAX's default type of floats."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), params)


def _parts(file: Path) -> tuple[nnx.Module, Head, int]:
    """Returns the network, the head and K."""
    texts = twin.read_metadata(file)
    try:
        config, process = (parse_json(texts[name].encode()) for name in ("config", "process"))
        model, head = (config_io.part_from_json(config[name]) for name in ("model", "head"))
        description = run_folder.description_from_json(texts["data"].encode())
        classes = getattr(model, "classes", description.classes)
        spec = Spec(description.shape, process["K"], head.outputs, classes, process["T"])
        graph, shapes = build_graph(model, spec)
    except KeyError as error:
        raise ValueError(f"{file} has no {error} in its metadata: write it with d3pm export") from error
    except (ValueError, TypeError, AttributeError, UserError) as error:
        why = one_line(error)
        raise ValueError(f"{file} does not describe its network ({why}): export it again") from error
    with jax.enable_x64(False):
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), shapes)
        params = twin.load(file, like)
    return nnx.merge(graph, in_default_type(params)), head, spec.K
