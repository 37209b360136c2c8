"""What the tree promises: every sub-package as an attribute, and flat names that are those of their homes."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import d3pm_jax

# What runs are made of, and what serves all rooms: no page imports it.
INTERNAL = {"program", "extras", "files", "lazy", "placing", "sampler_laws"}


def test_every_public_room_is_reached_through_the_package():
    rooms = {m.name for m in pkgutil.iter_modules(d3pm_jax.__path__)} - {"cli", "__main__"}
    assert rooms > INTERNAL
    rooms -= INTERNAL
    assert {name for name in rooms if getattr(d3pm_jax, name).__name__ == f"d3pm_jax.{name}"} == rooms
    assert rooms <= set(dir(d3pm_jax))
    with pytest.raises(AttributeError, match="has no attribute 'transitions'"):
        d3pm_jax.transitions  # noqa: B018


def test_sub_packages_are_there_after_a_plain_import():
    """In a process of its own, where nothing else has imported them."""
    paths = (
        *(
            "models.UNet",
            "models.layers.time_embedding",
            "config.Config",
            "config.io.read_config_file",
            "data.open_split",
        ),
        *(
            "runs.network",
            "weights.twin.to_torch",
            "training.step.make_step",
        ),
        *(
            "evaluation.bound.evaluate_bound",
            "schedules.continuous.linear",
            "losses.continuous.absorbing_nelbo",
        ),
        *("timesteps.uniform", "compat.p_logits", "heads.residual", "numerics.log1mexp", "show.save_grid"),
    )
    code = "import d3pm_jax as d; " + "; ".join(f"d.{path}" for path in paths)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_commands_do_is_a_function_of_runs():
    runs = d3pm_jax.runs
    homes = {name: module for name, (module, _) in runs._FUNCTIONS.items()}
    assert {name: getattr(runs, name).__module__ for name in homes} == homes
    assert {"export", "import_weights", "open", "presample", "train"} <= set(homes) <= set(dir(runs))


def test_flat_names_are_those_of_their_sub_packages():
    """One rule for both: a flat name is the public name of one sub-package, and the same object."""
    for name in d3pm_jax.__all__:
        x = getattr(d3pm_jax, name)
        home = ".".join(x.__module__.split(".")[:2])
        assert getattr(importlib.import_module(home), name) is x


def test_the_map_names_every_module_once():
    """The first cells of the tables in architecture.md; a package stands there by its name alone."""
    root = Path(d3pm_jax.__file__).parent
    lines = (root.parent / "docs" / "architecture.md").read_text().splitlines()
    cells = [line.split("|")[1] for line in lines if line.startswith("|")]
    named = [path for cell in cells for path in re.findall(r"`([\w/]+\.py)`", cell)]
    modules = {str(path.relative_to(root)) for path in root.rglob("*.py") if path.name != "__init__.py"}
    assert sorted(named) == sorted(modules)
