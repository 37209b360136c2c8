"""d3pm schedule shows what forward processes of configs do to one element, without data or a network."""

import dataclasses
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from d3pm_jax import losses, show
from d3pm_jax.cli import arguments, reading
from d3pm_jax.config import Config, from_data
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation.process_effect import find_half_life, spread_categories
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.parts.build import fill_in, name_process
from d3pm_jax.processes import Process
from d3pm_jax.processes.base import check_elementwise

USAGE = "d3pm schedule CONFIG [CONFIG2 ...]"


@dataclasses.dataclass(frozen=True)
class ScheduleCommand:
    """Draws how a process removes information, without training.

    CONFIG and its fields are those of d3pm train. The picture shows, for one element with uniform p(x_0): how
    often x_t is still x_0, the part of the information I(x_t; x_0) that is left, and the weight of the cross
    entropy in the bound. Of several configs it has a curve for each, over t / T where T differs; fields are
    overridden in all of them.
    """

    out: Annotated[Path, arguments.name_option(metavar="FILE.png")] = Path("schedule.png")
    """the picture"""


class Shown(NamedTuple):
    """Holds what is shown of a config."""

    name: str  # of its process
    config: Config
    process: Process
    levels: int  # categories that the data may be


def execute(command: ScheduleCommand, words: list[str]) -> int:
    """Draws and prints; returns the exit status."""
    paths = list(iter(lambda: arguments.take_path(words), None))
    if len(paths) < 2:
        shown = _read(command, paths[0] if paths else None, words)
        show.save_schedules(command.out, {"": shown.process}, {"": shown.levels}, shown.name)
        print("\n".join(_lines(shown)))
    else:
        configs = {}
        for name, path in _names(paths).items():
            try:
                configs[name] = _read(command, path, words)
            except UserError as error:  # it names the config
                raise UserError(f"{path}: {error}") from error
        labels = {f"{name}: {shown.name}": shown for name, shown in configs.items()}
        processes = {label: shown.process for label, shown in labels.items()}
        levels = {label: shown.levels for label, shown in labels.items()}
        show.save_schedules(command.out, processes, levels)
        for name, shown in configs.items():
            print(f"{name}:", *_lines(shown), sep="\n  ")
    print(f"what each step does: {command.out}")
    return 0


def _names(paths: list[Path]) -> dict[str, Path]:
    """Returns the files by their names, or, where two have the same, by their paths."""
    by_name = {path.stem: path for path in paths}
    by_path = {str(path): path for path in paths}
    if len(by_path) < len(paths):
        twice = next(name for name in by_path if list(map(str, paths)).count(name) > 1)
        raise UserError(f"{twice} is there more than once: pass each config once")
    return by_name if len(by_name) == len(paths) else by_path


def _read(command: ScheduleCommand, path: Path | None, words: list[str]) -> Shown:
    """Reads a config with the fields that words override, and makes its process.

    Raises:
        UserError: there is no such config, or no process that could be shown.
    """
    config = reading.read_config_file(path, words, USAGE)
    if command.out.suffix != ".png":
        raise UserError(f"--out {command.out}: the picture is a PNG, name it FILE.png")
    if from_data.needs_data(config):
        config = fill_in(config, config.data.describe())
    try:
        process = config.process.build()
        check_elementwise(process, "d3pm schedule shows")
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(one_line(error, 1000)) from error
    levels = config.head.data_categories(process.K)
    if levels < 2:
        raise UserError(
            f"process.K = {process.K} leaves the data a single category: there is no information to remove"
        )
    return Shown(name_process(config, process), config, process, levels)


def _lines(shown: Shown) -> list[str]:
    """Says what the process of a config is and does."""
    process, x0 = shown.process, spread_categories(shown.process.K, shown.levels)
    prior = np.asarray(bits_per_dim(losses.prior_kl(process, x0), 1), np.float64)
    half = find_half_life(process, x0)
    where = "never: raise beta or the number of steps" if half is None else f"at t = {half} of {process.T}"
    return [
        f"process: {shown.config.process}",
        f"prior KL(q(x_T | x_0) || p(x_T)): {prior.mean():.3g} bits/dim, at most {prior.max():.3g}",
        f"half of the information is left {where}",
    ]
