"""A schedule, a loss and a sampler beside ours: what is refused, and what is tested of laws."""

from collections.abc import Callable
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import torch_ref
from parity_tests.against import command, sample_slips, samples
from parity_tests.against.command import CHECKS
from parity_tests.against.comparing import Finding, guarded
from parity_tests.against.loading import Refused
from parity_tests.against.program import Program, read
from parity_tests.against.sample_slips import World
from parity_tests.against.table import sentences
from parity_tests.frameworks import precision
from torch_ref.losses import continuous
from torch_ref.schedules.continuous import linear

NOISES = ("mask", "uniform")
BETAS = torch_ref.reciprocal(5)


def findings(name: str, f: Callable[..., Any], dtype: str = "float64", **said: Any) -> list[Finding]:
    program = Program({name: f}, **said)
    finding = Finding(name, program.noise, dtype, "value", "")
    return list(guarded(finding, Path(__file__), partial(CHECKS[name], program)))


# ---- Bad input: a line each ----


def _loss(result: Callable[..., Any], t: Any = 0.5) -> Callable[..., torch.Tensor]:
    """A loss that asks properly, and gives this of the logits."""

    def loss(network: Any, x0: torch.Tensor, K: int) -> torch.Tensor:
        return result(network(x0, torch.full((len(x0),), t)))

    return loss


def _raise(*_: Any) -> None:
    raise KeyError("no")


LOSSES = {
    "asks the network 0 times, not once": lambda network, x0, K: torch.zeros(()),
    "gives float, no tensor": _loss(lambda logits: float(logits.detach().sum())),
    "gives shape [6], not [], [B] or [B, L], here [8, 6]": _loss(lambda logits: logits.sum((0, 2))),
    "gives float32, not float64": _loss(lambda logits: logits.sum().float()),
    "does not depend on the logits of the network, or is detached": _loss(
        lambda logits: logits.detach().sum()
    ),
    "raises KeyError: 'no' at test_against_program.py:": _loss(_raise),
    "asks the network at t = 1.5, outside [0, 1]": _loss(torch.sum, 1.5),
    "asks the network at t = nan, outside [0, 1]": _loss(torch.sum, torch.nan),
    "asks the network at x_t that is no tensor of integers [B, L]": lambda network, x0, K: network(
        x0 * 1.0, 0
    ),
    "asks the network at x_t = 6, outside 0..5": lambda network, x0, K: network(x0 * 0 + 6, 0),
    "asks the network at t of shape [2], not [B]": lambda network, x0, K: network(x0, torch.zeros(2)),
}


@pytest.mark.parametrize("note", LOSSES)
def test_a_loss_that_cannot_be_compared_says_why_in_a_line(note: str) -> None:
    (finding,) = findings("loss", LOSSES[note])
    assert finding.note.startswith(note)
    assert "\n" not in finding.note


def _sample(result: Callable[..., Any], alpha: float = 0.0) -> Callable[..., torch.Tensor]:
    """A sampler that draws by the network once, and gives this of the draws."""

    def sample(denoise: Any, K: int, L: int, n: int, seed: int, calls: int) -> torch.Tensor:
        torch.manual_seed(seed)
        p = denoise(torch.full((n, L), K), alpha).exp()
        return result(torch.multinomial(p.flatten(0, 1), 1).reshape(n, L))

    return sample


SHIFTS = count(1)  # no two calls have the same
SAMPLERS = {
    "gives float64, no integers: return integers [n, L]": _sample(lambda x: x.double()),
    "gives list, no tensor": _sample(lambda x: x.tolist()),
    "gives shape [49, 4], not [n, L], here [50, 4]": _sample(lambda x: x[1:]),
    "gives category 5, outside 0..2": _sample(lambda x: x * 0 + 5),
    "raises KeyError: 'no' at test_against_program.py:": _sample(_raise),
    "is not deterministic in its seed: two calls with seed 0 differ; draw all by `seed`": _sample(
        lambda x: x.roll(next(SHIFTS), 0)
    ),
    "does not depend on its seed: seeds 0 and 1 give the same; draw all by `seed`": _sample(lambda x: x * 0),
    "asks denoise at alpha = nan, outside [0, 1]": _sample(lambda x: x, torch.nan),
    "never asks denoise": lambda denoise, K, L, n, seed, calls: torch.full((n, L), 0),
}


