"""d3pm judge as a user runs it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from d3pm_jax import judge
from d3pm_jax.errors import UserError
from tests.cli.commands import error, status

IN_NUMPY = """
import numpy as np

claims = "random_order"
calls_so_far = []


def draw(p, rng):
    return (rng.random((*p.shape[:-1], 1)) > np.cumsum(p, axis=-1)[..., :-1]).sum(axis=-1)


def sample(denoise, K, L, n, seed, calls):
    rng = np.random.default_rng(seed)
    x = np.full((n, L), K)
    for places in rng.random((n, L)).argsort(axis=1).T:
        p = np.exp(denoise(x, (x != K).mean(axis=1)))
        x[range(n), places] = draw(p[range(n), places], rng)
    return x


def at_once(denoise, K, L, n, seed, calls):
    return draw(np.exp(denoise(np.full((n, L), K), 0.0)), np.random.default_rng(seed))


def forgets_its_seed(denoise, K, L, n, seed, calls):
    calls_so_far.append(seed)
    return at_once(denoise, K, L, n, len(calls_so_far), calls)


def ignores_its_seed(denoise, K, L, n, seed, calls):
    return at_once(denoise, K, L, n, 0, calls)


def fails(denoise, K, L, n, seed, calls):
    raise ValueError("no such thing")
"""
SMALL = ["--length", "3", "--calls", "2", "--num", "3000"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(IN_NUMPY)
    return path


def test_a_function_and_a_named_sampler_are_judged(file, tmp_path, capsys):
    """One place at a time has the law of a chain; all places in one call have another."""
    out = tmp_path / "out"
    assert status("judge", file, f"{file}:at_once", "maskgit:rows=1", *SMALL, "--out", out) == 0
    printed = capsys.readouterr().out
    verdicts = dict(re.findall(r"^(\S+) against chain \(K = 8, L = 3\): (.*)$", printed, re.M))
    names = f"{file}:sample", f"{file}:at_once", "maskgit:rows=1"
    assert verdicts == dict(zip(names, ("not told apart", "another law", "another law"), strict=True))
    assert re.search(
        r"^  3 calls, asked for 2: not told apart at n = 3000: TV of the law at most 0\.\d+$", printed, re.M
    )
    assert re.search(r"^    TV of all places +0\.\d{4} \+- 0\.\d{4} +0\.\d{4} \+- 0\.\d{4}$", printed, re.M)
    records = [json.loads(path.read_text()) for path in out.glob("judged_*.json")]
    assert {record["sampler"]: record["verdict"] for record in records} == verdicts
    by_name = {record["sampler"]: record["rows"][0]["figures"]["tv"] for record in records}
    # Two programs of one rule: both figures are far above the floor, and as far as their errors say.
    ours, theirs = by_name["maskgit:rows=1"], by_name[f"{file}:at_once"]
    assert abs(ours["value"] - theirs["value"]) < 4 * (ours["error"] + theirs["error"])
    assert min(ours["value"], theirs["value"]) > 2 * ours["floor"]
    page = (out / "judged.html").read_text()
    assert all(f"{name}: {verdict}" in page for name, verdict in verdicts.items())
    assert (np.asarray(Image.open(out / "judged.png").convert("L")) < 200).mean() > 0.005


def test_what_is_wrong_is_named_in_one_line(file, tmp_path, capsys):
    args = ["--length", "3", "--out", tmp_path / "out", "--calls", "2", "--num"]
    cases = {
        (file, *args, "20"): "num = 20: draw at least 30 samples, one for each call of the function",
        (file, *args, "60", "--batches", "20"): "batches = 20: errors need at least 30 calls",
        (f"{file}:fails", *args, "60"): "ValueError: no such thing",
        (f"{file}:forgets_its_seed", *args, "60"): "drew other samples when called again with seed = 0",
        (f"{file}:ignores_its_seed", *args, "60"): "drew the same samples with all seeds from 0 to 29",
        (f"{file}:nothing", *args, "60"): "has no function nothing",
        (
            "maskgit",
            "--target",
            "nowhere.py",
            *args,
            "60",
        ): "it must be chain, bigrams, network, or a FILE.py",
        ("maskgit", "--noise", "uniform", *args, "60"): "absorbing",
        ("maskgit", "--num", "60", "--length", "1", "--out", tmp_path / "out"): "take at least 2 places",
    }
    for words, message in cases.items():
        assert message in error(capsys, "judge", *words)
    assert status("judge", *args, "60") == 2
    assert "the following arguments are required: SAMPLER" in capsys.readouterr().err


def test_texts_are_chains_of_their_bigrams(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("ab ab abc\n")
    oracle = judge.read_target("bigrams", 2, text)
    step = np.asarray(oracle.step)
    # Of two a's, three b's and three spaces: what follows them, by hand. A line ends in a space.
    np.testing.assert_allclose(step[1, 2], 1, rtol=1e-6)
    np.testing.assert_allclose(step[2, [0, 3]], [2 / 3, 1 / 3], rtol=1e-6)
    start = np.exp(np.asarray(oracle.log_start, np.float64))
    np.testing.assert_allclose(start @ step, start, atol=1e-6)
    text.write_text("Ab")
    with pytest.raises(UserError, match="it must be of a-z and spaces alone"):
        judge.read_target("bigrams", 2, text)


IN_NUMPY_BY_LEVELS = """
import numpy as np

