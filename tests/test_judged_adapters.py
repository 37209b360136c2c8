"""The adapters of public samplers (benchmarks/judged) are short, and each says in one line what it misses."""

import ast
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from d3pm_jax.config import io
from d3pm_jax.errors import UserError

FOLDER = Path(__file__).parents[1] / "benchmarks" / "judged"
checkout = io.load_module(FOLDER / "checkout.py")
# Each with the variable that names its checkout.
CHECKOUTS = {
    "dream": "FAST_DLLM",
    "duo": "DUO",
    "fast_dllm": "FAST_DLLM",
    "google_md4": "MD4",
    "hackable": "HACKABLE_DIFFUSION",
    "llada": "LLADA",
    "mdlm": "MDLM",
    "remdm": "REMDM",
    "sedd": "SEDD",
}
PACKAGES = {"flow_matching_solver": "flow_matching"}


def test_adapters_are_short_and_have_the_function():
    adapters = {path.stem: path.read_text() for path in FOLDER.glob("*.py") if path.stem != "checkout"}
    assert set(adapters) == set(CHECKOUTS) | set(PACKAGES)
    for name, text in adapters.items():
        assert len(text.splitlines()) <= 40, name
        functions = [each for each in ast.parse(text).body if isinstance(each, ast.FunctionDef)]
        parameters = {each.name: [arg.arg for arg in each.args.args] for each in functions}
        assert parameters.get("sample") == ["denoise", "K", "L", "n", "seed", "calls"], name


@pytest.mark.parametrize("name", CHECKOUTS)
def test_without_a_checkout_one_line_names_the_variable_and_the_repository(name, monkeypatch, tmp_path):
    variable = CHECKOUTS[name]
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=rf"^{variable} is not set: .*https://github.com/\S+$"):
        checkout.load(FOLDER, name, "torch")
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(UserError, match=rf"^{variable} is {tmp_path}, where \S+\.py is not: .*$"):
        checkout.load(FOLDER, name, "torch")


@pytest.mark.parametrize("name", PACKAGES)
def test_without_its_package_one_line_names_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(UserError, match=rf"{PACKAGES[name]}.*pip install {PACKAGES[name]}"):
        checkout.load(FOLDER, name, "torch")


PROGRAM = """
import heavy.trainer as trainer
from heavy.data import loader, Loader

noted = loader.make(3)

class Model(trainer.Module):
    def __init__(self):
        raise RuntimeError("needs a card")

    def draw(self, n):
        return [self.category] * n
"""


def test_a_sampler_is_imported_without_what_it_does_not_need(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    paths = list(sys.path)
    finders = list(sys.meta_path)
    program = checkout.load(tmp_path, "program", "heavy")
    assert checkout.hollow(program.Model, category=4).draw(2) == [4, 4]
    assert (sys.path, sys.meta_path) == (paths, finders)
    assert not [name for name in sys.modules if name.startswith(("heavy", "program"))]
    with pytest.raises(ModuleNotFoundError, match="heavy"):
        checkout.load(tmp_path, "program")


def test_options_have_the_types_of_their_defaults(monkeypatch):
    monkeypatch.setenv("TRIED", "eta=0.5 rule=random")
    options = checkout.read_options("TRIED", eta=0.1, rule="confidence", steps=3)
    assert vars(options) == {"eta": 0.5, "rule": "random", "steps": 3}
    monkeypatch.setenv("TRIED", "eta=much")
    with pytest.raises(UserError, match=r"^TRIED: eta=much is not a float$"):
        checkout.read_options("TRIED", eta=0.1)
    monkeypatch.setenv("TRIED", "ate=1")
    with pytest.raises(UserError, match=r"^TRIED: ate=1 is no option: take one of eta as NAME=VALUE$"):
        checkout.read_options("TRIED", eta=0.1)


def test_loops_in_python_are_those_of_jax_and_call_each_time():
    program = types.SimpleNamespace(jax=jax)
    calls = []

    def add(total, x):
        calls.append(x)
        return total + x["a"], total * x["a"]

    xs = {"a": jnp.arange(1, 4)}
    last, products = jax.lax.scan(add, 0, xs)
    checkout.loop_in_python(program)
    calls.clear()
    assert [int(last), *products.tolist()] == [6, 0, 2, 9]
    again, listed = program.jax.lax.scan(add, 0, xs)
    assert (int(again), listed.tolist(), len(calls)) == (6, [0, 2, 9], 3)
    assert program.jax.lax.fori_loop(2, 5, lambda i, total: total + i, 0) == 9
