"""A text and a tokenizer of one's own: trained, killed, gone on with, evaluated and sampled.

Each command is a process of its own.
"""

import json
import os
import random
import re
import signal
import time

import jax
import numpy as np
import pytest

from d3pm_jax import runs
from d3pm_jax.cli.main import main
from d3pm_jax.data import tokenizers as symbols
from d3pm_jax.program.storage import checkpoint
from tests.forked import Fork

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.slow

WORDS = "the café naïve dog saw one more cat and ran past it to a mat of straw"
STEPS = 20
CONFIG = f"""
from d3pm_jax.config import Absorbing, Adam, Config, Head, Reciprocal, Text, Train, Transformer

def get_config():
    return Config(
        data=Text("novel.txt", tokenizer="tokenizer.json", length=24),
        process=Absorbing(K="data", steps=16, beta=Reciprocal(), mask_id="data"),
        model=Transformer(width=16, num_layers=1, num_heads=2, see_time=False),
        optimizer=Adam(lr=1e-2),
        train=Train(steps={STEPS}, batch_size=8, ema_decay=0.9, checkpoint_every=5),
    )
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a text, a tokenizer, a config and two runs; one of them was killed on its way."""
    folder = tmp_path_factory.mktemp("own")
    rng = random.Random(0)
    text = "\n".join(" ".join(rng.choices(WORDS.split(), k=rng.randint(3, 12))) for _ in range(400))
    (folder / "novel.txt").write_text(text, encoding="utf-8")
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train(str(folder / "novel.txt"), vocab_size=300, show_progress=False)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "own.py").write_text(CONFIG)
    printed_by(folder, "train", "own.py", "--workdir", "whole")
    killed = started(folder, "train", "own.py", "--workdir", "killed")
    deadline = time.monotonic() + 120
    while not checkpoint.list_steps(folder / "killed" / "checkpoints"):
        assert killed.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    at = checkpoint.list_steps(folder / "killed" / "checkpoints")[-1]
    out = printed_by(folder, "train", "--workdir", "killed", "--resume")
    assert f"step {at}/{STEPS}  compiling" in out
    assert at < STEPS
    return folder


def run_in(folder, words):
    """Runs a command in another folder."""
    os.chdir(folder)
    main(words)


def started(folder, *words):
    """A command of this library in a process of its own that runs in another folder, with its cache."""
    return Fork(folder, run_in, folder, words, XDG_CACHE_HOME=folder / "cache", JAX_NUM_CPU_DEVICES=2)


def printed_by(folder, *words):
    """What a command prints that runs in a folder with its cache."""
    process = started(folder, *words)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def lines(path):
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def test_a_killed_run_ends_with_the_same_bits(home):
    whole = runs.open(home / "whole").parts.state
    killed = runs.open(home / "killed").parts.state
    assert int(whole.step) == STEPS
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(killed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_evaluated_by_token_and_by_the_chain_rule(home):
    """A token is no character, so there are no bits per character."""
    out = printed_by(home, "eval", "killed", "--chain-rule", "2", "--calls", "2")
    bound = json.loads((home / "killed" / "eval_calls2.json").read_text())
    assert 0 < bound["bits_per_dim"] < np.log2(300)
    assert bound["perplexity"] == pytest.approx(2 ** bound["bits_per_dim"])
    assert "bits_per_char" not in bound
    assert "bits/char" not in out
    assert re.search(r"^  exact, in random orders, 2 examples: \d\.\d{3} \+- \d\.\d{3} bits/dim$", out, re.M)
    assert re.search(r"^test bits/dim: \d\.\d{3} \+- \d\.\d{3}\n\Z", out, re.M)


def test_what_is_known_of_samples_stays_to_the_letter(home):
    run = home / "killed"
    prompt = "a naïve café\n"
    before = "the dog "
    behind = " saw a"
    out = printed_by(home, "sample", "killed", "--num", "2", "--steps", "8")
    assert re.findall(r"^sample (\d)$", out, re.M) == ["0", "1"]
    assert len(lines(run / "samples_steps8.txt")) == 2
    prompted = printed_by(home, "sample", "killed", "--num", "3", "--prompt", prompt)
    assert [prompted.count(f"\nsample {i}\n{prompt}") for i in range(3)] == [1, 1, 1]
    assert [x.startswith("a naïve café\\n") for x in lines(run / "samples_prompt.txt")] == [True] * 3
    printed_by(home, "sample", "killed", "--num", "3", "--infill", f"{before}[MASK:5]{behind}[MASK:2]")
    vocabulary = runs.open(run).parts.description.symbols
    first = symbols.match_symbols(before, vocabulary)
    last = symbols.match_symbols(behind, vocabulary)
    for x in np.load(run / "samples_infill.npy"):
        np.testing.assert_array_equal(x[: len(first)], first)
        np.testing.assert_array_equal(x[len(first) + 5 :][: len(last)], last)
    infilled = lines(run / "samples_infill.txt")
    assert [x.startswith(before) and behind in x[len(before) :] for x in infilled] == [True] * 3
