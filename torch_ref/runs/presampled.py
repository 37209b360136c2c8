"""Reads the noise that `d3pm presample` drew, for a training in PyTorch that sees the same t and uniforms.

Its files are ArrayRecord files, of which `array_record` reads the records.
"""

import json
from collections.abc import Iterator

import numpy as np
import torch
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor


def read(path: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (t, u) of each training step: t int64 [B] in 1..T, u float32 [B, H, W, C] in [0, 1).

    Record 0 of the file is JSON. Record i + 1 is t int32 [B], the probability of each t float32 [B], which is
    1 / T for uniform t, and u float32 [B, H, W, C], all little-endian. `posteriors.q_sample`
    makes x_t of them.

    Raises:
        ValueError: the file is no noise file of version 1.
    """
    reader = array_record_module.ArrayRecordReader(str(path))
    header = json.loads(reader.read([0])[0])
    if (header.get("format"), header.get("version")) != ("d3pm noise bank", 1):
        raise ValueError(f"{path} is not a noise file of version 1: presample it with this release")
    B = header["batch_size"]
    for i in range(header["steps"]):
        record = reader.read([i + 1])[0]
        t = np.frombuffer(record, "<i4", count=B).astype(np.int64)
        u = np.frombuffer(record, "<f4", offset=8 * B).reshape(B, *header["image"])
        yield torch.from_numpy(t), torch.tensor(u)
