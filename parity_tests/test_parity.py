"""The report as tests, and the check that it leaves no public name out."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import d3pm_jax
import torch_ref
from parity_tests import families
from parity_tests.cases import situations
from parity_tests.frameworks import precision
from parity_tests.pairs import LEFT_OUT, PAIRS, REASONS, public_names, twin
from parity_tests.run import call_torch, rows


def test_every_public_name_has_a_pair_or_a_reason() -> None:
    covered = set(PAIRS) | set(REASONS)
    assert set(public_names()) - covered == set(), "add a twin and a Pair, or a reason"
    assert covered - set(public_names()) == set(), "these no longer exist"
    assert set(PAIRS) & set(REASONS) == set()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_situation_runs_without_jit_too(dtype: str) -> None:
    assert sum(case.eager for case in situations(dtype)) == 1


def parameters(f: Callable[..., Any]) -> list[tuple[str, Any]]:
    """The names of the parameters and their defaults, functions by their names."""
    pairs = []
    for parameter in inspect.signature(f).parameters.values():
        default = getattr(parameter.default, "__name__", parameter.default)
        pairs.append((parameter.name, default))
    return pairs


@pytest.mark.parametrize("name", PAIRS)
def test_twins_take_the_same_parameters(name: str) -> None:
    ours = parameters(public_names()[name])
    left_out = LEFT_OUT.get(name, ())
    assert set(left_out) <= {parameter for parameter, _ in ours}
    assert [pair for pair in ours if pair[0] not in left_out] == parameters(twin(name))


@pytest.mark.parametrize("name", ["Denoiser", "Known"])
def test_what_a_chain_takes_has_the_same_fields(name: str) -> None:
    assert parameters(getattr(d3pm_jax.sampling, name)) == parameters(getattr(torch_ref.sampling, name))


def test_the_twin_has_an_alpha_bar_where_the_rows_of_qbar_are_equal_off_the_diagonal() -> None:
    every = families.FAMILIES | families.CONSTRUCTED | families.POSITIONAL
    with_alpha_bar = {name for name, build in every.items() if hasattr(build(torch_ref, 5, 7), "alpha_bar")}
    mixing = {"uniform", "absorbing", "marginal", "masked"}
    interpolating = {"interpolating", "interpolating_slow"}
    assert with_alpha_bar == mixing | interpolating | {"absorbing_extra", "marginal_reset", "marginal_slow"}
    with pytest.raises(AttributeError, match="rows of Qbar differ off the diagonal"):
        torch_ref.gaussian(np.full(3, 0.3), 4).alpha_bar  # noqa: B018


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_masks_on_masks_are_drawn_in_the_order_of_jax() -> None:
    beta = np.array([0.4, 0.5])
    theirs = torch_ref.masked(torch_ref.masked(torch_ref.uniform(beta, 3), beta), beta)
    with precision("float64"):
        ours = d3pm_jax.masked(d3pm_jax.masked(d3pm_jax.uniform(beta, 3), beta), beta)
        x0 = np.repeat(np.arange(5), 999)
        u = np.tile(np.arange(1, 1000) / 1000 + 1e-5, 5)
        for t in (1, 2):
            for name in ("draw_q", "draw_step"):
                expected = getattr(ours, name)(jnp.asarray(x0), jnp.asarray(t), jnp.asarray(u))
                actual = getattr(theirs, name)(torch.tensor(x0), torch.tensor(t), torch.tensor(u))
                np.testing.assert_array_equal(actual, expected)


def test_the_twin_takes_the_ends_of_time() -> None:
    schedule = torch_ref.schedules.continuous.linear
    logits = torch.zeros(1, 3, requires_grad=True)
    x, t = torch.tensor([1]), torch.tensor([0.0, 0.5, 1.0])
    continuous = torch_ref.losses.continuous
    nats = [continuous.uniform_nelbo(schedule, logits, x, x, time[None]) for time in t]
    np.testing.assert_allclose(torch.cat(nats).detach(), [2 / 3, 0.5379, 0.0], atol=1e-4)
    at_0 = continuous.absorbing_nelbo(schedule, logits, x, x, t[:1], 0)
    (at_0 + sum(nats)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    without = torch.tensor([[0.0, -torch.inf, 0.0]], requires_grad=True)
    assert continuous.uniform_nelbo(schedule, without, x, x, t[:1]) == torch.inf
    impossible = continuous.uniform_nelbo(schedule, without, x + 1, x, t[:1])
    impossible.sum().backward()
    assert impossible == 0
    np.testing.assert_array_equal(without.grad, 0.0)


def test_the_twin_takes_examples_of_one_element_and_any_strides() -> None:
    ones = torch.ones(3)
    assert torch_ref.losses.mean_over_steps(ones, ones / 2, 2) == 1
    process = torch_ref.uniform(np.full(2, 0.5), 3)
    assert torch_ref.stochastic_bound(process, ones, torch.tensor([0, 1, 2]), ones).shape == (3,)
    x0 = torch.arange(12).reshape(1, 3, 2, 2).permute(0, 2, 3, 1)
    order = torch.arange(12, dtype=torch.float64).reshape(x0.shape) / 12
    nats = torch_ref.chain_rule(lambda xt: torch.zeros(*xt.shape, 13, dtype=torch.float64), x0, order, 12)
    assert nats.dtype == torch.float64
    torch.testing.assert_close(nats, torch.full(x0.shape, np.log(13.0), dtype=torch.float64))
    narrow = torch_ref.chain_rule(lambda xt: torch.zeros(*xt.shape, 13, dtype=torch.bfloat16), x0, order, 12)
    torch.testing.assert_close(narrow, nats.float())
    timesteps = torch_ref.timesteps
    history = timesteps.update(
        timesteps.empty_history(1), torch.ones(1).int(), torch.full((1,), 300.0).half()
    )
    assert history.mean_square == pytest.approx(0.1 * 300**2)


def test_the_twin_respaces_what_is_below_a_mask() -> None:
    beta = np.linspace(0.1, 0.7, 4)
    process = torch_ref.respace(torch_ref.masked(torch_ref.uniform(beta, 3), beta / 2), [2, 4])
    assert process.inner is not None
    no_mask = process.Qbar(torch.arange(3))[:, :1, :-1].sum(-1, keepdim=True)  # [3, 1, 1]
    below = no_mask * process.inner.Qbar(torch.arange(3))
    torch.testing.assert_close(process.Qbar(torch.arange(3))[:, :-1, :-1], below)


@pytest.mark.parametrize("name", ["flows.softplus_threshold", "flows.gumbel", "flows.gumbel_threshold"])
def test_the_twin_lifts_symbols_where_numbers_round_up_to_the_threshold(name: str) -> None:
    """Values cannot tell: a number just below the threshold differs by a rounding alone."""
    with precision("float32"):
        *_, large = PAIRS[name].cases("float32")
        v = call_torch(name, large, "float32").outputs[0]
    np.testing.assert_array_equal(v.argmax(axis=-1), large.args["x"])


# float64 for exactness, float32 where rounding is the matter, bfloat16 once; all of it in `make parity`.
ROUNDED = ("kl", "kl_logits", "log_add", "log_matmul", "log_normalize", "log_prob", "log_sum", "categorical")
CASES = [
    *((name, "float64") for name in PAIRS),
    *((name, "float32") for name in ROUNDED),
    ("hybrid", "bfloat16"),
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_pair(name: str, dtype: str) -> None:
    all_rows = list(rows(name, dtype, quick=True))
    failed = [row for row in all_rows if not row.ok]
    assert all_rows
    assert not failed, f"{len(failed)} of {len(all_rows)}, the worst {max(failed, key=lambda row: row.used)}"
