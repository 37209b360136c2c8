"""Goes on with runs that another version of the library left, and compares what comes out.

python -m tests.upgrade make FOLDER [--only KIND ...]     # with the old version
python -m tests.upgrade check FOLDER [--only KIND ...]    # with the new one

`make` trains a run of each kind part of the way, to FOLDER/stopped. Then it goes on with copies of them,
evaluates, samples, reports and exports them, and keeps what came out in FOLDER/expected. `check` does the
same with the version that is imported now, from fresh copies of the same runs; it prints a line for each run
and thing, "same" or "DIFFERS: what", and exits with 1 if anything differs. Both on the same machine.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax import runs
from tests import recorded

STOPPED = "stopped"
EXPECTED = "expected"
SHOWN = 5  # differences of a thing
BEGIN = 6  # steps of the training that is stopped
END = 9
MEASURE = "JAX_DISABLE_MOST_OPTIMIZATIONS=0 d3pm eval {run} --limit 12 --samples 80"
THINGS = {".json": "JSON", ".jsonl": "metrics", ".npy": "arrays", ".html": "pages", ".safetensors": "tensors"}
THINGS |= {".png": "pictures", ".gif": "pictures"}


class RunKind(NamedTuple):
    """Says how a run is made, and what is done with it besides what is done with all; {run} is its folder."""

    config: str
    before: tuple[str, ...] = ()  # in place of the training
    also: tuple[str, ...] = ()  # when it is stopped
    after: tuple[str, ...] = ()  # when it was gone on with
    option: str = ""  # that every command needs


KINDS = {
    "images": RunKind(
        "images.py",
        also=(
            "d3pm eval {run} --limit 12 --steps 2,3 --grid dp",
            "d3pm eval {run} --limit 12 --calls 2",
            MEASURE,
        ),
        after=(
            "d3pm sample {run} --num 4 --step 6 --steps 3 --grid dp",
            "d3pm report {run} classes --out {run}/both.html",
        ),
    ),
    "classes": RunKind(
        "classes.py", also=(MEASURE, "d3pm sample {run} --num 4 --label 3 --gif"), after=(MEASURE,)
    ),
    "marginal": RunKind("marginal.py"),
    "text": RunKind(
        "text.py",
        also=("d3pm eval {run} --limit 12 --samples 10", 'd3pm sample {run} --num 2 --prompt "the "'),
        after=("d3pm eval {run} --limit 12 --samples 10",),
    ),
    "lines": RunKind("lines.py"),
    "masked": RunKind(
        "masked.py",
        also=(
            "d3pm eval {run} --limit 12 --chain-rule 3",
            'd3pm sample {run} --num 2 --infill "the[MASK:6]"',
        ),
        after=("d3pm eval {run} --limit 12 --chain-rule 3",),
    ),
    "arrays": RunKind("arrays.py"),
    "noise": RunKind(
        "arrays.py",
        before=(
            f"d3pm presample arrays.py --steps {END} --out noise.array_record",
            f"d3pm train arrays.py --workdir {{run}} --train.steps {BEGIN} --train.noise noise.array_record",
        ),
    ),
    "imported": RunKind(
        "text.py",
        before=(
            "d3pm export text --to torch --out begin.safetensors",
            f"d3pm import begin.safetensors --workdir {{run}} --train.steps {BEGIN}",
            "d3pm train --workdir {run} --resume",
        ),
    ),
    "own": RunKind("own.py", option=" --config own.py"),
}


def making(name: str) -> list[str]:
    """Lists the commands that leave a run which was stopped."""
    kind = KINDS[name]
    trained = (f"d3pm train {kind.config} --workdir {{run}} --train.steps {BEGIN}",)
    seen = ("d3pm eval {run} --limit 12", "d3pm sample {run} --num 4")
    lines = [*(kind.before or trained), *(line + kind.option for line in (*seen, *kind.also))]
    return [line.replace("{run}", name) for line in lines]


def going_on(name: str) -> list[str]:
    """Lists the commands that go on with it."""
    kind = KINDS[name]
    lines = (
        "d3pm eval {run} --limit 12 --seed 1",
        f"d3pm train --workdir {{run}} --resume --train.steps {END}",
        "d3pm eval {run} --limit 12",
        "d3pm sample {run} --num 4",
        *kind.after,
        "d3pm report {run}",
        "d3pm export {run} --to torch",
        "d3pm export {run} --to torch --raw --out {run}/raw.safetensors",
    )
    return [(line + kind.option).replace("{run}", name) for line in lines]


def make(folder: Path, names: list[str]) -> None:
    """Makes the runs that are stopped, and what comes out when they are gone on with."""
    stopped = folder / STOPPED
    if not stopped.exists():
        recorded.prepare(stopped)
    (folder / EXPECTED).mkdir(exist_ok=True)
    for name in names:
        start = time.monotonic()
        shutil.rmtree(stopped / name, ignore_errors=True)
        for line in making(name):
            done = recorded.run(stopped, line)
            if done.status != 0:
                sys.exit(f"{line} ended with {done.status}:\n{done.out}{done.err}")
        print(f"{name}: made in {time.monotonic() - start:.0f} s", flush=True)
    for name in names:
        text = json.dumps(outcome(folder, name), indent=1)
        (folder / EXPECTED / f"{name}.json").write_text(text)


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """Goes on with a copy of a run, and returns what comes out, by things."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as new:
        work = Path(new).resolve() / "work"
        shutil.copytree(folder / STOPPED, work, symlinks=True)
        outcomes: dict[str, Any] = {line: recorded.run(work, line)._asdict() for line in going_on(name)}
        config = None
        if KINDS[name].option:
            config = work / KINDS[name].config
        for step in (BEGIN, END):
            outcomes[f"weights of step {step}"] = weights(runs.open(work / name, config, step))
        files = recorded.files(work / name)
    outcomes["names of files"] = sorted(files)
    for file, content in files.items():
        if content is not None:
            outcomes.setdefault(THINGS.get(Path(file).suffix, "other files"), {})[file] = content
    print(f"{name}: gone on with in {time.monotonic() - start:.0f} s", flush=True)
    return json.loads(json.dumps(outcomes))


