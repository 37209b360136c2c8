"""What is refused of a checkpoint of another program and of its check, each in one line."""

import re
import struct

import numpy as np
import pytest
from flax import serialization

from d3pm_jax.contrib import checkpoints, foreign
from d3pm_jax.contrib.layout import ImportOptions
from tests.contrib.test_checkpoints import official_tree

torch = pytest.importorskip("torch")
originals = pytest.importorskip("tests.contrib.originals")


@pytest.fixture(scope="module")
def seed():
    """The state dict of a U-Net for K = 5."""
    module = originals.randomise(originals.SeedUNet(K=5, channels=1, ch=8, mult=(1,), blocks=1, attends=()))
    return {f"net.{k}": x for k, x in module.state_dict().items()}


@pytest.fixture(scope="module")
def score():
    """The state dict of a MNISTScoreNet."""
    return dict(originals.MNISTScoreNet(32, (1,), (), 1, torch.ones(400)).state_dict())


def packed(tree):
    return serialization.msgpack_serialize(tree, in_place=True)  # else it sorts the keys


def refused(file, **options):
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}") as raised:
        checkpoints.read_network(file, ImportOptions(**options))
    assert str(raised.value).isprintable()
    return str(raised.value)


def test_entries_of_other_types_are_left_out_or_refused(seed, score, tmp_path):
    file = tmp_path / "model.pt"
    for step, expected in ((10**5000, 0), (2**63, 0), (-1, 0), ("x", 0), (2**63 - 1, 2**63 - 1), (7.0, 7)):
        torch.save({"model": seed | {5: torch.ones(1)}, 1: 2, "n_iter": step}, file)
        assert checkpoints.read_network(file, ImportOptions()).step == expected
    torch.save({"model": score | {"time_embedding.0.W": "x"}}, file)
    assert "time_embedding.0.W is missing" in refused(file)
    torch.save({"model": seed | {"ema_shadow_params": 5}}, file)
    assert "ema_shadow_params are not of the number" in refused(file)
    torch.save({"model": seed | {"net.odd\nname.weight": torch.ones(1)}}, file)
    assert "no part of the network takes: odd name.weight" in refused(file)
    torch.save({"model": {k.replace("net.", "planet."): x for k, x in seed.items()}}, file)
    assert "holds no weights of" in refused(file)


def test_entries_of_other_types_in_an_official_file(tmp_path):
    file = tmp_path / "checkpoint_1"
    tree = official_tree(np.random.default_rng(0), 5)
    params = tree["ema_params"]
    file.write_bytes(packed(tree | {"ema_params": params | {b"a": np.ones(2)}}))
    assert checkpoints.read_network(file, ImportOptions()).K == 5
    for more, said in (
        ({"a\nb": {"kernel": 1}}, "a b.kernel is not an array"),
        ({"conv_in": 3}, "conv_in is no"),
    ):
        file.write_bytes(packed(tree | {"ema_params": params | more}))
        assert said in refused(file)
    file.write_bytes(b"\x81\xa1a" * 985 + b"\xc0")
    assert "is damaged" in refused(file) or "too deep" in refused(file)


