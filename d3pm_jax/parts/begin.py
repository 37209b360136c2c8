"""Begins a run from weights, in place of random ones."""

from pathlib import Path
from typing import NamedTuple

import jax

from d3pm_jax.config import Config
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.machine import cluster
from d3pm_jax.machine.devices import mesh_of, use_all_cores
from d3pm_jax.parts import build
from d3pm_jax.placing import fetch
from d3pm_jax.storage import checkpoint, lock, names, run_folder
from d3pm_jax.types import Params
from d3pm_jax.weights import twin


class Weights(NamedTuple):
    """Holds what a run begins from: the averaged weights of another one, on the host."""

    K: int  # of the process that they were trained with
    params: Params


def weights_of(parts: build.Parts) -> Weights:
    """Takes the averaged weights of a run."""
    return Weights(parts.process.K, fetch(parts.state.ema))


def match_weights(parts: build.Parts, weights: Weights) -> Params:
    """Returns the weights as parameters of a run.

    Raises:
        UserError: they are of another K or another network.
    """
    cure = "change the config, or begin from another run"
    if weights.K != parts.process.K:
        raise UserError(f"the weights are for K = {weights.K}, this run has K = {parts.process.K}: {cure}")
    given, wanted = _shapes(weights.params), _shapes(parts.state.params)
    for name in [*wanted, *given]:
        if given.get(name) != wanted.get(name):
            have, want = (tree.get(name, "none") for tree in (given, wanted))
            raise UserError(f"the weights are of another network ({name}: {have}, expected {want}): {cure}")
    return jax.tree.unflatten(jax.tree.structure(parts.state.params), jax.tree.leaves(weights.params))


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    flat, _ = jax.tree.flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x.shape for path, x in flat}


def import_weights(
    file: Path | str, config: Config, workdir: Path | str, description: Description | None = None
) -> None:
    """Begins a run from a file of weights, of `export` or of PyTorch: they are its step 0.

    Args:
        file: of safetensors, with the tensors of a network of `torch_ref.models` under its names.
        config: of the run.
        workdir: where it is written; a folder without a run.
        description: of the data, where that is known without it.

    Raises:
        UserError: the folder is not empty, or the tensors are not those of the network of the config.
    """
    workdir = Path(workdir)
    run_folder.check_empty(workdir)
    use_all_cores(1)
    description = description or config.data.describe()
    mesh = mesh_of(config.mesh.fsdp, asked=False)
    parts = build.build(build.fill_in(config, description), description, mesh=mesh)
    with as_user_error():
        params = twin.load(Path(file), parts.state.params)
    begin_run(parts, workdir, params)


def begin_run(parts: build.Parts, workdir: Path, params: Params) -> None:
    """Writes step 0 of a new run, whose weights and their average are these parameters.

    Raises:
        UserError: the folder holds a run, or another process is writing to it.
    """
    with lock.hold_folder(workdir):
        write_first_step(parts, workdir, params)


def write_first_step(parts: build.Parts, workdir: Path, params: Params) -> None:
    """Does what `begin` does, for who holds the lock.

    The config is written last: without it nothing goes on with a part of a run.
    """
    cluster.run_on_first(lambda: run_folder.clear_unfinished_start(workdir))
    state = build.initialize_state_from(parts, params).state
    checkpoint.save_checkpoint(workdir / names.CHECKPOINTS, 0, state, parts.config.train.keep_checkpoints)
    cluster.run_on_first(lambda: run_folder.write_run(workdir, parts.config, parts.description))
