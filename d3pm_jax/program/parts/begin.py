"""Begins a run from the weights of another one, or of a file, in place of random ones."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from d3pm_jax.config import AnyPath, Config, check_instance, checks_arguments, describe_data, io as config_io
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.models.variables import name_leaves
from d3pm_jax.placing import fetch
from d3pm_jax.program.machine import cluster, devices
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint, lock, names, run_folder
from d3pm_jax.types import Params
from d3pm_jax.weights import twin


class StartWeights(NamedTuple):
    """Holds the weights that a run begins from: the averaged ones of another run, on the host."""

    K: int  # categories that they were trained with
    params: Params


def weights_of(parts: build.Parts) -> StartWeights:
    """Returns the averaged weights of a run, on the host."""
    return StartWeights(parts.recipe.K, fetch(parts.state.ema))


def match_weights(parts: build.Parts, weights: StartWeights) -> Params:
    """Returns the weights of another run in the structure of the parameters of this one.

    Raises:
        UserError: the weights are of another K or another network.
    """
    cure = "change the config, or begin from another run"
    if weights.K != parts.recipe.K:
        raise UserError(f"the weights are for K = {weights.K}, this run has K = {parts.recipe.K}: {cure}")

    shapes = _shapes_by_name(weights.params)
    expected_shapes = _shapes_by_name(parts.state.params)
    for name in [*expected_shapes, *shapes]:
        shape = shapes.get(name, "none")
        expected = expected_shapes.get(name, "none")
        if shape != expected:
            raise UserError(
                f"the weights are of another network ({name}: {shape}, expected {expected}): {cure}"
            )

    # Names and shapes are the same, so the order of the leaves is too. The structures themselves may differ,
    # as they hold the metadata of another network.
    return jax.tree.unflatten(jax.tree.structure(parts.state.params), jax.tree.leaves(weights.params))


def _shapes_by_name(params: Params) -> dict[str, Any]:
    """Returns the shape of every leaf by its path, such as "layers.qkv.kernel"; of integers with the type."""
    return {
        name: leaf.shape if jnp.issubdtype(leaf.dtype, jnp.floating) else f"{leaf.dtype} {leaf.shape}"
        for name, leaf in zip(name_leaves(params), jax.tree.leaves(params), strict=True)
    }


@checks_arguments
def import_weights(
    file: AnyPath, config: Config, workdir: AnyPath, description: Description | None = None
) -> None:
    """Begins a run from a file of weights, which become its step 0.

    The file is one of `export`, or one that PyTorch wrote.

    Args:
        file: of safetensors, with the tensors of a network of `torch_ref.models` under its names.
        config: of the run.
        workdir: where it is written; a folder without a run.
        description: of the data, where that is known without it.

    Raises:
        UserError: the folder is not empty, or the tensors are not those of the network of the config.
    """
    config_io.check_config(config)
    check_instance("description", description, Description | None, "pass the data.Description of the data")
    begin_from_file(Path(file), config, Path(workdir), description)


def begin_from_file(file: Path, config: Config, workdir: Path, description: Description | None) -> None:
    """Begins a run from a file of weights as `import_weights` does, by a config that was checked."""
    if file.is_dir():
        raise UserError(run_folder.explain_folder(file))
    run_folder.check_empty(workdir)
    devices.use_all_cores(1)
    completed = complete(config, description or describe_data(config.data))
    parts = build.build(completed, mesh=devices.mesh_of(config.mesh.fsdp, asked=False))
    with as_user_error():
        params = twin.load(file, parts.state.params)
    begin_run(parts, workdir, params)


def begin_run(parts: build.Parts, workdir: Path, params: Params) -> None:
    """Writes step 0 of a new run, whose weights and their average are these parameters.

    Raises:
        UserError: the folder holds a run, or another process is writing to it.
    """
    with lock.hold_folder(workdir):
        write_first_step(parts, workdir, params)


def write_first_step(parts: build.Parts, workdir: Path, params: Params) -> None:
    """Writes step 0 of a new run, as `begin_run` does, for a caller that holds the lock of the folder."""
    # The config is written last. A folder without one is no run: where this is killed on the way, no later
    # command takes the checkpoint for that of a whole run.
    cluster.run_on_first(lambda: run_folder.clear_unfinished_start(workdir))
    state = build.initialize_state_from(parts, params).state
    checkpoint.save_checkpoint(workdir / names.CHECKPOINTS, 0, state, parts.config.train.keep_checkpoints)
    cluster.run_on_first(lambda: run_folder.write_run(workdir, parts.config, parts.description))
