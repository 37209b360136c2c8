"""Writes docs/licences.md: the licence of each direct dependency, as its metadata states it.

    build/tools/bin/python -m tools.licences

It installs the newest version of each direct dependency, and nothing that these depend on, into an empty
environment in build/. The exit status is 1 where a licence is copyleft, of one company or not stated, and
`REMARKS` does not say why the package may be used.
"""

import json
import re
import shutil
import sys
from typing import Any

from tools.release import PROJECT, ROOT, WORK, registry_options, run, tool

PAGE = ROOT / "docs" / "licences.md"
UNKNOWN = "not stated"
# Copyleft, licences of one company, and what is not stated.
NEEDS_REMARK = re.compile(
    r"GPL|General Public|MPL|Mozilla|EUPL|CDDL|EPL|Eclipse|CC-BY-(NC|ND|SA)|Proprietary|NVIDIA|Other|"
    + UNKNOWN,
    re.I,
)
# Why a package with such a licence may be depended on.
NVIDIA = "NVIDIA's own licence, not an open one. Only to compile for cards that are not there."
AXE = "MIT, by its file LICENSE. It carries axe-core as it was published, under MPL-2.0."
REMARKS = {
    "axe-playwright-python": AXE,
    "nvidia-cuda-nvcc-cu12": NVIDIA,
    "nvidia-cuda-runtime-cu12": NVIDIA,
}

HEAD = """# Licences of the dependencies

<!-- search: cite, citation, BibTeX, license, Apache, MIT, commercial use, copyright -->

d3pm_jax is under the MIT licence: see [LICENSE](../LICENSE). To cite it, see
[CITATION.cff](../CITATION.cff).

The table has each package that it depends on directly, with the licence that the package's metadata states.
The packages that these depend on have licences of their own, which are not listed here. With the extra
`[cuda12]` or `[cuda13]` these include NVIDIA's libraries, under NVIDIA's licence.

`python -m tools.licences` writes this page. It fails where a licence is copyleft, of one company or not
stated, and no remark says why the package may be used.

"""

PRINT_METADATA = """
import importlib.metadata, json
print(json.dumps([distribution.metadata.json for distribution in importlib.metadata.distributions()]))
"""

Metadata = dict[str, Any]


def normalize(name: str) -> str:
    """Returns the name of a package as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_requirements() -> list[tuple[str, str, str]]:
    """Returns of each requirement the extra that has it, "" for none, its package, and what is required."""
    by_extra = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    triples = []
    for extra, requirements in by_extra.items():
        for requirement in requirements:
            name = normalize(re.split(r"[^\w.-]", requirement)[0])
            if name != PROJECT["name"]:
                triples.append((extra, name, requirement))
    return triples


def list_users() -> dict[str, list[str]]:
    """Returns each package that is required, with the extras that require it."""
    users: dict[str, list[str]] = {}
    for extra, name, _ in read_requirements():
        extras = users.setdefault(name, [])
        # An extra may require a package twice, in another version on another Python.
        if extra not in extras:
            extras.append(extra)
    return users


def install_each(requirements: list[str]) -> dict[str, Metadata]:
    """Installs packages without what they depend on, and returns the metadata of each."""
    folder = WORK / "environments" / "licences"
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "bin" / "python"
    run(tool("uv"), "venv", "--python", sys.executable, folder)
    run(tool("uv"), "pip", "install", "--no-deps", "--python", python, *registry_options(), *requirements)
    packages = json.loads(run(python, "-c", PRINT_METADATA))
    shutil.rmtree(folder)
    return {normalize(package["name"]): package for package in packages}


def state_licence(package: Metadata) -> str:
    """Returns the licence that metadata states: an expression, classifiers or the first line of a text."""
    if "license_expression" in package:
        return package["license_expression"]
    classifiers = [line for line in package.get("classifier", []) if line.startswith("License :: ")]
    if classifiers:
        return ", ".join(line.split(" :: ")[-1] for line in classifiers)
    lines = package.get("license", "").strip().splitlines()
    return lines[0].strip() if lines else UNKNOWN


def format_page(packages: dict[str, Metadata], users: dict[str, list[str]]) -> str:
    """Returns the page: its words and a table, a row for each package."""
    lines = ["| package | version | licence | needed by | remark |", "|---|---|---|---|---|"]
    for name in sorted(users):
        package = packages[name]
        needed_by = ", ".join(f"`[{extra}]`" if extra else "all" for extra in users[name])
        version = package["version"].partition("+")[0]  # +cpu and such are builds of one version
        words = [name, version, state_licence(package), needed_by, REMARKS.get(name, "")]
        lines.append("| " + " | ".join(words).strip() + " |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    users = list_users()
    packages = install_each([requirement for _, _, requirement in read_requirements()])
    PAGE.write_text(format_page(packages, users))
    licences = {name: state_licence(packages[name]) for name in users}
    for name, licence in licences.items():
        if NEEDS_REMARK.search(licence) and name not in REMARKS:
            print(f"{name}: {licence}: say in REMARKS why it may be used")
            sys.exit(1)


if __name__ == "__main__":
    main()
