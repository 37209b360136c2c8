"""Knows laws of x_0 exactly: Markov chains, trees, mixtures of products, and tables of all states.

An oracle says what the best network would say: the belief of a place given all others follows by sums over
x_0, whatever was done to the places each on its own, masked or replaced by noise.

    oracle = oracles.markov_chain(start, step, length=128)
    process = processes.absorbing(schedules.reciprocal(64), K + 1, mask_id=K)
    denoiser = sampling.Denoiser(process, oracles.network(oracle, process), "leave_one_out")
    chain = sampling.sample(key, denoiser, (16, 128))

Categories of x_0 are 0..K - 1. An oracle is made of probabilities in float64, and computes in the float type
that JAX has by default. A probability of a step or a part is 0 in its law if it is below 2^-80, in float64
below 2^-580. An oracle of your own derives from `Oracle`, and is a pytree, as
`jax.tree_util.register_dataclass` makes one.
"""

import abc
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from d3pm_jax import numerics
from d3pm_jax.checks import (
    CATEGORIES,
    SCORES,
    Measure,
    Size,
    check_distribution,
    declared,
    is_known,
    like,
    real_array,
)
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.processes import Process, is_category
from d3pm_jax.sampling import Network, laws
from d3pm_jax.sampling.noise import fold_in_each
from d3pm_jax.types import Leaf

__all__ = ["Oracle", "markov_chain", "network", "product_mixture", "table", "tree"]

MOST_STATES = 2**20  # of a table
MOST_OF_POWERS = 2**26  # numbers in the powers of the matrix of a Markov chain
# Powers of a matrix that are closer than this to each other stand for all that follow.
SETTLED = 1e-14

VISIBLE = CATEGORIES._replace(
    measure=Measure(
        words="x, where it is not masked,",
        compute=lambda values: jnp.where(values["is_masked"], 0, values["x"]),
        like="x",
    )
)


class Oracle(abc.ABC):
    """Knows a law of x_0 of K categories and L places, its length; a pytree."""

    K: int
    length: int
    name_in_errors: ClassVar[str] = "the oracle"

    def __init_subclass__(cls, **kwargs: Any):
        """Gives the methods that a class defines the checks that are declared here."""
        super().__init_subclass__(**kwargs)
        for name in METHODS:
            method = getattr(cls, name)
            checked = like(getattr(Oracle, name), method)
            # A method that is declared already is inherited.
            if checked is not method:
                setattr(cls, name, checked)

    @abc.abstractmethod
    @declared()
    def draw(self, key: Key[Array, ""], num: Size) -> Int[Array, "N length"]:
        """Draws examples 0, 1, .. of those that a key stands for, int32 [num, L]: each whatever num is."""

    @abc.abstractmethod
    @declared(x=CATEGORIES)
    def log_prob(self, x: Int[Array, "B length"]) -> Float[Array, " B"]:
        """Returns log p(x) in nats, -inf where it is 0."""

    @abc.abstractmethod
    @declared(log_evidence=SCORES)
    def leave_one_out(self, log_evidence: Float[Array, "B length K"]) -> Float[Array, "B length K"]:
        """Returns log p(x_0 at a place | the evidence of all other places), normalised.

        Args:
            log_evidence: log q(what was seen of a place | its x_0), up to a number for each place.

        Returns:
            Nats; all -inf where the law rules out what was seen of the others.
        """

    @declared(log_evidence=SCORES)
    def denoiser(self, log_evidence: Float[Array, "B length K"]) -> Float[Array, "B length K"]:
        """Returns log p(x_0 at a place | the evidence of all places), normalised."""
        return numerics.log_normalize(self.leave_one_out(log_evidence) + log_evidence)

    @declared(x=VISIBLE)
    def fill_in(
        self, x: Int[Array, "B length"], is_masked: Bool[Array, "B length"]
    ) -> Float[Array, "B length K"]:
        """Returns log p(x_0 at a place | the other places that are not masked), normalised.

        Args:
            x: categories; any number where it is masked.
            is_masked: which places nothing is known of.

        Returns:
            Nats; of visible places that the law never has together it may be any belief, or all -inf.
        """
        is_possible = is_category(x, self.K) | is_masked[..., None]
        return self.leave_one_out(jnp.where(is_possible, 0.0, -jnp.inf))


