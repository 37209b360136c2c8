"""Writes what the commands print and what files they write, to compare two versions of the library.

python -m tests.transcript OUT.txt [--folder DIR] [--only N ...]

Each command runs as a process of its own, in one new folder, where later ones find what earlier ones wrote.
With --folder it is a folder that stays: there --only runs these commands again, by their numbers, among what
the others left. Two transcripts of the same machine are equal where nothing has changed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import recorded

COMMANDS = r"""
d3pm --help
d3pm --version
d3pm train --help
d3pm eval --help
d3pm sample --help
d3pm schedule --help
d3pm report --help
d3pm export --help
d3pm import --help
d3pm presample --help
d3pm train images.py --help
d3pm schedule text.py --help

d3pm
d3pm prain images.py --workdir w
d3pm eval
d3pm eval nowhere
d3pm eval nowhere --bogus
d3pm eval nowhere --limit
d3pm eval nowhere --limit many
d3pm eval nowhere --steps 3,x
d3pm eval nowhere --grid odd
d3pm eval nowhere --grid dp
d3pm sample nowhere --steps 3,4
d3pm sample nowhere --seed -1
d3pm sample nowhere --prompt a --infill b
d3pm report nowhere
d3pm export nowhere
d3pm export nowhere --to torch --out weights.pt
d3pm train images.py
d3pm train --workdir w
d3pm train --workdir w --resume
d3pm train none.py --workdir w
d3pm train images.py --workdir w --train.stepz 3
d3pm train images.py --workdir w --train.steps many
d3pm train images.py --workdir w --train.steps
d3pm train images.py --workdir w --train.steps 0
d3pm train images.py --workdir w --train.remat yes
d3pm train images.py --workdir w extra
d3pm train images.py --workdir w --from nowhere --resume
d3pm train images.py --workdir w --config own.py
d3pm train images.py --workdir w --train.noise none.array_record
d3pm train images.py --workdir w --train.batch-size 7
d3pm presample images.py
d3pm schedule images.py images.py
d3pm schedule images.py --out picture.jpg
d3pm import --workdir w
d3pm import bad.safetensors --workdir w
d3pm import none.safetensors --workdir w

d3pm train images.py --workdir images --train.steps 6
d3pm train --workdir images --resume --train.steps 9
d3pm train --workdir classes classes.py --profile
d3pm train text.py --workdir text
d3pm train masked.py --workdir masked --train.accumulate 2
d3pm train arrays.py --workdir=arrays --data.binarize None
d3pm train own.py --workdir own --train.steps 6 --model.width=4
d3pm train --workdir own --resume --config own.py --train.steps 9
d3pm train images.py --dry-run
d3pm train images.py --workdir tuned --from images --train.steps 2

d3pm train images.py --workdir images
d3pm train --workdir images --resume --process.steps 5
d3pm train --workdir images --resume --train.steps 3
d3pm train --workdir own --resume
d3pm eval images --step 5
d3pm eval images --steps 99
d3pm eval images --steps 4 --calls 5
d3pm eval images --chain-rule 3
d3pm eval images --samples 5
d3pm eval arrays --samples 5
d3pm eval text --samples 5 --inception weights.pth
d3pm eval own --config images.py
d3pm sample images --prompt the
d3pm sample images --label 99
d3pm sample images --steps 3 --grid dp
d3pm sample text --gif
d3pm sample text --prompt "the king and queen of"
d3pm sample text --infill "the king"

d3pm eval images
d3pm eval images --limit 20 --steps 2,4
d3pm eval images --limit 20 --steps 3 --grid dp
d3pm eval images --limit 20 --calls 2
d3pm eval images --limit 20 --step 6 --seed 1 --batch-size 8 --data.dir data
JAX_DISABLE_MOST_OPTIMIZATIONS=0 d3pm eval classes --limit 20 --samples 80
d3pm eval text --limit 20 --samples 20
d3pm eval masked --limit 10 --chain-rule 4
d3pm eval arrays
d3pm eval own --config own.py --limit 10

