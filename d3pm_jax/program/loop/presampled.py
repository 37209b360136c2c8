"""Keeps the noise that a run draws at every step in an ArrayRecord file that other programs can read too.

Record 0 is a JSON header. Record i + 1 is the noise of the step after i updates, little-endian: t int32 [B],
p_t float32 [B], the probability of each t, and u float32 [B, *S]. In the header "image" is *S of any data.
"""

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from d3pm_jax.config import AnyPath, Config, Count, checks_arguments, describe_data, io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.files import parse_json, replacing
from d3pm_jax.program.machine.devices import batch_sharding, check_batch, mesh_of, use_all_cores
from d3pm_jax.program.parts.build import Parts, build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.parts.recipe import require
from d3pm_jax.training.diffusion import StepNoise, draw_noise

FORMAT = "d3pm noise bank"  # what a file of noise begins with
VERSION = 1

# In groups of one, any record can be read alone, as a resumed run has to. Nothing is compressed, since half
# of the bits are random.
WRITER = "group_size:1,uncompressed"

# Nothing is read ahead: a record is asked for by its number.
READER = "readahead_buffer_size:0,max_parallelism:0"


def describe_noise(parts: Parts) -> dict[str, Any]:
    """Describes what the noise of a run depends on, as the header of its noise file has it.

    Raises:
        UserError: the noise depends on more than that, so that it cannot be drawn in advance.
    """
    config = parts.config
    require(parts.recipe.diffusion, "a diffusion", config)
    if parts.state.history is not None:
        name = type(config.timesteps).__name__
        raise UserError(
            f"timesteps={name} draws t by the losses of the run, not in advance: use LowDiscrepancy()"
        )
    if config.timesteps.real:
        raise UserError("the run draws real times, and noise files hold whole steps: train without one")
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        raise UserError("JAX_ENABLE_X64 is on, and noise files hold float32: unset it")
    return {
        "batch_size": config.train.batch_size,
        "image": list(parts.description.shape),
        "T": parts.recipe.process.T,
        "seed": config.train.seed,
        "timesteps": config_io.to_json(config.timesteps),
    }


@checks_arguments
def presample(config: Config, path: AnyPath, steps: Count | None = None) -> int:
    """Writes the noise of a training in advance, for `train.noise` and for `torch_ref.runs.presampled`.

    Args:
        config: of the training.
        path: of the file; one that is there is replaced, once the new one is whole.
        steps: how many steps; those of the config by default.

    Returns:
        The number of steps whose noise was written.

    Raises:
        UserError: the noise cannot be drawn in advance, or not be written.
    """
    config_io.check_config(config)
    return presample_checked(config, Path(path), steps)


def presample_checked(config: Config, path: Path, steps: int | None) -> int:
    """Writes the noise of a training in advance as `presample` does, by a config that was checked."""
    use_all_cores(config.train.batch_size)
    completed = complete(config, describe_data(config.data))
    parts = build(completed, mesh=mesh_of(config.mesh.fsdp, asked=False))
    check_batch(parts.mesh, config.train.batch_size)
    steps = steps or config.train.steps
    write_noise(parts, steps, path)
    return steps


def write_noise(parts: Parts, steps: int, path: Path) -> None:
    """Writes the noise of steps 0 .. steps - 1 of a run.

    Args:
        parts: of the run.
        steps: how many, at least 1.
        path: of the file; one that is there is replaced, once the new one is whole.

    Raises:
        UserError: the noise cannot be drawn in advance, or not be written.
    """
    header = {"format": FORMAT, "version": VERSION, "steps": steps, **describe_noise(parts)}
    config = parts.config
    shape = (config.train.batch_size, *parts.description.shape)
    sharding = batch_sharding(parts.mesh)

    def put(call: Callable, *args: Any) -> Any:
        try:
            return call(*args)
        except RuntimeError as error:
            raise UserError(f"cannot write {path} ({error}): name another file") from error

    # The file is written beside its place and moved there when it is whole: a run never reads half a file.
    with replacing(path) as unfinished:
        writer = put(array_record_module.ArrayRecordWriter, str(unfinished), WRITER)
        put(writer.write, json.dumps(header).encode())
        for i in range(steps):
            # The program is the one that a training without a file draws its noise with, sharding included,
            # so that the numbers are the same to the bit.
            noise = draw_noise(
                config.timesteps, parts.key, np.int32(i), None, shape, parts.recipe.process.T, sharding
            )
            t, p_t, u = jax.device_get(noise)  # [B], [B], [B, *S]
            record = t.astype("<i4").tobytes() + p_t.astype("<f4").tobytes() + u.astype("<f4").tobytes()
            put(writer.write, record)
        put(writer.close)


def open_noise(parts: Parts, path: Path) -> Callable[[int], StepNoise]:
    """Opens the noise file of a run as a function of the number of updates so far.

    Args:
        parts: of the run.
        path: of the file.

    Returns:
        The function, i -> the noise of the step after i updates, as NumPy arrays of the whole batch; it
        raises a UserError where the file is damaged.

    Raises:
        UserError: there is no file, it is damaged, too short or of another run.
    """
    expected = describe_noise(parts)
    if not path.is_file():
        raise UserError(
            f"no noise file {path}: write it with d3pm presample CONFIG --out {shlex.quote(str(path))}, "
            f"or train without, --train.noise None"
        )
    reader = array_record_module.ArrayRecordReader(str(path), READER)
    try:
        header = parse_json(_read_record(reader, path, 0))
        version = header["version"]
        steps = int(header["steps"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged, or not a noise file: presample it again") from error
    if version != VERSION:
        raise UserError(f"noise file {path} has version {version}, expected {VERSION}: presample it again")
    if reader.num_records() != steps + 1:
        raise _damaged_error(path, f"{reader.num_records()} records instead of {steps + 1}")

    # What the noise follows from has to be what this run draws its noise from: a file of another seed would
    # train as well, and give other numbers than the run without a file. More steps than the run has are no
    # harm, as each has a key of its own.
    for name, value in expected.items():
        if header.get(name) != value:
            raise UserError(
                f"noise file {path} has {name} {header.get(name)}, this run has {value}: "
                f"presample one with the config of this run, or train without, --train.noise None"
            )
    if header["steps"] < parts.config.train.steps:
        raise UserError(
            f"noise file {path} has {header['steps']} steps, train.steps is {parts.config.train.steps}: "
            f"presample more, or lower train.steps"
        )
    B = parts.config.train.batch_size
    shape = (B, *parts.description.shape)

    def read_noise(i: int) -> StepNoise:
        record = _read_record(reader, path, i + 1)
        if len(record) != 4 * (2 * B + math.prod(shape)):
            raise _damaged_error(path, f"record {i + 1} has {len(record)} bytes")
        t = np.frombuffer(record, "<i4", B)  # [B]
        p_t = np.frombuffer(record, "<f4", B, offset=4 * B)  # [B]
        u = np.frombuffer(record, "<f4", offset=8 * B).reshape(shape)  # [B, *S]
        return StepNoise(t, p_t, u)

    return read_noise


def _read_record(reader: Any, path: Path, index: int) -> bytes:
    """Reads a record of the file, whose checksum the reader compares."""
    try:
        return reader.read([index])[0]
    except RuntimeError as error:
        raise _damaged_error(path, str(error).partition(" (")[0]) from error


def _damaged_error(path: Path, why: str) -> UserError:
    return UserError(f"noise file {path} is damaged ({why}): presample it again")
