"""Imports a checkpoint of another program: as a file of weights, and with a config as a run."""

import argparse
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.cli import arguments, overrides
from d3pm_jax.config import Config
from d3pm_jax.config import io as config_io
from d3pm_jax.contrib import checkpoints, foreign
from d3pm_jax.contrib.layout import Foreign
from d3pm_jax.contrib.told import Told
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.machine.devices import use_all_cores
from d3pm_jax.parts import begin, build
from d3pm_jax.runs import exported
from d3pm_jax.storage import workdir
from d3pm_jax.weights import twin

WEIGHTS = "weights.safetensors"
_COARSE = "since 1 - exp() + 1e-6 of a logistic head has a few per cent of precision in float32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what is said of a file of another program."""
    add = parser.add_argument
    add(
        "--check", type=Path, metavar="NPZ", help="x, t, label and logits as the program has them: to compare"
    )
    add("--raw", action="store_true", help="the last weights, in place of their moving average")
    add("--heads", type=arguments.positive, metavar="N", help="of attention, where the file does not say (1)")
    text = "what the program scales to -1 and 1 (0 and K - 1, official code 0 and 255)"
    add("--input-range", type=float, nargs=2, metavar=("MIN", "MAX"), help=text)
    text = "the largest time of the program, T of its process (1000, MNISTScoreNet 4)"
    add("--max-time", type=float, metavar="T", help=text)
    text = "K of a network with a logistic head (that of CHECK or CONFIG, or 256)"
    add("--categories", type=arguments.positive, metavar="K", help=text)
    text = "what two numbers for each element are (K = 2: logits; else as the program has it)"
    add("--output", choices=["logits", "logistic"], help=text)
    text = "of an image (that of CHECK or CONFIG, or 32 x 32, or 28 x 28)"
    add("--size", type=arguments.positive, nargs=2, metavar=("H", "W"), help=text)