d3pm sample images --num 4
d3pm sample images --num 5 --batch-size 2
d3pm sample images --num 4 --steps 3 --grid dp --seed 2 --step 9
d3pm sample classes --num 4 --label 3 --gif
d3pm sample text --num 2 --prompt "the "
d3pm sample masked --num 2 --infill "the [MASK:6]of"
d3pm sample masked --num 2 --length 8
d3pm sample arrays --num 4
d3pm sample own --num 3 --config own.py

d3pm report images
d3pm report images classes --out both.html
d3pm report text
d3pm export images --to torch
d3pm export images --to torch --raw --step 6 --out raw.safetensors
d3pm export own --to torch --config own.py
d3pm import images/weights.safetensors --help
d3pm import images/weights.safetensors --workdir imported --train.steps 2
d3pm import images/weights.safetensors --workdir imported
d3pm import raw.safetensors classes.py --workdir w
d3pm import raw.safetensors images.py --workdir again
d3pm train --workdir imported --resume
d3pm presample images.py --steps 3 --out noise.array_record
d3pm train images.py --workdir noisy --train.steps 3 --train.noise noise.array_record
d3pm train images.py --workdir w --train.noise noise.array_record
d3pm schedule images.py
d3pm schedule images.py classes.py --out both.png --process.steps 5
d3pm schedule text.py

d3pm train broken.py --workdir w
d3pm train images.py --workdir w --wandb project
d3pm train images.py --dry-run --coordinator auto
d3pm import bad.safetensors images.py --config own.py
d3pm schedule
"""
LINES = [line for line in COMMANDS.splitlines() if line]


def describe_content(content: Any) -> str:
    """Says in a line what a file holds."""
    if not isinstance(content, dict | list):
        return ""
    digest = recorded.sha256(json.dumps(content, sort_keys=True).encode())[:16]
    if isinstance(content, list):
        keys = sorted({name for row in content for name in row})
        return f" {len(content)} rows of {', '.join(keys)}; {digest}"
    if set(content) == {"headings", "words", "sha256"}:
        return f" {' | '.join(content['headings'])}; {len(content['words'])} words; {content['sha256'][:16]}"
    if set(content) == {"shape", "dtype", "sha256"}:
        return f" {content['dtype']} {content['shape']} {content['sha256'][:16]}"
    if set(content) == {"sha256"}:
        return f" {content['sha256'][:16]}"
    return f" {', '.join(sorted(content))}; {digest}"


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Lists the files that a command wrote, changed or deleted."""
    lines = [f"  new {name}{describe_content(x)}" for name, x in after.items() if name not in before]
    both = [name for name in after if name in before and before[name] != after[name]]
    lines += [f"  changed {name}{describe_content(after[name])}" for name in both]
    return lines + [f"  deleted {name}" for name in before if name not in after]


def record(folder: Path, numbers: list[int]) -> Iterator[str]:
    """Runs the commands of these numbers, and yields what each leaves."""
    before = recorded.files(folder)
    for i in numbers:
        line = LINES[i - 1]
        start = time.monotonic()
        done = recorded.run(folder, line)
        after = recorded.files(folder)
        print(f"{i}/{len(LINES)} {time.monotonic() - start:.1f} s  {line}", flush=True)
        files = "\n".join(changes(before, after)) or "  none"
        printed = f"--- stdout\n{done.out}--- stderr\n{done.err}"
        yield f"=== {i}. {line}\n--- status {done.status}\n{printed}--- files\n{files}\n\n"
        before = after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.txt")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to run them (a new one)")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="commands by number (all)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as new:
        folder = Path(args.folder or Path(new) / "folder").resolve()
        if not folder.exists():
            recorded.prepare(folder)
        with args.out.open("w") as file:
            for piece in record(folder, args.only or list(range(1, len(LINES) + 1))):
                file.write(piece)
                file.flush()


if __name__ == "__main__":
    main()
