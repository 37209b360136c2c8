"""Errors in a user's own code: the file, the line and the statement first, and then what is wrong."""

import re
import sys
import warnings
from pathlib import Path

import flax
import pytest

from d3pm_jax.cli import main
from tests.cli.commands import error, status

# Letters whose network has a table for x_t; each case replaces a piece of it by what is wrong.
FILE = """
import dataclasses
import numpy as np
import jax.numpy as jnp
from flax import nnx
from d3pm_jax import config
from d3pm_jax.data import ArraySource, Description

@dataclasses.dataclass(frozen=True)
class Letters(config.Data):
    def describe(self):
        return Description((6,), 3)
    def open(self, split):
        return ArraySource(np.zeros((8, 6), int))

class Net(nnx.Module):
    def __init__(self, spec, rngs):
        self.embed = nnx.Embed(spec.K, 8, rngs=rngs)
        self.last = nnx.Linear(8, spec.K, rngs=rngs)
    def __call__(self, xt, t, *, key=None):
        h = self.embed(xt)
        return self.last(h)

@dataclasses.dataclass(frozen=True)
class Model(config.Model):
    def build(self, spec, rngs):
        return Net(spec, rngs)

@dataclasses.dataclass(frozen=True)
class Loss(config.HybridLoss):
    pass

def get_config():
    return config.Config(
        data=Letters(),
        process=config.Uniform(K=3, steps=4, beta=config.Cosine()),
        model=Model(),
        loss=Loss(),
        train=config.Train(steps=1, batch_size=8, log_every=1, checkpoint_every=1),
    )
"""
WIDE_DATA = "return Description((6,), 3, classes=2)"


def own_part(base, call, statement, field):
    """What puts a part of one's own, with one method, into the config."""
    method = f"    def {call}:\n        {statement}\n"
    part = f"@dataclasses.dataclass(frozen=True)\nclass Own(config.{base}):\n{method}"
    replaced = f"def get_config():\n    return dataclasses.replace(others(), {field})\n"
    return "def get_config():", f"{part}\n{replaced}\ndef others():"


