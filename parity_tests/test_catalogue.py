"""The bugs of the catalogue are named, and the programs without them are found right."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from parity_tests.against import command, loss_slips, losses, sample_slips, schedules
from parity_tests.against.program import Program
from parity_tests.catalogue import BUGS, MASKED, UNIFORM
from parity_tests.frameworks import precision

ROOT = Path(__file__).parents[1]
FAST = ("no_weight", "masks_left")


def compare(path: Path, capsys) -> tuple[int, list[str]]:
    """The status of the command, and the lines that it prints."""
    status = command.against(path, ("float64",), markdown=False, every=False)
    return status, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("program", [MASKED, UNIFORM])
def test_nothing_is_found_in_a_right_program(program: str, capsys) -> None:
    status, lines = compare(ROOT / program, capsys)
    assert status == 0
    assert not any(" is that of JAX " in line for line in lines)
    assert lines[-1].endswith(" functions agree")


@pytest.mark.parametrize(
    "bug", [pytest.param(b, id=b.name, marks=() if b.name in FAST else pytest.mark.slow) for b in BUGS]
)
def test_a_bug_is_named(bug, tmp_path: Path, capsys) -> None:
    path = tmp_path / "own.py"
    path.write_text(bug.plant((ROOT / bug.program).read_text()))
    status, lines = compare(path, capsys)
    assert status == 1
    assert bug.sentence in lines
    # Nothing else is said to be wrong, but the sampler that shares a line with the loss.
    others = [line for line in lines if " is that of JAX " in line and line != bug.sentence]
    assert len(others) <= (bug.name == "noised_to_t")


# Slips that have a sentence too, though no row of the catalogue.
OTHERS = [
    (MASKED, "-alpha_derivative(t) / (1 - alpha(t))", "1 / t", "loss", "with the weight 1 / t"),
    (
        MASKED,
        "-alpha_derivative(t) / (1 - alpha(t))",
        "-alpha_derivative(t) / alpha(t)",
        "loss",
        "with the weight -alpha' / alpha",
    ),
    (
        MASKED,
        "-alpha_derivative(t) / (1 - alpha(t))",
        "-alpha_derivative(t) / alpha(t) / -alpha(t).log()",
        "loss",
        "with the weight sigma' / sigma, without expm1",
    ),
    (
        MASKED,
        "-alpha_derivative(t) / (1 - alpha(t))",
        "1 / (1 - alpha(t))",
        "loss",
        "with the weight 1 / (1 - alpha), without -alpha'",
    ),
    (MASKED, "(weight[:, None] * ce", "(weight.mean() * ce", "loss", "with the mean weight of the batch"),
    (
        MASKED,
        "* is_masked).mean()",
        "* is_masked).sum() / is_masked.sum()",
        "loss",
        "divided by the number of the batch's masks, not of places",
    ),
    (
        MASKED,
        "(weight[:, None] * ce * is_masked).mean()",
        "((ce * is_masked).sum(1) / is_masked.sum(1).clamp(min=1)).mean()",
        "loss",
        "divided by the number of its masks, not of places, and without the weight",
    ),
    (MASKED, "* is_masked).mean()", "* is_masked).sum(1).mean()", "loss", "summed over places, not averaged"),
    (MASKED, "* is_masked).mean()", "* is_masked).mean() / math.log(2)", "loss", "in bits, not nats"),
    (MASKED, "return -math.pi / 2", "return math.pi / 2", "alpha_derivative", "with the other sign"),
    (
        MASKED,
        "(log_p + gumbel_like",
        "(log_p - gumbel_like",
        "sample",
        "with Gumbel noise of the other sign in every draw of x_0",
    ),
    (
        MASKED,
        "(log_p + gumbel_like",
        "(log_p / 0.9 + gumbel_like",
        "sample",
        "with temperature 0.9 in every draw of x_0",
    ),
    (
        MASKED,
        "reveal = torch.rand(x.shape, generator=generator)",
        "reveal = torch.rand(n, 1, generator=generator)",
        "sample",
        "with one decision to reveal for all places",
    ),
    (
        UNIFORM,
        "denoise.leave_one_out(",
        "denoise(",
        "sample",
        "with p(x_0 | x_t) where leave-one-out belongs",
    ),
    (
        UNIFORM,
        "x = torch.randint(K, (n, L))",
        "x = torch.zeros(n, L).long()",
        "sample",
        "from category 0 in place of noise",
    ),
    (UNIFORM, "ce_weight * ce)", "ce)", "loss", "with the cross entropy unweighted"),
    (
        UNIFORM,
        "joint = evidence * prior",
        "joint = prior",
        "loss",
        "without the evidence of x_t in both laws of x_{t-1}",
    ),
    (
        UNIFORM,
        "draw(tables.Qbar[t[:, None], x0])",
        "draw(tables.Q[t[:, None], x0])",
        "loss",
        "with noise of one step alone, Q in place of Qbar",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "old", "new", "function", "words"), OTHERS)
def test_another_slip_is_named(
    program: str, old: str, new: str, function: str, words: str, tmp_path: Path, capsys
) -> None:
    text = (ROOT / program).read_text()
    assert text.count(old) == 1
    path = tmp_path / "own.py"
    path.write_text(text.replace(old, new))
    status, lines = compare(path, capsys)
    assert status == 1
    assert any(line.startswith(f"{function} is that of JAX {words}: ") for line in lines)


def test_the_catalogue_has_sources() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25
    assert sum(bug.is_thread for bug in BUGS) >= 18
    for bug in BUGS:
        assert bug.is_thread or re.search(r"/(blob|commit)/[0-9a-f]{40}", bug.source), bug.name


def test_the_page_lists_every_bug() -> None:
    page = (ROOT / "docs/known-bugs.md").read_text().splitlines()
    assert [line for line in page if line.startswith("| [")] == [bug.row for bug in BUGS]


# Of laws of what a loss draws, and of a derivative: they have no words of their own in a list.
BY_HAND = """
    with one t for the whole batch
    with t that is never T, the last step
    with t that is never 1, the first step
    with the network asked at x_0, not at x_t
    with the same noise in every call
    with one noise for all places of an example
    with the same noise for every example of a batch
    divided by alpha, as of log alpha
    divided by 1 - alpha
    divided by alpha and with the other sign, as of -log alpha
