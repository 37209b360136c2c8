"""Builds a release, installs it as its users will, and stops before the upload, whose command it prints.

    python -m venv build/tools
    build/tools/bin/pip install -U pip
    build/tools/bin/pip install --group release
    build/tools/bin/python tools/release.py                             # everything
    build/tools/bin/python tools/release.py --only '3.13:train:*'       # some rows of the table, by pattern

A row of the table is an empty environment, PYTHON:EXTRA:RESOLUTION. A row that is ok and was made from the
same wheel is not made again, so that a stopped release goes on where it was. All that is written lies in
build/release. pip and uv take packages from where pip is configured to.
"""

import argparse
import ast
import dataclasses
import fnmatch
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "release"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("d3pm_jax", "torch_ref", "parity_tests")

PYTHONS = ("3.11", "3.13")
RESOLUTIONS = ("pip", "lowest", "highest")  # pip's, and two of uv
COMPARED = ("jax", "flax", "optax", "torch", "numpy")
FROM_A_CLONE = ("browser", "dev")  # extras of those who change the library
# One import for each extra: what it brings works together. Those for accelerators and [compiled] are
# resolved only.
IMPORTS = {
    "none": "d3pm_jax",
    "train": "d3pm_jax.runs, d3pm_jax.training, d3pm_jax.models",
    "torch": "torch_ref.runs.exported",
    "eval": "torch_fidelity",
    "midi": "symusic",
    "tables": "pandas",
    "text": "tokenizers",
    "attention": "d3pm_jax",  # below Python 3.12 it brings nothing
    "wandb": "wandb",
    "notebooks": "ipykernel, jupytext, matplotlib, nbclient, nbformat",
    "docs": "sphinx, furo, myst_nb, sphinx_copybutton, d3pm_jax.runs, torch_ref",
}
# An environment with these takes gigabytes, for a card that is seldom there: it is resolved, not installed.
CARDS = re.compile(r"^((nvidia|cuda)-|libtpu\b)", re.M)
RESOLVED = "resolved, not installed: libraries for NVIDIA cards or TPUs"


