"""Arguments of the kernels: tiny, odd, and always the same."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

import torch_ref
from parity_tests import scales
from parity_tests.families import (
    BY_PLACE,
    FAMILIES,
    POSITIONAL,
    Family,
    build,
    embeddings,
    random,
    sizes_of_places,
)
from parity_tests.frameworks import precision, to_torch

B = 3
S = (2, 2)
K = 5
T = 7
LARGE = {"float64": 1e4, "float32": 100.0}  # logits of a confident network
KINDS = ("moderate", "holes", "large")
INF = np.inf


class Case(NamedTuple):
    """One call: arrays and a `Family` are traced by jit, everything else is static."""

    name: str
    args: dict[str, Any]
    eager: bool = True  # run it in JAX without jit as well, which is slow
    quick: bool = True  # `make test` runs it too, which has no time for all


def logits(kind: str, shape: tuple[int, ...], dtype: str, *seed: int) -> np.ndarray:
    """Normal logits; "large"; or with "holes": -inf in places, one row one-hot, one row without any."""
    size = 3.0
    if kind == "large":
        size = LARGE[dtype]
    x = random(4, *seed).normal(size=shape) * size
    if kind == "holes":
        x[random(5, *seed).random(shape) < 0.4] = -INF
        rows = x.reshape(-1, shape[-1])
        rows[0] = -INF
        rows[0, 0] = 2.0
        rows[1] = -INF
    return x


def normalised(kind: str, shape: tuple[int, ...], dtype: str, *seed: int) -> np.ndarray:
    """Log-probabilities made from `logits`."""
    x = logits(kind, shape, dtype, *seed)
    total = np.logaddexp.reduce(x, axis=-1, keepdims=True)
    return np.where(total > -INF, x - np.where(total > -INF, total, 0.0), -INF)


def uniforms(dtype: str, shape: tuple[int, ...], *seed: int) -> np.ndarray:
    """Uniform noise that the float type holds exactly, the smallest and the largest value among it."""
    u = random(6, *seed).random(shape).astype(dtype)
    u.flat[0] = 0.0
    u.flat[-1] = _below_one(dtype)
    return u.astype(np.float64)


def _below_one(dtype: str) -> np.ndarray:
    """The largest uniform number."""
    return np.nextafter(np.ones((), dtype), np.zeros((), dtype))


def _t_of_elements(seed: int) -> np.ndarray:
    """One t per element, among them 1 and T."""
    t = random(7, seed).integers(1, T + 1, (B, *S))
    t[0, 0, 0] = 1
    t[0, 1] = 1
    t[1, 0, 0] = T
    return t


SITUATIONS = (  # t, kind of logits, belief
    (np.array([1, 4, T]), "moderate", "d3pm"),
    (np.array(1), "holes", "d3pm"),
    (np.array(T), "large", "d3pm"),
    (_t_of_elements(0), "holes", "d3pm"),
    (_t_of_elements(1), "large", "d3pm"),
    (_t_of_elements(2), "moderate", "d3pm"),
    (_t_of_elements(3), "holes", "official"),
    (_t_of_elements(4), "moderate", "official"),
    (_t_of_elements(5), "holes", "denoiser"),
    (_t_of_elements(6), "moderate", "leave_one_out"),
)


# What would be compiled once more for every other family: t of every shape, for the first of these in float64
# (the tests of d3pm_jax alone have a dense process too), and the other beliefs in float32, for both.
ALL_SITUATIONS = ("marginal", "dense")
# What `make test` has: each kind of table, each rule once, and a t for each element. The tests of d3pm_jax
# alone hold every family, every rule and t of every shape to the definition; each would be a program more.
APART = ("uniform", "absorbing", "absorbing_extra", "masked_dense")
QUICK = tuple(name for name in FAMILIES if name not in APART)
QUICK_BELIEFS = {"official": "marginal", "denoiser": "marginal", "leave_one_out": "dense"}
CHAINED = ("uniform", "absorbing_extra", "marginal", "masked", "gaussian", "dense")  # each kind once
EAGER = {"float64": ("dense", 3), "float32": ("marginal", 6)}  # the situation that runs without jit too


def situations(
    dtype: str, families: tuple[str, ...] = tuple(FAMILIES), quick: tuple[str, ...] = QUICK
) -> Iterator[Case]:
    """Everything that a kernel could ask for, for every family, shape of t and kind of logits."""
    for name in families:
        has_mask = name == "absorbing_extra"  # the category K - 1, which x_0 never is
        for i, (t, kind, belief) in enumerate(SITUATIONS):
            if t.ndim < 3 and not (name == ALL_SITUATIONS[0] and dtype == "float64"):
                continue
            is_quick = name in quick
            if belief != "d3pm":
                is_quick = is_quick and dtype == "float64" and name == QUICK_BELIEFS[belief]
                if name not in ALL_SITUATIONS and dtype != "float64":
                    continue
            x = logits(kind, (B, *S, K), dtype, i)
            if has_mask:
                x[..., K - 1] = -INF
            t_words = "each"
            if t.ndim < 2:
                t_words = str(t.tolist())
            args = {
                "process": Family(name, K, T),
                "x0": random(9, i).integers(0, K - has_mask, (B, *S)),
                "xt": random(10, i).integers(0, K, (B, *S)),
                "t": t,
                "logits_x0": x,
                "logits_prev": x,
                "log_p": x,
                "u": uniforms(dtype, (B, *S), i),
                "ce_weight": 0.01,
                "belief": belief,
            }
            yield Case(f"{name}, t {t_words}, {kind}, {belief}", args, (name, i) == EAGER[dtype], is_quick)


def taking(
    *names: str,
    t_of_elements: bool = False,
    families: tuple[str, ...] = tuple(FAMILIES),
    quick: tuple[str, ...] = QUICK,
    quick_beliefs: tuple[str, ...] = ("d3pm", *QUICK_BELIEFS),
) -> Callable[[str], Iterator[Case]]:
    """Situations cut down to the arguments of a kernel, equal ones once.

    With t_of_elements, those that have a t for each element only.
    """

    def cases(dtype: str) -> Iterator[Case]:
        seen = set()
        for case in situations(dtype, families, quick):
            if t_of_elements and case.args["t"].ndim != 1 + len(S):
                continue
            args = {name: case.args[name] for name in names}
            is_quick = case.quick and case.args["belief"] in quick_beliefs
            if "t" in names:
                is_quick = is_quick and args["t"].ndim == 1 + len(S)
            content = repr([_plain(x) for x in args.values()])
            if content not in seen:
                seen.add(content)
                yield case._replace(args=args, quick=is_quick)

    return cases


def _plain(x: Any) -> Any:
    """An array as lists, whose `repr` leaves no number out."""
    if isinstance(x, np.ndarray):
        return x.tolist()
    return x


def from_clean(*names: str, quick: tuple[str, ...] = QUICK) -> Callable[[str], Iterator[Case]]:
    """The cases of `taking`, and those of t - 1, for kernels that also know t = 0."""

    def cases(dtype: str) -> Iterator[Case]:
        for case in taking(*names, quick=quick)(dtype):
            yield case
            earlier = np.asarray(case.args["t"] - 1)
            yield case._replace(name=f"{case.name}, t - 1", args=case.args | {"t": earlier})

    return cases


def tables(*families: str) -> Callable[[str], Iterator[Case]]:
    """Every step of a process at once."""

    def cases(dtype: str) -> Iterator[Case]:
        for name in families:
            yield Case(name, {"process": Family(name, K, T), "t": np.arange(T + 1)})

    return cases


def positional(dtype: str) -> Iterator[Case]:
    """Sequences of T elements, two in an example, with a t for all, for each example, for each sequence."""
    shape = (B, 2, T)
    for name in POSITIONAL:
        last = T
        if name == "autoregressive_short":
            last = 3
        t_of_sequences = random(7).integers(1, last + 1, (B, 2))
        for i, t in enumerate([np.array([1, 2, last]), np.array(last), t_of_sequences]):
            args = {
                "process": Family(name, K, T),
                "logits_x0": logits(KINDS[i], (*shape, K), dtype),
                "x0": random(9).integers(0, K, shape),
                "xt": random(10).integers(0, K, shape),
                "t": t,
                "u": uniforms(dtype, shape),
            }
            quick = name == "autoregressive" and t.ndim == 2
            yield Case(f"{name}, t {t.tolist()}, {KINDS[i]}", args, i == 0 and not quick, quick)


def by_place(dtype: str) -> Iterator[Case]:
    """What each place can be, in x_t the mask too where there is one; each belief once."""
    beliefs = ("d3pm", "leave_one_out", "denoiser", "official")
    for i, (name, belief) in enumerate(zip(BY_PLACE, beliefs, strict=True)):
        has_mask = name in ("by_place_absorbing", "by_place_masked")
        sizes = np.broadcast_to(sizes_of_places(K - has_mask), (B, *S))
        x0 = random(9, i).integers(0, sizes)
        xt = random(10, i).integers(0, sizes)
        if has_mask:
            xt = np.where(random(41, i).random(xt.shape) < 0.5, K - 1, xt)
        x = logits("moderate", (B, *S, K), dtype, 42, i)
        x[np.arange(K) >= sizes[..., None]] = -INF
        args = {
            "process": Family(name, K, T),
            "logits_x0": x,
            "x0": x0,
            "xt": xt,
            "t": _t_of_elements(i),
            "u": random(43, i).random((B, *S)),
            "belief": belief,
            "mask_id": K - 1 if has_mask else None,
        }
        yield Case(f"{name}, {belief}", args, eager=False, quick=name == "by_place_marginal")


def log_arrays(*names: str) -> Callable[[str], Iterator[Case]]:
    """Rows of logs of each kind, [4, 3, K]."""

    def cases(dtype: str) -> Iterator[Case]:
        for kind in KINDS:
            yield Case(kind, {n: logits(kind, (4, 3, K), dtype, i) for i, n in enumerate(names)})

    return cases


def log_pairs(*names: str) -> Callable[[str], Iterator[Case]]:
    """Two arrays of normalised logs, of every two kinds, and twice the same."""

    first, second = names

    def cases(dtype: str) -> Iterator[Case]:
        for kind, other_kind in product(KINDS, KINDS):
            x = normalised(kind, (4, 3, K), dtype, 0)
            y = normalised(other_kind, (4, 3, K), dtype, 1)
            yield Case(f"{kind}, {other_kind}", {first: x, second: y})
            if kind == other_kind:
                yield Case(f"{kind} twice", {first: x, second: x})

    return cases


def log_matmul(dtype: str) -> Iterator[Case]:
    table = random(11).random((2, K, 4)) * (random(12).random((2, K, 4)) < 0.5)
    for kind in KINDS:
        x = logits(kind, (2, 3, K), dtype)
        yield Case(f"{kind}, batch", {"log_p": x, "table": table}, eager=kind == "holes")
        yield Case(f"{kind}, one matrix", {"log_p": x[0], "table": table[1]}, eager=False)


def categorical(dtype: str) -> Iterator[Case]:
    for kind in KINDS:
        x = logits(kind, (40, 10, K), dtype)
        yield Case(kind, {"log_p": x, "u": uniforms(dtype, (40, 10))})
        near = at_boundaries(scales.cdf(torch.as_tensor(x.astype(dtype), dtype=torch.float64)), dtype)
        yield Case(f"{kind}, u at the boundaries", {"log_p": x, "u": near})


def draws(
    from_what: str, cdf: Callable[..., torch.Tensor], quick: tuple[str, ...] = QUICK
) -> Callable[[str], Iterator[Case]]:
    """Any u, and u at the boundaries; each family has its own rule which category a u yields.

    Args:
        from_what: the name of the argument that holds the categories to begin from.
        cdf: of the arguments, where along u the result changes.
        quick: the families that are in the quick cases.
    """

    def cases(dtype: str) -> Iterator[Case]:
        for case in from_clean("process", "x0", "t", "u", quick=quick)(dtype):
            arguments = dict(case.args)
            arguments[from_what] = arguments.pop("x0")
            yield case._replace(args=arguments)
            with precision("float64"):
                args = {k: to_torch(v) for k, v in arguments.items()}
                args["process"] = build("torch", arguments["process"], "float64")
                near = at_boundaries(cdf(**args), dtype)
            yield case._replace(name=f"{case.name}, u at the boundaries", args=arguments | {"u": near})

    return cases


def at_boundaries(cdf: torch.Tensor, dtype: str) -> np.ndarray:
    """For each row some value of the cumulative distribution, less or more 1e-12 of it."""
    K = cdf.shape[-1]
    k = random(18).integers(0, K, (*cdf.shape[:-1], 1))
    side = 1 + random(19).choice([-1e-12, 1e-12], cdf.shape[:-1])
    u = np.take_along_axis(cdf.numpy(), k, -1)[..., 0] * side
    return np.minimum(u.astype(dtype), _below_one(dtype)).astype(np.float64)


def log_prob(dtype: str) -> Iterator[Case]:
    for case in log_arrays("logits")(dtype):
        yield Case(case.name, case.args | {"k": random(13).integers(0, K, (4, 3))})


def respaced(*families: str) -> Callable[[str], Iterator[Case]]:
    """A process, and which of its steps to keep."""

    def cases(dtype: str) -> Iterator[Case]:
        for name in families:
            yield Case(name, {"process": Family(name, K, T), "grid": (1, 4, 5, T)})

    return cases


def residual(dtype: str) -> Iterator[Case]:
    for case in log_arrays("output")(dtype):
        yield Case(case.name, case.args | {"xt": random(13).integers(0, K, (4, 3))})


def forbid(dtype: str) -> Iterator[Case]:
    for case in log_arrays("logits")(dtype):
        for mask_id in (0, 2, K - 1):
            yield Case(f"{case.name}, mask {mask_id}", case.args | {"mask_id": mask_id})


def forbid_beyond(dtype: str) -> Iterator[Case]:
    for case in log_arrays("logits")(dtype):
        for i, sizes in enumerate((np.array([K, 2, K - 1]), random(44).integers(1, K + 1, (4, 3)))):
            yield Case(f"{case.name}, sizes {i}", case.args | {"sizes": sizes})


def bits_per_dim(dtype: str) -> Iterator[Case]:
    yield Case("nats", {"nats": random(14).exponential(1e3, (B,)), "D": 3072})


def uniform_steps(dtype: str) -> Iterator[Case]:
    for T in (1, 7, 1000):
        yield Case(f"T = {T}", {"u": uniforms(dtype, (500,), T), "T": T})


def low_discrepancy(dtype: str) -> Iterator[Case]:
    for i, (B, T) in enumerate([(1, 7), (8, 7), (64, 1000), (100, 1000)]):
        yield Case(f"B = {B}, T = {T}", {"u": np.array(random(15, i).random()), "B": B, "T": T})


def antithetic(dtype: str) -> Iterator[Case]:
    for i, B in enumerate([1, 8, 100]):
        u = np.asarray([0.0, 0.3, np.nextafter(np.float32(1), 0)][i], np.float64)
        yield Case(f"B = {B}, u = {u:.3g}", {"u": u, "B": B})


def schedule(**kwargs: float) -> Callable[[str], Iterator[Case]]:
    """A schedule for several T, with its default values and with these."""

    def cases(dtype: str) -> Iterator[Case]:
        for T in (1, 2, 50, 1000):
            yield Case(f"T = {T}", {"T": T})
            if kwargs:
                yield Case(f"T = {T}, {kwargs}", {"T": T, **kwargs})

    return cases


def graph(dtype: str) -> Iterator[Case]:
    """Points of which two are the same, and a star, whose graph only has edges to its centre."""
    for weights in (None, "rank", "gaussian"):
        yield Case(f"random points, {weights}", {"embeddings": embeddings(17), "k": 3, "weights": weights})
    star = np.concatenate([np.zeros((1, 4)), np.eye(4)])
    yield Case("star", {"embeddings": star, "k": 1, "weights": None})


def level_rates(dtype: str) -> Iterator[Case]:
    """One level, and several of which one has the rate 0."""
    for rates in ([2.0], [0.1, 0.3, 0.0, 1.5]):
        yield Case(f"{rates}", {"level_rates": np.array(rates)})


def resampled(dtype: str) -> Iterator[Case]:
    """Exponents from the start of a chain to its end; a mask that the data has not, and any distribution."""
    p0 = random(21).dirichlet(np.ones(K))
    s = np.array([[0.0, 1e-6, 0.1], [2.0, 30.0, INF]])
    yield Case("mask", {"s": s, "p0": np.append(p0, 0.0), "pi": np.eye(K + 1)[K]})
    yield Case("any", {"s": s, "p0": p0, "pi": random(22).dirichlet(np.ones(K))})


def by_rate(dtype: str) -> Iterator[Case]:
    """Exponents from the start of a chain to where it has forgotten all."""
    moves = random(23).random((K, K)) * (random(24).random((K, K)) < 0.5)
    s = np.array([[0.0, 1e-6, 0.1], [2.0, 10.0, 30.0]])
    args = {"s": s, "p0": random(21).dirichlet(np.ones(K)), "rate": moves - np.diag(moves.sum(1))}
    yield Case("some rates 0", args)


def points(dtype: str) -> Iterator[Case]:
    """Points of which two are the same."""
    yield Case("random points", {"embeddings": embeddings(17)})


def distances(**kwargs: float) -> Callable[[str], Iterator[Case]]:
    """Distances that rise, two of them the same."""

    def cases(dtype: str) -> Iterator[Case]:
        d = np.sort(random(20).exponential(size=(6, 9)), axis=1)
        d[:, 3] = d[:, 2]
        yield Case(f"distances, {kwargs}", {"distances": d, **kwargs})

    return cases


def falling(dtype: str) -> Iterator[Case]:
    """Any alpha_bar: to something and to nothing."""
    for T_ in (1, 50):
        alpha_bar = np.sort(random(18, T_).random(T_ + 1))[::-1] / np.arange(1, T_ + 2)
        for last in (alpha_bar[-1], 0.0):
            values = np.array([1.0, *alpha_bar[1:-1], last])
            yield Case(f"T = {T_}, to {last:.2g}", {"alpha_bar": values})


def reverse_chain(family: Family, dtype: str) -> dict[str, Any]:
    """Noise for every t, and a denoiser that is a table: its logits for each t and x_t, [T + 1, K, K]."""
    table = logits("moderate", (family.T + 1, family.K, family.K), dtype, family.T)
    if family.name == "absorbing_extra":
        table[..., family.K - 1] = -INF
    noise = random(16, family.T).random((family.T + 1, B, *S))
    return {"process": family, "logits": table, "uniforms": noise}


def ancestral(dtype: str) -> Iterator[Case]:
    """Reverse chains: of every family, with known places, guided, and one that fails."""
    for family, belief in chains(200):
        record = (0, 1, family.T // 2, family.T)
        yield chain_case(family, dtype, record=record, belief=belief)

    short = {"record": (0, 2, T)}
    rng = random(36)
    places = {"x0": rng.integers(0, K - 1, (B, *S)), "known": rng.integers(0, 2, (B, *S))}
    for name, belief in (("uniform", "denoiser"), ("absorbing_extra", "d3pm"), ("gaussian", "leave_one_out")):
        args = reverse_chain(Family(name, K, T), dtype) | short | places | {"belief": belief}
        yield Case(f"{name}, {belief}, known places", args, quick=name == "absorbing_extra")

    for name, gamma, late, options in (
        ("uniform", 1.5, None, {}),
        ("absorbing_extra", 3.0, 4, {}),
        ("gaussian", -1.0, None, places),
    ):
        args = reverse_chain(Family(name, K, T), dtype) | short | options
        guidance = {"null_logits": logits("moderate", (T + 1, K, K), dtype, 38), "gamma": gamma, "late": late}
        args |= {"belief": "leave_one_out"} | guidance
        case = f"{name}, gamma = {gamma}, late = {late}" + ", known places" * len(options)
        yield Case(case, args, eager=False, quick=name == "uniform")

    # The last step has no law: the network says nothing of x_0.
    args = reverse_chain(Family("uniform", K, T), dtype) | short | {"belief": "leave_one_out"}
    silent = np.array(args["logits"])
    silent[1] = -INF
    args |= {"logits": silent}
    yield Case("uniform, no law", args, eager=False, quick=False)


def all_t_bound(dtype: str) -> Iterator[Case]:
    for family, belief in chains():
        x0 = random(17).integers(0, family.K - (family.name == "absorbing_extra"), (B, *S))
        yield chain_case(family, dtype, x0=x0, belief=belief, weight=weights())


def weights() -> np.ndarray:
    """0, 1/2 and 1 for each element."""
    return random(37).integers(0, 3, (B, *S)) / 2


def chains(*longer: int) -> Iterator[tuple[Family, str]]:
    """(process, belief): every family for T = 50, one for T = 7 and each longer T."""
    yield Family("uniform", K, T), "official"
    for name in CHAINED:
        yield Family(name, 17, 50), "d3pm"
    for T_ in longer:
        yield Family("gaussian", 17, T_), "d3pm"


def chain_case(family: Family, dtype: str, **args: Any) -> Case:
    """A case of a kernel that takes every step."""
    name = f"{family.name}, K = {family.K}, T = {family.T}, {args['belief']}"
    args = reverse_chain(family, dtype) | args
    return Case(name, args, eager=family.T == T, quick=family.T == T)


def p_sample(dtype: str) -> Iterator[Case]:
    """One step from random x_t, and from every x_t of a whole chain: it is `p_logits` and `categorical`."""
    names = ("process", "logits_x0", "xt", "t", "u", "belief")
    one_step = taking(
        *names, t_of_elements=True, families=ALL_SITUATIONS, quick=("dense",), quick_beliefs=("d3pm",)
    )
    yield from one_step(dtype)
    for name in CHAINED:
        family = Family(name, 17, 50)
        chain = reverse_chain(family, dtype)
        xt = chain_states(family)  # [T, B, *S]
        t = np.arange(1, family.T + 1)  # [T]
        args = {
            "process": family,
            "logits_x0": chain["logits"][t[:, None, None, None], xt],
            "xt": xt,
            "t": t,
            "u": chain["uniforms"][1:],
            "belief": "d3pm",
        }
        name_of_case = f"{name}, K = 17, T = 50, along a chain"
        yield Case(name_of_case, args, eager=False, quick=name in ("marginal", "masked", "gaussian"))


@cache
def chain_states(family: Family) -> np.ndarray:
    """x_t for t = 1..T of one reverse chain, [T, B, *S]."""
    with precision("float64"):
        process = build("torch", family, "float64")
        args = {k: torch.as_tensor(v) for k, v in reverse_chain(family, "float64").items() if k != "process"}
        denoiser = torch_ref.Denoiser(process, lambda xt, ts: args["logits"][ts[:, None, None], xt])
        xT = process.draw_prior(args["uniforms"][0])
        chain = torch_ref.sampling.run(
            denoiser, xT, lambda t, stream: args["uniforms"][t], record=range(1, family.T + 1)
        )
    return chain.states.numpy()