METHODS = frozenset(name for name, member in vars(Oracle).items() if hasattr(member, "declaration"))


def _register(*fields: str) -> Callable[[type], type]:
    """Makes a class of these arrays a pytree, with K, and the length, as what programs are compiled for."""
    return partial(jax.tree_util.register_dataclass, data_fields=list(fields), meta_fields=["K", "length"])


def _logs(p: np.ndarray) -> Array:
    """Returns the logs of probabilities in the float type that JAX has by default."""
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(p), float)


def _uniforms(key: Key[Array, ""], num: int, length: int) -> Array:
    """Draws a uniform for each place of examples 0, 1, .., [length, num]."""
    keys = fold_in_each(key, jnp.arange(num, dtype=jnp.int32))
    return jax.vmap(lambda key: jax.random.uniform(key, (length,), float))(keys).T


# ---- Markov chains ----


@_register("log_start", "step", "log_powers", "log_powers_back", "log_marginals")
@dataclasses.dataclass(frozen=True, eq=False)
class MarkovChain(Oracle):
    """Holds a Markov chain along the places. Make one with `markov_chain`."""

    log_start: Leaf  # [K]
    step: Leaf  # [K, K], p(next | this)
    log_powers: Leaf | None  # [N, K, K], of 0, 1, .. N - 1 steps, the last one of all longer ways too
    log_powers_back: Leaf | None  # [N, K, K], transposed
    log_marginals: Leaf  # [L, K]
    K: int
    length: int

    def draw(self, key: Key[Array, ""], num: int) -> Int[Array, "N length"]:
        log_step = jnp.log(self.step)

        def follow(x: Array, u: Array) -> tuple[Array, Array]:
            after = inverse_cdf.categorical(log_step[x], u)
            return after, after

        u = _uniforms(key, num, self.length)
        first = inverse_cdf.categorical(jnp.broadcast_to(self.log_start, (num, self.K)), u[0])
        _, others = lax.scan(follow, first, u[1:])
        return jnp.concatenate([first[None], others]).T

    def log_prob(self, x: Int[Array, "B length"]) -> Float[Array, " B"]:
        of_steps = jnp.log(self.step)[x[:, :-1], x[:, 1:]]
        return self.log_start[x[:, 0]] + jnp.sum(of_steps, axis=-1)

    def leave_one_out(self, log_evidence: Float[Array, "B length K"]) -> Float[Array, "B length K"]:
        def follow(table: Array) -> Callable[[Array, Array], tuple[Array, Array]]:
            def take_step(arrived: Array, here: Array) -> tuple[Array, Array]:
                left = numerics.log_normalize(arrived + here)
                return numerics.log_matmul(left, table), arrived

            return take_step

        by_place = jnp.moveaxis(log_evidence, 1, 0)  # [L, B, K]
        start = jnp.broadcast_to(self.log_start, by_place.shape[1:]).astype(log_evidence.dtype)
        step = self.step.astype(log_evidence.dtype)
        _, from_left = lax.scan(follow(step), start, by_place)
        _, from_right = lax.scan(follow(step.T), jnp.zeros_like(start), by_place, reverse=True)
        return numerics.log_normalize(jnp.moveaxis(from_left + from_right, 0, 1))

    def fill_in(
        self, x: Int[Array, "B length"], is_masked: Bool[Array, "B length"]
    ) -> Float[Array, "B length K"]:
        """log P^(i - l)[x_l, .] + log P^(r - i)[., x_r], normalised; l, r: the nearest visible."""
        if self.log_powers is None or self.log_powers_back is None:
            return super().fill_in(x, is_masked)
        places = jnp.arange(self.length, dtype=jnp.int32)[None]
        none_left = jnp.full_like(x[:, :1], -1)
        none_right = jnp.full_like(x[:, :1], self.length)
        last_visible = lax.cummax(jnp.where(is_masked, -1, places), axis=1)
        next_visible = lax.cummin(jnp.where(is_masked, self.length, places), axis=1, reverse=True)
        left = jnp.concatenate([none_left, last_visible[:, :-1]], axis=1)  # [B, L]
        right = jnp.concatenate([next_visible[:, 1:], none_right], axis=1)

        def arrive(log_powers: Array, neighbour: Array) -> Array:
            steps = jnp.minimum(jnp.abs(places - neighbour), len(log_powers) - 1)
            is_inside = (neighbour >= 0) & (neighbour < self.length)
            at_neighbour = jnp.take_along_axis(x, jnp.where(is_inside, neighbour, 0), axis=1)
            return log_powers[steps, at_neighbour]  # [B, L, K]

        from_left = jnp.where(left[..., None] < 0, self.log_marginals[None], arrive(self.log_powers, left))
        from_right = jnp.where(right[..., None] == self.length, 0.0, arrive(self.log_powers_back, right))
        return numerics.log_normalize(from_left + from_right)


