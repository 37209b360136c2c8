"""Arguments of flows: noise of every size, and parameters that are no further from 0 than trained ones.

What takes long without jit, where every operation is a program, runs so in float64 alone.
"""

from collections.abc import Callable, Iterator

import numpy as np

from parity_tests.cases import LARGE, B, Case, K, uniforms
from parity_tests.families import random

S = (4, 3)
L = 2  # vectors of an example
D = 4  # numbers of a vector
M = 3  # logistic distributions of a mixture
PARAMS = {"affine": 2, "mixture_affine": 2 + 3 * M}  # of a number


def noise(size: float, *seed: int) -> np.ndarray:
    """Normal numbers [*S, K]."""
    return random(40, *seed).normal(size=(*S, K)) * size


def gumbel_noise(dtype: str) -> np.ndarray:
    """Gumbel noise [*S, K] of uniforms from near 0 to the largest below 1."""
    return -np.log(-np.log(np.maximum(uniforms(dtype, (*S, K), 41), 1e-30)))


def symbols(*seed: int) -> np.ndarray:
    """Categories [*S]."""
    return random(42, *seed).integers(0, K, S)


def thresholds(dtype: str) -> Iterator[Case]:
    """Noise of the usual size, and so large that numbers are rounded up to the threshold."""
    for kind, size in {"moderate": 3.0, "large": LARGE[dtype]}.items():
        yield Case(kind, {"u": noise(size), "x": symbols()}, eager=dtype == "float64")


def gumbel_thresholds(dtype: str) -> Iterator[Case]:
    """The noise of `thresholds` with locations beside it."""
    for case in thresholds(dtype):
        yield case._replace(args=case.args | {"phi": noise(3.0, 1)})


def gumbels(dtype: str) -> Iterator[Case]:
    """Locations of the usual size, and of a confident encoder, one number rounded up to the maximum."""
    for kind, size in {"moderate": 3.0, "large": LARGE[dtype]}.items():
        args = {"phi": noise(size), "x": symbols(), "gumbel_noise": gumbel_noise(dtype)}
        if kind == "large":
            args["x"][0, 0] = K - 1
            args["phi"][0, 0, 0] = 2 * size
            args["gumbel_noise"][0, 0, 1:] = -5.0
            args["gumbel_noise"][0, 0, 0] = 30.0
        yield Case(kind, args, eager=dtype == "float64")


def vectors(dtype: str) -> Iterator[Case]:
    yield Case("moderate", {"phi": noise(3.0), "v": noise(3.0, 1)})


def posteriors(dtype: str) -> Iterator[Case]:
    """Vectors whose argmax is x, and one with another, whose density is 0."""
    v = noise(3.0, 1)
    x = v.argmax(axis=-1)
    x[0, 0] = (x[0, 0] + 1) % K
    yield Case("moderate", {"phi": noise(3.0), "x": x, "v": v})


def signs(dtype: str) -> Iterator[Case]:
    """Noise of both tails; in float64 also down to where the smallest number takes the place of softplus."""
    u = np.linspace(-80.0, 80.0, 33)
    if dtype == "float64":
        u = np.append(u, -1e4)
    u = u[:, None]  # gradients count in each row
    yield Case("both bits", {"u": u, "bits": random(43).integers(0, 2, u.shape)})


def alphabets(dtype: str) -> Iterator[Case]:
    """K below, at and above a power of the base."""
    for categories, base in ((2, 2), (3, 2), (27, 3), (28, 3), (256, 16)):
        yield Case(f"K = {categories}, base {base}", {"K": categories, "base": base})


def codes(dtype: str) -> Iterator[Case]:
    """All codes."""
    for base, digits in ((2, 5), (3, 3), (27, 1)):
        args = {"code": np.arange(base**digits), "base": base, "digits": digits}
        yield Case(f"base {base}, {digits} digits", args)


def digits(dtype: str) -> Iterator[Case]:
    for base in (2, 27):
        yield Case(f"base {base}", {"digits": random(44).integers(0, base, (*S, 5)), "base": base})


