"""How a kernel of either library is called with the arguments of a case."""

import importlib
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import torch_ref
from d3pm_jax.sampling.noise import CLEAN
from parity_tests.frameworks import Function, flat
from parity_tests.samplers import make_sampler


def by_name(lib: ModuleType, name: str) -> Function:
    """The function itself: a flat name, or one behind its sub-packages and modules."""
    module, _, attribute = name.rpartition(".")
    if not module:
        return getattr(lib, name)
    return getattr(importlib.import_module(f"{lib.__name__}.{module}"), attribute)


def method(lib: ModuleType, name: str) -> Function:
    """f(process, ...) = process.name(...)."""
    return lambda process, **args: getattr(process, name.split(".")[1])(**args)


def all_tables(lib: ModuleType, name: str) -> Function:
    """The tables of a process that a constructor made, and the alpha_bar of one that has it."""

    def call(process: Any, t: Any) -> Any:
        tables = (process.Q(t), process.Qbar(t), process.log_prior())
        if hasattr(process, "alpha_bar"):
            tables += (process.alpha_bar,)
        return tables

    return call


def by_position(lib: ModuleType, name: str) -> Function:
    """The members of a process that has a matrix for each position, and what follows from them."""

    def call(process: Any, logits_x0: Any, x0: Any, xt: Any, t: Any, u: Any) -> Any:
        moved = lib.q_sample(process, x0, t, u)
        # Draws are compared as values here: 1.0 makes floats of them.
        return (
            process.log_q_probs(x0, t),
            process.log_q_back(xt, t),
            process.log_q_x0(xt, t),
            process.log_push(lib.log_normalize(logits_x0), t),
            process.log_prior(),
            process.draw_prior(u) * 1.0,
            process.draw_q(x0, t, u) * 1.0,
            process.draw_step(x0, t, u) * 1.0,
            lib.posterior_kl(process, logits_x0, x0, moved, t),
        )

    return call


def respaced_tables(lib: ModuleType, name: str) -> Function:
    """The tables of a process on a grid that is not even."""
    arange = torch.arange if lib is torch_ref else jnp.arange

    def call(process: Any, grid: tuple[int, ...]) -> Any:
        steps = arange(len(grid) + 1)
        return all_tables(lib, name)(lib.respace(process, grid), steps)

    return call


def of_numpy(lib: ModuleType, name: str) -> Function:
    """A function that takes NumPy arrays in either framework; weights of neighbours by name."""
    weights = {
        None: None,
        "rank": lib.processes.rank_weights,
        "gaussian": partial(lib.processes.gaussian_weights, scale=0.7),
    }

    def call(**args: Any) -> Any:
        arguments = {}
        for argument, x in args.items():
            if argument == "weights":
                x = weights[x]
            elif hasattr(x, "shape"):
                x = np.asarray(x)
            arguments[argument] = x
        return by_name(lib, name)(**arguments)

    return call


def on_host(lib: ModuleType, name: str) -> Function:
    """A function of alpha_bar, which is a NumPy array in d3pm_jax."""
    if lib is torch_ref:
        return by_name(lib, name)
    return lambda alpha_bar: by_name(lib, name)(np.asarray(alpha_bar))


def of_history(lib: ModuleType, name: str) -> Function:
    """The history is two arrays, in and out; counts come out as floats."""

    def call(mean_square: Any, counts: Any, **args: Any) -> Any:
        history = lib.timesteps.LossHistory(mean_square, counts)
        result = by_name(lib, name)(history, **args)
        if isinstance(result, tuple):
            return tuple(x * 1.0 for x in result)
        return result

    return call


def steps_alone(lib: ModuleType, name: str) -> Function:
    """The steps without their probabilities or the sizes of their strata, which follow from them."""
    return lambda **args: by_name(lib, name)(**args)[0]


def scheduled(lib: ModuleType, name: str) -> Function:
    """A function that takes a continuous schedule, here by its name."""
    return lambda schedule, **args: by_name(lib, name)(getattr(lib.schedules.continuous, schedule), **args)


def normalised_kl(lib: ModuleType, name: str) -> Function:
    """kl of normalised arguments, along which alone its gradient is defined."""
    return lambda log_q, log_p: lib.kl(lib.log_normalize(log_q), lib.log_normalize(log_p))


