"""Runs the tests on each deliberate break of the library, and says which of them notice.

    python -m tests.mutations.run [--out FILE.json] [--only NAME ...] [--jobs N] [--check] [--list]

A break is made in a copy of the working tree, never in the tree itself. First come the test files that the
table names for it; the whole suite runs at the end, one break at a time, for those that passed them. What is
known stands in FILE.json after every run of pytest, so a run that was stopped goes on where it was.
"""

import argparse
import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutations.breaks import BREAKS, Break

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = "tests/mutations/"  # its test would notice every break by the text
PYTEST = ("-m", "pytest", "-x", "-q", "--color=no", "-p", "no:cacheprovider", "-m", "not slow")
ONE_PROCESS = ("-n", "0")
TWO_PROCESSES = ("-n", "2", "--dist", "loadfile")
TARGETED_LIMIT = 600.0  # seconds
SUITE_LIMIT = 3600.0
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)

CAUGHT = "caught"
TIMEOUT = "timeout"
OPEN = "open"  # the tests that the table names for it passed
SURVIVED = "survived"
Record = dict[str, Any]  # outcome, test: the first that failed, seconds


class Tests(NamedTuple):
    """Says how a run of pytest ended."""

    outcome: str  # caught, timeout or survived
    test: str | None
    seconds: float


class Results:
    """Keeps a record for each break, in a file after each change if there is one."""

    def __init__(self, path: Path | None):
        self.path = path
        self.records: dict[str, Record] = {}
        if path is not None and path.exists():
            self.records = json.loads(path.read_text())

    def add(self, name: str, result: Tests, outcome: str) -> None:
        """Records the result of a run of pytest on a break, prints a line, and writes the file."""
        seconds = self.records.get(name, {}).get("seconds", 0.0) + result.seconds
        self.records[name] = {"outcome": outcome, "test": result.test, "seconds": round(seconds, 1)}
        words = result.test or ""
        if outcome == OPEN:
            words = "its own tests pass, the whole suite comes later"
        print(f"{outcome:>8}  {seconds:6.1f} s  {name}  {words}", flush=True)
        if self.path is not None:
            # Written beside it and moved: a run that is stopped meanwhile leaves the old file.
            partial = self.path.with_name(self.path.name + ".partial")
            partial.write_text(json.dumps(self.records, indent=1) + "\n")
            os.replace(partial, self.path)

    def outcome(self, name: str) -> str | None:
        """Returns the outcome of a break, or None before its tests have run."""
        return self.records.get(name, {}).get("outcome")


class Tree:
    """Holds a copy of the working tree, in which breaks are made and tests run.

    Python's own list of paths begins with the copy, there and in the processes that tests start, so an
    editable install of the working tree comes after it. No bytecode is written: it could outlive a break.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path):
        self.root = folder / "tree"
        self._scratch = folder / "scratch"
        self._running: subprocess.Popen | None = None
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in names.split("\0"):
            if name and not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        self._environment = dict(os.environ)
        self._environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        self._environment["PYTHONPATH"] = str(self.root)
        self._environment["PYTHONDONTWRITEBYTECODE"] = "1"
        self._check_import()

    def _check_import(self) -> None:
        code = "import d3pm_jax; print(d3pm_jax.__file__)"
        command = [sys.executable, "-c", code]
        process = subprocess.run(
            command, cwd=self.root, env=self._environment, check=True, stdout=subprocess.PIPE, text=True
        )
        file = Path(process.stdout.strip()).resolve()
        assert file.is_relative_to(self.root.resolve()), f"{file} is imported in place of the copy"

    @contextlib.contextmanager
    def broken(self, change: Break) -> Iterator[None]:
        """Makes a break for the time of the block."""
        path = self.root / change.file
        text = path.read_text()
        assert text.count(change.old) == 1, f"{change.name} does not fit {change.file}"
        path.write_text(text.replace(change.old, change.new))
        try:
            yield
        finally:
            path.write_text(text)

    def test(self, arguments: Sequence[str], limit: float) -> Tests:
        """Runs pytest up to the first failure; what JAX compiles is kept in the scratch folder of this run.

        Raises:
            RuntimeError: pytest did not come to run tests.
        """
        command = [sys.executable, *PYTEST, f"--basetemp={self._scratch}", *arguments]
        began = time.monotonic()
        running = self._running = subprocess.Popen(
            command,
            cwd=self.root,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = running.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return Tests(TIMEOUT, None, time.monotonic() - began)
        finally:
            self.stop()
        outcome, test = _read(running.returncode, output)
        return Tests(outcome, test, time.monotonic() - began)

    def stop(self) -> None:
        """Ends the tests that run, and the processes that they started."""
        running = self._running
        self._running = None
        if running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def _read(status: int, output: str) -> tuple[str, str | None]:
    """Returns the outcome of a run of pytest, and the first test that failed."""
    failed = FAILED.search(output)
    if status == 0:
        return SURVIVED, None
    if failed is not None:
        return CAUGHT, failed[1]
    if status < 0 and status != -signal.SIGKILL:  # that is `stop`, or no memory
        return CAUGHT, f"pytest ended by signal {-status}"
    raise RuntimeError(f"pytest ended with status {status} and no failed test:\n{output[-3000:]}")


@contextlib.contextmanager
def copies(number: int) -> Iterator[list[Tree]]:
    """Makes copies of the working tree; what runs in them ends with the block."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        trees = [Tree(Path(folder) / str(i)) for i in range(number)]
        try:
            yield trees
        finally:
            for tree in trees:
                tree.stop()


