"""Runs commands in a folder as a user types them, and records what they print and write.

What differs between two moments or machines is left out: seconds and rates, the folder, names that are drawn
at random, and how a checkpoint lies on the disk. Everything else is kept, the pixels of pictures too.
"""

import hashlib
import html
import io
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

import d3pm_jax

CONFIGS = Path(__file__).with_name("recorded_configs")
LIBRARY = Path(d3pm_jax.__file__).parents[1]  # what is imported here
CACHE = "cache"  # the folder of programs, beside the runs
DATA = "data"  # that of data sets
WORDS = "the king and queen of a far land saw me go to war with no men but ten who ran"

RATE = re.compile(r"  [\d.e+]+ \w+/s  (\d+ days?, )?[\d:]+ left")
COUNT = re.compile(r"^\w+ (\d+)/(\d+)$")
NORMAL = (
    (r"compiled in [\d.]+ s", "compiled in SECONDS s"),
    (r"this machine has [\d.]+ [GM]B", "this machine has MEMORY"),
    (r"Written [\d-]+ [\d:]+ UTC", "Written NOW"),
    (r"\.[0-9a-f]{16}\.partial", ".RANDOM.partial"),
    (r'"commit": "[0-9a-f]{40}"', '"commit": "COMMIT"'),
    (r'("format\.json": \[\s*)"[0-9a-f]{64}"', r'\1"HASH"'),
)
OF_TIME = ("seconds_per_step", "examples_per_second", "waiting", "mfu")  # in metrics.jsonl
TITLES = ("seconds per step", "examples per second", "share of the time that waits for data")  # in a report
NAMES = (
    (r"/[0-9a-f]{32}$", "/RANDOM"),  # in a checkpoint
    (r"events\.out\.tfevents\..*", "events.out.tfevents.RANDOM"),
    (r"profile/plugins/profile/[^/]+/.+?(?=\.trace|\.xplane)", "profile/plugins/profile/NOW/HOST"),
)


class Done(NamedTuple):
    """Holds a command that has ended."""

    status: int
    out: str
    err: str


def prepare(folder: Path) -> None:
    """Copies the config files into a folder, and writes the data that they name."""
    rng = random.Random(0)
    numbers = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA).mkdir()
    for path in CONFIGS.glob("[a-z]*.py"):
        shutil.copy(path, folder)
    lines = (" ".join(rng.choices(WORDS.split(), k=rng.randint(2, 9))) for _ in range(400))
    (folder / "play.txt").write_text("\n".join(lines) + "\n")
    for split, n in (("train", 300), ("test", 40)):
        labels = numbers.integers(0, 3, n)
        np.save(folder / f"{split}_labels.npy", labels)
        np.save(folder / f"{split}.npy", (numbers.integers(0, 3, (n, 12)) + labels[:, None]).astype(np.int8))
    (folder / "bad.safetensors").write_bytes(b"no weights " * 20)
    (folder / "broken.py").write_text("def get_config():\n    return 1 / 0\n")


def run(folder: Path, line: str) -> Done:
    """Runs a line of a shell, [NAME=VALUE] d3pm ARGUMENTS, with the library that would be imported here."""
    words = shlex.split(line)
    i = words.index("d3pm")
    env = environment(folder) | dict(word.split("=", 1) for word in words[:i])
    command = [sys.executable, "-m", "d3pm_jax", *words[i + 1 :]]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return Done(done.returncode, printed(done.stdout, folder), printed(done.stderr, folder))


