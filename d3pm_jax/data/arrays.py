"""Opens NumPy arrays of examples, in memory or as .npy files."""

from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.data.source import DatasetError
from d3pm_jax.errors import one_line


class ArraySource:
    """Gives random access to x [N, *S], and to labels [N] if there are any; nothing is copied.

    Args:
        x: integers.
        labels: integers, one for each example.
        name: of x, in messages.

    Raises:
        DatasetError: they are not integers, or not as many labels as examples.
    """

    def __init__(self, x: np.ndarray, labels: np.ndarray | None = None, name: str = "x") -> None:
        _check_integers(x, name)
        if x.ndim < 2:
            raise DatasetError(f"{name} has shape {x.shape}: examples are its rows, so it needs two axes")
        if labels is not None:
            _check_integers(labels, f"the labels of {name}")
            if labels.shape != (len(x),):
                raise DatasetError(
                    f"the labels of {name} have shape {labels.shape}: pass one for each of {len(x)} examples"
                )
        self._x, self._labels = x, labels

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = {} if self._labels is None else {"label": int(self._labels[index])}
        return {"x": self._x[index], **labels}


def open_npy(path: str | Path) -> np.ndarray:
    """Maps an .npy file into memory.

    Raises:
        DatasetError: there is no such file, or it is no .npy file.
    """
    if not Path(path).is_file():
        raise DatasetError(f"no file {path} (from {Path.cwd()}): write it with numpy.save, or name another")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # also of the parser of Python, which NumPy reads a header with
        why = one_line(error)
        raise DatasetError(f"{path} cannot be read as .npy ({why}): write it with numpy.save") from error


def _check_integers(x: np.ndarray, name: str) -> None:
    if not np.issubdtype(x.dtype, np.integer):
        raise DatasetError(f"{name} has dtype {x.dtype}: categories are integers, convert it first")