class ReleaseError(Exception):
    """What keeps a version from being released."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Returns what a command prints, or raises a ReleaseError that ends with its last lines."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"JAX_PLATFORMS": "cpu", "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    if done.returncode != 0:
        last_lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        words = " ".join(str(word) for word in command[:6])
        raise ReleaseError(f"{words} ... has exit status {done.returncode}:\n" + "\n".join(last_lines))
    return done.stdout


def tool(name: str) -> Path:
    """Returns the path of a command that lies beside this Python."""
    return Path(sys.executable).parent / name


def read_versions(root: Path = ROOT) -> dict[str, str]:
    """Returns the version, with the date where there is one, as each file states it."""
    patterns = {
        "pyproject.toml": r'^version = "(.+)"$',
        "d3pm_jax/__init__.py": r'^__version__ = "(.+)"$',
        "CHANGELOG.md": r"^## \[(\d.*)\] - (.+)$",  # the newest comes first, after [Unreleased]
        "CITATION.cff": r"^version: (\S+)\ndate-released: (\S+)$",
    }
    versions = {}
    for name, pattern in patterns.items():
        match = re.search(pattern, (root / name).read_text(), re.M)
        versions[name] = " of ".join(match.groups()) if match else "no version"
    return versions


def check_versions(root: Path = ROOT) -> None:
    """Raises a ReleaseError where two files state different versions or dates."""
    versions = read_versions(root)
    numbers = {stated.split(" of ")[0] for stated in versions.values()}
    dates = {stated for stated in versions.values() if " of " in stated}
    if len(numbers) != 1 or len(dates) != 1:
        raise ReleaseError(f"the version differs: {versions}")


def check_tree() -> None:
    """Raises a ReleaseError where a file differs from the last commit, or is not in it."""
    changed = run("git", "status", "--porcelain")
    if changed:
        raise ReleaseError(f"commit or remove these first:\n{changed}")


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build() -> Path:
    """Builds the sdist and, from it, the wheel; returns the wheel, after all that can be checked of both."""
    dist, from_tree = WORK / "dist", WORK / "from-tree"
    for folder in (dist, from_tree):
        shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", from_tree, ROOT)
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    if hash_file(wheel) != hash_file(from_tree / wheel.name):
        raise ReleaseError("the wheel of the sdist is not the wheel of the tree")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    run(tool("check-wheel-contents"), wheel)
    run(tool("cffconvert"), "--validate", "-i", "CITATION.cff")
    check_contents(wheel)
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, SHA-256 {hash_file(path)}")
    return wheel


def check_contents(wheel: Path) -> None:
    """Raises a ReleaseError where the wheel lacks a file that it needs, or has a test or a cache."""
    names = zipfile.ZipFile(wheel).namelist()
    info = f"d3pm_jax-{PROJECT['version']}.dist-info"
    needed = {f"{info}/licenses/LICENSE", "d3pm_jax/py.typed"}
    top_level = {name.split("/")[0] for name in names}
    if not needed <= set(names):
        raise ReleaseError(f"the wheel lacks {needed - set(names)}")
    if top_level != {*PACKAGES, info}:
        raise ReleaseError(f"the wheel has {top_level}")
    unwanted = [name for name in names if re.search(r"(^|/)(tests|__pycache__|\..*)/|\.pyc$", name)]
    if unwanted:
        raise ReleaseError(f"the wheel has {unwanted}")
    print(f"{wheel.name}: {len(names)} files")


def registry_options() -> list[str]:
    """Returns what pip is configured with as options of uv, which does not read it."""
    options = {"index-url", "extra-index-url", "find-links", "constraint"}
    words = []
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, quoted = line.partition("=")
        option = name.rpartition(".")[2]
        if option in options:
            for value in ast.literal_eval(quoted).split():
                words.append(f"--{option}={value}")
    return sorted(set(words))


def list_requirements(extra: str) -> list[str]:
    """Returns what the package with an extra requires directly, where the extra may name others."""
    requirements = set(PROJECT["dependencies"])
    for requirement in PROJECT["optional-dependencies"].get(extra, []):
        others = re.fullmatch(PROJECT["name"] + r"\[(.+)\]", requirement)
        if others is None:
            requirements.add(requirement)
        else:
            for other in others.group(1).split(","):
                requirements.update(list_requirements(other))
    return sorted(requirements)


@dataclasses.dataclass
class Row:
    """One environment: what was asked for, and what came of it."""

    python: str
    extra: str
    resolution: str
    wheel: str  # its hash
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    install_seconds: float | None = None
    import_seconds: float | None = None
    result: str = ""

    @property
    def name(self) -> str:
        return f"{self.python}:{self.extra}:{self.resolution}"

    @property
    def is_done(self) -> bool:
        return self.result in ("ok", RESOLVED)


def list_names() -> list[str]:
    """Returns the names of all rows, in the order of the table."""
    extras = ["none", *(extra for extra in PROJECT["optional-dependencies"] if extra not in FROM_A_CLONE)]
    return [f"{p}:{extra}:{resolution}" for p in PYTHONS for extra in extras for resolution in RESOLUTIONS]


def write_requirements(row: Row, wheel: Path) -> tuple[str, Path]:
    """Returns the wheel with its extra, and a file of all that it requires, as uv and pip read them."""
    extra = "" if row.extra == "none" else f"[{row.extra}]"
    wheel_with_extra = f"{PROJECT['name']}{extra} @ {wheel.as_uri()}"
    # uv's lowest-direct is about what stands in the file: of a wheel alone it would take the newest of all.
    path = WORK / "requirements.in"
    path.write_text("\n".join([wheel_with_extra, *list_requirements(row.extra)]) + "\n")
    return wheel_with_extra, path


def uv_options(row: Row, python: Path) -> list[str]:
    """Returns the options of uv that both resolving and installing take."""
    resolution = "lowest-direct" if row.resolution == "lowest" else "highest"
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in list_requirements(row.extra)]
    only_wheels = [f"--only-binary={name}" for name in names]
    return [f"--python={python}", f"--resolution={resolution}", *only_wheels, *registry_options()]


def read_installed(python: Path) -> dict[str, str]:
    """Returns the versions of `COMPARED` in an environment."""
    code = f"""