def spread(trees: Sequence[Tree], work: Callable[[Tree, Any], None], items: Sequence[Any]) -> None:
    """Calls work(tree, item) for all items, as many at a time as there are trees."""
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)

    def work_on(item: Any) -> None:
        tree = free.get()
        try:
            work(tree, item)
        finally:
            free.put(tree)

    pool = ThreadPoolExecutor(len(trees))
    try:
        for _ in pool.map(work_on, items):
            pass
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for tree in trees:
            tree.stop()
        raise
    finally:
        pool.shutdown()


def check(trees: Sequence[Tree], chosen: Sequence[Break]) -> bool:
    """Runs every test file of the breaks on the library as it is; returns whether all pass in time."""
    bad = []

    def unbroken(tree: Tree, path: str) -> None:
        result = tree.test([*ONE_PROCESS, path], TARGETED_LIMIT)
        print(f"unbroken  {result.seconds:6.1f} s  {path}  {result.test or ''}", flush=True)
        if result.outcome != SURVIVED:
            bad.append(path)

    spread(trees, unbroken, sorted({path for change in chosen for path in change.tests}))
    if bad:
        print(f"{', '.join(bad)}: no break can be judged by these before they pass")
    return not bad


def judge(trees: Sequence[Tree], chosen: Sequence[Break], results: Results) -> None:
    """Runs the tests on every break of which the end is not known yet."""

    def run_targeted_tests(tree: Tree, change: Break) -> None:
        with tree.broken(change):
            result = tree.test([*ONE_PROCESS, *change.tests], TARGETED_LIMIT)
        outcome = result.outcome
        if outcome == SURVIVED:
            outcome = OPEN
        results.add(change.name, result, outcome)

    def run_suite(tree: Tree, change: Break) -> None:
        with tree.broken(change):
            result = tree.test(TWO_PROCESSES, SUITE_LIMIT)
        results.add(change.name, result, result.outcome)

    spread(trees, run_targeted_tests, [b for b in chosen if results.outcome(b.name) is None])
    spread(trees[:1], run_suite, [b for b in chosen if results.outcome(b.name) == OPEN])


def summary(chosen: Sequence[Break], results: Results) -> str:
    """Says how many breaks were noticed, and which were not."""
    caught = sum(results.outcome(b.name) == CAUGHT for b in chosen)
    sentences = [f"{caught} of {len(chosen)} caught"]
    for outcome in (TIMEOUT, SURVIVED):
        names = [b.name for b in chosen if results.outcome(b.name) == outcome]
        if names:
            sentences.append(f"{outcome}: {', '.join(names)}")
    return "; ".join(sentences)


def main() -> int:
    """Runs the command; returns 0 if every break was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations.run", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="where results are kept and gone on from"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these breaks alone")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="breaks at a time (1), a copy for each"
    )
    parser.add_argument("--check", action="store_true", help="first see that the tests pass without a break")
    parser.add_argument("--list", action="store_true", help="print the breaks and run nothing")
    args = parser.parse_args()
    unknown = sorted({*(args.only or ())} - {b.name for b in BREAKS})
    if unknown:
        parser.error(f"no break is named {', '.join(unknown)}: see --list")
    chosen = [b for b in BREAKS if args.only is None or b.name in args.only]
    if args.list:
        for b in chosen:
            print(f"{b.name}  {b.file}  {' '.join(b.tests)}")
        return 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results = Results(args.out)
    with copies(max(1, args.jobs)) as trees:
        if args.check and not check(trees, chosen):
            return 1
        judge(trees, chosen, results)
    print(summary(chosen, results))
    return int(any(results.outcome(b.name) != CAUGHT for b in chosen))


if __name__ == "__main__":
    sys.exit(main())