# (what is replaced, by what, the statement that the message begins with, what it says after that)
RAISED = {
    "the config": (
        "    return config.Config(",
        "    steps = 1 / 0\n    return config.Config(",
        "steps = 1 / 0",
        r".*own\.py failed: ZeroDivisionError: division by zero",
    ),
    "no Python": (
        "class Net(nnx.Module):",
        "class Net(nnx.Module:",
        "class Net(nnx.Module:",
        ".*SyntaxError",
    ),
    "a file that is missing": (
        "return ArraySource(np.zeros((8, 6), int))",
        "return ArraySource(np.load('letters.npy'))",
        "return ArraySource(np.load('letters.npy'))",
        r"FileNotFoundError: \[Errno 2\] No such file or directory: 'letters.npy'",
    ),
    "data of a method that fails": (
        "return Description((6,), 3)",
        "return Description((self.length,), 3)",
        "return Description((self.length,), 3)",
        "AttributeError: 'Letters' object has no attribute 'length'",
    ),
    "an attribute": (
        "self.last = nnx.Linear(8, spec.K, rngs=rngs)",
        "self.last = nnx.Linear(8, spec.width, rngs=rngs)",
        "self.last = nnx.Linear(8, spec.width, rngs=rngs)",
        "AttributeError: 'Spec' object has no attribute 'width'",
    ),
    "shapes": (
        "h = self.embed(xt)",
        "h = self.embed(xt) + t[:, None]",
        "h = self.embed(xt) + t[:, None]",
        r".*\(2, 6, 8\).*\(2, 1\)",
    ),
    "a branch on a value": (
        "h = self.embed(xt)",
        "h = self.embed(xt)\n        if t[0] > 1: h = h + 1",
        "if t[0] > 1: h = h + 1",
        ".*boolean.*: values are known only when the compiled program runs; compute with jax.numpy",
    ),
    "NumPy in a network": (
        "h = self.embed(xt)",
        "h = self.embed(np.asarray(xt))",
        "h = self.embed(np.asarray(xt))",
        ".*traced array.*: values are known only when the compiled program runs; compute with jax.numpy",
    ),
}
# What no statement of the file raises: it returns something else than is expected, or takes something else.
REFUSED = {
    "channels first": (
        "return self.last(h)",
        "return jnp.moveaxis(self.last(h), -1, 1)",
        "return jnp.moveaxis(self.last(h), -1, 1)",
        r"the network returns \[2, 3, 6\] for x \[2, 6\], expected \[2, 6, 3\]: move its axis of spec\.K to "
        r"the end, by jnp\.moveaxis\(h, 1, -1\)",
    ),
    "another K": (
        "return self.last(h)",
        "return h",
        "return h",
        r"the network returns \[2, 6, 8\] for x \[2, 6\], expected \[2, 6, 3\]: end it with a layer of "
        "spec.K = 3 features",
    ),
    "one number for an element": (
        "return self.last(h)",
        "return self.last(h)[..., :1]",
        "return self.last(h)[..., :1]",
        r"the network returns \[2, 6, 1\] for x \[2, 6\], expected \[2, 6, 3\]: end it with a layer",
    ),
    "no axis of K": (
        "return self.last(h)",
        "return self.last(h).sum(-1)",
        "return self.last(h).sum(-1)",
        r"the network returns \[2, 6\] for x \[2, 6\], expected \[2, 6, 3\]: end it with a layer",
    ),
    "two outputs": (
        "return self.last(h)",
        "return self.last(h), h",
        "return self.last(h), h",
        r"the network returns tuple: return one array, for x \[2, 6\] \[2, 6, 3\]",
    ),
    "integers": (
        "return self.last(h)",
        "return self.last(h).astype(int)",
        "return self.last(h).astype(int)",
        "the network returns int32: return logits, which are of a float type",
    ),
    "no keyword for labels": (
        "return Description((6,), 3)",
        WIDE_DATA,
        "def __call__(self, xt, t, *, key=None):",
        "the data has classes, but the network has no keyword label: add label=None, or give Model a field "
        "classes: int | None = None, which trains without labels",
    ),
    "no time": (
        "def __call__(self, xt, t, *, key=None):",
        "def __call__(self, xt, *, key=None):",
        "def __call__(self, xt, *, key=None):",
        r"the network is called as f\(xt, t, key=key\): too many positional arguments; write f",
    ),
    "no description": (
        "return Description((6,), 3)",
        "return (6,), 3",
        "return (6,), 3",
        r"describe returns tuple: return Description\(shape, categories\)",
    ),
    "a split that is not returned": (
        "return ArraySource(np.zeros((8, 6), int))",
        "ArraySource(np.zeros((8, 6), int))",
        "def open(self, split):",
        r"open returns None: return examples, as ArraySource\(x\)",
    ),
    "a test split that is not returned": (
        "return ArraySource(np.zeros((8, 6), int))",
        "if split == 'train': return ArraySource(np.zeros((8, 6), int))",
        "def open(self, split):",
        r"open returns None for 'test': return examples, as ArraySource\(x\)",
    ),
    "a split that is an array": (
        "return ArraySource(np.zeros((8, 6), int))",
        "return np.zeros((8, 6), int)",
        "return np.zeros((8, 6), int)",
        r"open returns int64 \[8, 6\]: return examples, as ArraySource\(x\)",
    ),
    "a split of x and y": (
        "return ArraySource(np.zeros((8, 6), int))",
        "return np.zeros((8, 6), int), np.zeros(8)",
        "return np.zeros((8, 6), int), np.zeros(8)",
        r"open returns \(int64 \[8, 6\], float64 \[8\]\): return examples, as ArraySource\(x, labels\)",
    ),
    "training examples that are not returned": (
        "    def open(self, split):",
        "    def open_training(self):\n        self.open('train')\n    def open(self, split):",
        "def open_training(self):",
        "open_training returns None: return examples",
    ),
    "a kind that is no class": (
        "    def open(self, split):",
        "    def own_kind(self):\n        return 'array'\n    def open(self, split):",
        "return 'array'",
        "own_kind returns str: return the class of a Kind",
    ),
    "a check that says no": (
        "    def open(self, split):",
        "    def check(self):\n        return False\n    def open(self, split):",
        "return False",
        "check returns False: raise ValueError there, which says what cannot be used",
    ),
    "a property without its mark": (
        "    def open(self, split):",
        "    def has_valid(self):\n        return False\n    def open(self, split):",
        "def has_valid(self):",
        "has_valid is a property: put @property on it",
    ),
    "a process that is not returned": (
        *own_part("Process", "build(self)", "np.zeros(3)", "process=Own()"),
        "def build(self):",
        r"build returns None: return a Process, as d3pm_jax\.uniform\(beta, K\)",
    ),
    "a process that is a description": (
        *own_part("Process", "build(self)", "return config.Uniform(3, 4, config.Cosine())", "process=Own()"),
        "return config.Uniform(3, 4, config.Cosine())",
        "build returns Uniform: return a Process",
    ),
    "betas of other steps": (
        *own_part(
            "Schedule", "build(self, steps)", "return np.full(9, 0.5)", "process=config.Uniform(3, 4, Own())"
        ),
        "return np.full(9, 0.5)",
        r"build returns float64 \[9\]: return beta, float64 \[4\], one for each step",
    ),
    "betas of other steps for a mask": (
        *own_part(
            "Schedule",
            "build(self, steps)",
            "return np.full(9, 0.5)",
            "process=config.Masked(config.Uniform(3, 4, config.Cosine()), Own())",
        ),
        "return np.full(9, 0.5)",
        r"build returns float64 \[9\]: return beta, float64 \[4\], one for each step",
    ),
    "betas that are not returned": (
        *own_part("Schedule", "build(self, steps)", "np.full(4, 0.5)", "process=config.Uniform(3, 4, Own())"),
        "def build(self, steps):",
        "build returns None: return beta",
    ),
    "an optimizer that is not returned": (
        *own_part("Optimizer", "build(self)", "self", "optimizer=Own()"),
        "def build(self):",
        r"build returns None: return an optax.GradientTransformation, as optax.adam\(1e-3\)",
    ),
    "an optimizer that is a description": (
        *own_part("Optimizer", "build(self)", "return config.Adam(1e-3)", "optimizer=Own()"),
        "return config.Adam(1e-3)",
        "build returns Adam: return an optax.GradientTransformation",
    ),
    "logits that are not returned": (
        *own_part("Head", "logits(self, output, xt, K)", "output * 2", "head=Own()"),
        "def logits(self, output, xt, K):",
        r"logits returns None for x \[2, 6\]: return logits, of a float type, \[2, 6, 3\]",
    ),
    "logits that are integers": (
        *own_part("Head", "logits(self, output, xt, K)", "return output.astype(int)", "head=Own()"),
        "return output.astype(int)",
        r"logits returns int32 \[2, 6, 3\] for x \[2, 6\]: return logits, of a float type",
    ),
    "a method of another call": (
        "def build(self, spec, rngs):",
        "def build(self, spec):",
        "def build(self, spec):",
        r"the method is called as build\(self, spec, rngs\): too many positional arguments",
    ),
}


