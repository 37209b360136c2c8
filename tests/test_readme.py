"""The Python blocks of the README and of the docs run, each by itself."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import d3pm_jax
from d3pm_jax import config as configs
from d3pm_jax.config import io as config_io
from d3pm_jax.config.process import find_extra_mask
from tests import tiny
from tests.cli.commands import status

ROOT = Path(__file__).parents[1]


def blocks(page):
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


def of_torch(page):
    """Those of them that import PyTorch."""
    return [block for block in blocks(page) if "import torch" in block]


def check_readme(names):
    assert names["samples"].shape == (4, 64)
    assert (names["samples"] < 26).all()  # the mask is never left


def check_library(names):
    assert names["short"].T == 10
    assert 0 < names["error"] < names["mean"]
    assert "out of range" in names["refused"].get()


def check_config_reference(names):
    config = names["get_config"]()
    process = config.process.build()
    assert find_extra_mask(config.process, process, config.data.describe().categories) == 17


def check_objectives(names):
    """All losses are those of a network that says nothing; the last config, of blocks, trains."""
    losses = names["losses"]
    assert len(losses) == 8
    assert all(np.isfinite(loss).all() and (loss >= 0).all() for loss in losses.values())
    config = names["get_config"]()
    train = dataclasses.replace(config.train, steps=2, batch_size=4)
    with jax.numpy_rank_promotion("allow"):
        run = d3pm_jax.runs.train(dataclasses.replace(config, train=train), "runs/blocks")
    assert run.step == 2


def check_own_parts(names):
    run = d3pm_jax.runs.train(names["get_config"](), "runs/letters")
    assert run.step == 20
    x0 = run.sample(jax.random.key(0), 4).x0
    assert x0.shape == (4, 24)
    assert x0.max() < 3


def check_python(names):
    assert names["run"].step == 20
    drawn = names["drawn"]
    assert drawn.x0.shape == (4, 24)
    assert drawn.x0.max() < 3
    assert drawn.states.shape == (2, 4, 24)


def check_compat(names):
    assert np.isfinite(names["log_p"][..., :-1]).all()


def check_pictures(names):
    written = ("chain.gif", "strip.png", "compared.png", "bound_terms.png")
    assert min(Path(name).stat().st_size for name in written) > 5000
    with Image.open("chain.gif") as gif:
        assert gif.n_frames == len(names["times"]) == 41


def check_pytorch(names):
    """The network in PyTorch has the tensors that were saved from JAX."""
    tensors = names["in_torch"].state_dict()
    assert tensors.keys() == names["state_dict"].keys()
    for name, array in names["state_dict"].items():
        np.testing.assert_array_equal(tensors[name], array)
    assert names["keywords"] == {"belief": "leave_one_out"}


def check_samplers(names):
    assert (names["chain"].x0 < 3).all()
    assert names["chain"].calls.tolist() == [5, 5]
    edited, left = names["edited"], names["left"]
    assert edited.calls.tolist() == [10] * 8
    np.testing.assert_array_equal(edited.x0[left], names["x0"][left])
    # From the middle outwards, two places in each of three calls.
    in_pairs = names["in_pairs"]
    assert in_pairs.calls.tolist() == [3, 3]
    from_middle = np.array([2, 1, 0, 0, 1, 2])
    for row, states in enumerate(in_pairs.states):
        np.testing.assert_array_equal(states < 3, np.broadcast_to(from_middle < row, (2, 6)))
    assert (names["surer"].x0 == 0).mean() > 0.52
    assert names["asked_twice"].calls.tolist() == [40, 40]


def check_temperature(names):
    assert (names["chain"].x0 < 3).all()
    assert jnp.isfinite(names["keeps_two"]).tolist() == [True, True, False, False]
    assert jnp.isfinite(names["keeps_one"]).tolist() == [True, False, False, False]


def check_remask(names):
    assert (names["masked"][:-1] < names["masked"][1:]).any()


def check_confidence(names):
    """The share of 00 by the last sampler, MaskGIT with its noise: 60% of the data, and 84% without noise."""
    share = (names["chain"].x0 == 0).all(axis=1).mean()
    assert 0.60 < share < 0.70


def check_planner(names):
    assert (names["revealed"].x0 == 0).mean() > 0.5  # a third by chance
    assert (names["masked_again"].x0 == 2).mean() < 0.2


def check_classifier_free(names):
    """What the last gamma, 4, gives: a share of 0.38 where gamma is 1, a quarter by chance."""
    guided = names["guided"]
    assert guided.calls.tolist() == [40] * 4
    assert (guided.x0 == names["labels"][:, None]).mean() > 0.8


def check_classifier(names):
    assert (names["threes"].x0 == 3).mean() > 0.5  # a quarter without the classifier


def check_inpaint(names):
    completed, mask = names["completed"], names["mask"]
    assert completed.calls.tolist() == [5 * 20] * 4
    np.testing.assert_array_equal(completed.x0[mask], names["x0"][mask])


def check_edit(names):
    """The last edit is of strength 1, and leaves only what is known."""
    edited, known = names["edited"], names["known"]
    assert edited.calls.tolist() == [20] * 100
    np.testing.assert_array_equal(edited.x0[known.mask], names["x0"][known.mask])
    assert names["share"] < 0.5


def check_own_guidance(names):
    """Half of the places are what the one network expects, and half what the other does."""
    for way in ("half", "of_laws"):
        x0 = names[way].x0
        assert 0.4 < (x0 == 0).mean() < 0.6
        assert 0.4 < (x0 == 1).mean() < 0.6
    assert names["of_laws"].calls.tolist() == [40] * 64


def check_large_vocabularies(names):
    """Losses of the first text are those of logits in memory, and no array of all logits is."""
    x0, xt, t, weight, nats = (names[name][:1] for name in ("x0", "xt", "t", "weight", "nats"))
    embedding = names["params"]["embedding"]
    logits = names["finish"](jnp.tanh(embedding[xt]) @ embedding.T, xt)
    expected = jnp.where(weight > 0, d3pm_jax.posterior_kl(names["process"], logits, x0, xt, t), 0.0)
    np.testing.assert_allclose(nats, expected, rtol=1e-4)
    np.testing.assert_allclose(names["value"], (names["weight"] * names["nats"]).sum(), rtol=1e-5)
    assert names["temporaries"] < logits.nbytes  # a quarter of all logits
    assert abs(names["gradient"]["embedding"]).max() > 0
    assert names["run"].step == 20
    assert names["run"].sample(jax.random.key(0), 2).x0.max() < 5000


def check_tables(names):
    frame = names["frame"]
    assert list(frame) == ["age", "sex", "job", "hours", "income"]
    assert (frame["sex"] == "Male").all()
    assert (frame["age"] == 39).all()


def check_steer(names):
    for way in ("best", "steered"):
        assert names["score"](names[way].x0).mean() > 5  # 3 without a score


CHECKS = {
    "README.md": check_readme,
    "docs/compat.md": check_compat,
    "docs/config-reference.md": check_config_reference,
    "docs/how-to/classifier-free-guidance.md": check_classifier_free,
    "docs/how-to/classifier-guidance.md": check_classifier,
    "docs/how-to/confidence-repeats.md": check_confidence,
    "docs/how-to/edit.md": check_edit,
    "docs/how-to/inpaint.md": check_inpaint,
    "docs/how-to/own-guidance.md": check_own_guidance,
    "docs/how-to/planner-corrector.md": check_planner,
    "docs/how-to/python.md": check_python,
    "docs/how-to/remask.md": check_remask,
    "docs/how-to/steer.md": check_steer,
    "docs/how-to/temperature.md": check_temperature,
    "docs/large-vocabularies.md": check_large_vocabularies,
    "docs/library.md": check_library,
    "docs/objectives.md": check_objectives,
    "docs/own-parts.md": check_own_parts,
    "docs/pictures.md": check_pictures,
    "docs/pytorch.md": check_pytorch,
    "docs/samplers.md": check_samplers,
    "docs/tables.md": check_tables,
}
ALL = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md"))]
OTHERS = [page for page in ALL if blocks(page)]


# Pages that compile much, each part of which has tests of its own.
SLOW = (
    "docs/coming-from.md",
    "docs/compat.md",
    "docs/concepts.md",
    "docs/flows.md",
    "docs/how-to/",
    "docs/large-vocabularies.md",
    "docs/library.md",
    "docs/mixing-loss.md",
    "docs/objectives.md",
    "docs/own-parts.md",
    "docs/pictures.md",
    "docs/pytorch.md",
    "docs/report.md",
    "docs/samplers.md",
    "docs/tables.md",
)
PAGES = [
    pytest.param(page, marks=[pytest.mark.slow] * page.startswith(SLOW))
    for page in sorted({*CHECKS, *OTHERS})
]


@pytest.mark.parametrize("page", PAGES)
def test_page(page, tmp_path, monkeypatch):
    python_blocks = blocks(page)
    assert python_blocks, "it had Python blocks"
    if page == "README.md":
        python_blocks.remove(*of_torch(page))  # it has a test of its own
    elif of_torch(page):
        pytest.importorskip("torch")
    if any("from tokenizers" in block for block in python_blocks):
        pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)  # for the files that they write
    names = {}
    with jax.numpy_rank_promotion("allow"):
        for block in python_blocks:
            defined = {}
            exec(compile(block, page, "exec"), defined)
            names |= defined
    check = CHECKS.get(page)
    if check is not None:
        check(names)


def test_what_the_table_of_objectives_writes_in_a_config_can_be_written_there():
    """Each piece of code in its column: a part whose fields are in order, or a keyword with its value."""
    rows = (ROOT / "docs/objectives.md").read_text().split("| in a config |")[1].split("\n\n")[0]
    cells = [line.split(" | ")[3] for line in rows.splitlines() if line.count(" | ") == 4]
    names = vars(configs) | {"alpha": configs.Reciprocal(), "p_uniform": 0.2}
    num_parts = 0
    for code in re.findall("`(.*?)`", " ".join(cells)):
        if re.match(r"\w+=", code):
            eval(f"dict({code})", names.copy())
            continue
        part = eval(code, names.copy())
        if not isinstance(part, type):
            configs.check_fields("", part)
            num_parts += 1
    assert num_parts == 11


@pytest.mark.slow
def test_the_twin_of_the_readme_computes_what_the_run_does(tmp_path, monkeypatch):
    """The network of the demo, narrower and with random weights, in a run of its own."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    config = config_io.read_config_file(ROOT / "configs/digits_gaussian.py")
    model = dataclasses.replace(config.model, ch=8, num_res_blocks=0)
    tiny.write_run(Path("runs/digits"), dataclasses.replace(config, model=model))
    assert status("export", "runs/digits", "--to", "torch") == 0
    torch.manual_seed(0)
    names = {}
    (block,) = of_torch("README.md")
    exec(compile(block, "README.md", "exec"), names)
    assert names["logits_x0"].shape == (4, 8, 8, 1, 17)
    xt = jnp.asarray(names["xt"].numpy(), jnp.int32)
    t = jnp.asarray(names["t"].numpy(), jnp.int32)
    expected = np.asarray(d3pm_jax.runs.open("runs/digits").predict(xt, t))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(names["logits_x0"], expected, rtol=0, atol=2e-6 * np.abs(expected).max())