def weights(run: runs.Run) -> dict[str, str]:
    """Returns the hash of each array of the averaged weights."""
    leaves = jax.tree_util.tree_flatten_with_path(run.params)[0]
    arrays = {jax.tree_util.keystr(p, simple=True, separator="."): np.asarray(x) for p, x in leaves}
    return {name: f"{x.dtype} {list(x.shape)} {recorded.sha256(x.tobytes())}" for name, x in arrays.items()}


def check(folder: Path, names: list[str]) -> bool:
    """Prints what is the same and what differs; returns whether anything does."""
    bad = False
    for name in names:
        expected = without_first_step(json.loads((folder / EXPECTED / f"{name}.json").read_text()))
        actual = without_first_step(outcome(folder, name))
        for thing in dict.fromkeys([*expected, *actual]):
            differ = list(differences(expected.get(thing), actual.get(thing)))
            bad |= bool(differ)
            print(f"{name}, {thing}: {describe_differences(differ)}", flush=True)
    return bad


def describe_differences(differ: list[str]) -> str:
    """Lists the first few of the differences of a thing in a line."""
    if not differ:
        return "same"
    line = f"DIFFERS: {'; '.join(differ[:SHOWN])}"
    if len(differ) > SHOWN:
        line += f"; {len(differ) - SHOWN} more"
    return line


def without_first_step(tree: Any) -> Any:
    """Returns a tree of JSON as versions write it whose objectives and protocols have `belief` alone."""
    if isinstance(tree, list):
        return [without_first_step(x) for x in tree]
    if not isinstance(tree, dict):
        return tree
    tree = {name: without_first_step(x) for name, x in tree.items()}
    if tree.pop("first_step", "bayes") == "x0" and tree.get("belief") == "d3pm":
        tree["belief"] = "official"
    return tree


def differences(a: Any, b: Any, place: str = "") -> Iterator[str]:
    """Lists where two trees of JSON differ."""
    if isinstance(a, list) and isinstance(b, list):
        # Lists of the same length differ at places. In others, what is in one alone is what differs.
        if len(a) == len(b):
            a = dict(enumerate(a))
            b = dict(enumerate(b))
        else:
            a = {str(x): x for x in a}
            b = {str(x): x for x in b}
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from differences(a.get(key), b.get(key), f"{place}/{key}")
    elif isinstance(a, str) and isinstance(b, str) and "\n" in a + b:
        yield from differences(a.splitlines(), b.splitlines(), place)
    elif a != b or type(a) is not type(b):
        yield f"{place} was {json.dumps(a)[:200]}, is {json.dumps(b)[:200]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=["make", "check"])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    args = parser.parse_args()
    if args.task == "make":
        make(args.folder.resolve(), args.only)
    elif check(args.folder.resolve(), args.only):
        sys.exit(1)


if __name__ == "__main__":
    main()
