"""Arguments of heads, losses, timesteps and bounds beside those of `cases`."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from parity_tests.cases import B, Case, K, S, T, logits, reverse_chain, taking, uniforms, weights
from parity_tests.families import Family, random


def logistic(dtype: str) -> Iterator[Case]:
    """loc and log_scale of every sign and size, K odd and even."""
    loc = random(20).uniform(-1.5, 1.5, (4, 3))
    log_scale = random(21).uniform(-4.0, 2.0, (4, 3))
    for bins in (2, 17):
        yield Case(f"K = {bins}", {"loc": loc, "log_scale": log_scale, "K": bins})


def bounded_logistic(dtype: str) -> Iterator[Case]:
    """The location and scale of `logistic` in one array."""
    for case in logistic(dtype):
        output = np.stack([case.args["loc"], case.args["log_scale"]], axis=-1)
        yield case._replace(args={"output": output, "K": case.args["K"]})


def residual_logistic(dtype: str) -> Iterator[Case]:
    for case in bounded_logistic(dtype):
        xt = random(39).integers(0, case.args["K"], case.args["output"].shape[:-1])
        yield case._replace(args=case.args | {"xt": xt})


def smoothed(dtype: str) -> Iterator[Case]:
    """All mass allowed, and none for a mask."""
    for case in taking("process", "logits_x0", "x0")(dtype):
        if case.args["process"].name == "absorbing_extra":
            yield case._replace(args=case.args | {"smoothing": 0.1, "mask_id": K - 1}, quick=True)
        if case.args["process"].name == "gaussian":
            yield case._replace(args=case.args | {"smoothing": 0.2})


def stochastic_bound(dtype: str) -> Iterator[Case]:
    for case in taking("process", "x0")(dtype):
        if case.args["process"].name in ("uniform", "dense_prior"):
            args = {"kl": random(22).exponential(3.0, (B, *S)), "p_t": random(23).dirichlet(np.ones(B))}
            yield case._replace(args=case.args | args)


def weighted(dtype: str) -> Iterator[Case]:
    """The terms and the probabilities of `stochastic_bound`."""
    args = next(stochastic_bound(dtype)).args
    yield Case("nats", {"x": args["kl"], "p_t": args["p_t"], "T": T})


def histories(dtype: str) -> Iterator[Case]:
    """One step and several, seen often enough or not."""
    for steps, least in ((1, 11), (6, 11), (6, 5)):
        args = {
            "mean_square": random(24).exponential(9.0, steps),
            "counts": random(25).integers(least, 40, steps),
        }
        yield Case(f"T = {steps}, at least {least}", args)


def update(dtype: str) -> Iterator[Case]:
    for case in histories(dtype):
        steps = len(case.args["counts"])
        batch = {"t": random(27).integers(1, steps + 1, 8), "kl": random(28).exponential(3.0, 8)}
        yield case._replace(args=case.args | batch)


def importance(dtype: str) -> Iterator[Case]:
    for steps in (1, 100):
        p = random(26).dirichlet(np.ones(steps))
        yield Case(f"T = {steps}", {"u": uniforms(dtype, (400,), steps), "p": p})


def stratified(dtype: str) -> Iterator[Case]:
    for n, steps in ((1, 1), (3, 7), (7, 1000)):
        yield Case(f"n = {n}, T = {steps}", {"u": uniforms(dtype, (n, 50), steps), "T": steps})


def strata_bound(dtype: str) -> Iterator[Case]:
    """Three strata of all_t_bound; elsewhere u is far from where t changes."""
    family = Family("uniform", K, T)
    args = {"x0": random(17).integers(0, K, (B, *S)), "u": random(29).random((3, B)), "weight": weights()}
    yield Case("three strata", reverse_chain(family, dtype) | args)


def chain_rule(dtype: str) -> Iterator[Case]:
    """Orders with ties among them, and from left to right."""
    x0 = random(33).integers(0, K - 1, (B, *S))
    size = math.prod(S)
    orders = {
        "any order": random(35).integers(0, size, (B, *S)) / size,
        "left to right": np.broadcast_to(np.arange(size).reshape(S) / size, (B, *S)),
    }
    table = logits("moderate", (K, K), dtype, 34)
    for name, order in orders.items():
        yield Case(name, {"logits": table, "x0": x0, "order": order, "mask_id": K - 1})


def mixtures(dtype: str) -> Iterator[Case]:
    """One law and several, some of them impossible, and for one example all."""
    nats = random(60).exponential(30.0, (4, *S))
    nats[random(61).random(nats.shape) < 0.3] = np.inf
    nats[:, 0, 0] = np.inf
    yield Case("M = 1", {"nats": nats[:1]}, eager=False)
    yield Case("M = 4", {"nats": nats})


def all_orders(dtype: str) -> Iterator[Case]:
    """The network and the examples of `chain_rule`."""
    case = next(chain_rule(dtype))
    args = {name: case.args[name] for name in ("logits", "x0", "mask_id")}
    yield Case("24 orders", args)


def fill_in_laws(dtype: str) -> Iterator[Case]:
    """Logits of a mask too, or none, and a mask in between."""
    for name, categories, mask_id in (("of a mask", 3, 2), ("of none", 3, 3), ("in between", 3, 1)):
        table = logits("moderate", (4, categories), dtype, 62)
        args = {"logits": table, "shape": (3, 1), "K": 2 + (mask_id == 3), "mask_id": mask_id}
        yield Case(name, args, quick=name == "of a mask")


def numbers_of_examples(dtype: str) -> Iterator[Case]:
    yield Case("K = 3", {"shape": (2, 1), "K": 3})


def chain_laws(dtype: str) -> Iterator[Case]:
    """Each belief once; all states of two elements."""
    families = {
        "uniform": "d3pm",
        "absorbing_extra": "leave_one_out",
        "dense": "denoiser",
        "masked": "official",
    }
    for name, belief in families.items():
        args = reverse_chain(Family(name, K, T), dtype)
        del args["uniforms"]
        yield Case(
            f"{name}, {belief}",
            args | {"shape": (1, 2), "belief": belief},
            eager=name == "uniform",
            quick=name == "dense",
        )


def paths(dtype: str) -> Iterator[Case]:
    """Each belief once; a family each that draws a step by a rule of its own."""
    families = {"marginal": "d3pm", "absorbing_extra": "leave_one_out", "dense": "denoiser", "masked": "d3pm"}
    for name, belief in families.items():
        x0 = random(17).integers(0, K - 1, (B, *S))
        args = reverse_chain(Family(name, K, T), dtype) | {"x0": x0, "belief": belief}
        yield Case(f"{name}, {belief}", args, eager=name == "marginal", quick=name == "marginal")


def conditionals(dtype: str) -> Iterator[Case]:
    """A law with examples that it never draws, one of which is asked for."""
    x = logits("moderate", (3**4,), dtype, 63)
    x[random(64).random(x.shape) < 0.2] = -np.inf
    x[0] = -np.inf
    x0 = random(65).integers(0, 3, (B, *S))
    x0[0] = 0
    log_law = x - np.logaddexp.reduce(x)
    yield Case("some", {"log_law": log_law, "x0": x0, "given": random(66).integers(0, 2, x0.shape), "K": 3})


def orders(dtype: str) -> Iterator[Case]:
    """Orders with ties, and what is given."""
    order = random(67).integers(0, 3, (B, *S, 2)) / 4
    yield Case("ties", {"order": order, "given": random(68).integers(0, 2, order.shape)})


def blocks(dtype: str) -> Iterator[Case]:
    """Orders with ties of blocks and inside of them."""
    block_order = random(69).integers(0, 3, (B, 4)) / 4
    yield Case("ties", {"block_order": block_order, "inner_order": random(70).integers(0, 4, (B, 4, *S)) / 4})


def layouts(dtype: str) -> Iterator[Case]:
    """Blocks of one place, of some and of all."""
    for block in (1, 2, 6):
        yield Case(f"block = {block}", {"length": 6, "block": block})


def times_of_blocks(dtype: str) -> Iterator[Case]:
    """Times up to 1, none of which a block moves to within rounding of 1."""
    for num_blocks in (1, 4):
        yield Case(
            f"{num_blocks} blocks", {"time": np.array([0.01, 0.33, 0.74, 1.0]), "num_blocks": num_blocks}
        )


def values(dtype: str) -> Iterator[Case]:
    yield Case("nats", {"x": random(30).exponential(3.0, 50)})


def levels(dtype: str) -> Iterator[Case]:
    yield Case("times", {"time": np.linspace(0.01, 0.98, 40)})


def continuous(*names: str) -> Callable[[str], Iterator[Case]]:
    """One time per example and one for all; logits of moderate size."""

    def cases(dtype: str) -> Iterator[Case]:
        times = {"linear": random(31).uniform(0.05, 0.95, B), "cosine": np.array(0.4)}
        masked = random(34).random((B, *S)) < 0.5
        for schedule, time in times.items():
            args = {
                "schedule": schedule,
                "logits_x0": logits("moderate", (B, *S, K), dtype, 32),
                "x0": random(33).integers(0, K - 1, (B, *S)),
                "xt": np.where(masked, K - 1, random(35).integers(0, K, (B, *S))),
                "time": time,
                "u": uniforms(dtype, (B, *S), 36),
                "mask_id": K - 1,
                "K": K,
            }
            if "mask_id" in names:
                args["logits_x0"][..., K - 1] = -np.inf  # an extra mask
            eager = (schedule == "linear") == (dtype == "float64")
            yield Case(schedule, {name: args[name] for name in ("schedule", *names)}, eager)

    return cases


def scored(*names: str) -> Callable[[str], Iterator[Case]]:
    """The cases of `continuous` with log scores in the place of logits."""

    def cases(dtype: str) -> Iterator[Case]:
        for case in continuous("logits_x0", *names)(dtype):
            args = dict(case.args)
            args["log_scores"] = np.where(np.isfinite(args["logits_x0"]), args["logits_x0"], 0.0)
            del args["logits_x0"]
            yield case._replace(args=args)

    return cases


def any_order(*names: str) -> Callable[[str], Iterator[Case]]:
    """No masks, some and all; without weights, and with a place of no weight."""

    def cases(dtype: str) -> Iterator[Case]:
        masked = random(34).random((B, *S)) < 0.5
        masked[0] = False
        args = {
            "logits_x0": logits("moderate", (B, *S, K), dtype, 32),
            "x0": random(33).integers(0, K - 1, (B, *S)),
            "n": random(37).integers(0, math.prod(S) + 1, B),
            "u": random(36).random((B, *S)),
            "mask_id": K - 1,
        }
        args["xt"] = np.where(masked, K - 1, args["x0"])
        args["logits_x0"][..., K - 1] = -np.inf  # an extra mask
        for name, weight in (("without weights", None), ("with weights", (args["u"] < 0.8) * 0.5)):
            args["weight"] = weight
            yield Case(name, {argument: args[argument] for argument in names})

    return cases


def gidd(*names: str) -> Callable[[str], Iterator[Case]]:
    """Two noises, at one time per example and at one for all; logits of moderate size, the mask forbidden."""

    def cases(dtype: str) -> Iterator[Case]:
        scheduled = continuous("mask_id", "logits_x0", "x0", "xt", "time", "u", "K")
        noises = {"linear": (0.3, 1.0), "cosine": (0.5, 2.0)}
        for case in scheduled(dtype):
            p_uniform, gamma = noises[case.args["schedule"]]
            args = {name: case.args[name] for name in names} | {"p_uniform": p_uniform, "gamma": gamma}
            yield case._replace(name=f"gamma = {gamma}", args=args)

    return cases


def log1mexp(dtype: str) -> Iterator[Case]:
    yield Case("both forms", {"log_x": np.linspace(-30.0, 5.0, 71)})


def best_grids(dtype: str) -> Iterator[Case]:
    """Costs without structure, for one step, for all steps, and for numbers between."""
    rng = np.random.default_rng(3)
    for T_, steps in ((1, 1), (6, 1), (6, 3), (6, 6), (40, 7)):
        yield Case(f"{steps} of T = {T_}", {"costs": rng.random((T_ + 1, T_ + 1)), "steps": steps})


def grids(dtype: str) -> Iterator[Case]:
    """One step, all steps, and numbers that do and do not divide T."""
    for T_, steps in ((1, 1), (7, 1), (7, 3), (7, 7), (1000, 50), (1000, 128)):
        yield Case(f"{steps} of T = {T_}", {"T": T_, "steps": steps})