def write_file(folder, old, new):
    path = folder / "own.py"
    assert old in FILE
    path.write_text(FILE.replace(old, new))
    return path


@pytest.mark.parametrize("case", [*RAISED, *REFUSED])
def test_the_statement_comes_first_and_then_what_is_wrong(case, tmp_path, capsys):
    old, new, statement, expected = (RAISED | REFUSED)[case]
    path = write_file(tmp_path, old, new)
    line_number = path.read_text().split(statement)[0].count("\n") + 1
    message = error(capsys, "train", path, "--workdir", tmp_path / "run")
    place = f"d3pm train: error: {path}, line {line_number}, `{statement}`: "
    assert message.startswith(place)
    assert re.match(expected, message.removeprefix(place)), message
    assert message.endswith("; --traceback shows all of it\n") == (case in RAISED)
    assert not (tmp_path / "run").exists()


def test_an_error_that_the_file_itself_words_is_all_that_is_printed(tmp_path, capsys):
    old = "return ArraySource(np.zeros((8, 6), int))"
    new = "from d3pm_jax.errors import UserError; raise UserError('letters.txt is empty: write some')"
    path = write_file(tmp_path, old, new)
    message = error(capsys, "train", path, "--workdir", tmp_path / "run")
    assert message == "d3pm train: error: letters.txt is empty: write some\n"


