"""Checkpoints of other programs: their logits from files as they write them, and what is no such file."""

import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flax import serialization

import tests
from d3pm_jax.contrib import checkpoints, foreign, pickles
from d3pm_jax.contrib.layout import ImportOptions

torch = pytest.importorskip("torch")
originals = pytest.importorskip("tests.contrib.originals")
official = pytest.importorskip("tests.contrib.official")

REAL = Path(tests.__file__).parents[2] / "shared" / "data" / "checkpoints"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no checkpoints of other programs in {REAL}")


def difference(file, check, in_float64=True, **said):
    network = checkpoints.read_network(file, ImportOptions(**said))
    output = foreign.convert_check(check, foreign.read_check(check), network)
    model = foreign.model_of(network, output.xt.shape[1:3])
    return foreign.logit_difference(output, network, model, in_float64)


# What float32 loses is no matter of a shape: the smallest network of each kind is compared in it too.


@needs_real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed_unet_rgb/model_7.pt", "google_cond4/checkpoint_40"])
def test_checkpoints_that_the_programs_wrote_give_their_logits(name):
    check = (REAL / name).with_name("check.npz")
    assert difference(REAL / name, check) < 1e-12
    assert difference(REAL / name, check, raw=True) > 1e-2


def seed_tree(module, prefix="net."):
    state = {prefix + k: x.clone() for k, x in module.state_dict().items()}
    last = {k: x + 0.1 for k, x in state.items()}
    averaged = {"ema_decay": 0.999, "ema_num_updates": 3, "ema_shadow_params": list(state.values())}
    optimizer = {"param_groups": [{"lr": np.float64(1e-3)}]}  # as a warm-up leaves it
    return {"model": last | averaged, "optimizer": optimizer, "n_iter": 5}


def write(folder, module, tree, x, t):
    """A checkpoint, and what the program gives in float64."""
    torch.save(tree, folder / "model.pt")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            logits = module.double()(torch.tensor(x), torch.tensor(t)).numpy()
    finally:
        torch.set_default_dtype(torch.float32)
    np.savez(folder / "check.npz", x=x, t=t, logits=logits)
    return folder / "model.pt", folder / "check.npz"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("in_float32", "prefix", "options"),
    [
        (False, "net.module.", {"ch": 16, "mult": (1, 2, 3), "blocks": 1, "attends": (0, 2), "heads": 4}),
        (True, "net.", {"ch": 12, "mult": (2, 1), "blocks": 0, "attends": (), "heads": 2, "channels": 3}),
        (False, "net.", {"ch": 8, "mult": (3,), "blocks": 2, "attends": (0,)}),
    ],
)
def test_the_unet_of_any_shape_gives_its_logits(in_float32, prefix, options, tmp_path):
    channels = options.setdefault("channels", 1)
    module = originals.randomise(originals.SeedUNet(K=7, **options))
    x = np.random.default_rng(0).integers(0, 7, (2, channels, 8, 8))
    file, check = write(tmp_path, module, seed_tree(module, prefix), x, np.array([0, 417]))
    assert difference(file, check, num_heads=options.get("heads")) < 1e-12
    if in_float32:
        assert difference(file, check, in_float64=False, num_heads=options.get("heads")) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("in_float32", "options"),
    [
        (False, {"mult": (1, 2), "attends": (1,), "weights": torch.linspace(3, 1, 400, dtype=torch.float64)}),
        (True, {"mult": (1,), "attends": (), "weights": None}),
    ],
)
def test_mnist_score_net_gives_its_output_at_any_time(in_float32, options, tmp_path):
    module = originals.randomise(originals.MNISTScoreNet(32, blocks=1, **options))
    x = np.eye(2)[np.random.default_rng(0).integers(0, 2, (3, 28, 28))]
    tree = {"model": {k: v.clone() for k, v in module.state_dict().items()}, "optimizer": {}, "n_iter": 9}
    file, check = write(tmp_path, module, tree, x, np.array([0.004, 2.505, 4.0]))
    assert difference(file, check) < 1e-12
    if in_float32:
        assert difference(file, check, in_float64=False) < 1e-4  # a float32 of 120 turns


