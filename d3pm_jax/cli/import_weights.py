"""d3pm import begins a run from a safetensors file of weights."""

import argparse
from pathlib import Path

from d3pm_jax.cli import arguments, import_foreign, overrides
from d3pm_jax.cli.export_weights import SUFFIX
from d3pm_jax.config import Config
from d3pm_jax.config import io as config_io
from d3pm_jax.contrib import checkpoints
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import parse_json
from d3pm_jax.parts import begin
from d3pm_jax.storage import workdir
from d3pm_jax.weights import twin

USAGE = "--workdir DIR"
OF_OTHERS = ("check", "raw", "heads", "input_range", "max_time", "categories", "output", "size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.usage = "d3pm import FILE [[--config] CONFIG] --workdir DIR [--check CHECK.npz] [OVERRIDES]"
    parser.epilog = (
        "FILE is a checkpoint of another program, which is recognised by what is in it: of the U-Net of "
        "Discrete-Time-Diffusion-Models-for-Discrete-Data or of MNISTScoreNet (torch.save), or of the "
        "official D3PM code for images (checkpoint_N). DIR/weights.safetensors is then what `d3pm export` "
        "writes; with CONFIG (its data, process and head; its model is replaced) DIR is a run as well. The "
        "options but --workdir and --config are for these. "
        "Or FILE is one of `d3pm export`, or of safetensors.torch.save_file with the state_dict of a "
        "network of torch_ref.models in float32; it comes first. It becomes step 0 of a new run in DIR, "
        "weights and moving average, for `d3pm sample DIR`, `d3pm eval DIR` and "
        "`d3pm train --workdir DIR --resume`. "
        "Without CONFIG the config in FILE is used, which a file of PyTorch lacks; OVERRIDES are those of "
        "d3pm train."
    )
    arguments.add_workdir(parser, "where the run is written")
    text = "the Python file that defines get_config(), which may also follow FILE"
    parser.add_argument("--config", type=Path, metavar="CONFIG", help=text)
    import_foreign.add_arguments(parser)


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Begins a run; returns the exit status."""
    args.file = arguments.take_path(rest)
    positional = arguments.take_path(rest)
    if positional and args.config:
        raise UserError(f"two configs, {positional} and --config {args.config}: pass one")
    args.config = args.config or positional
    if arguments.print_help(args, args.file):
        return 0
    if args.file is None:
        raise UserError(f"no weights: pass a file first, as in d3pm import FILE{SUFFIX} --workdir DIR")
    if checkpoints.kind_of(args.file) != "safetensors":
        return import_foreign.execute(args, rest, USAGE)
    if given := [name for name in OF_OTHERS if getattr(args, name) not in (None, False)]:
        flag = "--" + given[0].replace("_", "-")
        raise UserError(f"{flag} is for checkpoints of other programs, {args.file} is none: leave it out")
    return _begin(args, rest)


def _begin(args: argparse.Namespace, rest: list[str]) -> int:
    """Begins a run from a file of ours."""
    base = _config_of(args.file) if args.config is None else config_io.from_file(args.config)
    config = overrides.apply(base, args, rest, USAGE)
    if args.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where the run is written")
    description = None if args.config else _description_of(args.file)
    begin.import_weights(args.file, config, args.workdir, description)
    print(f"{args.file} is step 0 of a new run in {args.workdir}")
    print(f"train it with: d3pm train --workdir {args.workdir} --resume")
    return 0


def _description_of(file: Path) -> Description | None:
    """Reads what d3pm export wrote of the data, if it did."""
    try:
        text = twin.read_metadata(file).get("data")
        return None if text is None else workdir.description_from_json(text.encode())
    except (ValueError, TypeError, UserError) as error:
        cure = f"pass a config, as in d3pm import {file} CONFIG --workdir DIR, which describes it"
        raise UserError(
            f"the description of the data in {file} cannot be read ({one_line(error)}): {cure}"
        ) from error


def _config_of(file: Path) -> Config:
    """Reads the config that d3pm export wrote beside the weights."""
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
