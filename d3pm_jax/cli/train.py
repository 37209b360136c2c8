"""d3pm train reads a config and its overrides, and runs the loop."""

import dataclasses
import math
import shlex
import shutil
import textwrap
from pathlib import Path
from typing import Annotated

from d3pm_jax.cli import arguments, reading
from d3pm_jax.config import Config, describe_data, describe_sampler, io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.program.compiled import cards, cost, on_cards
from d3pm_jax.program.loop import loop, metrics, sinks
from d3pm_jax.program.machine.devices import make_mesh
from d3pm_jax.program.machine.setup import set_up
from d3pm_jax.program.parts.begin import weights_of
from d3pm_jax.program.storage import names, run_folder
from d3pm_jax.runs.run import open_run
from d3pm_jax.sampling import Sampler

USAGE = "d3pm train CONFIG --workdir DIR"


@arguments.list_own_options_first
@dataclasses.dataclass(frozen=True)
class TrainCommand(arguments.Processes):
    """Trains a model, or resumes a run.

    CONFIG is a Python file that defines get_config(); it comes first. Every field of the config can be
    overridden, for example --train.steps 200 --process.steps 50; `d3pm train CONFIG --help` lists all fields.
    --data.dir DIR names the folder of the data.

    To begin a run: d3pm train configs/digits_uniform.py --workdir runs/digits

    To resume it: d3pm train --workdir runs/digits --resume
    """

    workdir: Annotated[Path | None, arguments.name_option(metavar="DIR")] = None
    """the folder of the run, where everything is written"""
    own_file: Annotated[Path | None, arguments.name_option(name="config", metavar="FILE")] = None
    """with --resume or --from, if that run has parts of your own: the Python file that defines them"""
    resume: bool = False
    """continue the run in DIR from its last checkpoint; CONFIG may be left out"""
    start: Annotated[Path | None, arguments.name_option(name="from", metavar="RUN")] = None
    """begin a new run, from the averaged weights of the run in this folder; not with --resume"""
    dry_run: bool = False
    """do not train, but compile one step and print the memory and the work that it takes;
    needs no --workdir and writes nothing, except data that has to be prepared first"""
    on: Annotated[str | None, arguments.name_option(metavar="CARD[:N]")] = None
    """with --dry-run: compile for N cards that this machine does not have, such as h100:8;
    CARD is one of a100, h100, h200, b200, v5e"""
    wandb: Annotated[str | None, arguments.name_option(metavar="PROJECT")] = None
    """also log to this project of Weights & Biases, a run named DIR; WANDB_MODE=offline sends nothing"""
    profile: bool = False
    """also write a trace of a few steps to DIR/profile, for TensorBoard"""


def execute(command: TrainCommand, words: list[str]) -> int:
    """Trains; returns the exit status."""
    config_path = arguments.take_path(words)
    config, run_to_resume = read_train_config(command, config_path, words)
    if command.on is not None:
        if not command.dry_run:
            raise UserError(f"--on {command.on} compiles for cards that are not at hand: pass --dry-run too")
        card, devices = cards.describe_devices(command.on)
        print(_format_config(config), flush=True)
        mesh = make_mesh(config.mesh.fsdp, devices)
        # What a network is built of may depend on the card too.
        with cards.as_default(mesh):
            parts = loop.build_described_run(config, mesh)
            measured = on_cards.measure_on_card(parts, card)
        print(on_cards.describe_card_cost(measured))
        return 0
    if command.dry_run:
        if command.address.coordinator is not None:
            raise UserError("--dry-run uses a single process: leave out --coordinator, or --dry-run")
        _set_up(command, config, run_to_resume)
        parts, _ = loop.build_run(config)
        print(cost.describe_cost(cost.measure_step(parts)[0], parts))
        return 0
    if command.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where the run is written")
    if command.wandb is not None:
        sinks.check_wandb_installed()
    _set_up(command, config, run_to_resume)
    start_weights = None
    if command.start is not None:
        run = open_run(command.start, command.own_file or config_path, batch_size=config.train.batch_size)
        print(f"begins with the averaged weights of step {run.step} in {command.start}", flush=True)
        start_weights = weights_of(run.parts)
    parts = loop.run_training(
        config, command.workdir, run_to_resume, start_weights, command.wandb, profile=command.profile
    )
    if parts.step < config.train.steps:
        go_on = ["d3pm", "train", "--workdir", str(command.workdir), "--resume"]
        if config_io.own_file(config):
            go_on += ["--config", str(command.workdir / names.CONFIG_COPY)]
        if command.wandb is not None:
            go_on += ["--wandb", command.wandb]
        print(f"go on with: {shlex.join(go_on)}")
        return 130

    curve = metrics.save_curves(command.workdir, type(config.process).__name__)
    print(f"trained to step {config.train.steps}; checkpoint in {command.workdir / names.CHECKPOINTS}")
    if curve is not None:
        print(f"loss curve: {curve}")
    if command.profile:
        print(f"trace of some steps: {command.workdir / names.PROFILE}; tensorboard --logdir shows it")
    return 0


