"""The forward processes of the cases."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import d3pm_jax
import torch_ref

LIBRARIES = {"torch": torch_ref, "jax": d3pm_jax}


class Family(NamedTuple):
    """A forward process by name; each framework builds its own."""

    name: str
    K: int
    T: int


def random(*seed: int) -> np.random.Generator:
    """A generator that depends on nothing but its seed."""
    return np.random.default_rng(seed)


def _linear(T: int) -> np.ndarray:
    return np.linspace(0.1, 1.0, T)


def _reciprocal(T: int) -> np.ndarray:
    return 1.0 / np.arange(T, 0, -1)


def _pi(K: int) -> np.ndarray:
    """A random distribution in which one category is impossible."""
    pi = random(1).dirichlet(np.ones(K))
    pi[1] = 0.0
    return pi / pi.sum()


def _reset(T: int) -> np.ndarray:
    """alpha_bar = 0 from the middle on."""
    beta = _linear(T)
    beta[T // 2] = 1.0
    return beta


def _matrices(K: int, T: int) -> np.ndarray:
    """Random stochastic matrices with exact zeros, [T, K, K]."""
    rng = random(2)
    Q = rng.dirichlet(np.ones(K), size=(T, K)) * (rng.random((T, K, K)) < 0.6) + 0.1 * np.eye(K)
    return Q / Q.sum(-1, keepdims=True)


def _rate(K: int) -> np.ndarray:
    """Random rates, some of them 0."""
    R = 5.0 * _matrices(K, 1)[0]
    return R - np.diag(R.sum(1))


def embeddings(K: int) -> np.ndarray:
    """Random points, two of them the same."""
    x = random(18).normal(size=(K, 3))
    x[-1] = x[0]
    return x


Build = Callable[[Any, int, int], Any]
FAMILIES: dict[str, Build] = {
    "uniform": lambda lib, K, T: lib.uniform(_linear(T), K),
    "absorbing": lambda lib, K, T: lib.absorbing(_reciprocal(T), K, K // 2),
    "absorbing_extra": lambda lib, K, T: lib.absorbing(_reciprocal(T), K, K - 1),
    "marginal": lambda lib, K, T: lib.marginal(_linear(T), _pi(K)),
    "marginal_reset": lambda lib, K, T: lib.marginal(_reset(T), _pi(K)),
    "marginal_slow": lambda lib, K, T: lib.marginal(np.geomspace(1e-6, 1.0, T), _pi(K)),
    "masked": lambda lib, K, T: lib.masked(lib.marginal(_linear(T), _pi(K - 1)), _reciprocal(T)),
    "masked_dense": lambda lib, K, T: lib.masked(lib.dense(_matrices(K - 1, T)), 0.3 * _linear(T)),
    "gaussian": lambda lib, K, T: lib.gaussian(_linear(T), K),
    "gaussian_narrow": lambda lib, K, T: lib.gaussian(0.05 * _linear(T), K),
    "dense": lambda lib, K, T: lib.dense(_matrices(K, T)),
    "dense_prior": lambda lib, K, T: lib.dense(_matrices(K, T), prior=random(3).dirichlet(np.ones(K))),
}
CONSTRUCTED: dict[str, Build] = {  # the kernels of "dense" again: only their tables are compared
    "gaussian_bands": lambda lib, K, T: lib.gaussian(_linear(T), K, 2),
    "interpolating": lambda lib, K, T: lib.interpolating(T, K, K // 2, 0.3, 1.5),
    "interpolating_slow": lambda lib, K, T: lib.interpolating(T, K, K - 1, 0.9, 0.2),
    "banded": lambda lib, K, T: lib.banded(_linear(T), K, 2),
    "random_walk": lambda lib, K, T: lib.random_walk(_linear(T), _matrices(K, 1)[0]),
    "random_walk_prior": lambda lib, K, T: lib.random_walk(_linear(T), _matrices(K, 1)[0], prior=_pi(K)),
    "random_walk_knn": lambda lib, K, T: lib.random_walk(_linear(T), lib.knn_graph(embeddings(K), 2)),
    "from_rate": lambda lib, K, T: lib.from_rate(_rate(K), _linear(T)),
    "from_rate_knn": lambda lib, K, T: lib.from_rate(lib.knn_rate(embeddings(K), 2), 5 * _linear(T)),
}
POSITIONAL: dict[str, Build] = {  # compared on x whose last axis is T
    "autoregressive": lambda lib, K, T: lib.autoregressive(T, K, K // 2),
    "autoregressive_short": lambda lib, K, T: lib.respace(lib.autoregressive(T, K, K - 1), (1, 4, T)),
}


def _places(build_one: Callable[[Any, int, int], Any], has_mask: bool) -> Build:
    """A process for each of 2 x 2 places, the largest of which has K categories, its mask counted."""

    def build_all(lib: Any, K: int, T: int) -> Any:
        sizes = sizes_of_places(K - has_mask).flatten().tolist()
        return lib.by_place([build_one(lib, size, T) for size in sizes], (2, 2))

    return build_all


def sizes_of_places(largest: int) -> np.ndarray:
    """How many categories the data has at each place of the families by place."""
    return np.array([[2, 3], [largest, 3]])


def _positive_pi(K: int) -> np.ndarray:
    return random(40, K).dirichlet(np.ones(K))


BY_PLACE: dict[str, Build] = {  # compared on examples of 2 x 2 places
    "by_place_uniform": _places(lambda lib, K, T: lib.uniform(_linear(T), K), False),
    "by_place_marginal": _places(lambda lib, K, T: lib.marginal(_linear(T), _positive_pi(K)), False),
    "by_place_absorbing": _places(lambda lib, K, T: lib.absorbing(_reciprocal(T), K + 1, K), True),
    "by_place_masked": _places(
        lambda lib, K, T: lib.masked(lib.marginal(_linear(T), _positive_pi(K)), _reciprocal(T)), True
    ),
}


def _as_matrices(build: Build) -> Build:
    """Builds a process from its matrices: all processes are then one program of JAX."""

    def dense(lib: Any, K: int, T: int) -> Any:
        process = build(torch_ref, K, T)
        return lib.dense(process.Q64[1:].numpy(), prior=process.pi64.numpy())

    return dense


# No beta is 1, which other people's code may not take, but where the mask needs it.
USUAL: dict[str, Build] = {
    "uniform": lambda lib, K, T: lib.uniform(0.9 * _linear(T), K),
    "absorbing": FAMILIES["absorbing"],
    "absorbing_extra": FAMILIES["absorbing_extra"],
    "marginal": lambda lib, K, T: lib.marginal(0.9 * _linear(T), _pi(K)),
    "masked": lambda lib, K, T: lib.masked(lib.marginal(0.9 * _linear(T), _pi(K - 1)), _reciprocal(T)),
    "gaussian": lambda lib, K, T: lib.gaussian(0.9 * _linear(T), K),
    "dense": FAMILIES["dense"],
}
MATRICES = {f"{name}, matrices": _as_matrices(build) for name, build in USUAL.items()}
OTHER_ZEROS_IN_FLOAT32 = ("gaussian_narrow",)  # entries that only float64 tables can hold


@cache
def build(lib: str, family: Family, dtype: str) -> Any:
    """The process as one of `LIBRARIES` builds it in one float type; call it inside `precision(dtype)`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "x_T still depends on x_0")  # gaussian_narrow is meant to
        every = FAMILIES | CONSTRUCTED | POSITIONAL | BY_PLACE | MATRICES
        return every[family.name](LIBRARIES[lib], family.K, family.T)
