"""Runs on texts: trained, resumed, evaluated and sampled; padding; one line for what does not go together."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from d3pm_jax import config, kinds, runs
from d3pm_jax.config import (
    Absorbing,
    Adam,
    Config,
    Head,
    HybridLoss,
    Reciprocal,
    Train,
    Transformer,
    io as config_io,
)
from d3pm_jax.config.head import make_logits
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import baselines, texts
from d3pm_jax.kinds import text as text_kind
from d3pm_jax.program.parts import network, reading
from d3pm_jax.program.storage import run_folder
from d3pm_jax.report import folder as records, samples as pictures
from d3pm_jax.training.diffusion import without_buffers
from tests.cli.commands import error, status

LINES = ["the cat sat", "a", "on the mat it sat", "é!"] * 40


def table(config, description, process, extra_mask):
    """In place of `network.split_network`: logits from a table of x_t; where the weight is 0 they are NaN."""
    network._check_padding(config, description, hasattr(config.model, "width"))

    def predict(params, xt, t, key=None, label=None, weight=None, condition=None):
        logits = params["table"]["kernel"][xt]
        if weight is not None:
            logits = jax.numpy.where(weight[..., None] > 0, logits, np.nan)
        return make_logits(config.head, logits, xt, process.K, extra_mask)

    def init(key):
        return {"table": {"kernel": 0.1 * jax.random.normal(key, (process.K, process.K))}}

    return network.Network(predict, init, without_buffers(predict), extra_mask=extra_mask)


def config_of(folder, packing="padded", **train):
    (folder / "a.txt").write_text("\n".join(LINES))
    return Config(
        data=config.Text(str(folder / "a.txt"), length=8, packing=packing),
        process=Absorbing(K="data", steps=5, beta=Reciprocal(), mask_id="data"),
        head=Head(residual=False),
        model=Transformer(width=8, num_layers=1, num_heads=2),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=1e-2),
        train=Train(steps=4, batch_size=4, ema_decay=0.5, log_every=2, eval_every=2, **train),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a padded text; where a weight is 0 the logits of its network are NaN."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_cache_dir", lambda *name: str(folder / "cache"))
        patch.setattr(network, "split_network", table)
        yield runs.train(config_of(folder), folder / "run")


def test_padding_counts_nowhere(trained):
    rows = [json.loads(line) for line in (trained.workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["valid_bits_per_dim"]) for row in rows)
    batch = trained.read_batch("test")
    bound = trained.evaluate(batch_size=5)
    D = batch["weight"].sum()
    assert batch["x"].size > D
    assert bound["bits_per_dim"] == pytest.approx(bound["nats"] * len(batch["x"]) / D / np.log(2))
    assert sum(bound["steps"]) + bound["prior"] == pytest.approx(bound["bits_per_dim"], rel=1e-5)
    figures = trained.parts.kind.extra_figures(bound, batch)
    assert figures["bits_per_char"] == pytest.approx(bound["bits_per_dim"])  # a token is a character
    with pytest.raises(UserError, match=r"have weights: take Run\.read_batch"):
        trained.read_split("test")
    examples = run_folder.read_examples(trained.workdir, trained.parts.description)["x"]
    np.testing.assert_array_equal(examples, np.where(batch["weight"] > 0, batch["x"], -1)[:64])
    assert trained.parts.kind.lines(examples[:4]) == ["the cat ", "sat", "a", "on the m"]


@pytest.mark.slow
def test_a_padded_run_is_evaluated_on_its_best_grid_and_sampled_without_its_text(trained, capsys):
    folder = trained.workdir
    assert status("eval", folder, "--grid", "dp", "--steps", 3) == 0
    out = capsys.readouterr().out
    train = trained.read_batch("train")
    batch = trained.read_batch("test")
    counts = np.bincount(train["x"][train["weight"] > 0], minlength=len(trained.parts.description.symbols))
    nats = baselines.unigram_nats(counts, batch["x"], batch["weight"]).sum()
    assert f"  unigram: {nats / batch['weight'].sum() / np.log(2):.3f} bits/dim" in out
    assert "test bits/dim: " in out
    (folder.parent / "a.txt").rename(folder.parent / "gone")
    assert status("sample", folder, "--num", 3) == 0
    (folder.parent / "gone").rename(folder.parent / "a.txt")
    assert (folder / "samples.txt").read_text()
    forward = pictures.draw_run(records.read_folders([trained])[0]).chains.forward().x
    padding = np.broadcast_to(batch["weight"][: kinds.SHOWN_CHAINS] == 0, forward.shape)
    np.testing.assert_array_equal(forward == -1, padding)


def test_a_run_goes_on_with_its_text_only_wherever_it_lies(trained, capsys):
    folder = trained.workdir
    trained_config = trained.config
    text = folder.parent / "b.txt"
    resume = ("train", "--workdir", folder, "--resume", "--data.train", text)
    text.write_text("\n".join(LINES))
    assert status(*resume) == 0
    assert "nothing left to do: the run is at step" in capsys.readouterr().out
    assert config_io.from_json(json.loads((folder / "config.json").read_bytes())).data.train == str(text)
    text.write_text("\n".join(LINES[::-1]))
    other = dataclasses.replace(
        trained_config, data=dataclasses.replace(trained_config.data, train=str(text))
    )
    moved = dataclasses.replace(trained, parts=dataclasses.replace(trained.parts, config=other))
    changed = f"the text or its tokenizer has changed since the run in {folder}: use those it had"
    with pytest.raises(UserError, match=re.escape(changed)):
        moved.evaluate()
    assert changed in error(capsys, *resume)
    same = (*resume[:-1], folder.parent / "a.txt")
    assert changed in error(capsys, *same, "--data.tokenizer", "bytes")
    shares = ("--data.split", 0.8, 0.1, 0.1)
    refusal = "cannot resume with another config (data.split was [0.9, 0.05, 0.05], is [0.8, 0.1, 0.1]): pass"
    assert refusal in error(capsys, *same, *shares)
    gone = error(capsys, *resume[:-1], folder / "none.txt")
    assert gone.endswith("name a text in UTF-8\n")
    text.unlink()
    with pytest.raises(
        UserError, match=r"^no file or folder .*b.txt: --data.dir DIR says where the data lies now$"
    ):
        moved.evaluate()


def test_padded_data_is_refused_to_a_network_that_cannot_be_told(trained, tmp_path):
    for model in (config.UNet(), config.ScoreNet()):
        with pytest.raises(
            UserError, match=r"the data is padded, but the network of \w+ has no keyword weight"
        ):
            runs.train(dataclasses.replace(trained.config, model=model), tmp_path / "none")


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["wrapped", "padded"])
@pytest.mark.usefixtures("text_cache")
def test_a_transformer_is_trained_on_a_text_and_goes_on_to_the_same_bits(tmp_path, packing):
    full_config = config_of(tmp_path, packing)
    whole = runs.train(full_config, tmp_path / "whole")
    part = dataclasses.replace(full_config, train=dataclasses.replace(full_config.train, steps=2))
    runs.train(part, tmp_path / "part")
    again = runs.train(full_config, tmp_path / "part", resume=True)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(whole.evaluate()["bits_per_dim"])
    x0 = whole.sample(jax.random.key(0), 3).x0
    assert x0.shape == (3, 8)


def test_samples_of_lines_are_compared_with_lines(trained, monkeypatch):
    """Padding is no text, and a line is not what a piece goes on from."""
    monkeypatch.setattr(text_kind, "PART", 40)  # five examples
    reference = trained.prepare_quality(7)
    train = trained.read_batch("train")
    assert reference.compared.startswith(f"{int(train['weight'].sum()):,} tokens, ")
    pieces = [x[w > 0] for x, w in zip(train["x"], train["weight"], strict=True)]
    lines = [trained.parts.description.text(x) for x in pieces]
    whole = {word for line in LINES for word in line.split()}
    split = reading.open_whole(trained.parts, trained.workdir, "train")
    vocabulary = texts.collect_vocabulary(trained.parts.kind.in_parts(split))
    known = np.mean([word in whole for line in lines[:7] for word in line.split()[1:-1]])
    assert reference.figures["test"]["known_words"] == pytest.approx(known)
    assert vocabulary == whole  # without what is left of a word where a line is cut
    assert {word for line in lines for word in line.split()} - whole
    row = reference.figures["test"]
    assert (row["n"], row["longest_copy"]) == (7, 8)  # lines of the test split are lines of the train split
    assert row["copied"] in lines
    assert reference.figures["unigram"]["n"] == 7
