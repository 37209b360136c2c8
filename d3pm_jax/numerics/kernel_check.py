"""Compares a kernel with the form of XLA before a program uses it, on the first GPU of the process.

No kernel of `rows` is trusted unseen: where one differs from what XLA makes of the same row function on the
card that is there, XLA's form is used in its place, and a warning says what to report. Where there is no such
card, as where programs are compiled for one that is only described, nothing is compared. XLA's form is also
what is left where JAX has no Triton any more, which it deprecates, or cannot lower a kernel.

D3PM_JAX_PALLAS=0 in the environment turns all kernels off. It is read when this is imported.
"""

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from d3pm_jax.errors import one_line

VARIABLE = "D3PM_JAX_PALLAS"
ALLOWED = os.environ.get(VARIABLE) != "0"
# Of the rows that are compared: the last block of a kernel is not full of them.
SHAPE = (3, 85)
TOLERANCE = 1e-5
# Triton has no code for older cards.
LEAST_CAPABILITY = 8.0

Computation = Callable[..., Sequence[jax.Array]]

_filters = threading.RLock()


def has_triton() -> bool:
    """Says whether the first GPU of this process, if any, can run kernels."""
    device = find_gpu()
    if device is None:
        return True
    is_new = float(getattr(device, "compute_capability", LEAST_CAPABILITY)) >= LEAST_CAPABILITY
    return is_new and has_backend()


@lru_cache(maxsize=1)
def has_backend() -> bool:
    """Says whether this JAX can lower kernels, and warns where it cannot; called where one is wanted."""
    try:
        from jax.experimental.pallas import triton as triton
    except ImportError as error:
        warnings.warn(
            f"jax {jax.__version__} has no Triton for Pallas ({one_line(error)}): XLA's form of all "
            f"kernels is used, which reads logits more often; install a jax that has it, 0.12 or older, for "
            f"the kernels, or set {VARIABLE}=0",
            stacklevel=2,
        )
        return False
    return True


@contextlib.contextmanager
def silence_deprecation() -> Iterator[None]:
    """Leaves out what JAX 0.11 and later say wherever a kernel is lowered in the block.

    They deprecate the backend. `has_backend` says so when it has gone, and nothing else is lost then.
    """
    # Filters belong to the process: two threads that change them at once would leave one of them behind.
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
        yield


@lru_cache(maxsize=1)
def find_gpu() -> Any:
    """Returns the first GPU of this process, None where it has none."""
    try:
        return jax.local_devices(backend="cuda")[0]
    except RuntimeError:
        return None


def agrees(name: str, kernel: Computation, reference: Computation, K: int, arguments: Sequence[Any]) -> bool:
    """Says whether a kernel gives what the reference does for some rows; true where there is no GPU to ask.

    Args:
        name: of the kernel, for the warning.
        kernel, reference: (logits [*SHAPE, K], *numbers, *tables) -> arrays.
        K: number of categories.
        arguments: shapes and types of what both take.

    Raises:
        RuntimeError: they differ in one of several processes, which have to run the same program.
    """
    device = find_gpu()
    if device is None:
        return True
    rng = np.random.default_rng(0)
    inputs = [_draw(rng, K, x) for x in arguments]

    desired = compute_outside_a_trace(reference, inputs, device)
    try:
        actual = compute_outside_a_trace(kernel, inputs, device)
    except Exception as error:  # of a compiler, whose errors have no type in common
        failure = f"fails with {one_line(error)!r}"
    else:
        if all(_is_close(a, b) for a, b in zip(actual, desired, strict=True)):
            return True
        failure = "differs from XLA"
    give_up(
        f"the kernel {name} {failure} on {device.device_kind} for K = {K}: please report this line, with the "
        f"versions of jax ({jax.__version__}) and of the driver"
    )
    return False


def compute_outside_a_trace(compute: Computation, inputs: Sequence[Any], device: Any) -> Sequence[np.ndarray]:
    """Returns what a function gives on a device for arrays of NumPy, also while a program is traced."""

    def run() -> Sequence[np.ndarray]:
        # Rows of all kinds make some results NaN.
        with jax.debug_nans(False), silence_deprecation():
            return jax.device_get(jax.jit(compute)(*jax.device_put(inputs, device)))

    # A thread of its own knows nothing of a trace, and computes.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def give_up(report: str) -> None:
    """Warns that XLA's form is used in place of a kernel.

    Raises:
        RuntimeError: this is one of several processes, which have to run the same program.
    """
    if jax.process_count() > 1:
        raise RuntimeError(f"{report}; set {VARIABLE}=0 for all processes")
    warnings.warn(f"{report}; XLA's form is used in its place", stacklevel=2)


# The same for what many programs meet: once for each report.
give_up_once = lru_cache(maxsize=256)(give_up)


def _draw(rng: np.random.Generator, K: int, x: Any) -> np.ndarray:
    """Draws what stands for logits, categories, noise or logs: both forms are the same function of any."""
    if np.issubdtype(x.dtype, np.integer):
        # Few values, so that x_0 is often x_t, and either often the mask.
        return rng.choice([0, 1, K // 2, K - 1], x.shape).astype(x.dtype)
    # Some are -inf, as the log of a probability of 0 is.
    is_impossible = rng.random(x.shape) < 0.03
    if x.shape[len(SHAPE) :] == (K,):
        logits = np.where(is_impossible, -np.inf, rng.normal(size=x.shape))
        logits[0, 0] = -np.inf
        logits[0, 1, 0] = np.nan
        return logits.astype(x.dtype)
    numbers = rng.uniform(0.01, 0.99, x.shape)
    if x.shape == (K,):
        return numbers.astype(x.dtype)
    return np.where(is_impossible, -np.inf, numbers).astype(x.dtype)


def _is_close(actual: np.ndarray, desired: np.ndarray) -> bool:
    if np.issubdtype(desired.dtype, np.integer):
        # A last bit of an exponential may move one number over a boundary, not more; -1 is no such number.
        return np.array_equal(actual < 0, desired < 0) and int(np.sum(actual != desired)) <= 1
    tolerance = max(TOLERANCE, 2 * float(jax.numpy.finfo(desired.dtype).eps))
    actual = actual.astype(np.float64)
    desired = desired.astype(np.float64)
    return np.allclose(actual, desired, tolerance, tolerance, equal_nan=True)