"""


def _list_sentences() -> Iterator[str]:
    """What may follow "is that of JAX", of a schedule, a loss and a sampler."""
    yield from filter(None, map(str.strip, BY_HAND.splitlines()))
    alphas = np.linspace(1, 0, 5)
    for T, t in ((None, np.array([0.5])), (2, np.array([1, 2]))):
        yield from (words for words, _ in schedules._slips("cosine", T, t))
    for noise in ("mask", "uniform"):
        right = sample_slips.ancestral(sample_slips.World(noise, 3, 4), alphas)
        yield from (words for words, _ in sample_slips.slips(right))
        for T in (0, 2):
            x = torch.zeros((1, 1, 1), dtype=torch.long)
            logits = torch.zeros((1, 1, 1, losses.K + (noise == "mask")))
            zero = np.zeros(1)
            asked = losses.Asked(x, x, torch.ones((1, 1)), logits, zero, zero)
            yield from (w for w, _ in loss_slips.of_values(Program({}, noise, T=T), asked, losses.K))
            before = zero if T else None
            yield from (words for words, _ in loss_slips.of_noise(noise, losses.K, zero, before))


def _without_numbers(words: str) -> str:
    """Of which an epsilon is e, a temperature is c, and the last step T."""
    words = re.sub(r"(?<![\w.])(0\.0001|1e-\d+)", "e", words)
    words = re.sub(r"never 10,", "never T,", words)
    return re.sub(r"temperature [\d.]+", "temperature c", words)


def test_the_page_lists_every_sentence() -> None:
    page = (ROOT / "docs/known-bugs.md").read_text().partition("## Every sentence")[2]
    listed = re.findall(r"^  (\S.*)$", page, re.M)
    with precision("float64"):
        assert set(listed) == set(map(_without_numbers, _list_sentences()))
    assert len(listed) == len(set(listed))
    for bug in BUGS:
        words = bug.sentence.partition(" is that of JAX ")[2].rpartition(": ")[0]
        assert _without_numbers(words) in listed