def execute(args: argparse.Namespace, rest: list[str], usage: str) -> int:
    """Writes DIR/weights.safetensors, and a run where there is a config; returns the exit status."""
    if args.help and args.config is None:
        args.parser.print_help()
        return 0
    config = overrides.apply(config_io.from_file(args.config), args, rest, usage) if args.config else None
    if config is None and rest:
        raise UserError(f"unexpected argument {one_line(rest[0], 80)}: see d3pm import --help")
    if args.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where the weights are written")
    workdir.check_empty(args.workdir)
    use_all_cores(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _import(args, config)
    for warning in caught:
        print(f"note: {one_line(warning.message, 300)}")
    return 0


def _import(args: argparse.Namespace, config: Config | None) -> None:
    """Reads, compares and writes."""
    description = None if config is None else config.data.describe()
    if config is not None and description is not None:
        config = build.fill_in(config, description)
    arrays = None if args.check is None else foreign.read_check(args.check)
    found = _read(args, _told(args, arrays, config))
    size = None if args.size is None else (args.size[0], args.size[1])
    if arrays is not None:
        compared = _compare(args, arrays, found)
        size = size or compared
    if config is not None and description is not None:
        _write_run(args, config, found, description)
    else:
        _write_weights(args, found, size)


def _read(args: argparse.Namespace, told: Told) -> Foreign:
    """Reads the file, and prints what it is and what is assumed."""
    try:
        found = checkpoints.read(args.file, told)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(f"{args.file} is of {found.program}: {found.weights} weights of step {found.step}")
    for note in found.notes:
        print(f"note: {one_line(note, 300)}")
    return found


def _told(args: argparse.Namespace, arrays: dict[str, Any] | None, config: Config | None) -> Told:
    """Returns what the command says, and the K of the check or of the process."""
    K, source = args.categories, "--categories"
    if K is None and arrays is not None and arrays["logits"].ndim:
        K, source = arrays["logits"].shape[-1], f"the last axis of logits in {args.check}"
    if K is None and config is not None:
        K, source = getattr(config.process, "K", None), f"process.K of {args.config}"
    given = None if args.input_range is None else (args.input_range[0], args.input_range[1])
    known = K if isinstance(K, int) else None
    return Told(args.raw, args.heads, given, args.max_time, known, args.output, source)


def _compare(args: argparse.Namespace, arrays: dict[str, Any], found: Foreign) -> tuple[int, int]:
    """Compares logits; returns the size of the images.

    Raises:
        UserError: they differ.
    """
    check = foreign.check_of(args.check, arrays, found)
    H, W = check.xt.shape[1:3]
    model = foreign.model_of(found, (H, W))
    narrow, wide = (foreign.difference(check, found, model, wide) for wide in (False, True))
    text = f"logits differ from {args.check} by {narrow:.1e} of the largest, {wide:.1e} in float64"
    if not narrow <= foreign.TOLERANCE:
        cure = "see what was assumed, or whether the check is of these weights"
        if found.logistic and arrays["logits"].dtype != np.float64:
            cure = f"compute it in float64, {_COARSE}"
        raise UserError(f"{args.file}: {text}, more than {foreign.TOLERANCE:g}: {cure}")
    print(text)
    return H, W


def _write_weights(args: argparse.Namespace, found: Foreign, size: tuple[int, int] | None) -> None:
    """Writes the weights, with the model and the head beside them."""
    if size is None:
        size = found.size, found.size
        print(f"note: images of {size[0]} x {size[1]}: the file does not say (--size)")
    description, model = foreign.description_of(found, size), foreign.model_of(found, size)
    _, params = foreign.parameters(found, model, description)
    args.workdir.mkdir(parents=True, exist_ok=True)
    tree = {"model": config_io.to_json(model), "head": config_io.to_json(foreign.head_of(found))}
    texts = exported.metadata(tree, description, found.K, found.T, found.step, found.weights)
    _save(args, params, texts)
    print(f"a network for Python, no run: for one pass --config CONFIG (see {args.parser.prog} --help)")


def _write_run(args: argparse.Namespace, config: Config, found: Foreign, description: Description) -> None:
    """Begins a run from the weights, and writes them."""
    _refuse_other_data(args, found, description)
    config = _replaced(args, config, found, description)
    parts = build.build(config, description)
    K, T = parts.process.K, parts.process.T
    if found.K != K:
        cure = "change the process, or pass --categories"
        raise UserError(f"{args.file} has K = {found.K}, the process of {args.config} has {K}: {cure}")
    if found.T != T:
        print(f"note: the process has T = {T}, the network was made for {found.T} steps (--max-time)")
    try:
        params = twin.from_torch(parts.state.params, found.tensors)
    except ValueError as error:
        raise UserError(f"{args.file}: {error}") from error
    begin.begin(parts, args.workdir, params)
    tree = config_io.to_json(config)
    _save(args, params, exported.metadata(tree, description, K, T, found.step, found.weights))
    print(f"it is step 0 of a new run in {args.workdir}, for d3pm sample, eval and train --resume")


def _refuse_other_data(args: argparse.Namespace, found: Foreign, description: Description) -> None:
    """Raises UserError."""
    shape = description.shape
    if args.size is not None:
        raise UserError(f"--size {args.size}: the data of {args.config} has a size; leave it out")
    if len(shape) != 3 or shape[-1] != found.channels:
        raise UserError(
            f"{args.file} is for images of {found.channels} channels, the data of {args.config} has shape "
            f"{shape}: pass a config of other data"
        )
    if found.classes not in (None, description.classes):
        have = "no labels" if description.classes is None else f"{description.classes} classes"
        cure = f"pass a config whose data has {found.classes} classes"
        raise UserError(f"{args.file} is told one of {found.classes} classes, the data has {have}: {cure}")


def _replaced(args: argparse.Namespace, config: Config, found: Foreign, description: Description) -> Config:
    """Returns the config with the model of the file, and with a head as the program has it; notes both."""
    model = foreign.model_of(found, (description.shape[0], description.shape[1]))
    head = foreign.fit_head(config.head, found)
    print(f"note: in place of the model of {args.config}: {one_line(model, 400)}")
    if head != config.head:
        print(f"note: in place of the head of {args.config}, as the program has it: {one_line(head, 200)}")
    return dataclasses.replace(config, model=model, head=head)


def _save(args: argparse.Namespace, params: Any, texts: dict[str, str]) -> None:
    path = args.workdir / WEIGHTS
    twin.save(path, params, texts)
    print(f"{texts['weights']} weights: {path}")