def of_normalised_q(lib: ModuleType, name: str) -> Function:
    """kl_logits of a normalised q, for which it is defined."""
    return lambda log_q, logits: lib.kl_logits(lib.log_normalize(log_q), logits)


def normalised_push(lib: ModuleType, name: str) -> Function:
    """log_push of normalised arguments, for which its result and gradient are defined."""
    return lambda process, log_p, t: process.log_push(lib.log_normalize(log_p), t)


def chain_by_table(lib: ModuleType, name: str) -> Function:
    """Ancestral sampling with a table of logits [T + 1, K, K] by t and x_t, and of noise by t."""

    def call(process: Any, logits: Any, uniforms: Any, record: tuple[int, ...], belief: str) -> Any:
        xT = process.draw_prior(uniforms[0])
        reverse = partial(lib.p_logits, belief=belief)
        return lib.ancestral(_denoise(logits), process, xT, lambda t: uniforms[t], record, reverse)

    return call


def infill_by_table(lib: ModuleType, name: str) -> Function:
    """Infilling with the denoiser and the noise of `chain_by_table`."""

    def call(process: Any, logits: Any, uniforms: Any, x0: Any, known: Any, record: tuple[int, ...]) -> Any:
        xT = process.draw_prior(uniforms[0])
        noise = uniforms.__getitem__
        return lib.sampling.infill(_denoise(logits), process, x0, known > 0, xT, noise, record)

    return call


def chain_by_sampler(lib: ModuleType, name: str) -> Function:
    """A sampler by its name, and a network that sees x_t, the place before each, and each place.

    Its logits are the sum of three tables: [T + 1, K, K] by t and x_t, [K, K] by x_t of the place before, and
    [*S, K] by the place. A time in [0, 1], of a schedule, is the step that it falls in.
    """

    def call(
        process: Any, sampler: str, logits: Any, neighbours: Any, places: Any, uniforms: Any, **args: Any
    ) -> Any:
        denoise = _denoise_with_neighbours(lib, process, logits, neighbours, places)
        if "known" in args:
            args["known"] = args["known"] > 0
        xT = process.draw_prior(uniforms[0, 0])
        slots = make_sampler(lib, sampler)
        return lib.sampling.run_sampler(slots, denoise, process, xT, lambda *at: uniforms[at], **args)

    return call


def edit_by_sampler(lib: ModuleType, name: str) -> Function:
    """An edit by a sampler and the network of `chain_by_sampler`."""

    def call(
        process: Any, sampler: str, logits: Any, neighbours: Any, places: Any, uniforms: Any, **args: Any
    ) -> Any:
        denoise = _denoise_with_neighbours(lib, process, logits, neighbours, places)
        if "known" in args:
            args["known"] = args["known"] > 0
        slots = make_sampler(lib, sampler)
        return lib.sampling.run_edit(slots, denoise, process, noise=lambda *at: uniforms[at], **args)

    return call


def _denoise_with_neighbours(
    lib: ModuleType, process: Any, logits: Any, neighbours: Any, places: Any
) -> Function:
    def denoise(xt: Any, time: Any) -> Any:
        in_line = xt.reshape(len(xt), -1)
        before = in_line[:, [-1, *range(in_line.shape[1] - 1)]].reshape(xt.shape)
        return _denoise(logits)(xt, _as_step(lib, time, process.T)) + neighbours[before] + places[None]

    return denoise


def guided_chain(lib: ModuleType, name: str) -> Function:
    """A sampler by its name, guided by a network that is told which of two tables it is, as inputs."""

    def call(
        process: Any, sampler: str, logits: Any, null_logits: Any, neighbours: Any, places: Any,
        uniforms: Any, gamma: float, on: str, late: int | None, **args: Any,
    ) -> Any:  # fmt: skip
        def network(xt: Any, time: Any, is_null: Any) -> Any:
            with_condition, without = (
                _denoise(table)(xt, time) + places[None] for table in (logits, null_logits)
            )
            shape = (len(xt), *(1,) * xt.ndim)
            return _where(lib)(is_null.reshape(shape) > 0, without, with_condition)

        is_null = uniforms[0, 0].reshape(uniforms.shape[2], -1)[:, 0] * 0
        denoise = lib.sampling.guidance.classifier_free(
            network, is_null, is_null + 1, gamma, on=on, late=late
        )
        return _run_guided(lib, process, sampler, denoise, uniforms, args)

    return call