def environment(folder: Path) -> dict[str, str]:
    """Returns the variables of a command: what is kept lies in the folder, and compiling is quick.

    Layout and compilation are the same on every machine, as far as that depends on variables.
    """
    env = {name: x for name, x in os.environ.items() if not name.startswith(("JAX_", "D3PM_", "XLA_"))}
    env |= {"PYTHONPATH": str(LIBRARY), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"XDG_CACHE_HOME": str(folder / CACHE), "TFDS_DATA_DIR": str(folder / DATA)}
    env |= {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    older = tuple(map(int, metadata.version("jax").split(".")[:2])) < (0, 11)  # it has a way that is quicker
    flags = ["--xla_cpu_parallel_codegen_split_count=1", *["--xla_cpu_use_fusion_emitters=false"] * older]
    env |= {"JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": " ".join(flags)}
    return env


def printed(text: str, folder: Path) -> str:
    """Returns what a command printed without seconds, and without the lines that only slow machines print."""
    lines = []
    for line in normal(text, folder).splitlines():
        line = RATE.sub("", line)
        count = COUNT.match(line)
        if count is None or count[1] == count[2]:
            lines.append(line.rstrip())
    return "".join(f"{line}\n" for line in lines)


def normal(text: str, folder: Path) -> str:
    """Returns a text without what differs between moments and machines."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(rf"{re.escape(str(LIBRARY))}/\S+\.py:\d+: ", "LIBRARY: ", text)  # of a warning
    for pattern, name in NORMAL:
        text = re.sub(pattern, name, text)
    return text


def files(folder: Path) -> dict[str, Any]:
    """Returns what the files below a folder hold, by their names; None for those whose names are enough."""
    content_by_name: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "programs/" in name:
            continue
        for pattern, short in NAMES:
            name = re.sub(pattern, short, name)
        if _is_name_enough(name):
            content_by_name[name] = None
        else:
            content_by_name[name] = read_content(path, folder)
    return content_by_name


def _is_name_enough(name: str) -> bool:
    inside = re.search(rf"(^|/)(checkpoints/\d+|tensorboard|profile|{DATA}|{CACHE}/matplotlib)/", name)
    return inside is not None or name.endswith((".lock", "/lock"))


def read_content(path: Path, folder: Path) -> Any:
    """Returns what a file holds, as JSON that two files can be compared by."""
    raw = path.read_bytes()
    if path.suffix == ".npy":
        x = np.load(io.BytesIO(raw), allow_pickle=False)
        return {"shape": list(x.shape), "dtype": str(x.dtype), "sha256": sha256(x.tobytes())}
    if path.suffix == ".safetensors" and path.name != "bad.safetensors":
        return hash_tensors(path)
    if path.suffix in (".png", ".gif", ".array_record", ".safetensors", ".tokens", ".ends", ""):
        return {"sha256": sha256(raw)}
    text = normal(raw.decode(), folder)
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        return [{k: "TIME" if k in OF_TIME else x for k, x in row.items()} for row in rows]
    if path.suffix == ".html":
        return page(text)
    return {"sha256": sha256(text.encode())}


def hash_tensors(path: Path) -> dict[str, Any]:
    """Returns the hash of each tensor of a file, and the texts beside them."""
    with safetensors.safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        texts: dict[str, Any] = {f"metadata {k}": x for k, x in (file.metadata() or {}).items()}
    return texts | {name: f"{x.dtype} {list(x.shape)} {sha256(x.tobytes())}" for name, x in arrays.items()}


def page(text: str) -> dict[str, Any]:
    """Returns the headings and all other words of a page but in plots, and the hash of all that is in it."""
    timed = "|".join(TITLES)
    text = re.sub(rf"(?s)<figure><figcaption>({timed})<.*?</figure>", "<figure>TIME</figure>", text)
    body = re.sub(r"(?s)<(style|script|svg)\b.*?</\1>", "", text)
    pieces = [html.unescape(piece).strip() for piece in re.sub(r"<[^>]*>", "\n", body).split("\n")]
    headings = re.findall(r"<h\d[^>]*>(.*?)</h\d>", body)
    return {"headings": headings, "words": [x for x in pieces if x], "sha256": sha256(text.encode())}


def sha256(x: bytes) -> str:
    return hashlib.sha256(x).hexdigest()