@pytest.mark.slow
@pytest.mark.parametrize(
    ("in_float32", "K", "logistic", "options"),
    [
        (False, 5, False, {"channels": 3, "classes": 4, "mult": (1, 2), "attends": (1,), "heads": 2}),
        (True, 8, True, {"channels": 3, "mult": (1,), "attends": (), "heads": 1}),
    ],
)
def test_the_official_unet_gives_its_logits(in_float32, K, logistic, options, tmp_path):
    rng = np.random.default_rng(0)
    outputs = 2 if logistic else K
    params = official.random_params(rng, outputs=outputs, ch=32, blocks=1, **options)
    other = official.random_params(rng, outputs=outputs, ch=32, blocks=1, **options)
    file = tmp_path / "checkpoint_3"
    check = tmp_path / "check.npz"
    file.write_bytes(
        serialization.msgpack_serialize({"step": 3, "ema_params": params, "optimizer": {"target": other}})
    )
    inputs = {"x": rng.integers(0, K, (2, 8, 8, 3)), "t": np.array([0, 417])}
    label = None
    if "classes" in options:
        inputs["label"] = np.array([3, 1])
        label = torch.tensor(inputs["label"])
    x = torch.tensor(inputs["x"])
    t = torch.tensor(inputs["t"])
    expected = official.logits(params, x, t, label, K, 500, logistic).numpy()
    np.savez(check, **inputs, logits=expected)
    tolerance = 1e-10 if logistic else 1e-12  # 1 - exp() has fewer digits
    assert difference(file, check, max_time=500, K=K) < tolerance
    if in_float32:
        assert difference(file, check, in_float64=False, max_time=500, K=K) < 1e-5