def classified_chain(lib: ModuleType, name: str) -> Function:
    """A sampler by its name, guided by a classifier that is a table: see `by_table_of_weights`."""

    def call(
        process: Any, sampler: str, logits: Any, neighbours: Any, places: Any, uniforms: Any, weights: Any,
        gamma: float, exact: bool, **args: Any,
    ) -> Any:  # fmt: skip
        def denoise(xt: Any, time: Any) -> Any:
            return _denoise(logits)(xt, time) + places[None]

        log_prob = _log_prob(lib, weights)
        guided = lib.sampling.guidance.by_classifier(denoise, log_prob, gamma, exact)
        return _run_guided(lib, process, sampler, guided, uniforms, args)

    return call


def steered_chain(lib: ModuleType, name: str) -> Function:
    """Steering by the sum of weights [*S, K] by place and category, with the network of `chain_by_sampler`.

    Noise has a stream of the x_0 that are scored, and one of selections, behind all others.
    """

    def call(
        process: Any, sampler: str, logits: Any, neighbours: Any, places: Any, uniforms: Any, particles: int,
        weights: Any, **args: Any,
    ) -> Any:  # fmt: skip
        def denoise(xt: Any, time: Any) -> Any:
            in_line = xt.reshape(len(xt), -1)
            before = in_line[:, [-1, *range(in_line.shape[1] - 1)]].reshape(xt.shape)
            return _denoise(logits)(xt, time) + neighbours[before] + places[None]

        def noise(row: Any, stream: Any) -> Any:
            if isinstance(stream, int) and stream >= CLEAN:
                stream = uniforms.shape[1] - 2 + stream - CLEAN
            return uniforms[row, stream]

        if "known" in args:
            args["known"] = args["known"] > 0
        xT = process.draw_prior(uniforms[0, 0])
        xT = xT.reshape(-1, particles, *xT.shape[1:])
        slots = make_sampler(lib, sampler)
        steered = lib.sampling.run_steered(_score(weights), slots, denoise, process, xT, noise, **args)
        return tuple(x * 1.0 for x in steered)

    return call


def best_by_weights(lib: ModuleType, name: str) -> Function:
    """A function of a score, which is that of `steered_chain`."""

    def call(weights: Any, candidates: Any) -> Any:
        return tuple(x * 1.0 for x in by_name(lib, name)(_score(weights), candidates))

    return call


def _score(weights: Any) -> Function:
    """A score of examples: the sum of weights [*S, K] by place and category."""

    def score(x: Any) -> Any:
        in_line = x.reshape(len(x), -1)
        of_places = weights.reshape(-1, weights.shape[-1])
        total = of_places[0][in_line[:, 0]]
        for place in range(1, len(of_places)):
            total = total + of_places[place][in_line[:, place]]
        return total

    return score


def _run_guided(
    lib: ModuleType, process: Any, sampler: str, denoise: Any, uniforms: Any, args: dict[str, Any]
) -> Any:
    xT = process.draw_prior(uniforms[0, 0])
    slots = make_sampler(lib, sampler)
    return lib.sampling.run_sampler(slots, denoise, process, xT, lambda *at: uniforms[at], **args)


def by_table_of_weights(lib: ModuleType, name: str) -> Function:
    """A function of a classifier: log sigmoid of the sum of weights [T + 1, *S, K] by time and category."""
    return lambda weights, **args: by_name(lib, name)(_log_prob(lib, weights), **args)


def _log_prob(lib: ModuleType, weights: Any) -> Function:
    def log_prob(one_hots: Any, time: Any) -> Any:
        score = (one_hots * weights[time]).reshape(len(one_hots), -1).sum(-1)
        if lib is torch_ref:
            return torch.nn.functional.logsigmoid(score)
        return jax.nn.log_sigmoid(score)

    return log_prob


def _where(lib: ModuleType) -> Function:
    return torch.where if lib is torch_ref else jnp.where


def _as_step(lib: ModuleType, time: Any, T: int) -> Any:
    """The step that a time falls in; a step itself as it is."""
    if lib is torch_ref:
        return (time * T).ceil().long() if time.is_floating_point() else time
    return jnp.ceil(time * T).astype(jnp.int32) if jnp.issubdtype(time.dtype, jnp.floating) else time


