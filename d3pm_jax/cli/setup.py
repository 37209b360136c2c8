"""What commands do before JAX starts, and how they open a run."""

import argparse
import contextlib
import dataclasses
import logging
import os

import jax

from d3pm_jax import data
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.training import run


def use_all_cores(batch_size: int) -> None:
    """One CPU device per core, as many as divide the batch: XLA uses several better than one.

    Must come before the first JAX computation. Without effect where there is a GPU or TPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = max(n for n in range(1, cores + 1) if batch_size % n == 0)
    with contextlib.suppress(RuntimeError):  # JAX runs already, in a notebook say: use what it has
        jax.config.update("jax_num_cpu_devices", devices)
    logging.getLogger("absl").setLevel(logging.ERROR)


def open_run(args: argparse.Namespace) -> tuple[run.Parts, data.ImageSource, data.ImageSource]:
    """The run in args.workdir at a checkpoint, and its train and test splits.

    Raises:
        UserError: there is no such run, checkpoint or data.
    """
    config = read_config(args)
    if not os.access(args.workdir, os.W_OK):
        raise UserError(f"{args.workdir} cannot be written to, where the results go: change its permissions")
    use_all_cores(args.batch_size)
    spec = config.data
    train, test = (
        data.open_split(spec.name, split, spec.dir) for split in (spec.train_split, spec.test_split)
    )
    parts = run.build(config, train[0]["image"].shape, args.batch_size, args.steps)
    return run.restore(args.workdir, parts, args.step), train, test


def read_config(args: argparse.Namespace) -> Config:
    """The config of the run in args.workdir, with its data where the command says.

    Raises:
        UserError: there is no such run.
    """
    config = run.read_config(args.workdir)
    if args.data_dir is None:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, dir=args.data_dir))


def image_shape(config: Config) -> tuple[int, int, int]:
    """(H, W, C) of the data of a config.

    Raises:
        UserError: the data cannot be read.
    """
    return data.open_split(config.data.name, config.data.train_split, config.data.dir)[0]["image"].shape
