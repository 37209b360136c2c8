"""Makes files of weights, and runs, of checkpoints of other programs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.config import Config, io as config_io
from d3pm_jax.contrib import foreign
from d3pm_jax.contrib.layout import Foreign
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.parts import begin, build
from d3pm_jax.runs import exported
from d3pm_jax.storage.names import WEIGHTS
from d3pm_jax.weights import twin

_COARSE = "since 1 - exp() + 1e-6 of a logistic head has a few per cent of precision in float32"


def compare(
    file: Path, found: Foreign, check: Path, arrays: dict[str, np.ndarray]
) -> tuple[str, tuple[int, int]]:
    """Compares logits of the network with those of its program.

    Args:
        file: the checkpoint.
        found: its network.
        check: the file of the arrays.
        arrays: of `foreign.read_check`.

    Returns:
        By how much they differ, in words, and the size of the images.

    Raises:
        UserError: they differ by more than `foreign.TOLERANCE`.
    """
    given = foreign.check_of(check, arrays, found)
    H, W = given.xt.shape[1:3]
    model = foreign.model_of(found, (H, W))
    narrow, wide = (foreign.difference(given, found, model, wide) for wide in (False, True))
    text = f"logits differ from {check} by {narrow:.1e} of the largest, {wide:.1e} in float64"
    if not narrow <= foreign.TOLERANCE:
        cure = "see what was assumed, or whether the check is of these weights"
        if found.logistic and arrays["logits"].dtype != np.float64:
            cure = f"compute it in float64, {_COARSE}"
        raise UserError(f"{file}: {text}, more than {foreign.TOLERANCE:g}: {cure}")
    return text, (H, W)


def write_weights(workdir: Path, found: Foreign, size: tuple[int, int]) -> None:
    """Writes the weights of a network for images of a size to a folder, with the model and head beside them.

    Raises:
        UserError: the tensors are of no such network.
    """
    description, model = foreign.description_of(found, size), foreign.model_of(found, size)
    _, params = foreign.parameters(found, model, description)
    workdir.mkdir(parents=True, exist_ok=True)
    tree = {"model": config_io.to_json(model), "head": config_io.to_json(foreign.head_of(found))}
    _save(workdir, params, tree, found, description, found.T)


def fitted(config: Config, found: Foreign, description: Description) -> Config:
    """Returns a config with the model of a checkpoint, and with a head as its program has it."""
    model = foreign.model_of(found, (description.shape[0], description.shape[1]))
    return dataclasses.replace(config, model=model, head=foreign.fit_head(config.head, found))


def check_data(file: Path, found: Foreign, description: Description, name: object) -> None:
    """Raises UserError where a network is for other data than that of the config of a name."""
    shape = description.shape
    if len(shape) != 3 or shape[-1] != found.channels:
        raise UserError(
            f"{file} is for images of {found.channels} channels, the data of {name} has shape "
            f"{shape}: pass a config of other data"
        )
    if found.classes not in (None, description.classes):
        have = "no labels" if description.classes is None else f"{description.classes} classes"
        cure = f"pass a config whose data has {found.classes} classes"
        raise UserError(f"{file} is told one of {found.classes} classes, the data has {have}: {cure}")


def begin_run(
    file: Path, found: Foreign, config: Config, description: Description, workdir: Path, name: object
) -> int:
    """Begins a run from the weights of a checkpoint, and writes them to its folder too.

    Args:
        file: the checkpoint.
        found: its network.
        config: of the run, with that network: see `fitted`.
        description: of its data.
        workdir: where the run is written; a folder without a run.
        name: what the config is called in messages.

    Returns:
        T of the process.

    Raises:
        UserError: the process has another K, or the tensors are of another network.
    """
    parts = build.build(config, description)
    K, T = parts.process.K, parts.process.T
    if found.K != K:
        cure = "change the process, or pass --categories"
        raise UserError(f"{file} has K = {found.K}, the process of {name} has {K}: {cure}")
    try:
        params = twin.from_torch(parts.state.params, found.tensors)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    begin.begin(parts, workdir, params)
    _save(workdir, params, config_io.to_json(config), found, description, T)
    return T


def _save(workdir: Path, params: Any, config: Any, found: Foreign, description: Description, T: int) -> None:
    texts = exported.metadata(config, description, found.K, T, found.step, found.weights)
    twin.save(workdir / WEIGHTS, params, texts)