def plan_by_sampler(lib: ModuleType, name: str) -> Function:
    """The rows of a sampler, by its name, as an array."""
    asarray = torch.tensor if lib is torch_ref else np.asarray

    def call(process: Any, sampler: str, shape: tuple[int, ...]) -> Any:
        return asarray(lib.sampling.make_plan(make_sampler(lib, sampler), process, shape))

    return call


def of_one_belief(lib: ModuleType, name: str) -> Function:
    """A law of the leave-one-out logits and of the denoiser that they make."""

    def call(process: Any, logits_loo: Any, xt: Any, t: Any, **args: Any) -> Any:
        log_denoiser = lib.sampling.laws.denoiser_of(process, logits_loo, xt, t, "leave_one_out")
        return by_name(lib, name)(process, logits_loo, log_denoiser, xt, t, **args)

    return call


def of_booleans(lib: ModuleType, name: str) -> Function:
    """A function of candidates, bool, whose result becomes whole numbers."""
    return lambda candidates, **args: by_name(lib, name)(candidates=candidates > 0, **args) * 1


def bound_by_table(lib: ModuleType, name: str) -> Function:
    """The bound of the denoiser of `chain_by_table`, with its noise."""

    def call(process: Any, logits: Any, uniforms: Any, x0: Any, belief: str, weight: Any) -> Any:
        term = partial(lib.posterior_kl, belief=belief)
        return lib.all_t_bound(_denoise(logits), process, x0, lambda t: uniforms[t], term, weight=weight)

    return call


def strata_by_table(lib: ModuleType, name: str) -> Function:
    """The stratified bound of the denoiser of `chain_by_table`, with its noise."""

    def call(process: Any, logits: Any, uniforms: Any, x0: Any, u: Any, weight: Any) -> Any:
        return lib.strata_bound(_denoise(logits), process, x0, u, lambda j: uniforms[j], weight=weight)

    return call


def chain_rule_by_table(lib: ModuleType, name: str) -> Function:
    """The chain rule of a network that sees the elements before each."""

    def call(logits: Any, x0: Any, order: Any, mask_id: int) -> Any:
        return lib.chain_rule(lambda xt: logits[xt].cumsum(1), x0, order, mask_id)

    return call


def _denoise(logits: Any) -> Function:
    return lambda xt, t: logits[t[:, None, None], xt]


def as_array(lib: ModuleType, name: str) -> Function:
    """A function that returns a list of whole numbers, which become an array."""
    asarray = torch.tensor if lib is torch_ref else np.asarray
    return lambda **args: asarray(by_name(lib, name)(**args))


def as_floats(lib: ModuleType, name: str) -> Function:
    """A function that also draws: draws are compared as values, and 1.0 makes floats of them."""
    return lambda **args: tuple(x * 1.0 for x in flat(by_name(lib, name)(**args)))


def conditioned(lib: ModuleType, name: str) -> Function:
    """A layer of a flow with a linear conditioner, and a transform or its inverse by name."""

    def call(weights: Any, **args: Any) -> Any:
        if "transform" in args:
            args["transform"] = transform(lib, args["transform"])
        if "inverse" in args:
            args["inverse"] = inverse(lib, args["inverse"])
        return by_name(lib, name)(linear_conditioner(lib, weights), **args)

    return call


def linear_conditioner(lib: ModuleType, weights: Any) -> Function:
    """[B, *S, n] -> [B, *S, m, P], linear in all numbers of an example; weights are [N, M, P]."""
    einsum = torch.einsum if lib is torch_ref else partial(jnp.einsum, precision="highest")

    def condition(v: Any) -> Any:
        params = einsum("bi,ijp->bjp", v.reshape(len(v), -1), weights)
        return params.reshape(*v.shape[:-1], -1, weights.shape[-1])

    return condition


def transform(lib: ModuleType, name: str) -> Function:
    """A transform of `elementwise` with its parameters in one array."""
    if name == "affine":
        return lambda v, params: lib.flows.affine(v, params[..., 0], params[..., 1])
    return getattr(lib.flows, name)


def inverse(lib: ModuleType, name: str) -> Function:
    """The inverse of a transform. That of a mixture has no gradient."""
    if name == "affine":
        return lambda z, params: lib.flows.invert_affine(z, params[..., 0], params[..., 1])
    constant = torch.Tensor.detach if lib is torch_ref else jax.lax.stop_gradient
    return lambda z, params: lib.flows.invert_mixture_affine(constant(z), constant(params))
