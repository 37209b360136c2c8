"""One table of what kernels, training steps and a reverse chain do on the accelerator that JAX finds.

    python benchmarks/accelerator.py [kernels] [chain] [training] [parity] [--small] [--minutes N]

Everything is checked before it is timed: what is wrong has no time, and the exit status is 1. Ours is timed
in turn with the other side: kernels with the official code's form (`kernels.py`), training steps with PyTorch
if it sees the same device, the chain with its steps called one by one. Ratios are medians over rounds, with
their range. A run is made for less than 8 minutes: what would take longer, some of torch.compile and of
parity, is left out and says so. On a CPU sizes are small, and times mean nothing.
"""

import argparse
import importlib.metadata
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import Row, attempted, table

ROOT = Path(__file__).parents[1]
# Seconds that parity may take for a type; those of the first are kept free for it.
PARITY = {"bfloat16": 90, "float32": 300, "float64": 300}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="PART", help="which parts (all)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, as on a CPU")
    parser.add_argument("--minutes", type=float, default=8, help="what would take longer is left out (8)")
    args = parser.parse_args()
    if unknown := set(args.what) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()}: choose from {', '.join(PARTS)}")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too
    sys.path.insert(0, str(ROOT))  # for the twin
    import jax

    start, small, rows = time.monotonic(), args.small or jax.default_backend() == "cpu", []
    for name in args.what or PARTS:
        for row in PARTS[name](small, start + 60 * args.minutes):
            rows.append(row)
            print(f"{time.monotonic() - start:4.0f} s  {row.what}", file=sys.stderr, flush=True)
    rows.append(_peak_memory())
    print(f"{table(rows)}\n\n{versions()}{'; small sizes' if small else ''}")
    return 0 if all(row.ok for row in rows) else 1


def kernels(small: bool, _: float) -> Iterator[Row]:
    import accelerator_kernels as part

    yield from part.rows(
        part.Sizes(16, (8, 64), 3, 0.002) if small else part.Sizes(256, (128, 3072), 9, 0.05)
    )


def training(small: bool, deadline: float) -> Iterator[Row]:
    import accelerator_networks as part

    end = math.inf if small else deadline - PARITY["bfloat16"]
    yield from part.training_rows(_sizes(small), lambda: end - time.monotonic())


def chain(small: bool, _: float) -> Iterator[Row]:
    import accelerator_networks as part

    yield part.chain_row(_sizes(small))


def _sizes(small: bool):
    from accelerator_networks import Sizes
    from networks import NETS, Net

    tiny = {"K": 5, "size": 8, "ch": 8, "ch_mult": (1, 2), "attn_resolutions": (4,)}
    tiny |= {"num_res_blocks": 1, "groups": 4}
    if small:
        unet = Net("UNet", tiny, (4, 8, 8, 1), 2)
        text = Net("Transformer", {"K": 7, "width": 16, "num_layers": 2, "num_heads": 2}, (4, 8), 2)
        return Sizes(unet, text, unet, 6, 3)
    # of the length, width and layers of the text8 network of D3PM
    text = Net("Transformer", {"K": 28, "width": 768, "num_layers": 12, "num_heads": 12}, (64, 256), 5)
    return Sizes(NETS["cifar"]._replace(steps=5), text, NETS["big"], 100, 5)


def parity(small: bool, deadline: float) -> Iterator[Row]:
    """Everything against PyTorch on the CPU; a GPU only."""
    import jax

    for dtype, seconds in PARITY.items():
        what, left = f"parity_tests --device gpu --dtype {dtype}", deadline - time.monotonic()
        command = [sys.executable, "-m", *what.split(), "--matmul-precision", "highest"]
        if small or jax.default_backend() != "gpu":
            yield Row(
                what, correct="left out: needs a GPU, and not --small; `make parity` compares on the CPU"
            )
        elif left < seconds:
            yield Row(what, correct=f"left out: takes some {seconds} s, {left:.0f} s are left")
        else:
            yield attempted(what, lambda w=what, c=command, left=left: compare(w, c, left))


def compare(what: str, command: list[str], limit: float) -> Row:
    """How many comparisons there were, and failed."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Row(what, correct=f"left out: not done in {limit:.0f} s; run it by itself")
    found = re.search(r"([\d,]+) comparisons, (\d+) failed", done.stdout)
    if not found:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return Row(what, correct=f"DID NOT RUN: {last}", ok=False)
    right = done.returncode == 0 and found[2] == "0"
    return Row(what, correct=f"{'yes' if right else 'WRONG'}: {found[0]}", ok=right)


def _peak_memory() -> Row:
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    found, limit = stats.get("peak_bytes_in_use"), stats.get("bytes_limit")
    told = f"{found / 1e9:,.2f} GB" if found else "the device does not tell"
    return Row("most memory that JAX used" + (f", of {limit / 1e9:,.1f} GB" if limit else ""), memory=told)


def versions() -> str:
    """The device, its driver if there is one, and the programs."""
    import jax

    device, driver = jax.devices()[0], "unknown"
    try:
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        pass
    found = {"device": device.device_kind, "driver": driver, "runtime": device.client.platform_version}
    for name in ("jax", "jaxlib", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["python"] = platform.python_version()
    return ", ".join(f"{name} {' '.join(value.split())}" for name, value in found.items())


PARTS = {"kernels": kernels, "chain": chain, "training": training, "parity": parity}

if __name__ == "__main__":
    sys.exit(main())
