"""One table of what kernels, training steps and a reverse chain do on the accelerator that JAX finds.

    python benchmarks/accelerator.py [kernels] [chain] [training] [parity] [--small] [--minutes N]

Everything is checked before it is timed: what is wrong has no time, and the exit status is 1. Ours is timed
in turn with the other side: kernels with the official code's form (`kernels.py`), training steps with
torch.compile if PyTorch sees the same GPU, the chain with its steps called one by one. Ratios are medians
over rounds, with their range. A run is made for less than 8 minutes: training steps and parity that would
take longer are NOT COMPARED. On a CPU sizes are small, and times mean nothing.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
from measuring import HEAD, Row, Rows, attempted, failed, line

PARTS = {
    "kernels": "accelerator_kernels",
    "chain": "accelerator_networks",
    "training": "accelerator_networks",
    "parity": "accelerator_parity",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="PART", help="which parts (all)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, as on a CPU")
    parser.add_argument("--minutes", type=float, default=8, help="what would take longer is left out (8)")
    args = parser.parse_args()
    if unknown := set(args.what) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()}: choose from {', '.join(PARTS)}")
    # PyTorch needs memory too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_platforms", with_cpu(jax.config.jax_platforms))
    # The twin is not installed, and lies beside this folder.
    sys.path.insert(0, str(Path(__file__).parents[1]))
    small = args.small or jax.default_backend() == "cpu"
    end = time.monotonic() + 60 * args.minutes
    if small:
        end = math.inf
    print(line(HEAD), line(("---",) * len(HEAD)), sep="\n", flush=True)
    outcomes: list[bool | None] = []
    for name in args.what or PARTS:
        outcomes += print_rows(name, small, end)
    right = outcomes.count(True)
    wrong = outcomes.count(False)
    left_out = outcomes.count(None)
    note = ""
    if small:
        note = "; small sizes"
    print(f"\n{versions()}{note}")
    print(f"{right} rows right, {wrong} wrong or not run, {left_out} left out")
    return int(wrong > 0)


def with_cpu(platforms: str | None) -> str | None:
    """Returns the platforms of JAX with the CPU at the end, which says what is right: "cuda" hides it."""
    if platforms and "cpu" not in platforms:
        return f"{platforms},cpu"
    return platforms


def print_rows(name: str, small: bool, end: float) -> list[bool | None]:
    """Prints the rows of a part as they come, as an abort must not lose them; says which are right."""

    def show(what: str, row: Row) -> bool | None:
        print(line((what, *row[:-1])), flush=True)
        return row.ok

    try:
        part: Callable[[bool, float], Rows] = getattr(importlib.import_module(PARTS[name]), name)
    except ImportError as error:
        return [show(name, failed(error))]
    return [show(what, attempted(find)) for what, find in part(small, end)]


def versions() -> str:
    """Lists the device, the most memory that JAX used on it, its driver if there is one, and the programs."""
    device = jax.devices()[0]
    driver = "unknown"
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    with contextlib.suppress(OSError, subprocess.CalledProcessError, IndexError):
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    most_memory = "not told"
    if memory:
        most_memory = f"{memory / 1e9:,.2f} GB"
    values = {
        "device": device.device_kind,
        "most memory": most_memory,
        "driver": driver,
        "runtime": device.client.platform_version,
    }
    for name in ("jax", "jaxlib", "jax-cuda12-plugin", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            values[name] = importlib.metadata.version(name)
    with contextlib.suppress(ImportError, OSError):
        import torch

        values["cuDNN of torch"] = str(torch.backends.cudnn.version())
    values["python"] = platform.python_version()
    return ", ".join(f"{name} {' '.join(value.split())}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