@pytest.mark.parametrize("note", SAMPLERS)
def test_a_sampler_that_cannot_be_compared_says_why_in_a_line(note: str) -> None:
    (finding,) = findings("sample", SAMPLERS[note])
    assert finding.note.startswith(note)
    assert ("called as sample(denoise, " in finding.note) == note.startswith("raises")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"noise": "gauss"}, "noise = 'gauss' is none of mask, uniform"),
        (
            {"schedule": "reciprocal"},
            r"none of linear \(1 - t\), cosine \(cos\(pi t / 2\)\), .*: leave it out",
        ),
        ({"belief": "x0"}, "belief = 'x0' is none of d3pm, official, leave_one_out, denoiser"),
        ({"T": 0.5}, "T = 0.5 is no number of steps: leave it out for continuous time"),
    ],
)
def test_what_a_file_says_of_itself_is_checked(said: dict[str, Any], line: str) -> None:
    silent = ModuleType("silent")
    module = ModuleType("own")
    vars(module).update(said)
    with pytest.raises(Refused, match=line):
        read(module, {"loss": _raise}, Path("own.py"))
    with pytest.raises(Refused, match="say T ="):
        read(silent, {"loss": _raise, "alpha_bar": _raise}, Path("own.py"))
    # A file of kernels may use these names for anything.
    assert not read(module, {"q_posterior": _raise}, Path("own.py")).functions


# ---- Schedules ----


def test_a_schedule_of_ones_own_falls_from_1() -> None:
    assert findings("alpha", lambda t: 1 - t**3)[0].ok
    (rising,) = findings("alpha", lambda t: t)
    assert rising.note == "is 0.0243902 at t = 0.0243902: it falls from 1, clean data, and stays in [0, 1]"


SCHEDULES = {
    "as 1 - cos(pi (1 - t) / 2): leave `schedule` out if that is meant": (
        "alpha",
        lambda t: 1 - torch.cos((1 - t) * torch.pi / 2),
    ),
    "with time from noise to data": ("alpha", lambda t: torch.sin(t * torch.pi / 2)),
    "as minus its log": ("alpha", lambda t: -torch.cos(t * torch.pi / 2).log()),
    "of one step, without the product": ("alpha_bar", lambda T: 1 - torch.as_tensor(torch_ref.cosine(T))),
    "one step later": ("alpha_bar", lambda T: _cosine(T)[torch.arange(1, T + 1).clamp(max=T - 1)]),
}


def _cosine(T: int) -> torch.Tensor:
    return torch.cumprod(1 - torch.as_tensor(torch_ref.cosine(T)), 0)


@pytest.mark.parametrize("words", SCHEDULES)
def test_a_slip_of_a_schedule_is_named(words: str) -> None:
    name, f = SCHEDULES[words]
    results = findings(name, f, schedule="cosine")
    assert results
    assert all(words in result.hints for result in results)


def test_a_derivative_of_the_other_sign_is_named() -> None:
    program = Program({"alpha": lambda t: 1 - t**2, "alpha_derivative": lambda t: 2 * t})
    finding = Finding("alpha_derivative", "", "float64", "value", "")
    (result,) = guarded(finding, Path(__file__), partial(CHECKS["alpha_derivative"], program))
    assert result.hints == ("with the other sign",)


# ---- A schedule that the file does not have ----


def _cosine_alpha(t: torch.Tensor) -> torch.Tensor:
    return 1 - torch.cos(torch.pi / 2 * (1 - t))


def _cosine_loss(network: Any, x0: torch.Tensor, K: int) -> torch.Tensor:
    t = (1 - torch.rand(len(x0))).requires_grad_()
    alpha = _cosine_alpha(t)
    (slope,) = torch.autograd.grad(alpha.sum(), t)
    alpha = alpha.detach()[:, None]
    masked = torch.rand(x0.shape) > alpha
    log_p = network(torch.where(masked, K, x0), t.detach())[..., :K].log_softmax(-1)
    return (slope[:, None] / (1 - alpha) * log_p.gather(-1, x0[..., None])[..., 0] * masked).mean()


def _cosine_sample(denoise: Any, K: int, L: int, n: int, seed: int, calls: int) -> torch.Tensor:
    torch.manual_seed(seed)
    x = torch.full((n, L), K)
    levels = _cosine_alpha(torch.linspace(1, 0, calls + 1))
    for a, s in pairwise(levels):
        drawn = torch.multinomial(denoise(x, a).exp().flatten(0, 1), 1).reshape(n, L)
        x = torch.where((x == K) & (torch.rand(n, L) < (s - a) / (1 - a)), drawn, x)
    return x