def official_tree(rng, outputs, ch=32, classes=None):
    """One level and no blocks on the way down: four blocks, and attention in the middle."""

    def conv(a, b):
        return {"kernel": rng.normal(size=(3, 3, a, b)).astype("f") * 0.1, "bias": np.zeros(b, "f")}

    def dense(a, *b):
        return {"kernel": rng.normal(size=(a, *b)).astype("f") * 0.1, "bias": np.zeros(b, "f")}

    def norm(n):
        return {"scale": np.ones(n, "f"), "bias": np.zeros(n, "f")}

    def block(a):
        modules = {"norm1": norm(a), "conv1": conv(a, ch), "temb_proj": dense(4 * ch, ch), "norm2": norm(ch)}
        modules["conv2"] = conv(ch, ch)
        if a != ch:
            modules["nin_shortcut"] = dense(a, ch)
        if classes:
            modules["y_proj"] = dense(4 * ch, ch)
        return modules

    heads = {name: dense(ch, 2, ch // 2) for name in "qkv"}
    proj = {"kernel": rng.normal(size=(2, ch // 2, ch)).astype("f"), "bias": np.zeros(ch, "f")}
    params = {"conv_in": conv(1, ch), "dense0": dense(ch, 4 * ch), "dense1": dense(4 * ch, 4 * ch)}
    params |= {"mid.block_1": block(ch), "mid.block_2": block(ch), "up_0.block_0": block(2 * ch)}
    params |= {"mid.attn_1": {"norm": norm(ch), **heads, "proj_out": proj}}
    params |= {"norm_out": norm(ch), "conv_out": conv(ch, outputs)}
    if classes:
        params["class_emb"] = dense(classes, 4 * ch)
    return {"step": 3, "ema_params": params, "optimizer": {"target": params, "state": {"step": 3}}}


def test_the_numbers_of_an_official_network_are_read_off_its_arrays(tmp_path):
    file = tmp_path / "checkpoint_3"
    rng = np.random.default_rng(0)
    file.write_bytes(serialization.msgpack_serialize(official_tree(rng, 5, classes=3)))
    network = checkpoints.read_network(file, ImportOptions())
    assert (network.K, network.classes, network.options["num_heads"], network.logistic) == (5, 3, 2, False)
    assert network.options["num_res_blocks"] == 0
    file.write_bytes(serialization.msgpack_serialize(official_tree(rng, 2)))
    expected = {(None, None): (True, 256), (None, 8): (True, 8), (None, 2): (False, 2)}
    expected |= {("logits", None): (False, 2), ("logistic", 2): (True, 2)}
    for (output, K), (logistic, categories) in expected.items():
        network = checkpoints.read_network(file, ImportOptions(output=output, K=K))
        assert (network.logistic, network.K) == (logistic, categories)
    with pytest.raises(ValueError, match="its attention has 2 heads, not 4: leave out --heads"):
        checkpoints.read_network(file, ImportOptions(num_heads=4))


class Calls:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    module = originals.randomise(originals.SeedUNet(K=5, channels=1, ch=8, mult=(1,), blocks=1, attends=()))
    tree = seed_tree(module)
    torch.save(tree, file := tmp_path_factory.mktemp("whole") / "model.pt")
    return tree, file.read_bytes()


def test_a_pickle_is_read_as_torch_reads_it(whole, tmp_path):
    tree = {"a": torch.arange(12.0).reshape(3, 4).T, "b": torch.ones(2, dtype=torch.bfloat16)}
    tree |= {"c": np.float64(0.1), "d": torch.tensor(3), "e": [torch.zeros(0, 4)], "f": torch.ones(4)[1:3]}
    torch.save(tree, file := tmp_path / "a.pt")
    loaded = pickles.read_torch_file(file)
    np.testing.assert_array_equal(loaded["a"], tree["a"].numpy())
    assert (str(loaded["b"].dtype), loaded["c"], loaded["d"][()]) == ("bfloat16", 0.1, 3)
    assert (loaded["e"][0].shape, loaded["f"].tolist()) == ((0, 4), [1, 1])


def refused(path):
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}") as raised:
        checkpoints.read_network(path, ImportOptions())
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_no_state_dict_is_said_in_a_line_and_nothing_runs(whole, tmp_path):
    tree, _ = whole
    file = tmp_path / "x.pt"
    touched = tmp_path / "touched"
    cases = {
        "getattr": tree | {"more": Calls(touched)},
        "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
        "a NumPy dtype other than float64": tree | {"more": np.float32(1)},
        "no weights of": [1, 2, 3],
        "no weights of the U-Net": {"model": {"weight": torch.ones(2)}},
        "is missing": tree | {"model": {k: x for k, x in tree["model"].items() if "mid.0" not in k}},
    }
    cases["is missing"]["model"] |= {"net.mid.0.resblocks.norm1.weight": torch.ones(8)}
    cases["is missing"]["model"].pop("ema_shadow_params")
    for message, content in cases.items():
        torch.save(content, file)
        assert message.split(".")[-1] in refused(file)
    file.write_bytes(pickle.dumps(Calls(touched)))
    assert "is a bare pickle, which is not read" in refused(file)
    assert not touched.exists()


def test_a_damaged_checkpoint_is_said_to_be(whole, tmp_path):
    _, content = whole
    file = tmp_path / "x.pt"
    flipped = bytearray(content)
    flipped[content.index(b"data/0") + 400] ^= 1
    for damaged in (content[:-10], content[: len(content) // 2], content[:30], bytes(flipped)):
        file.write_bytes(damaged)
        assert "is damaged, or not a file of torch.save" in refused(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps([1]), zipfile.ZIP_DEFLATED)
    assert "is compressed" in refused(file)
    whole_file = serialization.msgpack_serialize(official_tree(np.random.default_rng(0), 5))
    for damaged in (whole_file[:-5], whole_file[:100], b"\x81"):
        file.write_bytes(damaged)
        assert "is damaged, or not a checkpoint" in refused(file)


def test_weights_that_do_not_fit_are_named(whole, tmp_path):
    tree, _ = whole
    file = tmp_path / "x.pt"

    def said(**changes):
        torch.save({"model": {k: x for k, x in (tree["model"] | changes).items() if x is not None}}, file)
        return refused(file)

    averages = tree["model"]["ema_shadow_params"]
    assert "ema_shadow_params are not of the number" in said(ema_shadow_params=averages[1:])
    bad = [torch.full_like(averages[0], torch.nan), *averages[1:]]
    assert "not finite" in said(ema_shadow_params=bad)
    more = {"net.odd.weight": torch.ones(1)}
    assert "no part of the network takes: odd.weight" in said(ema_shadow_params=None, **more)
    torch.save({"model": tree["model"] | {"ema_shadow_params": None}}, file)
    assert checkpoints.read_network(file, ImportOptions()).weights_kind == "raw"


def test_a_check_that_does_not_fit_is_named(whole, tmp_path):
    file = tmp_path / "x.pt"
    check = tmp_path / "check.npz"
    file.write_bytes(whole[1])
    network = checkpoints.read_network(file, ImportOptions())
    arrays = {"x": np.zeros((2, 1, 4, 4), int), "t": np.zeros(2, int), "logits": np.ones((2, 1, 4, 4, 5))}
    assert foreign.convert_check(check, arrays, network).xt.shape == (2, 4, 4, 1)
    cases = {
        "x holds 0..5": {"x": np.eye(4, dtype=int)[None, None].repeat(2, 0) * 5},
        "C = 1": {"x": np.zeros((2, 4, 4, 3), int)},
        "logits are": {"logits": np.ones((2, 4, 4, 1, 5))},
        "t (3,)": {"t": np.zeros(3, int)},
    }
    for message, changes in cases.items():
        with pytest.raises(foreign.UserError, match=r"check\.npz: ") as raised:
            foreign.convert_check(check, arrays | changes, network)
        assert message in str(raised.value)
    check.write_bytes(b"PK\x03\x04")
    with pytest.raises(foreign.UserError, match="is damaged, or no"):
        foreign.read_check(check)
    np.savez(check, x=arrays["x"], t=np.full(2, np.nan))
    with pytest.raises(foreign.UserError, match="holds no logits"):
        foreign.read_check(check)
