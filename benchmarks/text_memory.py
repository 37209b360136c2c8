"""Prepares a made text of 500 MB and prints how long that takes and how much memory, for each tokenizer.

    python benchmarks/text_memory.py [--megabytes 500] [--packing padded]

Peak resident memory is of a process of its own, libraries included; beside it that of the same process with a
text of 1 MB. Needs about 2.5 times the size of the text on disk, in a temporary folder.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = 20_000  # in all
LINE = 12  # words of a line


def write_text(path: Path, megabytes: float) -> None:
    """Writes lines of words drawn by Zipf's law, some with letters of two bytes."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzé"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(WORDS)])
    share = 1 / np.arange(1, WORDS + 1)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            chosen = words[rng.choice(WORDS, (10_000, LINE), p=share / share.sum())]
            file.write("".join(" ".join(line) + "\n" for line in chosen))


def write_tokenizer(path: Path, text: Path) -> None:
    """Trains byte-level BPE of 8,000 tokens on the text's first megabyte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    with text.open(encoding="utf-8") as file:
        lines = file.read(1_000_000).splitlines()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=8000, show_progress=False))
    tokenizer.save(str(path))


def prepare(text: str, tokenizer: str, packing: str) -> None:
    """Prepares a text and prints what it took, as JSON."""
    from d3pm_jax import config

    start = time.monotonic()
    data = config.Text(text, tokenizer=tokenizer, length=256, packing=packing)
    K = data.describe().categories
    examples = len(data.open_training())
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"K": K, "examples": examples, "seconds": seconds, "MiB": peak}))


def measured(folder: Path, *args: str) -> dict[str, float]:
    """Runs `prepare` in a process with a cache of its own."""
    env = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, __file__, "--prepare", *args]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--packing", default="wrapped")
    parser.add_argument("--prepare", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        prepare(*args.prepare)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, size in (("large.txt", args.megabytes), ("small.txt", 1.0)):
            write_text(folder / file, size)
        write_tokenizer(folder / "tokenizer.json", folder / "small.txt")
        for tokenizer in ("characters", "bytes", str(folder / "tokenizer.json")):
            large = measured(folder, str(folder / "large.txt"), tokenizer, args.packing)
            small = measured(folder, str(folder / "small.txt"), tokenizer, args.packing)
            print(
                f"{Path(tokenizer).stem:<12} K = {large['K']:<5} {large['examples']:>9,} examples  "
                f"{large['seconds']:6.1f} s  {large['MiB']:5.0f} MiB, {small['MiB']:.0f} MiB with 1 MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
