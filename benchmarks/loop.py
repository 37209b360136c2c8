"""Times the training loop: waiting for data, the time to the first step, and what a second device gives.

    python benchmarks/loop.py waiting [--mnist DIR]   # digits, MNIST (TFDS in DIR), a mapped file of 10 GB
    python benchmarks/loop.py first [--rounds 3]      # seconds to the first step, without and with the cache
    python benchmarks/loop.py devices [--rounds 3]    # a step on two CPU devices against one

Every figure is of `d3pm train` in a process of its own, in turn, and a median. The file of 10 GB is sparse:
it takes no room on most file systems.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
NEVER = ["--train.sample-every", "0", "--train.eval-every", "0", "--optimizer.decay-steps", "None"]
LARGE = """
from d3pm_jax.config import Arrays, Config, Cosine, Train, UNet, Uniform

def get_config():
    return Config(
        data=Arrays({path!r}, {path!r}, 256, kind="image"),
        process=Uniform(K=256, steps=100, beta=Cosine()),
        model=UNet(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, attn_resolutions=(7,), groups=8, dropout=0.0),
        train=Train(steps=100, batch_size=64),
    )
"""


def command(config: str, workdir: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "d3pm_jax", "train", config, "--workdir", str(workdir), *more]


def trained(config: str, steps: int, *more: str, **env: str) -> list[dict[str, Any]]:
    """Returns the metrics of a training, but those of its first interval."""
    with tempfile.TemporaryDirectory() as name:
        steps_and_lines = ["--train.steps", str(steps), "--train.log-every", str(max(1, steps // 8))]
        words = command(config, Path(name) / "run", *steps_and_lines, *NEVER, *more)
        subprocess.run(words, check=True, cwd=ROOT, env=os.environ | env, stdout=subprocess.DEVNULL)
        lines = (Path(name) / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][1:]


def waiting(args: argparse.Namespace) -> None:
    """Prints the share of the time that is lost to data."""
    with tempfile.TemporaryDirectory() as name:
        npy = Path(name) / "large.npy"
        config = Path(name) / "large.py"
        np.lib.format.open_memmap(npy, "w+", np.uint8, (10_000_000_000 // 784, 28, 28, 1)).flush()
        config.write_text(LARGE.format(path=str(npy)))
        cases = {"digits": ("configs/digits_uniform.py", 400), "a file of 10 GB": (str(config), args.steps)}
        if args.mnist is not None:
            cases["MNIST"] = ("configs/mnist_uniform.py", args.steps)
        for case, (path, steps) in cases.items():
            options = []
            if case == "MNIST":
                options = ["--data.dir", args.mnist]
            rows = trained(path, steps, *options)
            shares = [row["waiting"] for row in rows]
            seconds = [row["seconds_per_step"] for row in rows]
            print(
                f"{case:<16} waits {statistics.median(shares):.2%} of the time, at most {max(shares):.2%} in "
                f"{len(rows)} intervals; {1e3 * statistics.median(seconds):.0f} ms a step",
                flush=True,
            )


def seconds_to_first_step(cache: Path) -> float:
    """Returns the time from the start of a process until the first step is in its metrics."""
    with tempfile.TemporaryDirectory() as name:
        words = command("configs/digits_uniform.py", Path(name) / "run", "--train.log-every", "1", *NEVER)
        file = Path(name) / "run" / "metrics.jsonl"
        start = time.monotonic()
        process = subprocess.Popen(
            words, cwd=ROOT, env=os.environ | {"XDG_CACHE_HOME": str(cache)}, stdout=subprocess.DEVNULL
        )
        while not file.exists() or not file.stat().st_size:
            time.sleep(0.02)
            if process.poll() is not None:
                raise RuntimeError(f"exit status {process.returncode}")
        seconds = time.monotonic() - start
        process.kill()
        process.wait()
    return seconds


def first(args: argparse.Namespace) -> None:
    """Prints how long the first step of digits_uniform takes to come."""
    cold: list[float] = []
    cached: list[float] = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(seconds_to_first_step(Path(cache)))
            cached.append(seconds_to_first_step(Path(cache)))
    for name, times in {"cold": cold, "with the cache": cached}.items():
        print(f"first step, {name:<14} {statistics.median(times):6.1f} s  of {sorted(times)}", flush=True)
    ratios = [a / b for a, b in zip(cold, cached, strict=True)]
    print(f"median of the ratios: {statistics.median(ratios):.2f}")


def devices(args: argparse.Namespace) -> None:
    """Prints the time of a step on one and on two CPU devices."""
    for config in args.config:
        on_one: list[float] = []
        on_two: list[float] = []
        for _ in range(args.rounds):
            for number, times in {"1": on_one, "2": on_two}.items():
                rows = trained(config, args.steps, *args.more, JAX_NUM_CPU_DEVICES=number)
                times.append(statistics.median(row["seconds_per_step"] for row in rows))
        ratios = [b / a for a, b in zip(on_one, on_two, strict=True)]
        print(
            f"{config}: {1e3 * statistics.median(on_one):.0f} ms on one device, "
            f"{1e3 * statistics.median(on_two):.0f} ms on two; ratios {sorted(ratios)}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("waiting", "first", "devices"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--mnist", metavar="DIR")
    parser.add_argument("--config", nargs="+", default=["configs/digits_uniform.py"])
    args, args.more = parser.parse_known_args()
    {"waiting": waiting, "first": first, "devices": devices}[args.what](args)


if __name__ == "__main__":
    main()
