"""Makes targets: laws that samples are held against, and what a network says of them."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from d3pm_jax import numerics, processes, schedules
from d3pm_jax.config.io import load_module
from d3pm_jax.data.tokenizers import LETTERS27
from d3pm_jax.errors import UserError, describe_returned, one_line
from d3pm_jax.oracles import Oracle, markov_chain
from d3pm_jax.processes import Mixing, is_category
from d3pm_jax.sampler_laws import enumerate_sampler
from d3pm_jax.sampling import Network, Sampler

Noise = Literal["mask", "uniform"]
DISTANCES = 8  # pairs of places up to so far apart are counted
MOST_STATES = 2**20  # that are enumerated
SCORED = 256  # samples whose log p is computed at once
# Of the random chain, and of the random network; the spreads are those of logits.
CHAIN_CATEGORIES = 8
CHAIN_SPREAD = 1.5
NETWORK_CATEGORIES = 3
NETWORK_LENGTH = 4
NETWORK_SPREAD = 2.5
NETWORK = "network"  # the target that is one
# Added to the counts of bigrams, so that none is impossible.
UNSEEN = 1e-8


class Target(NamedTuple):
    """Holds a law of x_0, and what the network that samplers are given says."""

    name: str
    K: int
    length: int
    noise: Noise
    leave_one_out: Callable[[Array, Array], Array]  # (x [n, L], alpha [n]) -> log p(x_0 | others) [n, L, K]
    draw: Callable[[Array, int], np.ndarray]  # (key, n) -> int32 [n, L]
    log_prob: Callable[[np.ndarray], np.ndarray]  # [n, L] -> nats [n]
    pairs: np.ndarray  # [D, K, K], the law of two places d apart, averaged over the places; d = 1, 2, ..
    law: np.ndarray | None  # [K^L], where there are few states


def make_process(noise: Noise, K: int, steps: int, alphas: np.ndarray | None = None) -> Mixing:
    """Makes the process of a noise; a mask is category K.

    Args:
        noise: of it.
        K: categories of the data.
        steps: of it.
        alphas: the signal left at t = 0..steps, float64 [steps + 1]; else it is 1 - t / steps.

    Raises:
        ValueError: alphas do not fall from 1 at every step.
    """
    betas = schedules.reciprocal(steps) if alphas is None else schedules.from_alpha_bar(alphas)
    if noise == "mask":
        return processes.absorbing(betas, K + 1, mask_id=K)
    return processes.uniform(betas, K)


def make_network(leave_one_out: Callable[[Array, Array], Array], process: Mixing) -> Network:
    """Makes the network of a `Denoiser` of log p(x_0 at a place | x_t at all others), which sees alpha."""

    def network(x: Array, time: Array) -> Array:
        said = leave_one_out(x, jnp.interp(time, jnp.arange(process.T + 1), process.alpha_bar))
        num_masks = process.K - said.shape[-1]
        return jnp.pad(said, ((0, 0), (0, 0), (0, num_masks)), constant_values=-jnp.inf)

    return network


@lru_cache(maxsize=4)
def list_states(K: int, length: int) -> np.ndarray:
    """Lists all K^L states, int32 [K^L, L]; the last place changes fastest."""
    states = np.indices((K,) * length, np.int32).reshape(length, -1).T
    states.flags.writeable = False
    return states


def number_states(x: np.ndarray, K: int) -> np.ndarray:
    """Returns the number of each of the states x [n, L] in `list_states`, [n]."""
    return x.astype(np.int64) @ K ** np.arange(x.shape[1] - 1, -1, -1)


# ---- A law that is known ----


def known_target(oracle: Oracle, noise: Noise) -> Target:
    """Makes the target of an oracle: its law, and its exact belief as the network.

    Raises:
        UserError: it has a single place, or is one of your own that no program can be compiled for.
    """
    try:
        hash(oracle)
        is_pytree = not jax.tree_util.all_leaves([oracle])
    except TypeError:
        is_pytree = False
    if not is_pytree:
        raise UserError(
            f"{type(oracle).__name__} is no pytree, or has no hash: register it by "
            f"jax.tree_util.register_dataclass, of a dataclass with frozen=True, eq=False"
        )
    if oracle.length < 2:
        raise UserError(f"length = {oracle.length}: transitions are judged, take at least 2 places")
    pairs, law = _tabulate(oracle)
    return Target(
        name=type(oracle).__name__,
        K=oracle.K,
        length=oracle.length,
        noise=noise,
        leave_one_out=partial(_believe, oracle, noise),
        draw=lambda key, num: np.asarray(_draw(oracle, key, num)),
        log_prob=partial(_score, oracle),
        pairs=pairs,
        law=law,
    )


@partial(jax.jit, static_argnums=2)
def _draw(oracle: Oracle, key: Array, num: int) -> Array:
    return oracle.draw(key, num)


@jax.jit
def _log_prob(oracle: Oracle, x: Array) -> Array:
    return oracle.log_prob(x)


def _score(oracle: Oracle, x: np.ndarray) -> np.ndarray:
    """Returns log p of samples [n, L], float64 [n], the same of a sample whatever it is scored with.

    Else, as sums are rounded otherwise in a program of another size, samples of one probability would be
    more often above a threshold in one batch than in another.
    """
    num_missing = -len(x) % SCORED
    padded = np.pad(x, ((0, num_missing), (0, 0)))
    parts = [_log_prob(oracle, part) for part in padded.astype(np.int32).reshape(-1, SCORED, x.shape[1])]
    return np.concatenate([np.zeros(0), *parts])[: len(x)]


@partial(jax.jit, static_argnums=1)
def _believe(oracle: Oracle, noise: Noise, x: Array, alpha: Array) -> Array:
    """Returns log p(x_0 at a place | x at all others), [n, L, K]."""
    if noise == "mask":
        is_masked = x == oracle.K
        return oracle.fill_in(jnp.where(is_masked, 0, x), is_masked)
    signal = alpha[:, None, None]
    return oracle.leave_one_out(jnp.log(signal * is_category(x, oracle.K) + (1 - signal) / oracle.K))


@lru_cache(maxsize=4)
def _tabulate(oracle: Oracle) -> tuple[np.ndarray, np.ndarray | None]:
    """Computes the law of pairs of places, and that of all states where these are few."""
    if oracle.K**oracle.length > MOST_STATES:
        return np.asarray(_compute_pairs(oracle), np.float64), None
    states = list_states(oracle.K, oracle.length)
    law = np.exp(_score(oracle, states))
    law /= law.sum()  # it was computed in float32
    return sum_pairs(law, oracle.K, oracle.length), law


@jax.jit
def _compute_pairs(oracle: Oracle) -> Array:
    """p(x_i = a, x_{i+d} = b) = p(x_i = a) p(x_{i+d} = b | x_i = a), from what the oracle fills in."""
    K = oracle.K
    L = oracle.length
    places = jnp.arange(L, dtype=jnp.int32)
    nothing = jnp.zeros((1, L), jnp.int32)
    marginals = jnp.exp(oracle.fill_in(nothing, nothing == 0)[0])  # [L, K]
    distances = jnp.arange(1, min(DISTANCES, L - 1) + 1, dtype=jnp.int32)
    of_place = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32)[:, None], (K, L))

    def pair_with_later(place: Array) -> Array:
        given = jnp.exp(oracle.fill_in(of_place, jnp.broadcast_to(places != place, (K, L))))  # [K, L, K]
        later = place + distances
        pairs = marginals[place][:, None, None] * given[:, jnp.minimum(later, L - 1)]  # [K, D, K]
        return jnp.where((later < L)[:, None, None], pairs.swapaxes(0, 1), 0.0)

    sums = lax.map(pair_with_later, places).sum(axis=0)  # [D, K, K]
    return sums / (L - distances)[:, None, None]


def sum_pairs(law: np.ndarray, K: int, length: int) -> np.ndarray:
    """Returns the law of two places d apart, averaged over the places, [D, K, K], of a law of all states."""
    by_place = law.reshape((K,) * length)
    pairs = np.zeros((min(DISTANCES, length - 1), K, K))
    for d in range(1, len(pairs) + 1):
        for i in range(length - d):
            others = tuple(place for place in range(length) if place not in (i, i + d))
            pairs[d - 1] += by_place.sum(axis=others) / (length - d)
    return pairs


# ---- The law of the sampler that a function claims to be ----


def claimed_target(sampler: Sampler, process: Mixing, noise: Noise, seed: int) -> Target:
    """Makes a random network, whose answers fit no law, and the law that a sampler draws with it.

    The network sees alpha, unless the sampler reveals places: these are asked at the share of masks.
    A sampler of levels has those of the process.

    Raises:
        ValueError: the sampler is not for this process.
        sampler_laws.TooMany: it remembers too much to be enumerated.
    """
    K = NETWORK_CATEGORIES
    L = NETWORK_LENGTH
    rng = np.random.default_rng(seed)
    shape = (process.K**L, L, K)
    weight_of_time = 0.0 if sampler.step.goes_by_masks else 1.0
    tables = NETWORK_SPREAD * rng.normal(size=(2, *shape)) * np.reshape([1.0, weight_of_time], (2, 1, 1, 1))
    logits, logits_of_alpha = jnp.asarray(tables, jnp.float32)
    place_values = process.K ** np.arange(L - 1, -1, -1, dtype=np.int32)

    @jax.jit
    def leave_one_out(x: Array, alpha: Array) -> Array:
        number = x @ place_values
        said = logits[number] + alpha[:, None, None] * logits_of_alpha[number]
        return numerics.log_normalize(said)

    enumerated = enumerate_sampler(sampler, process, L, make_network(leave_one_out, process))
    law = np.asarray(enumerated.law, np.float64)
    law = law / law.sum()
    with np.errstate(divide="ignore"):
        log_law = np.log(law)
    states = list_states(K, L)

    def draw(key: Array, num: int) -> np.ndarray:
        words = np.asarray(jax.random.key_data(key))
        return states[np.random.default_rng(words).choice(len(law), num, p=law)]

    return Target(
        name="network",
        K=K,
        length=L,
        noise=noise,
        leave_one_out=leave_one_out,
        draw=draw,
        log_prob=lambda x: log_law[number_states(x, K)],
        pairs=sum_pairs(law, K, L),
        law=law,
    )


# ---- Laws by name ----


def read_target(name: str, length: int = 64, text: Path | None = None) -> Oracle | str:
    """Reads the name of a true law: chain, bigrams, network, or a FILE.py that defines `target`.

    Args:
        name: which.
        length: of chain and bigrams.
        text: of bigrams, a file of a-z and spaces.

    Raises:
        UserError: there is none of this name, or the file has no oracle.
    """
    if (text is None) == (name == "bigrams"):
        raise UserError(f"target = {one_line(name, 80)}: a text goes with bigrams, and bigrams with a text")
    if text is not None:
        return bigram_chain(Path(text), length)
    if name == "chain":
        return random_chain(length)
    if name == NETWORK:
        return NETWORK
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise UserError(
            f"target = {one_line(name, 80)}: it must be chain, bigrams, {NETWORK}, or a FILE.py that is there"
        )
    oracle = getattr(load_module(path), "target", None)
    if not isinstance(oracle, Oracle):
        raise UserError(f"{path} has target = {describe_returned(oracle)}: define one of d3pm_jax.oracles")
    return oracle


def random_chain(length: int, seed: int = 0) -> Oracle:
    """Makes a random Markov chain of 8 categories that begins in its stationary law."""
    weights = CHAIN_SPREAD * np.random.default_rng(seed).normal(size=(CHAIN_CATEGORIES, CHAIN_CATEGORIES))
    step = np.exp(weights)
    return stationary_chain(step, length)


def bigram_chain(path: Path, length: int) -> Oracle:
    """Makes the chain of the bigrams of a text of a-z and spaces: counts + 1e-8, in its stationary law.

    Raises:
        UserError: there is no such text, or it has other characters.
    """
    if not path.is_file():
        raise UserError(f"--text {path}: there is no such file; name a text of a-z and spaces")
    codes = np.frombuffer(path.read_bytes(), np.uint8)
    category = np.full(256, len(LETTERS27))
    category[np.frombuffer(LETTERS27.encode(), np.uint8)] = range(len(LETTERS27))
    category[ord("\n")] = 0
    x = category[codes]
    if len(x) < 2:
        raise UserError(f"--text {path} has {len(x)} characters: name a text of at least two")
    if x.max() >= len(LETTERS27):
        i = int(np.argmax(x))
        raise UserError(
            f"--text {path}: byte {i} is {bytes(codes[i : i + 1])!r}: it must be of a-z and spaces alone"
        )
    K = len(LETTERS27)
    counts = np.bincount(x[:-1] * K + x[1:], minlength=K * K).reshape(K, K)
    return stationary_chain(counts + UNSEEN, length)


def stationary_chain(weights: np.ndarray, length: int) -> Oracle:
    """Makes the Markov chain whose steps are in proportion to weights [K, K], in its stationary law."""
    step = weights / weights.sum(axis=1, keepdims=True)
    K = len(step)
    # start (step - I) = 0 and sum start = 1, in one system.
    equations = np.concatenate([step.T - np.eye(K), np.ones((1, K))])
    start, *_ = np.linalg.lstsq(equations, np.append(np.zeros(K), 1.0))
    start = np.maximum(start, 0.0)
    return markov_chain(start / start.sum(), step, length)