@declared()
def markov_chain(start: np.ndarray, step: np.ndarray, length: Size) -> MarkovChain:
    """p(x) = start[x_1] step[x_1, x_2] .. step[x_{L-1}, x_L].

    Under masks a place depends on its nearest visible neighbours alone, by powers of the matrix. They are
    kept if they are at most 2^26 numbers, up to where they no longer change; else masks are evidence too.

    Args:
        start: p(x_1), [K].
        step: p(next | this), [K, K], a row for each category.
        length: L, the number of places.

    Raises:
        ValueError: these are not probabilities that sum to 1.
    """
    step = real_array("step", step)
    if step.ndim != 2 or step.shape[0] != step.shape[1]:
        raise ValueError(f"step has shape {step.shape}, expected [K, K]: p(next | this), a row for each")
    start = check_distribution("start", start, len(step))
    _check_rows("step", step)
    step = _without_small(step)
    marginals = np.empty((length, len(step)))
    marginals[0] = start
    for place in range(1, length):
        marginals[place] = marginals[place - 1] @ step
    powers = _list_powers(step, length)
    log_powers = None
    log_powers_back = None
    if powers is not None:
        log_powers = _logs(powers)
        log_powers_back = _logs(powers.swapaxes(1, 2))
    return MarkovChain(
        log_start=_logs(start),
        step=jnp.asarray(step, float),
        log_powers=log_powers,
        log_powers_back=log_powers_back,
        log_marginals=_logs(marginals),
        K=len(step),
        length=length,
    )


def _list_powers(step: np.ndarray, length: int) -> np.ndarray | None:
    """Returns the powers 0, 1, .. of a matrix, up to L - 1 steps; None where they are too many numbers."""
    powers = [np.eye(len(step))]
    while len(powers) < length:
        if (len(powers) + 1) * step.size > MOST_OF_POWERS:
            return None
        powers.append(powers[-1] @ step)
        if np.abs(powers[-1] - powers[-2]).max() <= SETTLED * powers[-1].min():
            break
    return np.stack(powers)


# ---- Trees ----


