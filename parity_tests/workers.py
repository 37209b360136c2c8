"""Parts of the report, computed by as many processes as there are processors."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import jax

Key = TypeVar("Key", bound=Hashable)
MAX_WORKERS = 8  # each holds PyTorch, JAX and the programs that it compiled
LARGEST_CACHE = 10 * 2**30  # bytes of programs that workers share
LEAST_SECONDS = 0.1  # that such a program takes to compile


def compute(parts: Mapping[Key, Callable[[], Any]], device: Any) -> dict[Key, Any]:
    """Calls every part with JAX on this device, in the order of the parts, several at a time.

    On a GPU this process calls them all, because every other one would ask for most of its memory too.

    Args:
        parts: functions that can be pickled, as their results can.
        device: of JAX.

    Returns:
        The result of each part, by its key.
    """
    count = min(MAX_WORKERS, os.cpu_count() or 1)
    if device.platform != "cpu" or count == 1:
        with jax.default_device(device):
            return {key: part() for key, part in parts.items()}

    # A fork of a process may hang where JAX or PyTorch has threads already: these start afresh.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        pool = ProcessPoolExecutor(count, context, _start_worker, (folder,))
        try:
            futures = {key: pool.submit(_call, part) for key, part in parts.items()}
            return {key: future.result() for key, future in futures.items()}
        except KeyboardInterrupt:
            # Nobody waits for the parts that have begun, which may take minutes.
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
        finally:
            # After an error the parts that have not begun are left out.
            pool.shutdown(cancel_futures=True)


def _call(part: Callable[[], Any]) -> Any:
    """Calls a part, and forgets what it compiled: the programs of all parts take several gigabytes."""
    result = part()
    jax.clear_caches()
    return result


def _start_worker(folder: str) -> None:
    """Sets up JAX before it is asked for its first device.

    Args:
        folder: where all workers keep what they compiled. Two beliefs may be one program, and all kernels
            have the small programs of operations without jit: each is compiled once.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    # With a largest size JAX locks the folder while it reads or writes, so that no worker reads half of what
    # another one writes. It then looks at all that is there for each program that it adds: only what takes
    # some time to compile is worth that.
    jax.config.update("jax_compilation_cache_max_size", LARGEST_CACHE)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # Where there is a GPU, this process leaves it and its memory alone.
    jax.config.update("jax_platforms", "cpu")

    # A key that is pressed in the terminal is for the command, which says that it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    # Where the command is killed, a worker would wait for its next part for ever.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
