"""The contracts of imports in pyproject.toml hold, and each room that breaks one on purpose is caught."""

import ast
import copy
from pathlib import Path

import grimp
import pytest
from importlinter import api
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract

import d3pm_jax

ROOT = Path(d3pm_jax.__file__).parent
TYPES = {
    "acyclic_siblings": AcyclicSiblingsContract,
    "forbidden": ForbiddenContract,
    "layers": LayersContract,
}
OPTIONS = api.read_configuration(str(ROOT.parent / "pyproject.toml"))
CONTRACTS = {each["name"]: each for each in OPTIONS["contracts_options"]}
FLOORS = "Floors look down: a room imports only rooms below it here"
FLAGS = "Flags are read by commands alone"
LAYERS = [layer.replace(" ", "").split("|") for layer in CONTRACTS[FLOORS]["layers"]]
INNER_FLOORS = "Floors of the program look down"
INNER = CONTRACTS[INNER_FLOORS]["layers"]
ROOMS = ["kinds", "program", "runs", "report", "judge", "contrib"]  # beside kernels, networks, data


@pytest.fixture(scope="module")
def graph():
    imports = grimp.build_graph(
        *OPTIONS["session_options"]["root_packages"],
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    for parser in "argparse", "tyro":
        if parser not in imports.modules:
            imports.add_module(parser, is_squashed=True)
    return imports


def broken(graph, *imports):
    """The names of the contracts that do not hold where these imports are there too."""
    graph = copy.deepcopy(graph)
    for importer, imported in imports:
        graph.add_import(importer=f"d3pm_jax.{importer}", imported=imported)
    names = set()
    for name, options in CONTRACTS.items():
        contract = TYPES[options["type"]](name, OPTIONS["session_options"], options)
        if not contract.check(graph, verbose=False).kept:
            names.add(name)
    return names


def test_contracts_hold(graph):
    assert broken(graph) == set()


@pytest.mark.parametrize("below", range(1, len(LAYERS)), ids=lambda n: "|".join(LAYERS[n]))
def test_no_room_imports_the_one_above_it(below, graph):
    above = LAYERS[below - 1][0]
    for room in LAYERS[below]:
        assert FLOORS in broken(graph, (room, f"d3pm_jax.{above}"))


@pytest.mark.parametrize("below", range(1, len(INNER)), ids=lambda n: INNER[n])
def test_no_room_of_the_program_imports_the_one_above_it(below, graph):
    assert INNER_FLOORS in broken(graph, (f"program.{INNER[below]}", f"d3pm_jax.program.{INNER[below - 1]}"))


def test_rooms_on_one_floor_do_not_know_each_other(graph):
    assert LAYERS[-1] == ["cpu", "errors", "files", "keys", "lazy", "types"]
    for other in LAYERS[-1]:
        if other != "cpu":
            assert broken(graph, ("cpu.malloc", f"d3pm_jax.{other}")) == {FLOORS}


@pytest.mark.parametrize("room", ROOMS)
def test_only_commands_read_flags(room, graph):
    module = min(graph.find_children(f"d3pm_jax.{room}")).removeprefix("d3pm_jax.")
    for parser in "argparse", "tyro":
        assert broken(graph, (module, parser)) == {FLAGS}
        assert broken(graph, ("cli.main", parser)) == set()


def test_circles_in_a_room_and_what_kernels_and_figures_must_not_import(graph):
    first, second = sorted(graph.find_children("d3pm_jax.program.storage"))[:2]
    circle = [(first.removeprefix("d3pm_jax."), second), (second.removeprefix("d3pm_jax."), first)]
    assert broken(graph, *circle) == {"No circles, in no folder"}
    assert broken(graph, ("cpu.conv", "flax")) == {"Kernels need nothing of a trainer"}
    assert broken(graph, ("program.machine.setup", "torch")) == {"The library needs no twin"}
    assert "Figures are of arrays" in broken(graph, ("evaluation.bound", "d3pm_jax.data"))


def test_every_room_has_its_floor_and_the_machine_none_of_its_own():
    """`d3pm --help` imports `machine`, and no extra is there then."""
    assert {"cli", "cpu", *ROOMS} <= {room for layer in LAYERS for room in layer}
    said = ast.parse((ROOT / "program" / "machine" / "__init__.py").read_text()).body
    imports = [statement for statement in said if isinstance(statement, ast.Import | ast.ImportFrom)]
    assert imports == []