@_register("log_root", "steps", "parents")
@dataclasses.dataclass(frozen=True, eq=False)
class Tree(Oracle):
    """Holds a law in which each place depends on one place before it. Make one with `tree`."""

    log_root: Leaf  # [K]
    steps: Leaf  # [L - 1, K, K], p(x_i | x at its parent), of the places 1, 2, ..
    parents: Leaf  # int32 [L - 1], of these
    K: int
    length: int

    def draw(self, key: Key[Array, ""], num: int) -> Int[Array, "N length"]:
        u = _uniforms(key, num, self.length)
        root = inverse_cdf.categorical(jnp.broadcast_to(self.log_root, (num, self.K)), u[0])
        x = jnp.zeros((self.length, num), jnp.int32).at[0].set(root)

        def follow(x: Array, of_place: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
            place, parent, step, u = of_place
            return x.at[place].set(inverse_cdf.categorical(jnp.log(step)[x[parent]], u)), None

        x, _ = lax.scan(follow, x, (self._places, self.parents, self.steps, u[1:]))
        return x.T

    def log_prob(self, x: Int[Array, "B length"]) -> Float[Array, " B"]:
        of_steps = jnp.log(self.steps)[self._places[None] - 1, x[:, self.parents], x[:, 1:]]
        return self.log_root[x[:, 0]] + jnp.sum(of_steps, axis=-1)

    def leave_one_out(self, log_evidence: Float[Array, "B length K"]) -> Float[Array, "B length K"]:
        by_place = jnp.moveaxis(log_evidence, 1, 0)  # [L, B, K]
        steps = self.steps.astype(log_evidence.dtype)

        # Each place tells its parent what all that hangs on it says. What the later children of a parent said
        # is there when a child comes to it, and what the earlier ones said is there on the way back: so no
        # message is taken out of a sum again, which -inf could not be.
        def tell_parent(
            below: Array, of_place: tuple[Array, Array, Array]
        ) -> tuple[Array, tuple[Array, Array]]:
            place, parent, step = of_place
            here = numerics.log_normalize(below[place] + by_place[place])
            message = numerics.log_matmul(here, step.T)
            return below.at[parent].add(message), (message, below[parent])

        def tell_child(
            carry: tuple[Array, Array], of_place: tuple[Array, Array, Array, Array, Array]
        ) -> tuple[tuple[Array, Array], None]:
            above, earlier = carry
            place, parent, step, message, later = of_place
            at_parent = above[parent] + by_place[parent] + earlier[parent] + later
            arrived = numerics.log_matmul(numerics.log_normalize(at_parent), step)
            return (above.at[place].set(arrived), earlier.at[parent].add(message)), None

        nothing = jnp.zeros_like(by_place)
        of_places = (self._places, self.parents, steps)
        below, told = lax.scan(tell_parent, nothing, of_places, reverse=True)
        above = nothing.at[0].set(self.log_root.astype(nothing.dtype))
        (above, _), _ = lax.scan(tell_child, (above, nothing), (*of_places, *told))
        return numerics.log_normalize(jnp.moveaxis(above + below, 0, 1))

    @property
    def _places(self) -> Array:
        return jnp.arange(1, self.length, dtype=jnp.int32)


@declared()
def tree(parents: np.ndarray, root: np.ndarray, steps: np.ndarray) -> Tree:
    """p(x) = root[x_0] times the product over i = 1..M of steps[i - 1][x at the parent of i, x_i].

    Args:
        parents: of the places 1..M, each a place before it; place 0 has none.
        root: p(x_0), [K].
        steps: p(x_i | x at the parent of i), [M, K, K], a row for each category of the parent.

    Raises:
        ValueError: a parent is not before its place, or these are not probabilities that sum to 1.
    """
    parents = real_array("parents", parents)
    root = real_array("root", root)
    for name, array, shape in (("parents", parents, "[M]"), ("root", root, "[K]")):
        if array.ndim != 1:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    for i, parent in enumerate(parents, start=1):
        if parent not in range(i):
            raise ValueError(
                f"parents[{i - 1}] = {parent:g} is no place before {i}: number places from the root on"
            )
    steps = real_array("steps", steps)
    root = check_distribution("root", root, len(root))
    if steps.shape != (len(parents), len(root), len(root)):
        raise ValueError(
            f"steps has shape {steps.shape}, expected {(len(parents), len(root), len(root))}: [M, K, K] for "
            f"M parents and a root of K categories"
        )
    for i, step in enumerate(steps):
        _check_rows(f"steps[{i}]", step)
    return Tree(
        log_root=_logs(root),
        steps=jnp.asarray(_without_small(steps), float),
        parents=jnp.asarray(parents, jnp.int32),
        K=len(root),
        length=len(parents) + 1,
    )


# ---- Mixtures of products ----


@_register("log_weights", "p")
@dataclasses.dataclass(frozen=True, eq=False)
class ProductMixture(Oracle):
    """Holds a mixture of laws whose places are independent. Make one with `product_mixture`."""

    log_weights: Leaf  # [M]
    p: Leaf  # [L, M, K]
    K: int
    length: int

    def draw(self, key: Key[Array, ""], num: int) -> Int[Array, "N length"]:
        u = _uniforms(key, num, self.length + 1)
        weights = jnp.broadcast_to(self.log_weights, (num, len(self.log_weights)))
        part = inverse_cdf.categorical(weights, u[0])
        log_p = jnp.log(self.p)
        return lax.map(lambda place: inverse_cdf.categorical(place[0][part], place[1]), (log_p, u[1:])).T

    def log_prob(self, x: Int[Array, "B length"]) -> Float[Array, " B"]:
        places = jnp.arange(self.length, dtype=jnp.int32)
        log_p = jnp.log(self.p)[places[None], :, x]  # [B, L, M]
        return numerics.log_sum(self.log_weights[None] + jnp.sum(log_p, axis=1))

    def leave_one_out(self, log_evidence: Float[Array, "B length K"]) -> Float[Array, "B length K"]:
        by_place = jnp.moveaxis(log_evidence, 1, 0)  # [L, B, K]
        p = self.p.astype(log_evidence.dtype)
        of_place = numerics.log_matmul(by_place, jnp.swapaxes(p, 1, 2))  # [L, B, M]
        # Of all other places: those before, and those after. -inf could not be taken out of a sum of all.
        nothing = jnp.zeros_like(of_place[:1])
        before = jnp.concatenate([nothing, jnp.cumsum(of_place[:-1], axis=0)])
        after = jnp.concatenate([lax.cumsum(of_place[1:], axis=0, reverse=True), nothing])
        log_parts = numerics.log_normalize(self.log_weights.astype(p.dtype)[None, None] + before + after)
        logits = numerics.log_matmul(log_parts, p)  # [L, B, K]
        return numerics.log_normalize(jnp.moveaxis(logits, 0, 1))


@declared()
def product_mixture(weights: np.ndarray, p: np.ndarray) -> ProductMixture:
    """p(x) = sum over m of weights[m] times the product over places of p[m, place, x_place].

    Args:
        weights: of the parts, [M].
        p: of each part and place, [M, L, K].

    Raises:
        ValueError: these are not probabilities that sum to 1.
    """
    p = real_array("p", p)
    if p.ndim != 3 or 0 in p.shape:
        raise ValueError(f"p has shape {p.shape}, expected [M, L, K]: of each part, place and category")
    weights = check_distribution("weights", weights, len(p))
    for m, part in enumerate(p):
        _check_rows(f"p[{m}]", part)
    by_place = _without_small(np.swapaxes(p, 0, 1))
    return ProductMixture(
        log_weights=_logs(weights), p=jnp.asarray(by_place, float), K=p.shape[2], length=p.shape[1]
    )


# ---- Tables ----


@_register("log_p")
@dataclasses.dataclass(frozen=True, eq=False)
class Table(Oracle):
    """Holds the probability of every state. Make one with `table`."""

    log_p: Leaf  # [K, .., K], an axis for each place
    K: int
    length: int

    def draw(self, key: Key[Array, ""], num: int) -> Int[Array, "N length"]:
        u = _uniforms(key, num, self.length)
        log_prefixes = [self.log_p]  # of the first L places, of the first L - 1, .. of the first
        for _ in range(self.length - 1):
            log_prefixes.append(numerics.log_sum(log_prefixes[-1]))
        number = jnp.zeros(num, jnp.int32)  # of what was drawn so far
        x = []
        for log_prefix, noise in zip(reversed(log_prefixes), u, strict=True):
            drawn = inverse_cdf.categorical(log_prefix.reshape(-1, self.K)[number], noise)
            x.append(drawn)
            number = number * self.K + drawn
        return jnp.stack(x, axis=1)

    def log_prob(self, x: Int[Array, "B length"]) -> Float[Array, " B"]:
        return self.log_p[tuple(x.T)]

    def leave_one_out(self, log_evidence: Float[Array, "B length K"]) -> Float[Array, "B length K"]:
        def of_example(log_evidence: Array) -> Array:
            log_p = self.log_p.astype(log_evidence.dtype)
            return jnp.stack(_sum_over_others(log_p, list(log_evidence)))

        # One after the other: each sums over all states.
        return numerics.log_normalize(lax.map(of_example, log_evidence))


def _sum_over_others(log_p: Array, log_evidence: list[Array]) -> list[Array]:
    """Returns for each axis of a table the log of its sums over all others, weighted by their evidence."""
    n = len(log_evidence)
    if n == 1:
        return [log_p]
    half = n // 2
    return _sum_over_others(_sum_out(log_p, log_evidence, range(half, n)), log_evidence[:half]) + (
        _sum_over_others(_sum_out(log_p, log_evidence, range(half)), log_evidence[half:])
    )


def _sum_out(log_p: Array, log_evidence: list[Array], axes: range) -> Array:
    """Sums over axes of a table, weighted by their evidence."""
    for axis in reversed(axes):
        evidence = log_evidence[axis].reshape((1,) * (log_p.ndim - 1) + (-1,))
        log_p = numerics.log_sum(jnp.moveaxis(log_p, axis, -1) + evidence)
    return log_p


@declared()
def table(p: np.ndarray) -> Table:
    """p(x) = p[x_1, .., x_L], of at most 2^20 states.

    Args:
        p: the probability of every state, [K, .., K] with an axis for each place.

    Raises:
        ValueError: these are not probabilities that sum to 1, or too many.
    """
    p = real_array("p", p)
    if p.ndim == 0 or len(set(p.shape)) > 1 or p.size > MOST_STATES:
        raise ValueError(
            f"p has shape {p.shape}, expected [K, .., K] with an axis for each place, and at most 2^20 states"
        )
    check_distribution("p", p.ravel(), p.size)
    return Table(log_p=_logs(p), K=len(p), length=p.ndim)


def _check_rows(name: str, p: np.ndarray) -> None:
    """Raises ValueError unless each row of [.., K] holds probabilities that sum to 1."""
    for i, row in enumerate(p):
        check_distribution(f"{name}[{i}]", row, p.shape[-1])


def _without_small(p: np.ndarray) -> np.ndarray:
    """Returns probabilities with 0 in the place of those that are too small for `numerics.log_matmul`."""
    smallest = numerics.smallest_entry(jax.dtypes.canonicalize_dtype(float))
    return np.where(p < smallest, 0.0, p)


# ---- As networks ----


@declared()
def network(oracle: Oracle, process: Process) -> Network:
    """Makes an exact network: (x_t [B, *S], time [B]) -> leave-one-out logits of x_0, [B, *S, process.K].

    Args:
        oracle: of x_0.
        process: which made x_t, respaced or not. It has the K categories of the oracle, or one more, the
            last, which is a mask.

    Returns:
        A network for `sampling.Denoiser(process, network, "leave_one_out")`; under `jit` make it of an oracle
        and a process that are arguments. Of an absorbing process it takes no notice of the time.

    Raises:
        ValueError: the process has another number of categories, or a mask that is not its last one.
    """
    mask = laws.mask_of(process)
    num_masks = 0 if mask is None else 1
    if oracle.K + num_masks != process.K:
        raise ValueError(
            f"process.K = {process.K}, and the oracle has K = {oracle.K}: give it {oracle.K} categories, and "
            f"a mask behind them if there is one"
        )
    if mask is not None and is_known(mask) and int(mask) != oracle.K:
        raise ValueError(f"the mask is {int(mask)}: an oracle of K = {oracle.K} needs mask_id = {oracle.K}")

    def denoise(xt: Array, time: Array) -> Array:
        x = xt.reshape(len(xt), oracle.length)
        if laws.is_absorbing(process):
            logits = oracle.fill_in(x, x == oracle.K)
        else:
            # A network is told the step of the process as it was before it was respaced.
            t = jnp.searchsorted(process.time, time.astype(process.time.dtype)).astype(jnp.int32)
            logits = oracle.leave_one_out(process.log_q_x0(x, t)[..., : oracle.K])
        padding = ((0, 0), (0, 0), (0, process.K - oracle.K))
        padded = jnp.pad(logits, padding, constant_values=-jnp.inf)
        return padded.reshape(*xt.shape, process.K)

    return denoise
