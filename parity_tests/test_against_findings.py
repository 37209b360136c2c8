"""Other people's functions beside JAX: what is results and said."""

import sys
from collections.abc import Callable
from functools import wraps
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_ref
from parity_tests.against.comparing import Finding, findings
from parity_tests.against.signatures import CONSTRUCTORS, FUNCTIONS, MEMBERS, PROCESSES, SCHEDULES
from parity_tests.against.table import rows, sentences


def compare(name: str, f: Callable[..., Any], dtype: str = "float64") -> list[Finding]:
    return list(findings(FUNCTIONS[name], f, dtype, Path(__file__)))


def _tables(of_q: Callable, of_qbar: Callable) -> Callable[..., torch.Tensor]:
    """q_posterior with both tables changed."""

    def f(process: Any, x0: torch.Tensor, xt: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        b = torch.arange(len(t))[:, None, None]
        joint = of_q(process.Q(t)).mT[b, xt].log() + of_qbar(process.Qbar(t - 1))[b, x0].log()
        return torch_ref.log_normalize(joint)

    return f


def _result(change: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda process, x0, xt, t: change(torch_ref.q_posterior(process, x0, xt, t), t)


SLIPS = {
    "with t one step later": lambda process, x0, xt, t: torch_ref.q_posterior(
        process, x0, xt, (t + 1).clamp(max=process.T)
    ),
    "with Q and Qbar transposed, a row for a column": _tables(lambda x: x.mT, lambda x: x.mT),
    "with Q and Qbar + 1e-06 inside the log": _tables(lambda x: x + 1e-6, lambda x: x + 1e-6),
    "with Qbar at least 0.0001 inside the log": _tables(lambda x: x, lambda x: x.clamp(min=1e-4)),
    "with 1e-10 added inside the last log": _result(lambda x, t: torch.log(x.exp() + 1e-10)),
    "with the other sign": _result(lambda x, t: -x),
    "as a probability, not its log": _result(lambda x, t: x.exp()),
    "in bits, not nats": _result(lambda x, t: x / np.log(2)),
    "not normalised over the last axis": _result(lambda x, t: x - 0.1 * t[:, None, None, None]),
    "but for t = 1": _result(lambda x, t: x.where(t[:, None, None, None] > 1, 3.0)),
    "but for entries that are -inf, where it has something else": _result(lambda x, t: x.clamp(min=-500)),
}


@pytest.mark.parametrize("words", SLIPS)
def test_a_slip_is_named(words: str) -> None:
    """Where two are the same, as for a symmetric matrix, the other one may be."""
    results = [x for x in compare("q_posterior", SLIPS[words]) if not x.ok]
    assert results
    assert all(x.hints for x in results)
    assert words in {hint.removesuffix(" at 1 < t < T") for x in results for hint in x.hints}


def _loss(name: str, eps_q: float, eps_p: float, eps_ce: float) -> Callable[..., torch.Tensor]:
    """The KL, or the hybrid loss, in probabilities with an epsilon in some logs."""

    def posterior_kl(process: Any, logits_x0: Any, x0: Any, xt: Any, t: Any) -> torch.Tensor:
        q = torch_ref.q_posterior(process, x0, xt, t).exp()
        p = torch_ref.p_logits(process, logits_x0, xt, t).exp()
        return (torch.xlogy(q, q + eps_q) - torch.xlogy(q, p + eps_p)).sum(-1)

    def hybrid(process: Any, logits_x0: Any, x0: Any, xt: Any, t: Any, ce_weight: float) -> torch.Tensor:
        p = logits_x0.softmax(-1).gather(-1, x0[..., None])[..., 0]
        return posterior_kl(process, logits_x0, x0, xt, t) - ce_weight * torch.log(p + eps_ce)

    return {"posterior_kl": posterior_kl, "hybrid": hybrid}[name]


LOSS_SLIPS: dict[str, tuple[str, float, float, float]] = {
    "with 1e-06 added inside the log of p of the KL": ("posterior_kl", 0, 1e-6, 0),
    "with 1e-08 added inside both logs of the KL": ("posterior_kl", 1e-8, 1e-8, 0),
    "with 1e-10 added inside both logs of the KL": ("hybrid", 1e-10, 1e-10, 0),
    "with 1e-08 added inside the log of the cross entropy": ("hybrid", 0, 0, 1e-8),
    "with 1e-06 added inside both logs of the KL and the log of the cross entropy": (
        "hybrid",
        1e-6,
        1e-6,
        1e-6,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", LOSS_SLIPS)
def test_an_epsilon_in_a_loss_is_named(words: str) -> None:
    name, eps_q, eps_p, eps_ce = LOSS_SLIPS[words]
    results = compare(name, _loss(name, eps_q, eps_p, eps_ce))
    lines = sentences(results)[0].splitlines()[1:]
    assert lines == [f"{name} is that of JAX {words}: {', '.join(PROCESSES)}"]


def test_a_draw_of_another_table_is_named() -> None:
    def q_sample(process: Any, x0: Any, t: Any, u: Any) -> torch.Tensor:
        if process.name != "dense":
            raise NotImplementedError
        return torch_ref.q_sample(process, x0, t - 1, u)

    results = compare("q_sample", q_sample)
    assert any("q_sample is that of JAX with Qbar one step earlier: dense" in x for x in sentences(results))


def test_a_nan_is_the_largest_difference_of_a_row() -> None:
    """A NaN against an infinity is shown, whatever else differs, of another quantity and type too."""
    usual = Finding("hybrid", "uniform", "float64", "value", "confident logits", 9, 3, 8e-5, "1", "2")
    alone = usual._replace(input="forbidden logits", difference=np.nan, theirs="nan", ours="inf")
    for both in ([usual, alone], [alone, usual], [usual, alone._replace(dtype="float32")]):
        line = rows(both, False)[1]
        assert line[-4:] == ("nan", "nan", "inf", "forbidden logits")


def test_no_slip_is_named_that_does_not_hold() -> None:
    results = compare("q_posterior", _result(lambda x, t: x * 1.1))
    assert len(results) == len(PROCESSES)
    assert not any(x.ok or x.hints for x in results)


def _prior(process: Any) -> Any:
    right = process.log_prior()
    if process.name == "uniform":
        return right[None]
    if process.name == "absorbing":
        return right.float()
    if process.name == "absorbing_extra":
        return right.numpy()
    if process.name == "marginal":
        return right.where(right > -np.inf, torch.nan)
    if process.name == "masked":
        raise IndexError("index 7\nis out of range")
    if process.name == "gaussian":
        raise NotImplementedError
    return right


def test_what_may_be_wrong_with_a_result() -> None:
    results = {x.process: x for x in compare("log_prior", _prior)}
    assert results["uniform"].note == "gives shape [1, 5], not [5]"
    assert results["absorbing"].note.startswith("gives float32, not float64")
    assert results["absorbing_extra"].note == "gives ndarray, no tensor"
    assert (results["marginal"].differ, results["marginal"].theirs, results["marginal"].ours) == (
        1,
        "nan",
        "-inf",
    )
    assert results["marginal"].hints == ("but for entries that are -inf, where it has something else",)
    assert results["masked"].note.startswith(
        "raises IndexError: index 7 is out of range at test_against_findings.py:"
    )
    assert results["gaussian"].skipped
    assert results["dense"].ok
    assert results["dense"].size == 5
    every = list(results.values())
    assert [line[1] for line in rows(every, False)[1:]] == [
        *("dense", "uniform", "absorbing", "absorbing_extra", "marginal", "masked")
    ]
    assert "not implemented for gaussian: log_prior" in sentences(every)
    assert any(line.startswith("Tested on every value in float64:\n") for line in sentences(every))
    assert sentences([results["gaussian"]])[-1].endswith("; nothing to compare")


def test_a_gradient_alone_may_be_wrong() -> None:
    def twice(process: Any, logits_x0: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        return torch_ref.cross_entropy(process, 2 * logits_x0 - logits_x0.detach(), x0)

    def detached(process: Any, logits_x0: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        return torch_ref.cross_entropy(process, logits_x0, x0).detach()

    # where a logit is -inf, 2 x - x is NaN
    assert [(x.quantity, x.ok) for x in compare("cross_entropy", twice)][:2] == [
        *(("value", True), ("gradient of logits_x0", False))
    ]
    assert compare("cross_entropy", detached)[1].note == "the result does not depend on it, or is detached"


def test_a_gradient_that_is_nan_is_said_to_be() -> None:
    def with_nan(process: Any, logits_x0: Any, x0: Any, xt: Any, t: Any) -> torch.Tensor:
        # The root of 0 has an infinite slope, and 0 times that, of what is not chosen, is NaN.
        root = (0 * logits_x0).nan_to_num().sum(-1).sqrt()
        chosen = torch.where(torch.tensor(True), torch.zeros_like(root), root)
        return torch_ref.posterior_kl(process, logits_x0, x0, xt, t) + chosen

    results = [x for x in compare("posterior_kl", with_nan) if not x.ok]
    assert results
    assert all(x.quantity == "gradient of logits_x0" for x in results)
    assert all(
        " are NaN, as of a log of 0 or a torch.where whose other branch is infinite" in x.note
        for x in results
    )
    assert all(row[2] == "DIFFERS" for row in rows(results, every=True)[1:])


def test_draws_and_processes_by_their_betas() -> None:
    def by_beta(process: Any, t: torch.Tensor) -> torch.Tensor:
        if process.name not in ("uniform", "gaussian"):
            raise NotImplementedError
        return getattr(torch_ref, process.name)(process.beta, process.K).Q(t)

    assert [x.process for x in compare("Q", by_beta, "float64") if not x.skipped] == ["uniform", "gaussian"]
    assert all(x.ok for x in compare("Q", by_beta, "float64"))
    assert all(x.ok and x.quantity == "draw" for x in compare("q_sample", torch_ref.q_sample, "float64"))
    other = compare("q_sample", lambda process, x0, t, u: torch_ref.q_sample(process, x0, t, 1 - u))
    assert not any(x.ok for x in other)


def _log_p_of_x0(logits_x0: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
    return logits_x0.log_softmax(-1).gather(-1, x0[..., None])[..., 0]


BOUNDED = {
    "an epsilon": lambda process, logits_x0, x0: -torch.log(_log_p_of_x0(logits_x0, x0).exp() + 1e-30),
    "a clamp of 100": lambda process, logits_x0, x0: -_log_p_of_x0(logits_x0, x0).clamp(min=-100),
    "a clamp of 50": lambda process, logits_x0, x0, xt, t: torch_ref.posterior_kl(
        process, logits_x0, x0, xt, t
    ).clamp(max=50),
}


@pytest.mark.parametrize("bound", BOUNDED)
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_a_loss_that_is_never_large_is_seen(bound: str, dtype: str) -> None:
    """Where x_0 is forbidden, and in float64 where it is as good as that."""
    name = "posterior_kl" if bound == "a clamp of 50" else "cross_entropy"
    results = compare(name, BOUNDED[bound], dtype)
    kinds = {x.input.split()[0] for x in results if not x.ok and x.quantity == "value"}
    expected = {"forbidden"}
    if dtype == "float64":
        expected.add("confident")
    assert kinds == expected
    assert any(x.ours == "inf" for x in results)


def test_what_pytorch_does_not_implement_is_not_skipped() -> None:
    def of_integers(process: Any, logits_x0: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        return x0.softmax(-1)

    results = compare("cross_entropy", of_integers)
    assert not any(x.skipped for x in results)
    assert all(x.note.startswith("raises NotImplementedError: ") for x in results)


def test_an_exit_is_a_difference() -> None:
    results = compare("log_prior", lambda process: sys.exit(0))
    assert all(x.note.startswith("raises SystemExit: 0 at test_against_findings.py:") for x in results)


def test_arguments_may_be_written_to() -> None:
    def in_place(process: Any, logits_x0: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        logits_x0 -= 1.0
        return torch_ref.cross_entropy(process, logits_x0, x0)

    assert all(x.ok for x in compare("cross_entropy", in_place))

    def spoils(process: Any) -> torch.Tensor:
        result = process.log_prior()
        process.pi.zero_()
        return result

    assert all(x.ok for _ in range(2) for x in compare("log_prior", spoils))


def test_what_is_not_implemented_is_named() -> None:
    def log_linear(T: int) -> torch.Tensor:
        raise NotImplementedError

    def p_logits(
        process: Any, logits_x0: torch.Tensor, xt: torch.Tensor, t: torch.Tensor, belief: Any
    ) -> Any:
        if belief == "denoiser":
            raise NotImplementedError
        return torch_ref.p_logits(process, logits_x0, xt, t, belief=belief)

    results = [*compare("log_linear", log_linear), *compare("p_logits", p_logits)]
    assert all(x.ok for x in results)
    assert "not implemented: log_linear\nnot implemented for belief = denoiser: p_logits" in sentences(
        results
    )


def test_arguments_by_other_signatures() -> None:
    """A default may be missing, and names may come by **."""

    def linear(T: int, start: float, stop: float) -> torch.Tensor:
        return torch_ref.linear(T, start, stop)

    results = [
        *compare("linear", linear),
        *compare("log_prior", lambda **arguments: arguments["process"].log_prior()),
    ]
    assert {x.function for x in results} == {"linear", "log_prior"}
    assert all(x.ok and not x.skipped for x in results)


def _twin(name: str) -> Callable[..., torch.Tensor]:
    """torch_ref as a file of its own would have it."""
    if name in MEMBERS:
        return _of_process(name)
    twin = attrgetter(FUNCTIONS[name].pair)(torch_ref)
    if name in CONSTRUCTORS:
        return wraps(twin)(lambda **args: twin(**args).Q_step[1:])
    return twin


def _of_process(name: str) -> Callable[..., torch.Tensor]:
    takes = ["process", *FUNCTIONS[name].required[1:]]
    return eval(f"lambda {', '.join(takes)}: process.{name}({', '.join(takes[1:])})")


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_twin_agrees(name: str, dtype: str) -> None:
    results = compare(name, _twin(name), dtype)
    assert bool(results) == (dtype == "float64" or name not in (*SCHEDULES, *CONSTRUCTORS))
    assert all(x.ok and not x.skipped for x in results)


def test_a_squared_cosine_is_named() -> None:
    def cosine(T: int) -> torch.Tensor:
        f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)

    results = [x for x in compare("cosine", cosine) if not x.ok]
    assert results
    assert {x.hints for x in results} == {("with alpha_bar squared, as iDDPM has it",)}


def test_a_function_that_gives_no_numbers_fails() -> None:
    def raise_error(process: Any) -> torch.Tensor:
        raise ValueError("no")

    for f in (raise_error, lambda process: 3, lambda process: torch.ones(99)):
        lines = rows(compare("log_prior", f), False)
        assert {line[2] for line in lines[1:]} == {"FAILS"}
    slip = rows(compare("log_prior", lambda process: process.log_prior() + 0.1), False)
    assert {line[2] for line in slip[1:]} == {"DIFFERS"}
