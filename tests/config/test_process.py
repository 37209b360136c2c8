"""Specs of processes build what they say."""

import jax
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config, processes
from d3pm_jax.config.process import build_process
from d3pm_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")

T = 5
PI = (0.5, 0.25, 0.25)
SPREAD = config.Linear(0.1, 0.9, rescale=False)
BETA = SPREAD.build(T)
POINTS = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
Q = np.random.default_rng(0).dirichlet(np.ones(3), (T, 3))

# constructor -> spec, and what the constructor gives for the same numbers; files are in the working directory
SPECS = {
    "uniform": (config.Uniform(4, T, SPREAD), lambda: d3pm.uniform(BETA, 4)),
    "absorbing": (config.Absorbing(4, T, SPREAD, 2), lambda: d3pm.absorbing(BETA, 4, 2)),
    "interpolating": (
        config.Interpolating(4, T, 2, 0.3, 1.5),
        lambda: d3pm.interpolating(T, 4, 2, 0.3, 1.5),
    ),
    "autoregressive": (config.Autoregressive(4, 6, 3), lambda: d3pm.autoregressive(6, 4, 3)),
    "marginal": (config.Marginal(T, SPREAD, PI), lambda: d3pm.marginal(BETA, np.array(PI))),
    "masked": (
        config.Masked(config.Gaussian(4, T, SPREAD), config.Reciprocal()),
        lambda: d3pm.masked(d3pm.gaussian(BETA, 4), d3pm.reciprocal(T)),
    ),
    "by_place": (
        config.ByPlace((config.Uniform(3, T, SPREAD), config.Marginal(T, SPREAD, PI)), places=(2,)),
        lambda: d3pm.by_place([d3pm.uniform(BETA, 3), d3pm.marginal(BETA, np.array(PI))]),
    ),
    "gaussian": (config.Gaussian(4, T, SPREAD, 2), lambda: d3pm.gaussian(BETA, 4, 2)),
    "banded": (config.Banded(4, T, SPREAD, 2), lambda: d3pm.banded(BETA, 4, 2)),
    "dense": (config.Dense("Q.npy", "prior.npy"), lambda: d3pm.dense(Q, np.array(PI))),
    "random_walk": (
        config.RandomWalk("x.npy", 2, T, SPREAD),
        lambda: d3pm.random_walk(BETA, d3pm.knn_graph(POINTS, 2)),
    ),
    "from_rate": (
        config.FromRate("x.npy", 2, T, SPREAD, speed=3.0),
        lambda: d3pm.from_rate(3.0 * d3pm.knn_rate(POINTS, 2), -np.log1p(-BETA)),
    ),
    "hierarchical_rate": (
        config.Hierarchical((0.5, 0.0, 2.0), T, SPREAD),
        lambda: d3pm.from_rate(d3pm.hierarchical_rate(np.array([0.5, 0.0, 2.0])), -np.log1p(-BETA)),
    ),
}
REASONS = {
    "knn_graph": "a part of RandomWalk",
    "knn_rate": "a part of FromRate",
    "allow_identity": "a run has nothing to learn from a chain that changes nothing",
    "unit_rows": "a field of both",
    "rank_weights": "weights='rank' of both",
    "gaussian_weights": "weights=scale of both",
    "respace": "a run trains on all steps; how few to sample or evaluate with is an option of the command",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the specs name."""
    monkeypatch.chdir(tmp_path)
    for name, x in {"Q": Q, "prior": PI, "x": POINTS}.items():
        np.save(f"{name}.npy", x)


def assert_same(process, expected):
    actual = jax.tree.flatten(process)
    right = jax.tree.flatten(expected)
    assert actual[1] == right[1]
    for a, b in zip(actual[0], right[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_constructor_has_a_spec_or_a_reason():
    constructors = {name for name in processes.__all__ if name.islower()}
    assert SPECS.keys() | REASONS.keys() == constructors
    assert not SPECS.keys() & REASONS.keys()
    parts = [part for part in vars(config).values() if isinstance(part, type)]
    specs = {x for x in parts if issubclass(x, config.Process)} - {config.Process, config.Argmax}
    assert {type(spec) for spec, _ in SPECS.values()} == specs


def test_specs_build_what_the_constructors_give(files):
    for spec, expected in SPECS.values():
        assert_same(spec.build(), expected())
    assert_same(config.Gaussian(4, T, SPREAD).build(), d3pm.gaussian(BETA, 4))
    assert_same(config.Dense("Q.npy").build(), d3pm.dense(Q))


def test_a_graph_may_have_weights_and_unit_embeddings(files):
    ring = np.random.default_rng(1).normal(size=(6, 2))
    np.save("ring.npy", ring)
    ranked = d3pm.knn_graph(processes.unit_rows(ring), 3, processes.rank_weights)
    spec = config.RandomWalk("ring.npy", 3, T, SPREAD, weights="rank", unit=True)
    assert_same(spec.build(), d3pm.random_walk(BETA, ranked))
    near = d3pm.knn_rate(ring, 3, lambda d: processes.gaussian_weights(d, 0.5))
    assert_same(
        config.FromRate("ring.npy", 3, T, SPREAD, weights=0.5).build(),
        d3pm.from_rate(near, -np.log1p(-BETA)),
    )


def test_fields_keep_their_order():
    assert config.Absorbing(4, T, SPREAD, 2) == config.Absorbing(K=4, steps=T, beta=SPREAD, mask_id=2)
    assert config.Banded(4, T, SPREAD, 2) == config.Banded(K=4, steps=T, beta=SPREAD, bands=2)
    assert config.Process() == config.Process()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            config.Dense("none.npy"),
            r"no file none.npy \(from /.*\): write .*; it must be an .npy file .* \[T, K, K\]",
        ),
        (config.Dense("x.npy"), r"x.npy holds float32 \[4, 1\]: pass an .npy file of numbers \[T, K, K\]"),
        (config.Dense("text.npy"), "text.npy cannot be read .*; it must be an .npy file"),
        (config.Dense("words.npy"), "words.npy holds <U1"),
        (
            config.Dense("several.npz"),
            "several.npz is an .npz, which holds arrays by name: .*; it must be an .npy file",
        ),
        (config.Dense("Q.npy", "x.npy"), r"x.npy holds float32 \[4, 1\]: .* \[K\]"),
        (config.Dense("Q.npy", "four.npy"), "Q.npy, four.npy: prior must be 3 probabilities"),
        (config.Dense("short.npy"), "short.npy holds float32: .* 1e-9, compute and save it in float64"),
        (config.Dense("columns.npy"), "columns.npy: Q at t = 1 is not row-stochastic"),
        (config.Dense("Q.npy", mask_id=3), r"process.mask_id = 3: it must be in 0..2"),
        (config.RandomWalk("x.npy", 4, T, SPREAD), r"x.npy: k = 4 is outside 1..3"),
        (config.FromRate("x.npy", 0, T, SPREAD), r"x.npy: k = 0: it must be at least 1"),
        (config.FromRate("x.npy", 2, T, SPREAD, unit=True), r"x.npy: embeddings\[0\] has norm 0, so it"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(spec, message, files):
    with open("text.npy", "w") as file:
        file.write("a text")
    np.save("words.npy", np.full((1, 2, 2), "a"))
    np.save("short.npy", Q.astype(np.float32))
    np.savez("several.npz", Q=Q)
    np.save("four.npy", np.full(4, 0.25))
    np.save("columns.npy", Q.swapaxes(1, 2))
    with pytest.raises(UserError, match=message) as error:
        spec.build()
    assert "\n" not in str(error.value)


def test_the_stochastic_bound_is_checked_where_the_shape_does_not_matter():
    loss = config.StochasticBound()
    loss.check_process(processes.autoregressive(6, 4, 3))
    loss.check_process(processes.absorbing(np.array([0.5, 1.0]), 3, 2))
    with pytest.raises(ValueError, match="the prior KL, and so the stochastic bound, is infinite"):
        loss.check_process(processes.absorbing(np.array([0.5, 0.9]), 3, 2))


def test_a_schedule_of_ones_own_is_built_once_whatever_uses_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", POINTS)
    built_steps = []

    class Counted(config.Schedule):
        def build(self, steps):
            built_steps.append(steps)
            return np.full(steps, 0.5)

    class Longer(config.Schedule):
        def build(self, steps):
            return np.full(steps + 1, 0.5)

    class OwnUniform(config.Uniform):
        pass

    def list_specs(beta):
        return (
            config.Uniform(4, T, beta),
            OwnUniform(4, T, beta),
            config.Gaussian(4, T, beta),
            config.Banded(4, T, beta, 2),
            config.Masked(config.Uniform(4, T, SPREAD), beta),
            config.RandomWalk("x.npy", 2, T, beta),
            config.Hierarchical((1.0, 1.0), T, beta),
        )

    for spec in list_specs(Counted()):
        assert build_process(spec).T == T
    assert built_steps == [T] * 7
    for spec in list_specs(Longer()):
        with pytest.raises(UserError, match=r"build returns float64 \[6\]: return beta, float64 \[5\]"):
            build_process(spec)
