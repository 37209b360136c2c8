"""d3pm schedule shows what forward processes of configs do to one element, without a network."""

import dataclasses
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from d3pm_jax import losses, show
from d3pm_jax.cli import arguments, reading
from d3pm_jax.config import Config, build_process, describe_data, find_extra_mask, from_data
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation.process_effect import find_half_life, spread_categories
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.processes import Process, check_same_for_all
from d3pm_jax.program.parts.completed import fill_in
from d3pm_jax.program.parts.diffusion import name_process

USAGE = "d3pm schedule CONFIG [CONFIG2 ...]"


@dataclasses.dataclass(frozen=True)
class ScheduleCommand:
    """Plots how a process removes information, without training.

    CONFIG and the options that override its fields are those of `d3pm train`. For one element with uniform
    p(x_0), the picture shows how often x_t is still x_0, which part of the information I(x_t; x_0) is left,
    and the weight of the cross entropy in the bound. Several configs have a curve each, over t / T if their T
    differ; an override applies to all of them.

    Example: d3pm schedule configs/digits_uniform.py configs/digits_absorbing.py --process.steps 50
    """

    out: Annotated[Path, arguments.name_option(metavar="FILE.png")] = Path("schedule.png")
    """the file of the picture"""


class BuiltProcess(NamedTuple):
    """Holds the process of a config, with its name."""

    name: str  # of the process
    config: Config
    process: Process
    levels: int  # categories that the data may have


def execute(command: ScheduleCommand, words: list[str]) -> int:
    """Draws and prints; returns the exit status."""
    paths = []
    while (path := arguments.take_path(words)) is not None:
        paths.append(path)
    if len(paths) > 1:
        _show_several(command, paths, words)
    else:
        _show_one(command, next(iter(paths), None), words)
    print(f"what each step does: {command.out}")
    return 0


def _show_one(command: ScheduleCommand, path: Path | None, words: list[str]) -> None:
    """Draws and describes the process of one config."""
    built = _build_process(command, path, words)
    show.save_schedules(command.out, {"": built.process}, {"": built.levels}, built.name)
    print("\n".join(_describe_process(built)))


def _show_several(command: ScheduleCommand, paths: list[Path], words: list[str]) -> None:
    """Draws the processes of several configs in one picture, and describes each of them."""
    built_by_name = {}
    for name, path in _name_paths(paths).items():
        try:
            built_by_name[name] = _build_process(command, path, words)
        except UserError as error:
            # With several configs the message has to say which one it is of.
            raise UserError(f"{path}: {error}") from error

    lines = {f"{name}: {built.name}": built for name, built in built_by_name.items()}
    processes = {label: built.process for label, built in lines.items()}
    levels = {label: built.levels for label, built in lines.items()}
    show.save_schedules(command.out, processes, levels)
    for name, built in built_by_name.items():
        print(f"{name}:", *_describe_process(built), sep="\n  ")


def _name_paths(paths: list[Path]) -> dict[str, Path]:
    """Returns the files by their names, or, where two have the same, by their paths."""
    by_name = {path.stem: path for path in paths}
    by_path = {str(path): path for path in paths}
    if len(by_path) < len(paths):
        texts = list(map(str, paths))
        twice = next(name for name in by_path if texts.count(name) > 1)
        raise UserError(f"{twice} is passed more than once: pass each config once")
    return by_name if len(by_name) == len(paths) else by_path


def _build_process(command: ScheduleCommand, path: Path | None, words: list[str]) -> BuiltProcess:
    """Reads a config with the fields that words override, and builds its process.

    Raises:
        UserError: there is no such config, or no process that could be shown.
    """
    config = reading.read_overridden_config(path, words, USAGE)
    if command.out.suffix != ".png":
        raise UserError(f"--out {command.out}: the picture is a PNG, name it FILE.png")
    if from_data.needs_data(config):
        config = fill_in(config, describe_data(config.data))
    try:
        process = build_process(config.process)
        check_same_for_all(process, "d3pm schedule shows")
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(one_line(error, 1000)) from error
    extra_mask = find_extra_mask(config.process, process, _count_categories(config, process))
    levels = process.K - (extra_mask is not None)
    return BuiltProcess(name_process(config, process), config, process, levels)


def _count_categories(config: Config, process: Process) -> int:
    """Counts the categories of the data, where it is at hand; else a mask that is the last one is extra."""
    try:
        return describe_data(config.data).categories
    except UserError:
        return process.K - 1


def _describe_process(built: BuiltProcess) -> list[str]:
    """Says in lines what the process of a config is and does."""
    process = built.process
    x0 = spread_categories(process.K, built.levels)
    prior = np.asarray(bits_per_dim(losses.prior_kl(process, x0), 1), np.float64)
    half = find_half_life(process, x0)
    if half is None:
        where = "never: raise beta or the number of steps"
    else:
        where = f"at t = {half} of {process.T}"
    return [
        f"process: {built.config.process}",
        f"prior KL(q(x_T | x_0) || p(x_T)): {prior.mean():.3g} bits/dim, at most {prior.max():.3g}",
        f"half of the information is left {where}",
    ]
