"""One-step matrices that are made when they are read."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class Steps(Sequence[np.ndarray]):
    """make(beta_t) for each t, to be read any number of times: all of them at once need T x K x K float64."""

    def __init__(self, make: Callable[[float], np.ndarray], beta: np.ndarray):
        self._make, self._beta = make, beta

    def __len__(self) -> int:
        return len(self._beta)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Steps(self._make, self._beta[i])
        return self._make(float(self._beta[i]))
