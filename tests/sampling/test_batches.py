"""Samplers in batches of other sizes, on two devices, and with places that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from d3pm_jax import sampling
from d3pm_jax.sampling import Denoiser, Known, make_plan
from tests.sampling import rules
from tests.sampling.cases import CASES, make_process
from tests.sampling.rules import MASK, K
from tests.sampling.simulation import simulate
from tests.sampling.test_samplers import EXAMPLES, STREAMS, L, levels_of, make_beliefs

# Of each kind of memory, of noise and of places; a batch counts for all in the same way.
SAMPLERS = (
    *("remdm_confidence", "stratified", "first_hitting", "maskgit", "entropy_bound", "blocks", "gibbs"),
    *("p2", "speculative"),
)

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def denoise_by(process, table, belief="d3pm"):
    """A denoiser whose logits are a table by t and x_t."""
    powers = jnp.asarray(K ** np.arange(L)[::-1])
    return Denoiser(process, lambda x, t: table[t, x @ powers], belief)


@functools.partial(jax.jit, static_argnames=("name", "n"))
def sample(process, table, name, n, first):
    denoiser = denoise_by(process, table)
    return sampling.sample(jax.random.key(0), denoiser, (n, L), CASES[name].sampler, first=first)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_is_the_same_in_any_batch(name):
    process = make_process("absorbing")
    with np.errstate(divide="ignore"):
        table = jnp.asarray(np.log(make_beliefs("absorbing")), jnp.float32)
    together = sample(process, table, name, 6, 0)
    alone = [sample(process, table, name, 1, first) for first in range(6)]
    np.testing.assert_array_equal(together.x0, np.concatenate([chain.x0 for chain in alone]))
    np.testing.assert_array_equal(together.calls, np.concatenate([chain.calls for chain in alone]))
    assert together.program_calls >= max(int(chain.program_calls) for chain in alone)
    assert together.failed_at == 0
    assert np.all(np.asarray(together.x0) != MASK)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_two_devices_draw_the_integers_of_one(name):
    process = make_process("absorbing")
    plan = make_plan(CASES[name].sampler, process, (L,))
    rng = np.random.default_rng(6)
    u = jnp.asarray(rng.random((len(plan) + 1, STREAMS, EXAMPLES, L)), jnp.float32)
    xT = jnp.full((EXAMPLES, L), MASK)
    with np.errstate(divide="ignore"):
        table = jnp.asarray(np.log(make_beliefs("absorbing")), jnp.float32)

    @jax.jit
    def run(process, table, xT, u):
        denoiser = denoise_by(process, table)
        return sampling.run(denoiser, xT, lambda row, stream: u[row, stream], CASES[name].sampler, plan=plan)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spread = run(
        process,
        table,
        jax.device_put(xT, NamedSharding(mesh, PartitionSpec("data"))),
        jax.device_put(u, NamedSharding(mesh, PartitionSpec(None, None, "data"))),
    )
    alone = run(process, table, xT, u)
    assert len(spread.x0.sharding.device_set) == 2
    np.testing.assert_array_equal(spread.x0, alone.x0)
    np.testing.assert_array_equal(spread.calls, alone.calls)
    assert spread.failed_at == alone.failed_at == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "ddim",
            "remdm_cap",
            "first_hitting",
            "maskgit",
            "entropy_bound",
            "blocks",
            "gibbs",
            "p2",
            "speculative",
        )
    ],
)
def test_what_is_known_stays_and_does_not_count(name):
    case, world, process = CASES[name], rules.make_world("absorbing"), make_process("absorbing")
    plan = make_plan(case.sampler, process, (L,))
    rng = np.random.default_rng(7)
    u = rng.random((len(plan) + 1, STREAMS, EXAMPLES, L))
    x0 = rng.integers(0, 2, (EXAMPLES, L))
    known = rng.random(x0.shape) < 0.4
    beliefs = make_beliefs("absorbing")
    with np.errstate(divide="ignore"):
        table = jnp.asarray(np.log(beliefs))

    @jax.jit
    def run(process, x0, known, u):
        return sampling.run(
            denoise_by(process, table, "leave_one_out"),
            jnp.full(x0.shape, MASK),
            lambda row, stream: u[row, stream],
            case.sampler,
            known=Known(x0, known),
            plan=plan,
            record=range(len(plan) + 1),
        )

    chain = run(process, *map(jnp.asarray, (x0, known, u)))
    start = np.where(known, x0, MASK)
    expected = simulate(case, world, beliefs, start, u, levels_of(name), ~known)
    for number, x in expected.states.items():
        np.testing.assert_array_equal(chain.states[number], x, err_msg=f"{number} rows left")
    assert np.all(np.where(known, np.asarray(chain.states) == x0, True))
    np.testing.assert_array_equal(chain.calls, expected.calls)


def test_a_batch_of_no_examples_is_drawn_by_every_sampler():
    process = make_process("absorbing")
    for case in CASES.values():
        sampler = case.sampler
        denoiser = Denoiser(process, lambda x, t: jnp.zeros((*x.shape, K)))
        chain = jax.eval_shape(
            lambda key, denoiser=denoiser, sampler=sampler: sampling.sample(key, denoiser, (0, L), sampler),
            jax.random.key(0),
        )
        assert chain.x0.shape == (0, L)
