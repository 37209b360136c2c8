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
from parity_tests.cases import B
from parity_tests.frameworks import Function, flat


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


def kernels_by_place(lib: ModuleType, name: str) -> Function:
    """The kernels of a process that has another for each place, in one program."""

    def call(
        process: Any, logits_x0: Any, x0: Any, xt: Any, t: Any, u: Any, belief: str, mask_id: int | None
    ) -> Any:
        # Draws are compared as values here: 1.0 makes floats of them.
        return (
            process.log_q_probs(x0, t),
            process.log_q_back(xt, t),
            process.log_q_x0(xt, t),
            process.log_push(lib.log_normalize(logits_x0), t),
            process.draw_prior(u) * 1.0,
            process.draw_q(x0, t, u) * 1.0,
            process.draw_step(x0, t, u) * 1.0,
            lib.p_sample(process, logits_x0, xt, t, u, belief) * 1.0,
            lib.q_posterior(process, x0, xt, t),
            lib.p_logits(process, logits_x0, xt, t, belief),
            lib.beliefs.to_denoiser(process, logits_x0, xt, t),
            lib.beliefs.to_leave_one_out(process, logits_x0, xt, t),
            *lib.hybrid(process, logits_x0, x0, xt, t, 0.01, belief),
            lib.direct_kl(process, logits_x0, x0, xt, t),
            lib.losses.marginal_kl(process, logits_x0, x0, t),
            lib.smoothed_cross_entropy(process, logits_x0, x0, 0.1, mask_id),
            lib.prior_kl(process, x0),
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
    """An ancestral chain with a table of logits [T + 1, K, K] by t and x_t, and of noise by t.

    With x0 and known, numbers that are above 0 where it is, these places are known. With `null_logits` the
    table is that of a condition, and this one is without it.
    """

    def call(
        process: Any,
        logits: Any,
        uniforms: Any,
        record: tuple[int, ...],
        belief: str,
        x0: Any = None,
        known: Any = None,
        **guidance: Any,
    ) -> Any:
        network = _denoise(logits)
        if guidance:
            network = _guided_network(lib, logits, **guidance)
        places = None
        if known is not None:
            places = lib.sampling.Known(x0, known > 0)
        denoiser = lib.Denoiser(process, network, belief)
        xT = process.draw_prior(uniforms[0])
        chain = lib.sampling.run(denoiser, xT, lambda t, stream: uniforms[t], known=places, record=record)
        return chain.x0, chain.states, chain.failed_at

    return call


def _guided_network(
    lib: ModuleType, logits: Any, null_logits: Any, gamma: float, late: int | None
) -> Function:
    """A network of x_0 that is guided towards its condition by gamma, at times up to `late`.

    The twin combines what two tables say; JAX is told which table it is, in one call of both.
    """
    if lib is torch_ref:

        def combine(xt: Any, time: Any) -> Any:
            gammas = torch.full(time.shape, gamma)
            if late is not None:
                gammas[time > late] = 1.0
            with_condition = _denoise(logits)(xt, time)
            without = _denoise(null_logits)(xt, time)
            return lib.sampling.guidance.combine_logits(with_condition, without, gammas)

        return combine

    def network(xt: Any, time: Any, is_null: Any) -> Any:
        tables = jnp.stack([logits, null_logits])
        return tables[is_null[:, None, None], time[:, None, None], xt]

    with_condition = jnp.zeros(B, jnp.int32)
    return lib.sampling.guidance.classifier_free(
        network, with_condition, with_condition + 1, gamma, on="x_0", late=late
    )


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


def of_one_belief(lib: ModuleType, name: str) -> Function:
    """A law of the leave-one-out logits and of the denoiser that they make."""

    def call(process: Any, logits_loo: Any, xt: Any, t: Any, **args: Any) -> Any:
        log_denoiser = lib.beliefs.denoiser_of(process, logits_loo, xt, t, "leave_one_out")
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


def fill_in_by_table(lib: ModuleType, name: str) -> Function:
    """A function of a network that fills in, and sees the elements before each."""

    def call(logits: Any, **args: Any) -> Any:
        return by_name(lib, name)(lambda xt: logits[xt].cumsum(1), **args)

    return call


def law_by_table(lib: ModuleType, name: str) -> Function:
    """The law of the denoiser of `chain_by_table`, without its noise."""

    def call(logits: Any, **args: Any) -> Any:
        return by_name(lib, name)(_denoise(logits), **args)

    return call


def weight_by_table(lib: ModuleType, name: str) -> Function:
    """The weight of a path of the denoiser of `chain_by_table`, with its noise."""

    def call(logits: Any, uniforms: Any, **args: Any) -> Any:
        return by_name(lib, name)(_denoise(logits), noise=lambda t: uniforms[t], **args)

    return call


def with_given(lib: ModuleType, name: str) -> Function:
    """A function of what is given, here numbers that are above 0 there."""
    return lambda given, **args: by_name(lib, name)(given=given > 0, **args)


def _denoise(logits: Any) -> Function:
    return lambda xt, t: logits[t[:, None, None], xt]


def as_array(lib: ModuleType, name: str) -> Function:
    """A function that returns a list of whole numbers, which become an array."""
    asarray = torch.tensor if lib is torch_ref else np.asarray
    return lambda **args: asarray(by_name(lib, name)(**args))


def as_whole_numbers(lib: ModuleType, name: str) -> Function:
    """A function that returns booleans and whole numbers, all of which become whole numbers."""
    return lambda **args: tuple(x * 1 for x in flat(by_name(lib, name)(**args)))


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