@pytest.mark.slow
def test_errors_in_training_are_found_behind_frames_of_jax_and_of_grain(tmp_path, capsys):
    method_of_loss = "class Loss(config.HybridLoss):\n    def terms(self, process, logits, x0, xt, t, p_t):\n"
    cases = {
        "return logits @ x0": ("TypeError: .*3", "class Loss(config.HybridLoss):\n", method_of_loss),
        "return logits.sum()": (
            r"terms returns float32 \[\]: return Terms\(loss, kl, ce\), each .* of shape \[8, 6\]",
            "class Loss(config.HybridLoss):\n",
            method_of_loss,
        ),
        "return x0[:, :2]": (
            r"draw returns int32 \[8, 2\]: return x_t, int32 \[8, 6\], like x_0",
            "class Loss(config.HybridLoss):\n",
            "class Loss(config.HybridLoss):\n    def draw(self, process, x0, t, u):\n",
        ),
        "return example['y']": (
            "KeyError",
            "class Letters(config.Data):\n",
            "class Letters(config.Data):\n    def random_map(self, example, rng):\n",
        ),
    }
    for number, (statement, (expected, old, new)) in enumerate(cases.items()):
        path = write_file(tmp_path, old, f"{new}        {statement}\n")
        message = error(capsys, "train", path, "--workdir", tmp_path / f"run{number}")
        assert re.search(rf"own.py, line \d+, `{re.escape(statement)}`: {expected}", message)


def test_a_warning_of_a_users_file_has_its_place(tmp_path, capsys):
    """Not so one of a library that is installed, as the script `d3pm` is too."""
    statement = "    warnings.warn('mind the step')\n    return config.Config("
    path = write_file(tmp_path, "    return config.Config(", f"    import warnings\n{statement}")
    line_number = path.read_text().split("warnings.warn")[0].count("\n") + 1
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        status("train", path, "--workdir", tmp_path / "run", "--train.stepz", "1")
    for filename in (flax.__file__, Path(sys.executable).with_name("d3pm")):
        main._print_warning("of others", UserWarning, str(filename), 3)
    first, _, *others = capsys.readouterr().err.splitlines()
    assert first == f"warning: {path}, line {line_number}: mind the step"
    assert others == ["warning: of others"] * 2


def test_an_error_in_an_imported_file_names_that_file(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_helper.py").write_text("width = 8\ndepth = int('two')\n")
    path = write_file(tmp_path, "from flax import nnx", "from flax import nnx\nimport own_helper")
    message = error(capsys, "train", path, "--workdir", tmp_path / "run")
    assert f"{tmp_path / 'own_helper.py'}, line 2, `depth = int('two')`: {path} failed: ValueError" in message


def test_a_network_without_parameters_is_not_trained(tmp_path, capsys):
    path = write_file(tmp_path, "return Net(spec, rngs)", "return Zeros(spec)")
    zeros = (
        "\nclass Zeros(nnx.Module):\n"
        "    def __init__(self, spec):\n        self.K = spec.K\n"
        "    def __call__(self, xt, t, *, key=None):\n        return jnp.zeros((*xt.shape, self.K))\n"
    )
    path.write_text(
        path.read_text().replace(
            "\n@dataclasses.dataclass(frozen=True)\nclass Model",
            f"{zeros}\n@dataclasses.dataclass(frozen=True)\nclass Model",
        )
    )
    message = error(capsys, "train", path, "--workdir", tmp_path / "run")
    assert "the network of Model has no nnx.Param, so that nothing is trained: make what it learns" in message


def test_the_whole_traceback_is_shown_where_it_is_asked_for(tmp_path, capsys):
    path = write_file(tmp_path, "return self.last(h)", "return self.last(jnp.ones(3))")
    assert status("train", path, "--workdir", tmp_path / "run", "--traceback") == 1
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert "d3pm_jax/program/parts/network.py" in printed
    assert re.search(
        r"\nd3pm train: error: .*own.py, line 22, `return self.last\(jnp.ones\(3\)\)`: ", printed
    )


def test_a_config_that_is_no_function_is_told_what_to_write(tmp_path, capsys):
    path = write_file(tmp_path, "def get_config():\n    return config.Config(", "get_config = config.Config(")
    message = error(capsys, "train", path, "--workdir", tmp_path / "run")
    assert f"get_config in {path} is a Config: define it as a function that returns a Config" in message
