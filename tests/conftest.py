"""Fixtures of these tests; settings are in the conftest.py above."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def optimised_file(request):
    """Whether all tests of a file are marked as optimised; then they share what they compile."""
    marked = request.node.get_closest_marker("optimised") is not None
    if marked:
        jax.clear_caches()  # jit would reuse what another file compiled without
    jax.config.update("jax_disable_most_optimizations", not marked)
    yield marked
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def optimised(request, optimised_file):
    """Compiles with optimisation where a test is marked so: for last bits, memory, or much to compute."""
    marked = request.node.get_closest_marker("optimised") is not None
    if marked and not optimised_file:
        jax.clear_caches()  # jit would reuse what another test compiled without
    jax.config.update("jax_disable_most_optimizations", not marked)
    yield
    jax.config.update("jax_disable_most_optimizations", not optimised_file)


@pytest.fixture
def text_cache(tmp_path, monkeypatch):
    """The folder in which texts are prepared, in place of the user's."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *name: str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


@pytest.fixture
def x64():
    """float64 throughout the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def close(request):
    """The comparison that numbers of other programs have to pass, with JAX in each of the two types."""
    tolerance = {"float64": 1e-10, "float32": 1e-6}[request.param]

    def assert_close(actual, expected):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)

    with jax.enable_x64(request.param == "float64"):
        yield assert_close


@pytest.fixture(params=["uniform", "absorbing", "gaussian"])
def process(request):
    """A process of K = 7 and T = 20 of each kind of table."""
    import d3pm_jax as d3pm  # here, so that who only hands tests out to other processes does without

    return {
        "uniform": lambda: d3pm.uniform(d3pm.cosine(20), 7),
        "absorbing": lambda: d3pm.absorbing(d3pm.reciprocal(20), 7, 3),
        "gaussian": lambda: d3pm.gaussian(d3pm.linear(20, 0.05, 1.0), 7),
    }[request.param]()


@pytest.fixture(scope="module")
def small_network():
    """Replaces the network of runs by a table, which compiles in no time."""
    from d3pm_jax.program.parts import network
    from tests import tiny

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "split_network", tiny.split)
        yield
