"""Commands on texts: prompts, gaps, samples, figures by character, n-grams, compressors, the chain rule."""

import dataclasses
import gzip
import json

import jax
import numpy as np
import pytest

from d3pm_jax import runs
from d3pm_jax.cli.eval import EvalCommand, measure_samples
from d3pm_jax.config import Transformer
from d3pm_jax.evaluation import texts
from d3pm_jax.kinds import text as text_kind
from d3pm_jax.program.measure import sample_quality as protocol
from d3pm_jax.program.parts import network, reading
from tests.cli.commands import error, status
from tests.report.reading import Page
from tests.runs.test_text import config_of, table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on windows of eight characters whose network is a table of x_t, and sees no time."""
    folder = tmp_path_factory.mktemp("text")
    config = config_of(folder, "wrapped")
    config = dataclasses.replace(
        config, model=Transformer(width=8, num_layers=1, num_heads=2, see_time=False)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_cache_dir", lambda *name: str(folder / "cache"))
        patch.setattr(network, "split_network", table)
        yield runs.train(config, folder / "run")


def samples(out):
    """The texts below each line "sample i"; they may have line breaks."""
    return [part.partition("\n")[2].removesuffix("\n") for part in out.split("sample ")[1:]]


def test_samples_begin_with_a_prompt_or_have_it_around_gaps(run, capsys):
    folder = run.workdir
    assert status("sample", folder, "--num", 3, "--prompt", "the é") == 0
    printed = capsys.readouterr().out
    texts_printed = samples(printed[printed.index("\nsample 0\n") :])
    assert [text[:5] for text in texts_printed] == ["the é"] * 3
    assert {len(text) for text in texts_printed} == {8}
    assert "known elements" not in printed
    written = np.load(folder / "samples_prompt.npy")
    assert [run.parts.description.text(x) for x in written] == texts_printed
    assert json.loads((folder / "samples_prompt.json").read_text())["prompt"] == "the é"
    assert f"\nreverse process, played: {folder / 'chain_prompt.html'}\n" in printed
    page = Page((folder / "chain_prompt.html").read_text())
    assert page.inside["pre"] == ["\n" + text for text in texts_printed]
    assert page.having("div", "film")[0]["data-times"] == "5 4 3 2 1 0"
    assert status("sample", folder, "--num", 2, "--infill", "a[MASK:3]t", "--length", 6) == 0
    x = np.load(folder / "samples_length6_infill.npy")
    texts = [run.parts.description.text(row) for row in x]
    assert x.shape == (2, 6)
    assert all(text[0] == "a" and text[4] == "t" for text in texts)


def test_what_cannot_be_asked_of_a_text_is_said_in_a_line(run, capsys):
    folder = run.workdir
    for words, said in (
        (("--prompt", "the cat sat on it"), "--prompt has 17 tokens, but a sample has 8: shorten it"),
        (
            ("--prompt", "tax"),
            "the text that the run was trained on has no symbol for 'x', character 2 of 'tax': leave it out",
        ),
        (
            ("--infill", "a[MASK:0]t"),
            "--infill has '[MASK:0]': write [MASK:N] for a gap of N tokens, N in 1..8",
        ),
        (("--infill", "a[MASK:-3]t[MASK:1]"), "--infill has '[MASK:-3]': write [MASK:N]"),
        (("--infill", "a[mask]t"), "--infill has '[mask]': write [MASK:N]"),
        (("--infill", "a[MASK:3"), "--infill has '[MASK:3': write [MASK:N]"),
        (("--infill", "a[MASK:" + "9" * 5000 + "]"), "write [MASK:N] for a gap"),
        (("--infill", "the"), "--infill 'the' has no gap: write [MASK:N]"),
        (("--infill", "a[MASK:9]"), "--infill has gaps of 9 tokens, but a sample has 8"),
        (("--infill", "the[MASK:6]"), "--infill has 9 tokens, but a sample has 8"),
        (("--length", 9), "--length 9: examples of this run have shape [8], and only"),
    ):
        assert said in error(capsys, "sample", folder, *words)
    inception = error(capsys, "eval", folder, "--samples", 5, "--inception", "x")
    assert "--inception x measures samples of images: leave it out for text" in inception


def test_a_text_is_measured_by_character_by_n_grams_and_by_the_chain_rule(run, capsys):
    folder = run.workdir
    description = run.parts.description
    assert status("eval", folder, "--chain-rule", 5) == 0
    out = capsys.readouterr().out
    result = json.loads((folder / "eval.json").read_text())
    assert result["bits_per_char"] == pytest.approx(result["bits_per_dim"])  # a token is a character
    assert result["perplexity"] == pytest.approx(2 ** result["bits_per_dim"])
    train = run.read_batch("train")["x"].ravel()
    test = run.read_batch("test")["x"].ravel()
    nats = texts.ngram_nats(train, test, len(description.symbols), 5).mean()
    assert f"n-gram of 5 tokens before each: {nats / np.log(2):.3f} bits/dim" in out
    text = description.text(test).encode()  # the windows are one text
    assert f"gzip: {8 * len(gzip.compress(text, 9)) / len(test):.3f} bits/dim" in out
    assert f"written to {folder / 'exact_chain_rule5.json'}\n" in out
    exact = json.loads((folder / "exact_chain_rule5.json").read_text())
    assert exact["examples"] == 5
    log_p = np.asarray(run.params["table"]["kernel"])[description.categories]  # of a masked x_t
    log_p = log_p[: description.categories] - np.log(np.exp(log_p[: description.categories]).sum())
    bits = -log_p[run.read_batch("test", 5)["x"]].mean() / np.log(2)  # what is around does not matter
    for name in ("left to right", "in random orders"):
        assert exact[name]["bits_per_dim"] == pytest.approx(bits, rel=1e-5)


def test_a_bound_beyond_what_two_to_its_power_is_a_number_has_an_infinite_perplexity(run):
    batch = run.read_batch("test", 2)
    assert run.parts.kind.extra_figures({"bits_per_dim": 2000.0, "nats": 1e4}, batch)["perplexity"] == np.inf
    assert run.parts.kind.extra_figures({"bits_per_dim": 3.0, "nats": 1e1}, batch)["perplexity"] == 8


def by_hand(texts, train):
    """What is measured of texts beside a training text."""
    inner = [word for text in texts for word in text.split()[1:-1]]
    figures = {
        "n": len(texts),
        "known_words": np.mean([x in train.split() for x in inner]) if inner else None,
    }
    for n in (1, 2, 3):
        every = [tuple(w[i : i + n]) for w in map(str.split, texts) for i in range(len(w) - n + 1)]
        figures[f"distinct_{n}"] = len({*every}) / len(every) if every else None
    pieces = {x[i:j] for x in texts for i in range(len(x)) for j in range(i + 1, len(x) + 1)}
    return figures | {"longest_copy": max(map(len, {x for x in pieces if x in train}))}


@pytest.mark.slow
def test_samples_are_compared_with_the_training_split(run, capsys, monkeypatch):
    """Which is read in parts, cut within words; a split that is too long to read is read up to its limit."""
    monkeypatch.setattr(text_kind, "PART", 24)
    measure_samples(EvalCommand(run.workdir, seed=3, batch_size=30), [run], 30)
    out = capsys.readouterr().out
    (stored,) = protocol.read_quality([run.workdir])
    x0 = run.sample(jax.random.key(3), 30, batch_size=30).x0
    write = run.parts.description.text
    x = run.read_batch("train")["x"]
    test = run.read_batch("test")["x"]
    train = write(x.ravel())
    for name, rows in (("samples", x0), ("test", test[:30])):
        row = dict(stored["figures"][name])
        copied = row.pop("copied")
        assert row == pytest.approx(by_hand([write(row) for row in rows], train), nan_ok=True)
        assert copied in train
        assert len(copied) == row["longest_copy"]
    assert stored["figures"]["unigram"]["n"] == 30
    assert stored.protocol["reference"].startswith(f"{x.size:,} tokens, sha256 ")
    assert f"compared with the training split: {x.size:,} tokens\n" in out
    assert "known words  distinct words  2-grams  3-grams  longest copy\n" in out
    monkeypatch.setattr(text_kind, "MOST_READ", 79)
    short = run.prepare_quality(5)
    assert short.compared.startswith("the first 72 tokens, ")  # nine windows
    first = reading.open_whole(run.parts, run.workdir, "train").first(9)
    assert texts.collect_vocabulary(run.parts.kind.in_parts(first)) == set(write(x[:9].ravel()).split())
