"""Values out of range are refused where they are known, and marked where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.checks import ranges
from tests.checks import table

PROCESS = table.PROCESSES["uniform"]
X = jnp.array([[0, 1, 2], [2, 1, 0]])
T = jnp.array([2, 5])
U = table.UNIT
LOGITS = jnp.zeros((2, 3, 4))


def test_a_zero_with_a_sign_is_noise_like_any_other():
    u = U.at[0, 0].set(-0.0)
    np.testing.assert_array_equal(
        d3pm.q_sample(PROCESS, X, T, u), d3pm.q_sample(PROCESS, X, T, u.at[0, 0].set(0.0))
    )


def test_marks_go_by_the_names_of_axes_not_by_their_sizes():
    """As many examples as steps, as many as categories: what is marked is what belongs to it."""
    p = jnp.array([-0.5, 0.7, 0.8])
    assert (jax.jit(d3pm.timesteps.importance)(jnp.full(3, 0.5), p)[0] == -1).all()
    table = jnp.ones((3, 3)).at[0, 1].set(-1.0)
    product = jax.jit(d3pm.log_matmul)(jnp.zeros((3, 3)), table)
    np.testing.assert_array_equal(np.isnan(product), [[False, True, False]] * 3)
    history = d3pm.timesteps.empty_history(3)
    after = jax.jit(d3pm.timesteps.update)(history, jnp.array([9, 1, 2]), jnp.ones(3))
    assert np.isnan(after.mean_square).all()
    process = d3pm.uniform(d3pm.reciprocal(3), 3)
    x = jnp.zeros((3, 3), jnp.int32).at[0, 2].set(3)

    def noise(t):
        return jnp.full((3, 3), 0.5)

    def denoise(xt, t):
        return jnp.zeros((3, 3, 3))

    bound = jax.jit(lambda x: d3pm.all_t_bound(denoise, process, x, noise))(x)
    np.testing.assert_array_equal(np.isnan(bound.steps), [[True, False, False]] * 3)
    denoiser = d3pm.Denoiser(process, denoise)
    chain = jax.jit(lambda x: d3pm.sampling.run(denoiser, x, lambda t, stream: noise(t), record=(0, 1, 3)))(x)
    np.testing.assert_array_equal((chain.states == -1).any((0, 2)), [True, False, False])


def test_all_that_a_matrix_with_the_same_axis_twice_enters_is_marked():
    """Of a result [B, *S, D] no entry belongs to one of the matrix [D, D] alone."""
    matrix = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    v = jnp.ones((1, 3, 2))
    for layer in (lambda v, matrix: d3pm.flows.linear(v, matrix)[0], d3pm.flows.invert_linear):
        layer = jax.jit(layer)
        np.testing.assert_array_equal(layer(v, matrix)[0, :, 1], [1.0, 1.0, 1.0])
        assert np.isnan(layer(v, matrix.at[0, 1].set(jnp.nan))).all()


def test_the_gradient_of_what_is_out_of_range_is_marked_too():
    grad = jax.jit(jax.grad(lambda logits, x: d3pm.cross_entropy(PROCESS, logits, x).sum()))
    marked = np.isnan(grad(LOGITS, X.at[0, 1].set(7)))
    np.testing.assert_array_equal(marked.all(-1), [[False, True, False], [False] * 3])
    np.testing.assert_array_equal(marked.any(-1), marked.all(-1))


def test_integers_that_int32_cannot_hold_are_refused():
    for call in (
        lambda: d3pm.sampling.per_example(jax.random.key(0), np.array([2**32 + 5]), (2,)),
        lambda: d3pm.losses.continuous.absorbing_draw(
            d3pm.schedules.continuous.linear, np.array([2**32 + 1]), jnp.array(0.5), jnp.array([0.5]), 3
        ),
        lambda: d3pm.sampling.chain.run_chain(lambda x, t: x, 3, np.array([2**40])),
    ):
        with pytest.raises(ValueError, match=r"contains \d+, outside .*int32"):
            call()


def test_noise_of_float64_that_rounds_up_to_1_is_the_last_float_below_it():
    u = np.full((2, 3), 1 - 2**-30)
    last = np.full((2, 3), np.nextafter(np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(d3pm.q_sample(PROCESS, X, T, u), d3pm.q_sample(PROCESS, X, T, last))
    with pytest.raises(ValueError, match=r"u contains 1\.0, outside"):
        d3pm.q_sample(PROCESS, X, T, u.astype(np.float32))


@pytest.fixture
def fetched(monkeypatch):
    """The sizes of arrays that NumPy reads while arrays are treated as those of an accelerator."""
    sizes = []
    as_array = np.asarray

    def read(x, *args, **kwargs):
        if isinstance(x, jax.Array):
            sizes.append(x.size)
        return as_array(x, *args, **kwargs)

    monkeypatch.setattr(ranges, "is_on_cpu", lambda x: False)
    monkeypatch.setattr(np, "asarray", read)
    return sizes


def test_an_accelerator_is_asked_for_two_numbers(fetched):
    d3pm.q_sample(PROCESS, X, T, U)
    assert fetched == [2, 2, 2]  # of x0, t and u


@pytest.mark.usefixtures("fetched")
def test_an_array_that_a_program_closes_over_is_checked_while_it_is_traced():
    expected = d3pm.q_sample(PROCESS, X, T, U)
    drawn = jax.jit(lambda u: d3pm.q_sample(PROCESS, X, T, u))(U)
    np.testing.assert_array_equal(drawn, expected)
    _, of_scan = jax.lax.scan(lambda carry, u: (carry, d3pm.q_sample(PROCESS, X, T, u)), 0, U[None])
    np.testing.assert_array_equal(of_scan[0], expected)
    wrong = X.at[1, 2].set(4)
    with pytest.raises(ValueError, match=r"x0 contains 4, outside 0\.\.3"):
        jax.jit(lambda u: d3pm.q_sample(PROCESS, wrong, T, u))(U)


@pytest.mark.parametrize(
    ("x0", "u", "refused"),
    [
        (X.at[0, 1].set(-1), U, "x0 contains -1, outside 0..3"),
        (X.at[1, 2].set(4), U, "x0 contains 4, outside 0..3"),
        (X, U.at[0, 1].set(jnp.nan), r"u contains nan, outside \[0, 1\)"),
        (X, U.at[0, 1].set(1.0), r"u contains 1.0, outside \[0, 1\)"),
    ],
)
@pytest.mark.usefixtures("fetched")
def test_what_an_accelerator_holds_is_checked(x0, u, refused):
    with pytest.raises(ValueError, match=refused):
        d3pm.q_sample(PROCESS, x0, T, u)
