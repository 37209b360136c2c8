"""Arguments of what samplers are made of: laws, shaping, places, guidance and the selection of particles."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import torch_ref
from parity_tests.cases import KINDS, B, Case, K, S, T, logits, normalised, uniforms
from parity_tests.families import Family, build, random
from parity_tests.frameworks import precision

INF = np.inf
# Each kind of process that a law knows apart, and schedules that end early or begin slowly.
MIXING = ("marginal", "uniform", "absorbing_extra", "marginal_slow", "marginal_reset")
WITH_RATES = (*MIXING, "masked")
ANY = ("marginal", "uniform", "absorbing_extra", "masked", "gaussian")
HAS_MASK = ("absorbing_extra", "masked")  # the category K - 1, which x_0 never is


def steps_back(
    families: tuple[str, ...], *names: str, quick: str = "marginal", **options: Any
) -> Callable[[str], Iterator[Case]]:
    """Steps from x_t that some x_0 leads to, which the network believes in too: no law is empty.

    Args:
        families: of processes.
        names: of the arguments.
        quick: the family that is in the quick cases.
        options: names of other arguments, and the values that they take in turn, which is a program each: all
            of them in the first family, only the first in others.
    """

    def cases(dtype: str) -> Iterator[Case]:
        for family in families:
            for i, kind in enumerate(KINDS):
                args = _step_back(family, kind, dtype)
                args = {name: args[name] for name in names}
                turn = i if family == families[0] else 0
                values = {name: of_name[turn % len(of_name)] for name, of_name in options.items()}
                is_first = family == quick and i == 0
                name = f"{family}, {kind}" + "".join(f", {k} = {x}" for k, x in values.items())
                is_quick = family == quick and (i == 0 or not options)
                yield Case(name, args | values, eager=is_first, quick=is_quick)

    return cases


def _step_back(name: str, kind: str, dtype: str) -> dict[str, Any]:
    family = Family(name, K, T)
    shape = (B, *S)
    seed = KINDS.index(kind)
    t = random(50, seed).integers(1, T + 1, shape)
    t[0, 0] = (1, T)
    s = random(51, seed).integers(0, t)
    s[1, 0] = t[1, 0]
    has_mask = name in HAS_MASK
    x0 = random(52, seed).integers(0, K - has_mask, shape)
    logits_loo = logits(kind, (*shape, K), dtype, 53, seed)
    if has_mask:
        logits_loo[..., K - 1] = -INF
    at_x0 = np.take_along_axis(logits_loo, x0[..., None], -1)
    np.put_along_axis(logits_loo, x0[..., None], np.where(at_x0 == -INF, 1.0, at_x0), -1)

    with precision("float64"):
        process = build("torch", family, "float64")
        steps = torch.as_tensor(t)
        xt = process.draw_q(torch.as_tensor(x0), steps, torch.as_tensor(uniforms("float64", shape, seed)))
        evidence = process.log_q_x0(xt, steps)
    log_denoiser = torch_ref.log_normalize(torch.as_tensor(logits_loo) + evidence)
    share = random(54, seed).random(shape)
    share[0] = 0.0
    return {
        "process": family,
        "log_denoiser": log_denoiser.numpy(),
        "logits_loo": logits_loo,
        "logits": logits_loo,
        "xt": xt.numpy(),
        "t": t,
        "s": s,
        "before": np.minimum(s, t - 1),
        "share": share,
    }


def before(families: tuple[str, ...], *names: str) -> Callable[[str], Iterator[Case]]:
    """Steps with s below t."""

    def cases(dtype: str) -> Iterator[Case]:
        for case in steps_back(families, *names, "before")(dtype):
            args = dict(case.args)
            args["s"] = args.pop("before")
            yield case._replace(args=args)

    return cases


def scored(*names: str) -> Callable[[str], Iterator[Case]]:
    """Log scores of a belief, off by some tenths."""

    def cases(dtype: str) -> Iterator[Case]:
        for case in steps_back(MIXING, "process", "log_denoiser", "logits_loo", "xt", "t", "s")(dtype):
            if not case.name.endswith("moderate"):
                continue
            args = dict(case.args)
            with precision("float64"):
                process = build("torch", args["process"], "float64")
                logits_loo, xt, t = (torch.as_tensor(args[name]) for name in ("logits_loo", "xt", "t"))
                log_scores = torch_ref.sampling.laws.log_ratios(process, logits_loo.double(), xt, t).numpy()
            if args["process"].name == "absorbing_extra":
                log_scores = args["log_denoiser"]
            off = random(60).normal(size=log_scores.shape) * 0.3
            args["log_scores"] = (log_scores + off).astype(dtype)
            yield case._replace(args={name: args[name] for name in names})

    return cases


def remasked(dtype: str) -> Iterator[Case]:
    """None, and parts of the largest probability of masking again."""
    for case in steps_back(
        ("absorbing_extra",), "process", "log_denoiser", "xt", "t", "s", "share", quick="absorbing_extra"
    )(dtype):
        args = dict(case.args)
        with precision("float64"):
            process = build("torch", args["process"], "float64")
            most = torch_ref.sampling.laws.most_remasked(
                process, torch.as_tensor(args["t"]), torch.as_tensor(args["s"])
            )
        args["sigma"] = args.pop("share") * most.numpy()
        yield case._replace(args=args)


def noised_again(dtype: str) -> Iterator[Case]:
    """Steps from s up to t."""
    for case in steps_back(MIXING, "process", "xt", "t", "s")(dtype):
        args = case.args
        yield case._replace(args=args | {"t": args["s"], "s": args["t"]})


def with_mask(dtype: str) -> Iterator[Case]:
    for name in ("absorbing", "absorbing_extra", "masked"):
        yield Case(name, {"process": Family(name, K, T)}, quick=name == "absorbing")


def rates(dtype: str) -> Iterator[Case]:
    """Logs of rates, -inf at x_t and elsewhere, whose sum is above 1 in some rows."""
    xt = random(55).integers(0, K, (4, 3))
    log_rate = random(56).normal(size=(4, 3, K)) * 2 - 3 * random(57).random((4, 3, 1))
    log_rate[random(58).random(log_rate.shape) < 0.3] = -INF
    log_rate[0, 0] = -INF
    log_rate[0, 1] = -INF
    log_rate[0, 1, (xt[0, 1] + 1) % K] = -1e-3
    np.put_along_axis(log_rate, xt[..., None], -INF, -1)
    yield Case("rates", {"log_rate": log_rate, "xt": xt})


def laws_of_leaving(dtype: str) -> Iterator[Case]:
    """Laws that stay for certain, never, and now and then."""
    xt = random(55).integers(0, K, (4, 3))
    for kind in KINDS:
        yield Case(kind, {"log_p": normalised(kind, (4, 3, K), dtype, 59), "xt": xt}, eager=kind == "holes")


def by_belief(*families: str) -> Callable[[str], Iterator[Case]]:
    return steps_back(families, "process", "logits", "xt", "t", belief=("d3pm", "denoiser", "official"))


# ---- Shaping ----


def shaped(name: str, *values: float) -> Callable[[str], Iterator[Case]]:
    """Rows of each kind, among them equal logits."""

    def cases(dtype: str) -> Iterator[Case]:
        for kind in KINDS:
            x = logits(kind, (4, 3, K), dtype, 60)
            x[2] = np.round(x[2])
            x[3, 0] = 0.0
            for value in values:
                is_first = kind == "holes" and value == values[0]
                yield Case(f"{kind}, {name} = {value}", {"logits": x, name: value}, is_first, is_first)

    return cases


# ---- Places ----

NUM_PLACES = 6


def scores(*names: str) -> Callable[[str], Iterator[Case]]:
    """Scores of which some are equal and some infinite; examples with all places, some and none."""

    def cases(dtype: str) -> Iterator[Case]:
        score = random(61).normal(size=(B, NUM_PLACES))
        score[1] = np.round(score[1])
        score[2, :2] = (-INF, INF)
        candidates = random(62).random((B, NUM_PLACES)) < 0.6
        candidates[0] = True
        for i in range(2):
            args = {"score": score, "candidates": candidates, "count": np.array([2, 0, NUM_PLACES])}
            yield Case(f"scores {i}", {name: args[name] for name in names}, eager=i == 0)
            candidates = candidates & (np.arange(B) > 0)[:, None]

    return cases


def tables_of_counts(dtype: str) -> Iterator[Case]:
    """Every number of rows up to 200, and one of a long run."""
    for rows in (*range(1, 200, 7), 1000):
        yield Case(f"{rows} rows", {"n": 66, "rows": rows}, quick=rows < 30)


def falling_probabilities(name: str, *values: float) -> Callable[[str], Iterator[Case]]:
    """Probabilities in falling order, 1 and 0 among them, and 0 behind the candidates."""

    def cases(dtype: str) -> Iterator[Case]:
        probability = -np.sort(-random(63).random((5, NUM_PLACES)), axis=-1)
        probability[0, :2] = 1.0
        probability[1, 3:] = 0.0
        probability[2] = 0.0
        probability[3] = 0.5
        for value in values:
            args = {"probability": probability, name: value}
            yield Case(f"{name} = {value}", args, quick=value == values[0])

    return cases


def rising_entropies(dtype: str) -> Iterator[Case]:
    """Entropies in rising order, 0 among them, and +inf behind the candidates."""
    entropy = np.sort(random(64).random((5, NUM_PLACES)), axis=-1)
    entropy[0, :2] = 0.0
    entropy[1, 3:] = INF
    entropy[2] = 0.0
    for bound in (0.5, 0.0):
        yield Case(f"bound = {bound}", {"entropy": entropy, "bound": bound}, quick=bound == 0.5)
    yield Case("no bound", {"entropy": entropy, "bound": np.array(INF)}, quick=False)


def hitting(dtype: str) -> Iterator[Case]:
    """Every number of masks, none too."""
    args = {"masked_share": random(65).random(9), "left": np.arange(9), "u": uniforms(dtype, (9,), 66)}
    yield Case("up to eight masks", args)


def shares_of_time(dtype: str) -> Iterator[Case]:
    for schedule in ("linear", "cosine", "polynomial"):
        share = np.concatenate([random(67).random(6), [0.0, 1.0, 1e-6]])
        yield Case(schedule, {"schedule": schedule, "masked_share": share}, quick=schedule == "cosine")


# ---- Guidance ----


def guided_logits(dtype: str) -> Iterator[Case]:
    """Logits with a condition and without it, of each kind, and gamma by example."""
    for kind in KINDS:
        args = {
            "logits": logits(kind, (B, *S, K), dtype, 80),
            "null_logits": logits(kind, (B, *S, K), dtype, 81),
        }
        for name, gamma in (("by example", np.linspace(-1.0, 3.0, B)), ("of all", 2.0)):
            is_first = kind == "holes" and name == "by example"
            yield Case(f"{kind}, gamma {name}", args | {"gamma": gamma}, is_first, is_first)


def tilted_logits(dtype: str) -> Iterator[Case]:
    """A law and likelihoods of each kind."""
    for kind in KINDS:
        args = {
            "log_p": normalised(kind, (B, *S, K), dtype, 82),
            "log_likelihood": logits(kind, (B, *S, K), dtype, 83),
        }
        for gamma in (1.5, -0.5):
            is_first = kind == "holes" and gamma == 1.5
            yield Case(f"{kind}, gamma = {gamma}", args | {"gamma": gamma}, is_first, is_first)


def pairs_of_laws(dtype: str) -> Iterator[Case]:
    """Two laws of each kind, and the same one twice."""
    for kind in KINDS:
        log_p = normalised(kind, (B, *S, K), dtype, 86)
        log_q = normalised(kind, (B, *S, K), dtype, 87)
        yield Case(kind, {"log_p": log_p, "log_q": log_q}, kind == "holes", kind == "holes")
        yield Case(f"{kind}, the same", {"log_p": log_p, "log_q": log_p}, False, False)


def drafts(dtype: str) -> Iterator[Case]:
    """Two laws of each kind, and the likeliest category of the first, of which every row has one."""
    for case in pairs_of_laws(dtype):
        log_p = case.args["log_p"]
        log_p = np.where(np.isfinite(log_p).any(axis=-1, keepdims=True), log_p, -np.log(K)).astype(
            log_p.dtype
        )
        yield case._replace(args=case.args | {"log_p": log_p, "drafted": np.argmax(log_p, axis=-1)})


def classified(dtype: str) -> Iterator[Case]:
    """Categories and times, for a classifier that is a table: see `calls.by_table_of_weights`."""
    rng = random(84)
    args = {
        "weights": logits("moderate", (T + 1, *S, K), dtype, 85),
        "x": rng.integers(0, K, (B, *S)),
        "time": rng.integers(0, T + 1, B),
        "K": K,
    }
    yield Case("a sigmoid of a sum", args)


# ---- Steering ----


def resampled(dtype: str) -> Iterator[Case]:
    """Weights that are far apart, alike, zero but for some, and of a single particle."""
    log_weights = 2 * random(93).normal(size=(5, 6))
    log_weights[1] = 0.5
    log_weights[2, 1:4] = -INF
    log_weights[3] = -INF
    yield Case("six particles", {"log_weights": log_weights, "u": uniforms(dtype, (5,), 94)})
    yield Case(
        "one particle", {"log_weights": log_weights[:, :1], "u": uniforms(dtype, (5,), 95)}, quick=False
    )


def weighted(dtype: str) -> Iterator[Case]:
    """The weights of `resampled`."""
    for case in resampled(dtype):
        yield case._replace(args={"log_weights": case.args["log_weights"]})
