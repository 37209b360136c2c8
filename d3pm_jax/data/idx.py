"""Reads idx files, the format in which MNIST and Fashion-MNIST are distributed."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from d3pm_jax.data.source import DatasetError

UINT8 = 0x08


def read(folder: str | Path, name: str) -> np.ndarray:
    """Reads the array uint8 of an idx file, compressed (name.gz) or not.

    Raises:
        DatasetError: there is no such file, or it is damaged.
    """
    path = Path(folder).expanduser() / name
    packed = path.with_name(f"{name}.gz")
    if not (path.is_file() or packed.is_file()):
        raise DatasetError(f"no file {path}, nor {packed.name}: put the four idx files of the data set there")
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{packed} is damaged ({error}): download it again") from error
    if len(content) < 4 or content[:3] != bytes([0, 0, UINT8]):
        raise DatasetError(f"{path} is no idx file of bytes: put the four idx files of the data set there")
    axes = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", min(axes, (len(content) - 4) // 4), 4))
    if len(shape) != axes or len(content) != 4 + 4 * axes + math.prod(shape):
        raise DatasetError(f"{path} is damaged, of {len(content)} bytes for shape {shape}: download it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
