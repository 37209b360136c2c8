"""Describes the forward processes of a config; `d3pm_jax.processes.Process` is what they build."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np

from d3pm_jax import processes
from d3pm_jax.checks import NUM_CATEGORIES, check_range
from d3pm_jax.config.checks import (
    NOT_EMPTY,
    Categories,
    Count,
    FilePath,
    Natural,
    NotNegative,
    Positive,
    Size,
    UnitInterval,
    UpTo2,
    check_value,
    undefined_method,
)
from d3pm_jax.config.from_data import FromData, Shares, filled_field
from d3pm_jax.config.schedule import Schedule, build_betas
from d3pm_jax.config.trained import DIFFUSION, FLOW, Trained
from d3pm_jax.data import open_npy
from d3pm_jax.errors import UserError, as_user_error, wrong_return
from d3pm_jax.processes import Process as ForwardProcess
from d3pm_jax.sampling import laws


@dataclasses.dataclass(frozen=True)
class Process:
    """Describes the forward process. Derive from it for one of your own, with any fields."""

    trains: ClassVar[Trained] = DIFFUSION
    """what a run with this process trains"""

    def build(self) -> processes.Process:
        """Builds the process with its tables; K and T are those of what is built.

        Raises:
            ValueError: a field cannot be used, or is still "data".
            UserError: a file cannot be used.
        """
        raise undefined_method(self, "build")


def build_process(spec: Process) -> processes.Process:
    """Builds a process, and checks that it is one.

    Raises:
        ValueError: as `build`.
        UserError: `build` returns something else, or a schedule of the user's own does.
    """
    process = spec.build()
    if not isinstance(process, processes.Process):
        raise wrong_return(spec.build, process, "a Process, as d3pm_jax.uniform(beta, K)")
    for name in ("K", "T"):
        check_value(f"{name} of the process", getattr(process, name), Count)
    return process


def find_mask(spec: Process, process: processes.Process) -> int | None:
    """Returns the category that a process masks with, or None for one that has no mask.

    A process of the user's own that the library cannot look into says it by a field `mask_id` of its spec.

    Args:
        spec: of the process.
        process: what it builds.
    """
    mask = laws.mask_of(process)
    if mask is not None:
        return int(mask)
    # A field of this name in a spec of the user's own may hold anything: of such a process no mask is known.
    mask = getattr(spec, "mask_id", None)
    if isinstance(mask, int) and 0 <= mask < process.K:
        return mask
    return None


def find_extra_mask(spec: Process, process: processes.Process, categories: int) -> int | None:
    """Returns the mask of a process where data of so many categories never has it; else None."""
    mask = find_mask(spec, process)
    if mask is None or mask < categories:
        return None
    return mask


@dataclasses.dataclass(frozen=True)
class _OfCategories(Process):
    """Describes a process of K categories."""

    K: Categories | FromData
    """number of categories and any mask; "data": those of the data, plus one if mask_id is "data" too"""
    steps: Size
    """number of steps T"""
    beta: Schedule


@dataclasses.dataclass(frozen=True)
class Uniform(_OfCategories):
    """Resamples uniformly."""

    def build(self) -> processes.Process:
        K = check_range("K", filled_field(self, "K"), NUM_CATEGORIES, {})
        return processes.uniform(self.beta.resampling(self.steps, np.full(K, 1.0 / K)), K)


@dataclasses.dataclass(frozen=True)
class Absorbing(_OfCategories):
    """Moves to a mask and stays."""

    mask_id: Natural | FromData
    """the category of the mask; "data": one more category than the data has, K - 1"""

    def build(self) -> processes.Process:
        K = filled_field(self, "K")
        mask_id = filled_field(self, "mask_id")
        pi = (np.arange(K) == mask_id).astype(np.float64)
        return processes.absorbing(self.beta.resampling(self.steps, pi), K, mask_id)


@dataclasses.dataclass(frozen=True)
class Interpolating(Process):
    """Moves to a mask and on to tokens (GIDD)."""

    K: Categories | FromData
    """number of categories and the mask; "data": those of the data, plus one if mask_id is "data" too"""
    steps: Size
    """number of steps T"""
    mask_id: Natural | FromData
    """the category of the mask; "data": one more category than the data has, K - 1"""
    p_uniform: UnitInterval
    """the share of uniform tokens in x_t half way"""
    gamma: UpTo2 = 1.0
    """how that share rises and falls: it is small near both ends, the more so the larger this is"""

    def build(self) -> processes.Process:
        mask_id = filled_field(self, "mask_id")
        return processes.interpolating(
            self.steps, filled_field(self, "K"), mask_id, self.p_uniform, self.gamma
        )


@dataclasses.dataclass(frozen=True)
class Autoregressive(Process):
    """Masks one position after the other from the end of a sequence, the last axis of x; T = L."""

    K: Categories | FromData
    """number of categories, with the mask; "data": those of the data, plus one if mask_id is "data" too"""
    L: Size
    """the length of a sequence"""
    mask_id: Natural | FromData
    """the category of the mask; "data": one more category than the data has, K - 1"""

    def build(self) -> processes.Process:
        return processes.autoregressive(self.L, filled_field(self, "K"), filled_field(self, "mask_id"))


@dataclasses.dataclass(frozen=True)
class Argmax(Process):
    """Takes the place of a process in a run that trains an argmax flow, and no diffusion."""

    trains: ClassVar[Trained] = FLOW

    K: Categories | FromData = "data"
    """number of categories; "data": those of the data"""

    def build(self) -> processes.Process:
        raise UserError(
            "process = Argmax() is for a flow, which adds no noise step by step, but this needs a diffusion"
        )


@dataclasses.dataclass(frozen=True)
class Gaussian(_OfCategories):
    """Moves to near values of ordinal data."""

    bands: Count | None = None
    """the furthest that one step can move; None: K - 1"""

    def build(self) -> processes.Process:
        return processes.gaussian(build_betas(self.beta, self.steps), filled_field(self, "K"), self.bands)


@dataclasses.dataclass(frozen=True)
class Banded(_OfCategories):
    """Resamples uniformly, but keeps only moves to near values."""

    bands: Count
    """the furthest that one step can move"""

    def build(self) -> processes.Process:
        return processes.banded(build_betas(self.beta, self.steps), filled_field(self, "K"), self.bands)


@dataclasses.dataclass(frozen=True)
class Marginal(Process):
    """Resamples from a distribution; K is its length."""

    steps: Size
    """number of steps T"""
    beta: Schedule
    pi: Shares | FromData
    """K probabilities; "data": how often the training data has each category"""

    def build(self) -> processes.Process:
        pi = np.array(filled_field(self, "pi"), np.float64)
        return processes.marginal(self.beta.resampling(self.steps, pi), pi)


@dataclasses.dataclass(frozen=True)
class Masked(Process):
    """Puts a mask, as one more category, on top of another process."""

    inner: Process
    gamma: Schedule
    """the probability of being masked at each step of the inner process"""

    def build(self) -> processes.Process:
        inner = build_process(self.inner)
        return processes.masked(inner, build_betas(self.gamma, inner.T))


@dataclasses.dataclass(frozen=True)
class ByPlace(Process):
    """Gives each place a process of its own, of as many categories as the data has there."""

    processes: Process | tuple[Process, ...]
    """Uniform, Marginal, Absorbing, or Masked on top of one: one for all places, whose "data" stands for the
    numbers of each, or one for each place in the order of x.reshape(-1)"""
    places: Annotated[tuple[Size, ...], NOT_EMPTY] | FromData = dataclasses.field(
        default="data", kw_only=True
    )
    """*S, the shape of an example; "data": that of the data"""

    # The field hides the module of this name here.
    def build(self) -> ForwardProcess:
        places = filled_field(self, "places")
        # Places that have the same are built once.
        build = functools.cache(build_process)
        return processes.by_place([build(spec) for spec in self._spread(math.prod(places))], places)

    def fill_places(
        self, places: tuple[int, ...], fill_each: Sequence[Callable[[Process], Process]]
    ) -> "ByPlace":
        """Returns it with the numbers of each of the places, by a function that fills in those of one."""
        if self.places not in ("data", places):
            raise UserError(f"ByPlace.places = {self.places}, but examples have shape {places}: leave it out")
        specs = self._spread(len(fill_each))
        filled = tuple(fill(spec) for fill, spec in zip(fill_each, specs, strict=True))
        return dataclasses.replace(self, processes=filled, places=places)

    def _spread(self, num_places: int) -> tuple[Process, ...]:
        """Returns a spec for each place.

        Raises:
            UserError: there are not as many as places.
        """
        if not isinstance(self.processes, tuple):
            return (self.processes,) * num_places
        if len(self.processes) != num_places:
            raise UserError(
                f"ByPlace has {len(self.processes)} processes, the data {num_places} places: give each one"
            )
        return self.processes


@dataclasses.dataclass(frozen=True)
class Dense(Process):
    """Moves by any one-step matrices."""

    file: FilePath
    """an .npy file, float64 [T, K, K]: row i of matrix t says where step t goes from i"""
    prior: FilePath | None = None
    """an .npy file, float64 [K]: where the reverse chain starts; None: the mean row of Qbar[T]"""
    mask_id: Natural | None = dataclasses.field(default=None, kw_only=True)
    """the category that stands for a mask in the matrices, if there is one"""

    def build(self) -> processes.Process:
        Q = _load_numbers(self.file, "T", "K", "K")
        if self.mask_id is not None and self.mask_id >= Q.shape[-1]:
            raise UserError(f"process.mask_id = {self.mask_id}: it must be in 0..{Q.shape[-1] - 1}")
        if self.prior is None:
            prior = None
            files = self.file
        else:
            prior = _load_numbers(self.prior, "K")
            files = f"{self.file}, {self.prior}"
        with as_user_error(f"{files}: "):
            return processes.dense(Q, prior)


@dataclasses.dataclass(frozen=True)
class _AlongGraph(Process):
    """Describes a process along the graph of the nearest neighbours of embeddings."""

    file: FilePath
    """an .npy file [K, d]: the embedding of each category"""
    k: Count
    """number of neighbours"""
    steps: Size
    """number of steps T"""
    beta: Schedule
    weights: Literal["equal", "rank"] | Positive = dataclasses.field(default="equal", kw_only=True)
    """weights of the neighbours: "equal"; "rank": by rank, as in the official text code; or a number, the
    scale of a Gaussian of their distance"""
    unit: bool = dataclasses.field(default=False, kw_only=True)
    """divide each embedding by its norm, as the official text code does"""

    def _neighbours(self) -> tuple[np.ndarray, int, processes.Weights | None]:
        """Returns what a graph of neighbours is made from: embeddings [K, d], k, weights."""
        embeddings = _load_numbers(self.file, "K", "d")
        if self.unit:
            embeddings = processes.unit_rows(embeddings)
        if self.weights == "equal":
            return embeddings, self.k, None
        if self.weights == "rank":
            return embeddings, self.k, processes.rank_weights
        return embeddings, self.k, partial(processes.gaussian_weights, scale=self.weights)


@dataclasses.dataclass(frozen=True)
class RandomWalk(_AlongGraph):
    """Takes a step to a neighbour with probability beta_t; see `d3pm_jax.knn_graph`."""

    def build(self) -> processes.Process:
        beta = build_betas(self.beta, self.steps)
        with as_user_error(f"{self.file}: "):
            return processes.random_walk(beta, processes.knn_graph(*self._neighbours()))


@dataclasses.dataclass(frozen=True)
class FromRate(_AlongGraph):
    """Jumps to neighbours in continuous time, Q_t = exp(s_t speed R); see `d3pm_jax.knn_rate`.

    s_t = -log(1 - beta_t), so that a category left at rate 1 moves in step t with probability beta_t.
    `MutualInformation` gives the s_t of D3PM appendix A.7, whatever the speed.
    """

    speed: Positive = 1.0
    """how many times faster than one jump per unit of s, on average over categories"""

    def build(self) -> processes.Process:
        with as_user_error(f"{self.file}: "):
            R = self.speed * processes.knn_rate(*self._neighbours())
        return processes.from_rate(R, self.beta.durations(self.steps, R))


@dataclasses.dataclass(frozen=True)
class Hierarchical(Process):
    """Jumps between leaves of a binary tree in continuous time; see `d3pm_jax.hierarchical_rate`.

    K = 2^N for N levels. Q_t = exp(s_t R), with the s_t of `FromRate`.
    """

    level_rates: Annotated[tuple[NotNegative, ...], NOT_EMPTY]
    """how often a jump goes into the other half: of all categories, of a half, .., of a pair of neighbours"""
    steps: Size
    """number of steps T"""
    beta: Schedule

    def build(self) -> processes.Process:
        R = processes.hierarchical_rate(np.array(self.level_rates, np.float64))
        return processes.from_rate(R, self.beta.durations(self.steps, R))


def _load_numbers(file: str, *axes: str) -> np.ndarray:
    """Returns the numbers of an .npy file as float64, mapped into memory where they are float64 already.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    expected = f"an .npy file of numbers [{', '.join(axes)}]"
    try:
        x = open_npy(file)
    except UserError as error:
        raise UserError(f"{error}; it must be {expected}") from error
    if x.dtype.kind not in "fiu" or x.ndim != len(axes):
        raise UserError(f"{file} holds {x.dtype} {list(x.shape)}: pass {expected}")
    # Embeddings [K, d] may be of any precision. All else are probabilities, whose rows are checked.
    if x.dtype in (np.float16, np.float32) and "d" not in axes:
        raise UserError(
            f"{file} holds {x.dtype}: rows must sum to 1 within 1e-9, compute and save it in float64"
        )
    return np.asarray(x, np.float64)