def read_train_config(
    command: TrainCommand, path: Path | None, words: list[str]
) -> tuple[Config, run_folder.SavedRun | None]:
    """Reads the config of a file, or of the run to resume, with the fields that words override.

    Returns:
        The config, and the run to resume; None for a new run.
    """
    if path is not None and command.own_file is not None and command.start is None:
        raise UserError(
            f"--config {command.own_file} is for resuming a run without CONFIG: leave out one of the two"
        )
    if not command.resume:
        if path is None and command.own_file is not None:
            raise UserError(
                "no config: pass it first and without --config, as in "
                f"d3pm train {shlex.quote(str(command.own_file))}"
            )
        _check_is_no_run(command, path)
        return reading.read_overridden_config(path, words, USAGE), None

    if command.start is not None:
        raise UserError("--from begins a new run, but --resume continues one: leave out one of the two")
    if command.workdir is None:
        raise UserError("--resume continues the run in a folder: pass it, as --workdir DIR --resume")
    if path is not None:
        _check_is_no_run(command, path)
        config = reading.read_overridden_config(path, words, USAGE)
        return config, run_folder.read_run_to_resume(command.workdir, config)

    saved = run_folder.read_run(command.workdir, command.own_file)
    config = reading.apply_overrides(saved.config, words, USAGE) if words else saved.config
    # The folder of a run may be from somebody else, so its data directory is checked unless the user passes
    # one.
    if reading.DATA_FOLDER not in (word.partition("=")[0] for word in words):
        config.data.check_kept()
    return config, saved


def _check_is_no_run(command: TrainCommand, path: Path | None) -> None:
    """Raises UserError where CONFIG is a folder, or a run is named without CONFIG and without --resume."""
    if path is not None and path.is_dir():
        raise UserError(
            f"{path} is a folder, but CONFIG is a Python file: pass one, or resume a run by d3pm train "
            "--workdir DIR --resume"
        )
    if path is not None and path.name == names.CONFIG and path.is_file():
        raise UserError(
            f"{path} is a file of a run: pass the .py file that defines get_config() to begin a new "
            f"run, or resume this one by d3pm train --workdir {shlex.quote(str(path.parent))} --resume"
        )
    if path is None and command.workdir is not None and (command.workdir / names.CONFIG).is_file():
        raise UserError(f"{command.workdir} holds a run already: pass --resume to go on with it")


def _set_up(command: TrainCommand, config: Config, saved: run_folder.SavedRun | None) -> None:
    """Sets up the machine, joins the other processes, and prints the config."""
    # Activations are those of one part of a batch at a time.
    part_size = config.train.batch_size // config.train.accumulate

    # This is a function, as describing the data may compute, which has to wait until the devices are set.
    def features_of_part() -> int:
        with loop.explain_missing_data(config, saved):
            description = describe_data(config.data)
        return part_size * math.prod(description.shape) * config.model.layer_width()

    set_up(
        batch_size=part_size,
        fsdp=config.mesh.fsdp,
        features=features_of_part,
        address=command.address,
        workdir=command.workdir,
        heartbeat=config.mesh.heartbeat,
        saves=True,
    )
    print(_format_config(config), flush=True)


def _format_config(config: Config) -> str:
    """Formats the parts of a config that its run uses, no wider than the terminal or 80 columns.

    Each begins on a line of its own.
    """
    wrapper = textwrap.TextWrapper(
        shutil.get_terminal_size().columns,
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in config.trains.unused_parts or value == Sampler():
            continue
        if isinstance(value, Sampler):
            value = describe_sampler(value)
        lines.append(wrapper.fill(f"{field.name:>10} = {value}"))
    return "\n".join(lines)
