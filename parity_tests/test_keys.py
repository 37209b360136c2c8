"""What draws its own noise is, with the noise that it drew, what both frameworks compute of it."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import d3pm_jax
import torch_ref
from parity_tests.cases import B, K, T, logits
from parity_tests.frameworks import precision
from parity_tests.pairs import LEFT_OUT, public_names, twin
from parity_tests.test_parity import parameters

KEY = 7
L = 3
TABLE = logits("moderate", (T + 1, K, K), "float64", 3)
INDEX = np.array([4, 0, 9])
X0 = np.random.default_rng(0).integers(0, K, (B, L))


def process(lib):
    return lib.uniform(lib.reciprocal(T), K)


def denoiser(lib, asarray):
    """A network told times in [0, 1], by the table of the steps."""
    table = asarray(TABLE)

    def network(xt, time):
        t = (time * T).round().astype(int) if lib is d3pm_jax else (time * T).round().long()
        return table[t[:, None], xt]

    return lib.Denoiser(process(lib), network, "leave_one_out", time="unit")


def given(noise):
    """The noise of the twin, for a loop of JAX: rows 0..T of it as one table."""
    table = jnp.asarray(np.stack([noise(row) for row in range(T + 1)]))
    return lambda row, stream=0: table[row]


@pytest.mark.parametrize("name", ["sample", "estimate_bound", "stratified_bound", "sampling.per_example"])
def test_they_have_the_same_parameters(name):
    left_out = LEFT_OUT.get(name, ())
    ours = [x for x in parameters(public_names()[name]) if x[0] not in left_out]
    assert ours == parameters(twin(name))


def test_a_sample_is_the_chain_of_its_noise():
    with precision("float64"):
        theirs = torch_ref.sample(KEY, denoiser(torch_ref, torch.tensor), (B, L), first=2, record=[3])
        noise = given(torch_ref.sampling.per_example(KEY, torch.arange(2, 2 + B), (L,)))
        ours = denoiser(d3pm_jax, jnp.asarray)
        chain = d3pm_jax.sampling.run(ours, ours.process.draw_prior(noise(0)), noise, record=[3])
        np.testing.assert_array_equal(theirs.x0, chain.x0)
        np.testing.assert_array_equal(theirs.states, chain.states)


def test_bounds_are_those_of_their_noise():
    with precision("float64"):
        theirs, ours = denoiser(torch_ref, torch.tensor), denoiser(d3pm_jax, jnp.asarray)
        index, x0 = torch.tensor(INDEX), torch.tensor(X0)
        per_example = torch_ref.sampling.per_example
        noise = given(per_example(KEY, index, (L,)))

        bound = torch_ref.estimate_bound(KEY, theirs, theirs.process, x0, index, belief="leave_one_out")
        expected = d3pm_jax.all_t_bound(ours, ours.process, jnp.asarray(X0), noise, belief="leave_one_out")
        np.testing.assert_allclose(bound.total(), expected.total(), rtol=1e-11)

        u = jnp.asarray(per_example(KEY, index, (4,))(0).T)
        nats = torch_ref.stratified_bound(KEY, theirs, theirs.process, x0, index, 4, belief="leave_one_out")
        expected = d3pm_jax.strata_bound(
            ours, ours.process, jnp.asarray(X0), u, noise, belief="leave_one_out"
        )
        np.testing.assert_allclose(nats, expected, rtol=1e-11)


def test_a_unit_of_time_that_is_none_is_refused():
    with pytest.raises(ValueError, match="time = 'minutes': it must be one of"):
        torch_ref.Denoiser(process(torch_ref), lambda xt, time: xt, time="minutes")  # pyright: ignore


def test_bounds_of_the_twin_refuse_a_denoiser_of_another_belief_or_process():
    theirs, index, x0 = denoiser(torch_ref, torch.tensor), torch.tensor(INDEX), torch.tensor(X0)
    later = torch_ref.uniform(torch_ref.reciprocal(T + 1), K)
    for bound in (torch_ref.estimate_bound, functools.partial(torch_ref.stratified_bound, n=2)):
        with pytest.raises(ValueError, match="belief = 'd3pm', and the Denoiser has 'leave_one_out': pass"):
            bound(KEY, theirs, theirs.process, x0, index)
        with pytest.raises(ValueError, match=rf"time\[-1\] = {T + 1}, and the Denoiser has {T}: .* a new"):
            bound(KEY, theirs, later, x0, index, belief="leave_one_out")


def test_noise_belongs_to_an_example_a_row_and_a_stream():
    per_example = torch_ref.sampling.per_example
    u = per_example(KEY, torch.arange(100), (50,))(3)
    torch.testing.assert_close(per_example(KEY, torch.tensor([8, 5]), (50,))(3), u[[8, 5]], rtol=0, atol=0)
    assert ((u >= 0) & (u < 1)).all()
    np.testing.assert_allclose([u.mean(), u.var()], [1 / 2, 1 / 12], atol=0.01)
    for other in (
        per_example(KEY + 1, torch.arange(100), (50,))(3),
        per_example(KEY, torch.arange(100), (50,))(3, 1),
    ):
        assert abs(np.corrcoef(u.flatten(), other.flatten())[0, 1]) < 0.05
    assert per_example(KEY, torch.arange(0), (2,))(1).shape == (0, 2)


def test_what_is_no_number_of_an_example_or_of_strata_is_refused():
    ours = denoiser(torch_ref, torch.tensor)
    index, x0 = torch.tensor(INDEX), torch.tensor(X0)
    bound = functools.partial(torch_ref.stratified_bound, KEY, ours, ours.process, x0)
    with pytest.raises(ValueError, match=r"shape = \(\): it must be \(B, \*S\)"):
        torch_ref.sample(KEY, ours, ())
    with pytest.raises(ValueError, match=r"first = -1 is outside \[0, "):
        torch_ref.sample(KEY, ours, (B, L), first=-1)
    with pytest.raises(TypeError, match=r"index has dtype torch.float64, expected integers"):
        torch_ref.sampling.per_example(KEY, index.double(), (L,))
    with pytest.raises(ValueError, match=r"index has shape \(2,\), expected \(3,\)"):
        torch_ref.estimate_bound(KEY, ours, ours.process, x0, index[:2])
    for n in (0, T + 1):
        with pytest.raises(ValueError, match=rf"n = {n} is outside \[1, T\]"):
            bound(index, n)