def test_a_map_of_msgpack_and_a_safetensors_file_are_told_apart(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(packed({"step": 379, "a": 0, "b": 0}))
    assert file.read_bytes()[8:9] == b"{"
    assert checkpoints.kind_of(file) == "msgpack"
    file.write_bytes(struct.pack("<Q", 0x83) + b"{" + b" " * 0x81 + b"}")
    assert checkpoints.kind_of(file) == "safetensors"


def test_what_is_assumed_is_a_note_and_what_cannot_be_is_refused(score, seed, tmp_path):
    file = tmp_path / "model.pt"
    torch.save({"model": score}, file)
    assert any("time step = 0.01" in note for note in checkpoints.read_network(file, ImportOptions()).notes)
    assert "has 1 head, not 4: leave out --heads" in refused(file, num_heads=4)
    torch.save({"model": score | {"time_dependent_weights": torch.arange(1.0, 401.0)}}, file)
    one_step = checkpoints.read_network(file, ImportOptions(max_time=0.01))
    assert one_step.options["time_dependent_weights"] == (1.0, 1.0)
    torch.save({"model": {k: x for k, x in score.items() if k != "time_dependent_weights"}}, file)
    assert checkpoints.read_network(file, ImportOptions()).options["time_dependent_weights"] is None
    two = {f"net.out.2.{leaf}": seed[f"net.out.2.{leaf}"][:2] for leaf in ("weight", "bias")}
    torch.save({"model": seed | two}, file)
    for K, expected in ((8, True), (2, False)):
        network = checkpoints.read_network(file, ImportOptions(K=K))
        assert network.logistic == expected == any("that of lib/d3pm.py" in note for note in network.notes)


CHECKS = {
    "x + 2^32": (
        {"x": np.full((2, 1, 4, 4), 2**32)},
        "x holds 4294967296..4294967296: the network has K = 5",
    ),
    "x + 2^63": ({"x": np.full((2, 1, 4, 4), 2**63, "u8")}, "x holds 9223372036854775808.."),
    "x of 1e20": ({"x": np.full((2, 1, 4, 4), 1e20)}, "x holds 1e+20"),
    "a fraction": ({"x": np.full((2, 1, 4, 4), 0.5)}, "x holds fractions"),
    "x without axes": ({"x": np.array(0)}, "x has shape ()"),
    "x of one axis": ({"x": np.zeros(2, int)}, "x has shape (2,)"),
    "nothing": ({"x": np.zeros((0, 1, 4, 4)), "t": np.zeros(0)}, "x has shape (0, 1, 4, 4)"),
    "t + 2^32": ({"t": np.full(2, 9 + 2**32)}, "t holds 4294967305..4294967305: a time is at most 16777216"),
    "t of 2^63": ({"t": np.full(2, 2**63, "u8")}, "t holds 9223372036854775808"),
    "t of -1e20": ({"t": np.full(2, -1e20)}, "t holds -1e+20"),
    "one logit": ({"logits": np.array(1.0)}, "logits ()"),
    "large logits": ({"logits": np.full((2, 1, 4, 4, 5), np.longdouble("1e4000"))}, "beyond float64"),
    "no label": ({}, "label must be integers [B]: the network has 3 classes"),
    "labels by two": ({"label": np.zeros((2, 1), int)}, "label must be integers"),
    "label 3": ({"label": np.array([0, 3])}, "label holds 0..3: there are 3 classes"),
    "label -1": ({"label": np.array([-1, 2])}, "label holds -1..2"),
}


@pytest.mark.filterwarnings("ignore:overflow encountered")  # a command catches them
@pytest.mark.parametrize("name", CHECKS)
def test_a_check_out_of_range_is_refused(name, seed, tmp_path):
    torch.save({"model": seed}, tmp_path / "model.pt")
    network = checkpoints.read_network(tmp_path / "model.pt", ImportOptions())._replace(classes=3)
    arrays = {"x": np.full((2, 1, 4, 4), 4), "t": np.array([0, 9]), "logits": np.ones((2, 1, 4, 4, 5))}
    labels = {"label": np.array([0, 2])}
    assert foreign.convert_check(tmp_path, arrays | labels, network).xt.max() == 4
    changes, message = CHECKS[name]
    if "label" not in name:
        arrays |= labels
    with pytest.raises(foreign.UserError) as raised:
        foreign.convert_check(tmp_path, arrays | changes, network)
    assert message in str(raised.value)


@pytest.mark.slow
def test_logits_that_are_all_zero_agree(seed, tmp_path):
    last = {f"net.out.2.{leaf}": 0 * seed[f"net.out.2.{leaf}"] for leaf in ("weight", "bias")}
    torch.save({"model": seed | last}, tmp_path / "model.pt")
    network = checkpoints.read_network(tmp_path / "model.pt", ImportOptions())
    arrays = {"x": np.zeros((1, 1, 4, 4), int), "t": np.zeros(1, int), "logits": np.zeros((1, 1, 4, 4, 5))}
    check = foreign.convert_check(tmp_path, arrays, network)
    model = foreign.model_of(network, (4, 4))
    assert foreign.logit_difference(check, network, model, False) == 0
    torch.save({"model": seed}, tmp_path / "model.pt")
    other = checkpoints.read_network(tmp_path / "model.pt", ImportOptions())
    assert foreign.logit_difference(check, other, model, False) == np.inf
