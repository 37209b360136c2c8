"""What commands do before JAX starts, and how they open a run."""

import argparse
import contextlib
import ctypes
import dataclasses
import logging
import os
import platform

import jax

from d3pm_jax import data
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.training import run

# Numbers of malloc.h. Memory of any arena but the first is mapped if it is large, whatever M_MMAP_MAX says.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MALLOPT = ((_M_TRIM_THRESHOLD, -1), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1))
_LARGE = 2**20  # features


def use_all_cores(batch_size: int) -> None:
    """One CPU device per core, as many as divide the batch: XLA uses several better than one.

    Must come before the first JAX computation. Without effect where there is a GPU or TPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = max(n for n in range(1, cores + 1) if batch_size % n == 0)
    with contextlib.suppress(RuntimeError):  # JAX runs already, in a notebook say: use what it has
        jax.config.update("jax_num_cpu_devices", devices)
    logging.getLogger("absl").setLevel(logging.ERROR)


def keep_freed_memory(features: int) -> None:
    """Tells malloc of glibc not to return memory to the system, for steps of large networks.

    XLA allocates all temporaries of a step at once and frees them after it. Large blocks are mapped anew by
    default, so that the system zeroes every page in every step: a tenth of the time of a large step. Small
    steps lose more by sharing one arena of malloc than they gain. It is set for the whole process, must come
    before the first JAX computation, and leaves alone what the user has set.

    Args:
        features: numbers in the first layer of the network for one batch; below 2^20 nothing is done.
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if features >= _LARGE and platform.libc_ver()[0] == "glibc" and not own:
        for option, value in _MALLOPT:
            ctypes.CDLL(None).mallopt(option, value)


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