import importlib.metadata, json
installed = {{package.name: package.version for package in importlib.metadata.distributions()}}
print(json.dumps({{name: installed[name] for name in {COMPARED} if name in installed}}))
"""
    return json.loads(run(python, "-c", code))


def time_import(python: Path, folder: Path) -> float:
    """Returns the seconds of processor time that a process takes which only imports the library."""

    def processor_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began = processor_seconds()
    run(python, "-c", "import d3pm_jax", cwd=folder)  # elsewhere than the sources, which would come first
    return processor_seconds() - began


def check_environment(row: Row, python: Path, folder: Path) -> None:
    """Raises a ReleaseError where something that this extra promises does not work."""
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (folder / "example.py").write_text(example.group(1))  # pyright: ignore
    run(python, "-W", "error", "example.py", cwd=folder)
    run(python, "-c", f"import {IMPORTS[row.extra]}", cwd=folder)
    printed = run(python.parent / "d3pm", "--version", cwd=folder)
    if printed.split() != ["d3pm_jax", PROJECT["version"]]:
        raise ReleaseError(f"d3pm --version prints {printed}")
    if row.extra in ("train", "docs"):
        run(python.parent / "d3pm", "--help", cwd=folder)


def fill(row: Row, wheel: Path, only_resolve: bool, keep: bool) -> None:
    """Makes the environment of a row and writes what came of it into the row."""
    folder = WORK / "environments" / row.name.replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    wheel_with_extra, requirements = write_requirements(row, wheel)
    python = folder / "bin" / "python"
    try:
        run(tool("uv"), "venv", "--seed", "--python", row.python, folder)
        options = uv_options(row, python)
        pins = run(tool("uv"), "pip", "compile", "--no-header", "--no-annotate", *options, requirements)
        row.versions = dict(re.findall(rf"^({'|'.join(COMPARED)})==(\S+)", pins, re.M))
        if CARDS.search(pins):
            row.result = RESOLVED
            return
        if only_resolve:
            row.result = "resolved only"
            return
        began = time.perf_counter()
        if row.resolution == "pip":
            run(python, "-m", "pip", "install", wheel_with_extra)
        else:
            run(tool("uv"), "pip", "install", *options, "-r", requirements)
        row.install_seconds = time.perf_counter() - began
        row.versions = read_installed(python)
        check_environment(row, python, folder)
        row.import_seconds = time_import(python, folder)  # after the bytecode was written
        row.result = "ok"
    except (ReleaseError, subprocess.TimeoutExpired) as error:
        row.result = str(error)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def read_rows() -> dict[str, Row]:
    """Returns the rows of earlier calls by their names."""
    path = WORK / "rows.json"
    if not path.exists():
        return {}
    return {name: Row(**fields) for name, fields in json.loads(path.read_text()).items()}


def write_rows(rows: dict[str, Row]) -> None:
    """Writes the rows for later calls."""
    as_fields = {name: dataclasses.asdict(row) for name, row in rows.items()}
    (WORK / "rows.json").write_text(json.dumps(as_fields, indent=1))


def format_table(rows: list[Row]) -> str:
    """Returns the rows as a table of Markdown; of an error, its last line."""
    titles = ["Python", "extra", "resolution", *COMPARED, "install, s", "import, CPU s", "result"]
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        versions = [row.versions.get(name, "") for name in COMPARED]
        seconds = [f"{x:.1f}" if x is not None else "" for x in (row.install_seconds, row.import_seconds)]
        result = (row.result.splitlines() or [""])[-1]
        lines.append([row.python, row.extra, row.resolution, *versions, *seconds, result])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="PATTERN", help="rows, as in 3.13:train:lowest")
    parser.add_argument("--resolve", action="store_true", help="resolve the rows and install nothing")
    parser.add_argument("--keep", action="store_true", help="keep the environments in build/release")
    options = parser.parse_args()
    check_tree()
    check_versions()
    WORK.mkdir(parents=True, exist_ok=True)
    wheel = build()
    wheel_hash = hash_file(wheel)
    print(f"{shutil.disk_usage(WORK).free / 1e9:.0f} GB are free; an environment takes up to 2 GB")

    patterns = options.only or ["*"]
    matching = [name for pattern in patterns for name in fnmatch.filter(list_names(), pattern)]
    names = list(dict.fromkeys(matching))  # each once, in the order of the patterns
    if not names:
        raise ReleaseError(f"no row has a name like {patterns}: {list_names()}")
    rows = read_rows()
    for name in names:
        earlier = rows.get(name)
        if earlier is not None and earlier.is_done and earlier.wheel == wheel_hash:
            continue
        row = rows[name] = Row(*name.split(":"), wheel=wheel_hash)
        fill(row, wheel, options.resolve, options.keep)
        write_rows(rows)
        print(f"{name}: {row.result}", flush=True)

    of_this_wheel = [rows[name] for name in list_names() if name in rows and rows[name].wheel == wheel_hash]
    print("\n" + format_table(of_this_wheel))
    if sum(row.is_done for row in of_this_wheel) < len(list_names()):
        raise ReleaseError("not all rows are there and ok: no upload yet")
    print(f"\nTo upload:\n    {sys.executable} -m twine upload {WORK / 'dist'}/*")


if __name__ == "__main__":
    try:
        main()
    except ReleaseError as error:
        sys.exit(str(error))