def draw_code(dtype: str) -> Iterator[Case]:
    """Symbols with several codes, and with one each."""
    for num_codes in (2 * K + 3, K):
        args = {"x": symbols(), "K": K, "num_codes": num_codes, "u": uniforms(dtype, S, 45)}
        yield Case(f"{num_codes} codes of K = {K}", args)


def from_code(dtype: str) -> Iterator[Case]:
    yield Case("all codes", {"code": np.arange(32), "K": 27})


def affine(argument: str) -> Callable[[str], Iterator[Case]]:
    """Numbers up to 30 under this name."""

    def cases(dtype: str) -> Iterator[Case]:
        args = {argument: noise(10.0), "shift": noise(3.0, 1), "log_scale": noise(1.0, 2)}
        yield Case("moderate", args)

    return cases


def mixture(argument: str) -> Callable[[str], Iterator[Case]]:
    """Numbers of both tails under this name."""

    def cases(dtype: str) -> Iterator[Case]:
        rng = random(46)
        args = {
            argument: noise(8.0)[..., 0],
            "logit_weights": rng.normal(size=(*S, M)) * 2.0,
            "means": rng.normal(size=(*S, M)) * 3.0,
            "log_scales": rng.normal(size=(*S, M)),
        }
        yield Case("both tails", args, eager=dtype == "float64")

    return cases


def mixture_affine(argument: str) -> Callable[[str], Iterator[Case]]:
    """The parameters of one number in one array."""

    def cases(dtype: str) -> Iterator[Case]:
        args = {
            argument: noise(8.0)[..., 0],
            "params": random(47).normal(size=(*S, PARAMS["mixture_affine"])),
        }
        yield Case("both tails", args, eager=dtype == "float64")

    return cases


def bounds(dtype: str) -> Iterator[Case]:
    """Bounds below and above 1, and 1 itself, where training starts."""
    log_bound = noise(1.0, 1)
    log_bound.flat[0] = 0.0
    yield Case("both forms", {"raw": noise(3.0), "log_bound": log_bound})


def examples(*seed: int) -> np.ndarray:
    """Vectors [B, L, D]."""
    return random(48, *seed).normal(size=(B, L, D)) * 2.0


def couplings(argument: str, direction: str) -> Callable[[str], Iterator[Case]]:
    """Each transform, with parameters that are linear in the numbers of all positions."""

    def cases(dtype: str) -> Iterator[Case]:
        for transform, P in PARAMS.items():
            weights = random(49).normal(size=(L * 1, L * (D - 1), P)) * 0.3
            args = {argument: examples(), "weights": weights, "num_fixed": 1, direction: transform}
            eager = transform == "affine" and dtype == "float64"
            quick = (transform == "affine") == (direction == "inverse")
            if quick or dtype == "float64":
                yield Case(transform, args, eager, quick)

    return cases


def autoregressive(argument: str, direction: str) -> Callable[[str], Iterator[Case]]:
    """Each transform, with parameters that are linear in the numbers before."""

    def cases(dtype: str) -> Iterator[Case]:
        N = L * D
        is_before = np.triu(np.ones((N, N)), k=1)[..., None]
        for transform, P in PARAMS.items():
            weights = random(50).normal(size=(N, N, P)) * 0.2 * is_before
            args = {argument: examples(), "weights": weights, direction: transform}
            quick = transform == "affine"
            if quick or dtype == "float64":
                yield Case(transform, args, quick and dtype == "float64", quick)

    return cases


def linear(argument: str) -> Callable[[str], Iterator[Case]]:
    """Several vectors of an example, and one."""

    def cases(dtype: str) -> Iterator[Case]:
        matrix = np.eye(D) + random(51).normal(size=(D, D)) * 0.3
        yield Case("two vectors", {argument: examples(), "matrix": matrix}, eager=dtype == "float64")
        if dtype == "float64":
            yield Case("one vector", {argument: examples()[:, 0], "matrix": matrix}, False, False)

    return cases


def log_weights(dtype: str) -> Iterator[Case]:
    """Several draws, and one."""
    for n in (7, 1):
        args = {"log_weights": random(52).normal(size=(n, B)) * 30.0}
        yield Case(f"n = {n}", args, eager=n > 1, quick=n > 1)
