"""d3pm export and d3pm import: the weights of a run as a safetensors file, and a run from such a file."""

import argparse
import dataclasses
import json
from pathlib import Path

import jax

from d3pm_jax import config_io
from d3pm_jax.cli import overrides
from d3pm_jax.cli.setup import image_shape, read_config, use_all_cores
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.models import convert
from d3pm_jax.training import checkpoint, run

SUFFIX = ".safetensors"
USAGE = "--workdir DIR"


def export_weights(args: argparse.Namespace) -> int:
    """Writes the file; returns the exit status."""
    path = args.out or args.workdir / f"weights{SUFFIX}"
    if path.suffix != SUFFIX:
        raise UserError(f"--out {path}: the file is one of safetensors, name it FILE{SUFFIX}")
    config, stored = read_config(args), run.read_config(args.workdir)
    use_all_cores(1)
    state = run.restore(args.workdir, run.build(config, image_shape(config), 1), args.step).state
    stored = dataclasses.replace(stored, train=dataclasses.replace(stored.train, noise=None))
    kind, params = ("raw", state.params) if args.raw else ("ema", state.ema)
    step = int(state.step)
    metadata = {"config": config_io.dump(stored), "step": str(step), "weights": kind}
    convert.save(path, params, metadata)
    sizes = [x.size for x in jax.tree.leaves(params)]
    print(f"{kind} weights of step {step}, {len(sizes)} tensors, {sum(sizes):,} numbers: {path}")
    return 0


def import_weights(args: argparse.Namespace, rest: list[str]) -> int:
    """Begins a run; returns the exit status."""
    if args.file is None:
        raise UserError(f"no weights: pass a file first, as in d3pm import FILE{SUFFIX} --workdir DIR")
    base = _config_of(args.file) if args.config is None else config_io.from_file(args.config)
    config = overrides.apply(base, args, rest, USAGE)
    if args.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where the run is written")
    if (args.workdir / run.CONFIG).exists() or checkpoint.steps(args.workdir / run.CHECKPOINTS):
        raise UserError(f"{args.workdir} holds a run already: pass another --workdir")
    use_all_cores(1)
    parts = run.build(config, image_shape(config), 1)
    try:
        params = convert.load(args.file, parts.state.params)
    except ValueError as error:
        raise UserError(str(error)) from error
    state = run.start_from(parts, params).state
    checkpoint.save(args.workdir / run.CHECKPOINTS, 0, state, config.train.keep_checkpoints)
    run.write_config(args.workdir, config)  # last: without it nothing goes on with a part of a run
    print(f"{args.file} is step 0 of a new run in {args.workdir}")
    print(f"train it with: d3pm train --workdir {args.workdir} --resume")
    return 0


def _config_of(file: Path) -> Config:
    """The config that d3pm export wrote beside the weights."""
    cure = f"pass one, as in d3pm import {file} CONFIG --workdir DIR"
    try:
        text = convert.read_metadata(file).get("config")
    except ValueError as error:
        raise UserError(str(error)) from error
    if text is None:
        raise UserError(f"{file} holds no config: {cure}")
    try:
        return config_io.from_json(json.loads(text))
    except (ValueError, UserError) as error:
        raise UserError(f"the config in {file} cannot be read ({error}): {cure}") from error