claims = "ancestral"


def alpha(t):
    return 1 - np.cos(np.pi / 2 * (1 - t))


def sample(denoise, K, L, n, seed, calls):
    rng = np.random.default_rng(seed)
    x = np.full((n, L), K)
    levels = alpha(np.linspace(1, 0, calls + 1))
    for a, s in zip(levels, levels[1:]):
        p = np.exp(denoise(x, a))
        drawn = (rng.random((n, L, 1)) > np.cumsum(p, axis=-1)[..., :-1]).sum(axis=-1)
        x = np.where((x == K) & (rng.random((n, L)) < (s - a) / (1 - a)), drawn, x)
    return x
"""


def test_a_claimed_sampler_of_levels_has_those_of_the_file(tmp_path):
    """A right one with a cosine is told from that with alpha = 1 - t, and not where its file has alpha."""
    path = tmp_path / "cosine.py"
    path.write_text(IN_NUMPY_BY_LEVELS)
    subject = judge.read_subject(str(path))
    protocol = judge.Protocol(calls=(4,), num=30_000)
    record = judge.judge(subject, "network", protocol)
    assert record["verdict"] == "not told apart"
    assert "  levels: alpha(t) of the file, at evenly spaced t" in judge.describe(record)
    without = judge.judge(subject._replace(alphas=None), "network", protocol)
    assert without["verdict"] == "another law"
    assert any(line.startswith("  levels: alpha(t) = 1 - t, at") for line in judge.describe(without))


def test_alpha_of_a_file_is_read_in_any_library(tmp_path):
    """It is handed times in NumPy, or else in PyTorch; what is no schedule is refused in a line."""
    contents = {
        "1 - t": (4, [1, 0.75, 0.5, 0.25, 0]),
        "torch.cos(t * torch.pi / 2)": (2, [1, np.sqrt(0.5), 0]),
        "1 - jnp.square(t)": (2, [1, 0.75, 0]),
    }
    path = tmp_path / "mine.py"
    for expression, (steps, expected) in contents.items():
        path.write_text(f"import torch, jax.numpy as jnp\n{SAMPLE}\ndef alpha(t): return {expression}\n")
        subject = judge.read_subject(str(path))
        np.testing.assert_allclose(subject.alphas(steps), expected, atol=1e-6)
    for expression, message in {
        "t": "goes from 1 to 0.5 at t = 1|must fall",
        "t[:1]": r"alpha\(t\) returned float64 \[1\]: return floats of the shape of t",
        "1 / 0": "alpha raised ZeroDivisionError",
    }.items():
        path.write_text(f"{SAMPLE}\ndef alpha(t): return {expression}\n")
        with pytest.raises(UserError, match=message) as refused:
            judge.judge(judge.read_subject(str(path)), "network", judge.Protocol(calls=(2,), num=30))
        assert "\n" not in str(refused.value)


SAMPLE = "claims = 'ancestral'\ndef sample(denoise, K, L, n, seed, calls): return 0"


@pytest.mark.slow
def test_samplers_have_the_law_of_what_they_are(tmp_path, file):
    """Against a network that fits no law: named samplers, and a function that claims to be one of them."""
    protocol = judge.Protocol(calls=(2, 3), num=30_000)
    names = (str(file), "ancestral", "remdm_cap", "euler", "maskgit", "random_order:temperature=0.9")
    verdicts = {name: judge.judge(name, "network", protocol)["verdict"] for name in names}
    assert verdicts == dict.fromkeys(names, "not told apart")
    with_slip = judge.function_subject("cold", judge.read_subject(str(file)).draw)
    with pytest.raises(UserError, match="does not say which sampler it is"):
        judge.judge(with_slip, "network", protocol)
