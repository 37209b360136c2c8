"""What an import of the library brings, and what it must not."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import d3pm_jax
from d3pm_jax.extras import write_install

ROOT = Path(d3pm_jax.__file__).parent
CORE = {"jax", "jaxtyping", "numpy", "scipy"}


def test_importing_the_library_stays_light():
    heavy = [
        "torch",
        "tensorflow",
        "tensorflow_datasets",
        "matplotlib",
        "flax",
        "optax",
        "orbax",
        "grain",
        "sklearn",
    ]
    # The package itself imports JAX; nothing else may come with it, or with the command line after it.
    code = f"""
import sys, d3pm_jax
print([m for m in {["jax", *heavy]} if m in sys.modules])
import d3pm_jax.cli.main
print([m for m in {["jax", *heavy]} if m in sys.modules])
import d3pm_jax.data
print([m for m in {["tensorflow_datasets", "grain", "sklearn"]} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "['jax']\n['jax']\n[]\n"


def extra_modules():
    """What kernels may not import, and only the extras bring: of the contract in pyproject.toml."""
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    (kernels,) = (c for c in contracts if c["name"] == "Kernels need nothing of a trainer")
    return set(kernels["forbidden_modules"])


def imported(path):
    """The packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_every_import_is_of_the_core_or_of_the_extra():
    modules = {name for path in ROOT.rglob("*.py") for name in imported(path)}
    assert modules - set(sys.stdlib_module_names) - {"d3pm_jax"} == CORE | extra_modules()


WITHOUT_EXTRA = """
import importlib, sys
sys.modules.update(dict.fromkeys({extra}))  # as if they were not installed
for name in {modules}:
    try:
        importlib.import_module(name)
        print(name)
    except ImportError as error:
        print(name, error)
from d3pm_jax.cli.main import main
main(["train", "x.py", "--workdir", "w"])
"""


def test_without_the_extra_kernels_work_and_the_rest_names_it():
    files = [path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.py")]
    modules = [".".join(file.parts) for file in files if "cli" not in file.parts and file.name != "__init__"]
    code = WITHOUT_EXTRA.format(extra=sorted(extra_modules()), modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    failed = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    cure = (
        r"needs \w+: pip install -e '\.\[train\]' in the clone \('d3pm-jax\[train\]' once it is published\)"
    )
    assert all(re.fullmatch(rf"d3pm_jax\.[\w.]+ {cure}", text) for text in failed.values()), failed
    rooms = {name.split(".")[1] for name in failed}
    assert rooms == {
        "config",
        "contrib",
        "data",
        "evaluation",
        "judge",
        "kinds",
        "models",
        "program",
        "report",
        "runs",
        "show",
        "training",
        "weights",
    }
    assert done.returncode == 1
    assert re.fullmatch(rf"d3pm train: error: the command {cure}\n", done.stderr), done.stderr


def test_the_twin_names_its_extra():
    code = "import sys; sys.modules['torch'] = None; import torch_ref"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith(f"torch_ref needs torch: {write_install('torch')}")