def test_a_schedule_is_asked_for_where_that_which_is_assumed_is_not_it(tmp_path: Path, capsys) -> None:
    """A right program with a cosine is told nothing that is false, and with its alpha agrees."""
    wrong = [*findings("loss", _cosine_loss), *findings("sample", _cosine_sample)]
    assert [finding.process for finding in wrong if not finding.ok] == ["x_t", "mask"]
    assert not any(finding.hints for finding in wrong)
    assert [finding.note for finding in wrong if finding.note] == [
        "the noise of x_t is not that of alpha = 1 - t: give the file's alpha",
        "asks denoise at alpha = 0.6173, which is none of alpha = 1 - t: give the file's alpha",
    ]
    words = sentences(wrong)
    assert words == ["10,752 numbers compared; 2 of 2 functions fail: loss, sample"]

    path = tmp_path / "own.py"
    text = f"from {__name__} import _cosine_sample as sample, _cosine_loss as loss"
    for alpha, status in (("", 1), (", _cosine_alpha as alpha", 0)):
        path.write_text(text + alpha)
        assert command.against(path, ("float64",), markdown=False, every=False) == status
        printed = capsys.readouterr().out
        assert ("no alpha: alpha(t) = 1 - t is taken for loss and sample\n" in printed) == bool(status)


def test_functions_that_fail_are_summed_up_as_such() -> None:
    agreeing = Finding("alpha", "", "float64", "value", "", 9)
    differing = agreeing._replace(function="loss", differ=1)
    failing = agreeing._replace(function="sample", note="raises")
    sums = [sentences(results)[-1].partition("; ")[2] for results in ([agreeing, differing, failing],)]
    assert sums == ["1 of 3 functions differ: loss; 1 fails: sample"]
    assert sentences([agreeing, failing])[-1].endswith("compared; 1 of 2 functions fails: sample")


# ---- Losses of the other kinds of noise and time ----


def _masked_steps(network: Any, x0: torch.Tensor, K: int) -> torch.Tensor:
    process = torch_ref.absorbing(BETAS, K + 1, K)
    t = torch.randint(1, 6, (len(x0),))
    xt = torch_ref.q_sample(process, x0, t, torch.rand(x0.shape))
    logits = torch_ref.forbid(network(xt, t), K)
    return torch_ref.hybrid(process, logits, x0, xt, t, 0.1, "leave_one_out").loss  # [B, L]


def _uniform_in_time(network: Any, x0: torch.Tensor, K: int) -> torch.Tensor:
    t = 1 - torch.rand(len(x0))
    xt = continuous.uniform_draw(linear, x0, t, torch.rand(x0.shape), K)
    return continuous.uniform_nelbo(linear, network(xt, t), x0, xt, t).mean(-1)  # [B]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_losses_by_the_place_and_by_the_example_agree(dtype: str) -> None:
    said = {"T": 5, "ce_weight": 0.1, "belief": "leave_one_out"}
    for results in (
        findings("loss", _masked_steps, dtype, **said),
        findings("loss", _uniform_in_time, dtype, noise="uniform"),
    ):
        assert [x.process for x in results[:2]] == ["t", "x_t"]
        assert len(results) == 4
        assert all(x.ok for x in results)


# ---- The laws of samplers ----


def _alphas(noise: str) -> Program:
    return Program({"alpha": lambda t: torch.cos(t * torch.pi / 2)}, noise)


@pytest.mark.parametrize("noise", NOISES)
def test_the_chain_that_slips_change_has_the_law_of_jax(noise: str) -> None:
    world = World(noise, samples.K, samples.L)
    program = _alphas(noise)
    with precision("float64"):
        alphas = program.alphas(samples.NUM_CALLS)
        ours = samples.enumerate_ours(program, world)
    right = sample_slips.ancestral(world, alphas)
    law = right.law()
    np.testing.assert_allclose(law, ours, rtol=0, atol=1e-13)
    for words, chain in sample_slips.slips(right):
        with np.errstate(all="ignore"):
            other = chain.law()
        assert np.abs(other - law).sum() > 1e-3, f"{words} changes nothing"
        assert other.sum() == pytest.approx(1), words


def test_the_smallest_gumbel_has_the_law_that_is_written() -> None:
    p = np.array([0.6, 0.3, 0.1, 0.0])
    gumbel = np.random.default_rng(0).gumbel(size=(400_000, 4))
    with np.errstate(divide="ignore"):
        drawn = (np.log(p) - gumbel).argmax(axis=1)
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(sample_slips.with_other_gumbel(p), shares, atol=4e-3)


def test_right_samples_are_hardly_ever_told_from_their_law() -> None:
    """At a level of 1e-4 one of 3,000 with probability 0.26, four with 2e-4."""
    law = sample_slips.ancestral(World("mask", 3, 4), np.linspace(1, 0, 5)).law()
    counts = np.random.default_rng(1).multinomial(20_000, law / law.sum(), size=3000)
    assert sum(samples.is_told(x, law) for x in counts) < 4
    cooler = sample_slips.ancestral(World("mask", 3, 4), np.linspace(1, 0, 5))._replace(
        of_p=lambda p: p**1.1 / (p**1.1).sum(-1, keepdims=True)
    )
    drawn = np.random.default_rng(2).multinomial(samples.NUM_SAMPLES, cooler.law())
    assert samples.is_told(drawn, law)
