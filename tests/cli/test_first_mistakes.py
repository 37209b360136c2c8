"""What a new user met in the first hours: each message names the right file, field or class, and a cure."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs, data, report
from d3pm_jax.checks.hints import Allowed
from d3pm_jax.cli import report as report_command
from d3pm_jax.config import Model, io as config_io
from d3pm_jax.contrib import checkpoints, pickles
from d3pm_jax.contrib.layout import ImportOptions
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.models import variables
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import run_folder
from tests import tiny
from tests.cli.commands import status


@dataclasses.dataclass(frozen=True)
class OwnNet(Model):
    """A network whose output has some shape, and which takes labels or none."""

    shape: tuple[int, ...] = ()

    def build(self, spec, rngs):
        return Constant(self.shape)


class Constant(nnx.Module):
    def __init__(self, shape):
        self.shape = shape
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, xt, t, *, key=None):
        return self.scale[...] * jnp.ones(self.shape)


def refused(model, classes=None):
    """The message of a network that does not fit."""
    config = dataclasses.replace(tiny.get_config(), model=model)
    with pytest.raises(UserError) as raised:
        build.build(complete(config, Description((8, 8, 1), 17, classes, "image")))
    return str(raised.value)


@pytest.mark.parametrize("shape", [(2, 8, 8, 17), (2, 8, 136)])
def test_an_output_that_only_lacks_axes_is_reshaped(shape):
    message = refused(OwnNet(shape))
    assert f"{list(shape)} for x [2, 8, 8, 1], expected [2, 8, 8, 1, 17]: " in message
    assert message.endswith(": end with .reshape(*xt.shape, -1)")


def test_an_output_with_its_categories_elsewhere_is_not_reshaped():
    assert refused(OwnNet((2, 17, 8, 8))).endswith("expected [2, 8, 8, 1, 17]")
    assert "move its axis of spec.K to the end" in refused(OwnNet((2, 17, 8, 8, 1)))


def test_a_network_without_labels_is_told_the_field_that_it_lacks():
    assert "or give OwnNet a field classes: int | None = None, which trains without" in refused(OwnNet(), 10)


def test_the_file_of_labels_is_named(tmp_path):
    paths = [str(tmp_path / name) for name in ("x.npy", "y.npy")]
    np.save(paths[0], np.zeros((6, 3), int))
    arrays = configs.Arrays(paths[0], paths[0], 3, train_labels=paths[1], test_labels=paths[1], classes=2)
    cases = {
        "has dtype float64: labels are integers, as by y.astype(int)": np.zeros(6),
        f"has shape (5,), but {paths[0]} has (6, 3): write labels of shape (6,), one for each": np.zeros(
            5, int
        ),
    }
    for message, labels in cases.items():
        np.save(paths[1], labels)
        with pytest.raises(UserError) as raised:
            arrays.open("test")
        assert str(raised.value).startswith(f"data.test_labels {paths[1]} {message}")
    with pytest.raises(UserError, match="the labels of x has dtype float64: labels are integers"):
        data.ArraySource(np.zeros((6, 3), int), np.zeros(6))


def test_a_part_that_is_not_frozen_is_told_the_decorator(tmp_path):
    (tmp_path / "own.py").write_text(
        "import dataclasses\nfrom d3pm_jax import config\n"
        "@dataclasses.dataclass\nclass OwnNet(config.Model):\n    width: int = 16\n"
    )
    with pytest.raises(UserError, match=r"a frozen one: write @dataclasses.dataclass\(frozen=True\)$"):
        config_io.read_config_file(tmp_path / "own.py")


def test_images_without_a_channel_are_told_how_to_add_it():
    config = dataclasses.replace(tiny.get_config(), data=configs.Arrays("a.npy", "b.npy", 17, "image"))
    with pytest.raises(UserError, match=r"examples have 3 axes; add the last one, as x\[..., None\]$"):
        build.build(complete(config, Description((8, 8), 17, None, "image")))


def test_a_network_of_pytorch_is_told_that_it_cannot_train():
    class Linear:
        __module__ = "torch.nn.modules.linear"

    with pytest.raises(ValueError, match="a network of PyTorch, which cannot train here: write it as an nnx"):
        variables.split_module(lambda key: Linear())


def test_weights_of_an_own_network_are_told_the_file_to_save(tmp_path, monkeypatch):
    (tmp_path / "own.pt").write_bytes(pickles.MAGIC + bytes(20))
    monkeypatch.setattr(pickles, "read_torch_file", lambda path: {"weight": np.ones(3)})
    with pytest.raises(ValueError, match="of a network of your own, a file of safetensors"):
        checkpoints.read_network(tmp_path / "own.pt", ImportOptions())


def test_help_shows_the_words_of_a_restriction_alone():
    assert repr(Allowed("in 1..5", bool)) == "Allowed('in 1..5')"


def test_a_batch_that_is_too_large_names_its_field_and_the_split():
    source = data.ArraySource(np.zeros((3, 2), int))
    message = "batch size 16 exceeds the 3 examples of the train split: set batch_size, train.batch_size of a"
    with pytest.raises(UserError, match=message):
        data.check_batch_size(source, 16)


def test_another_config_is_offered_a_run_that_begins_from_this_one():
    old = tiny.get_config()
    new = dataclasses.replace(old, process=dataclasses.replace(old.process, steps=5))
    with pytest.raises(
        UserError, match=r"start in a new workdir \(--from RUN begins with the weights of this"
    ):
        run_folder.check_resume(old, new)


def test_a_page_that_is_replaced_is_named(tmp_path, capsys, monkeypatch):
    path = tmp_path / "report.html"
    titles = iter(["Report of a &amp; b", "Report of a", "Report of a"])

    def write(opened, out):
        path.write_text(f"<html><head><title>{next(titles)}</title>")
        return path

    monkeypatch.setattr(report, "write", write)
    monkeypatch.setattr(report_command, "open_run", lambda *args, **options: None)
    for ending in ("", ", replaces the Report of a & b", ""):
        assert status("report", tmp_path) == 0
        assert capsys.readouterr().out == f"report: {path}{ending}\n"


@pytest.mark.parametrize("name", ["page.HTML", "run.2024", "page"])
def test_a_page_has_any_name_but_that_of_another_kind(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "write", lambda opened, out: out)
    monkeypatch.setattr(report_command, "open_run", lambda *args, **options: None)
    assert status("report", tmp_path, "--out", tmp_path / name) == 0
    assert status("report", tmp_path, "--out", tmp_path / "page.PNG") == 1
    assert capsys.readouterr().err.endswith("page.PNG: an HTML page is written, so name it FILE.html\n")
