"""Every public kernel: its cases and the scale of its result, or the reason why it has no twin."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch

import d3pm_jax
import torch_ref
from d3pm_jax.transitions import Transition
from parity_tests import cases, loss_cases, scales
from parity_tests.cases import Case
from parity_tests.frameworks import Arguments, Function, flat

Maker = Callable[[str], Iterator[Case]]
Measure = Callable[[Function, Arguments], Any]  # of a call of the twin in float64


class Pair(NamedTuple):
    """How one kernel is compared with its twin."""

    cases: Maker
    scale: Measure | None = None  # of each float output; None: the outputs are integers
    gradient_scale: Measure | None = None  # None: as for the outputs
    cdf: Measure | None = None  # for draws: where along u the result changes
    call: Callable[[ModuleType, str], Function] = getattr
    dtypes: tuple[str, ...] = ("float64", "float32")
    jit: bool = True


def arguments(f: Callable[..., Any]) -> Measure:
    return lambda call, args: f(**args)


def result(f: Callable[..., Any]) -> Measure:
    return lambda call, args: f(*flat(call(**args)))


def of(*names: str) -> Measure:
    """The rows of the arguments of these names."""
    return lambda call, args: scales.rows(*(args[name] for name in names))


def method(lib: ModuleType, name: str) -> Function:
    """f(tr, ...) = tr.name(...)."""
    return lambda tr, **args: getattr(tr, name.split(".")[1])(**args)


def all_tables(lib: ModuleType, name: str) -> Function:
    """What a constructor made."""
    return lambda tr, t: (tr.Q(t), tr.Qbar(t), tr.log_prior())


def respaced_tables(lib: ModuleType, name: str) -> Function:
    """What it made, on a grid that is not even."""
    steps = torch.arange if lib is torch_ref else jnp.arange
    return lambda tr, grid: all_tables(lib, name)(lib.respace(tr, grid), steps(len(grid) + 1))


def of_numpy(lib: ModuleType, name: str) -> Function:
    """What takes NumPy arrays in either framework."""
    return lambda embeddings, k: getattr(lib, name)(np.asarray(embeddings), k)


def in_module(lib: ModuleType, name: str) -> Function:
    module, function = name.split(".")
    return getattr(getattr(lib, module), function)


def on_host(lib: ModuleType, name: str) -> Function:
    """A function of NumPy arrays in d3pm_jax."""
    return lambda alpha_bar: getattr(lib, name)(alpha_bar if lib is torch_ref else np.asarray(alpha_bar))


def of_history(lib: ModuleType, name: str) -> Function:
    """The history is two arrays, in and out; counts come out as floats."""

    def call(mean_square: Any, counts: Any, **args: Any) -> Any:
        found = in_module(lib, name)(lib.timesteps.LossHistory(mean_square, counts), **args)
        return tuple(x * 1.0 for x in found) if isinstance(found, tuple) else found

    return call


def steps_alone(lib: ModuleType, name: str) -> Function:
    """Not their probabilities or the sizes of their strata, which follow."""
    return lambda **args: in_module(lib, name)(**args)[0]


def scheduled(lib: ModuleType, name: str) -> Function:
    """With a schedule of the module, by name."""
    return lambda schedule, **args: in_module(lib, name)(getattr(lib.continuous, schedule), **args)


def normalised_kl(lib: ModuleType, name: str) -> Function:
    """Its gradient is defined along normalised arguments."""
    return lambda log_q, log_p: lib.kl(lib.log_normalize(log_q), lib.log_normalize(log_p))


def of_normalised_q(lib: ModuleType, name: str) -> Function:
    """It is defined for a normalised q."""
    return lambda log_q, logits: lib.kl_logits(lib.log_normalize(log_q), logits)


def normalised_push(lib: ModuleType, name: str) -> Function:
    """Its result and gradient are defined for normalised arguments."""
    return lambda tr, log_p, t: tr.log_push(lib.log_normalize(log_p), t)


def chain_by_table(lib: ModuleType, name: str) -> Function:
    """The denoiser is a table of logits [T + 1, K, K] by t and x_t; so is the noise, by t."""

    def call(tr: Any, logits: Any, uniforms: Any, record: tuple[int, ...], first_step: str) -> Any:
        xT = tr.draw_prior(uniforms[0])
        reverse = partial(lib.p_logits, first_step=first_step)
        return lib.ancestral(_denoise(logits), tr, xT, lambda t: uniforms[t], record, reverse)

    return call


def bound_by_table(lib: ModuleType, name: str) -> Function:
    """As `chain_by_table`."""

    def call(tr: Any, logits: Any, uniforms: Any, x0: Any, first_step: str) -> Any:
        term = partial(lib.posterior_kl, first_step=first_step)
        return lib.all_t_bound(_denoise(logits), tr, x0, lambda t: uniforms[t], term)

    return call


def strata_by_table(lib: ModuleType, name: str) -> Function:
    """As `chain_by_table`."""

    def call(tr: Any, logits: Any, uniforms: Any, x0: Any, u: Any) -> Any:
        return lib.strata_bound(_denoise(logits), tr, x0, u, lambda j: uniforms[j])

    return call


def _denoise(logits: Any) -> Function:
    return lambda xt, t: logits[t[:, None, None], xt]


def _process(*families: str) -> Pair:
    """A constructor: Q and Qbar relative to their entries, the prior as logs."""
    scale = result(lambda Q, Qbar, log_pi: (*scales.probabilities(Q, Qbar), scales.entries(log_pi)))
    return Pair(cases.tables(*families), scale, call=all_tables)


def _schedule(size: Callable[..., Any] = scales.one, **kwargs: float) -> Pair:
    return Pair(cases.schedule(**kwargs), result(size), dtypes=("float64",), jit=False)


def _graph() -> Pair:
    """From points to numbers in [-1, 1]."""
    return Pair(cases.graph, result(scales.one), call=of_numpy, dtypes=("float64",), jit=False)


_POSTERIOR = ("tr", "logits_x0", "x0", "xt", "t", "first_step")
_P = ("tr", "logits_x0", "xt", "t", "first_step")

PAIRS: dict[str, Pair] = {
    "linear": _schedule(start=0.02, stop=1.0),
    "cosine": _schedule(scales.near_zero, offset=0.1, largest=0.9),
    "cosine_squared": _schedule(scales.near_zero, offset=0.1, smallest=0.1),
    "reciprocal": _schedule(scale=1.5),
    "log_linear": _schedule(scales.near_zero, eps=0.1),
    "polynomial": _schedule(scales.near_zero, power=2.5),
    "from_alpha_bar": Pair(
        cases.falling, result(scales.near_zero), call=on_host, dtypes=("float64",), jit=False
    ),
    "uniform": _process("uniform"),
    "absorbing": _process("absorbing", "absorbing_extra"),
    "marginal": _process("marginal", "marginal_reset", "marginal_slow"),
    "masked": _process("masked", "masked_dense"),
    "gaussian": _process("gaussian", "gaussian_narrow", "gaussian_bands"),
    "banded": _process("banded"),
    "random_walk": _process("random_walk", "random_walk_knn"),
    "from_rate": _process("from_rate", "from_rate_knn"),
    "knn_graph": _graph(),
    "knn_rate": _graph(),
    "dense": _process("dense", "dense_prior"),
    "Transition.Q": Pair(cases.from_clean("tr", "t"), result(scales.probabilities), call=method),
    "Transition.Qbar": Pair(cases.from_clean("tr", "t"), result(scales.probabilities), call=method),
    "Transition.log_q_probs": Pair(cases.from_clean("tr", "x0", "t"), result(scales.entries), call=method),
    "Transition.log_q_back": Pair(cases.from_clean("tr", "xt", "t"), result(scales.entries), call=method),
    "Transition.log_push": Pair(
        cases.from_clean("tr", "log_p", "t"), arguments(scales.log_push), call=normalised_push
    ),
    "Transition.log_prior": Pair(cases.taking("tr"), result(scales.entries), call=method),
    "Transition.draw_q": Pair(cases.draw_q, cdf=arguments(scales.cdf_of_draw_q), call=method),
    "Transition.draw_prior": Pair(
        cases.taking("tr", "u"), cdf=arguments(lambda tr, u: scales.cdf(tr.log_prior())), call=method
    ),
    "Transition.marginal_kl": Pair(
        cases.taking("tr", "logits_x0", "x0", "t", each=True), arguments(scales.marginal_kl), call=method
    ),
    "respace": Pair(
        cases.respaced("uniform", "marginal", "dense_prior", "masked_dense"),
        _process().scale,
        call=respaced_tables,
        jit=False,  # jit keeps only rounded tables
    ),
    "log_add": Pair(cases.log_pairs("a", "b"), arguments(lambda a, b: scales.entries(torch.maximum(a, b)))),
    "log_sum": Pair(cases.log_arrays("x"), of("x")),
    "log_normalize": Pair(cases.log_arrays("logits"), of("logits")),
    "log_matmul": Pair(cases.log_matmul, arguments(scales.log_matmul)),
    "log_prob": Pair(cases.log_prob, of("logits")),
    "kl": Pair(
        cases.log_pairs("log_q", "log_p"),
        arguments(scales.divergence),
        of("log_q", "log_p"),
        call=normalised_kl,
    ),
    "kl_logits": Pair(
        cases.log_pairs("log_q", "logits"),
        arguments(lambda log_q, logits: scales.divergence(log_q, logits, logits)),
        of("log_q", "logits"),
        call=of_normalised_q,
    ),
    "categorical": Pair(cases.categorical, cdf=arguments(lambda log_p, u: scales.cdf(log_p))),
    "residual": Pair(cases.residual, of("output")),
    "forbid": Pair(cases.forbid, of("logits")),
    "logistic": Pair(loss_cases.logistic, arguments(scales.logistic), arguments(scales.logistic_gradient)),
    "numerics.log1mexp": Pair(loss_cases.log1mexp, result(scales.entries), call=in_module),
    "q_sample": Pair(
        cases.taking("tr", "x0", "t", "u", families=cases.ALL_SITUATIONS), cdf=arguments(scales.cdf_of_draw_q)
    ),
    "q_posterior": Pair(cases.taking("tr", "x0", "xt", "t"), arguments(scales.q_posterior)),
    "log_p_x0": Pair(cases.taking("tr", "logits_x0"), of("logits_x0")),
    "p_logits": Pair(cases.taking(*_P), arguments(scales.p_logits)),
    "p_prev": Pair(cases.taking("tr", "logits_prev", "xt", "t"), of("logits_prev")),
    "p_sample": Pair(cases.p_sample, cdf=arguments(scales.cdf_of_p_sample)),
    "posterior_kl": Pair(
        cases.taking(*_POSTERIOR), arguments(scales.posterior_kl), arguments(scales.reverse_gradient)
    ),
    "direct_kl": Pair(
        cases.taking("tr", "logits_prev", "x0", "xt", "t"),
        arguments(scales.direct_kl),
        arguments(scales.direct_gradient),
    ),
    "cross_entropy": Pair(cases.taking("tr", "logits_x0", "x0"), of("logits_x0")),
    "smoothed_cross_entropy": Pair(loss_cases.smoothed, of("logits_x0")),
    "hybrid": Pair(
        cases.taking(*_POSTERIOR, "ce_weight", each=True, families=cases.ALL_SITUATIONS),
        arguments(scales.hybrid),
        arguments(scales.reverse_gradient),
        dtypes=("float64",),  # float32 is that of its two terms
    ),
    "prior_kl": Pair(cases.taking("tr", "x0"), arguments(scales.prior_kl)),
    "bits_per_dim": Pair(cases.bits_per_dim, of("nats")),
    "all_t_bound": Pair(
        cases.all_t_bound,
        arguments(scales.all_t_bound),
        of("logits"),
        call=bound_by_table,
        dtypes=("float64",),  # float32 is that of its terms
    ),
    "ancestral": Pair(cases.ancestral, call=chain_by_table, dtypes=("float64",)),
    "timesteps.uniform": Pair(
        cases.uniform_steps, cdf=arguments(lambda u, T: scales.steps(T)), call=in_module
    ),
    "timesteps.probabilities": Pair(loss_cases.histories, result(scales.one), call=of_history),
    "timesteps.importance": Pair(
        loss_cases.importance, cdf=arguments(lambda u, p: scales.cdf(p.log())), call=steps_alone
    ),
    "timesteps.update": Pair(loss_cases.update, arguments(scales.update), call=of_history),
    "stochastic_bound": Pair(
        loss_cases.stochastic_bound, arguments(scales.stochastic_bound), arguments(scales.stochastic_gradient)
    ),
    "timesteps.stratified": Pair(loss_cases.stratified, cdf=arguments(scales.stratified), call=steps_alone),
    "strata_bound": Pair(
        loss_cases.strata_bound,
        arguments(scales.strata_bound),
        of("logits"),
        call=strata_by_table,
        dtypes=("float64",),  # float32 is that of its terms
    ),
    "mean_and_se": Pair(loss_cases.values, result(scales.mean_and_se)),
    "continuous.linear": Pair(loss_cases.levels, result(scales.level), call=in_module),
    "continuous.cosine": Pair(loss_cases.levels, result(scales.level), call=in_module),
    "continuous.polynomial": Pair(loss_cases.levels, result(scales.level), call=in_module),
    "continuous.absorbing_draw": Pair(
        loss_cases.continuous("x0", "time", "u", "mask_id"),
        cdf=arguments(scales.cdf_of_absorbing),
        call=scheduled,
    ),
    "continuous.uniform_draw": Pair(
        loss_cases.continuous("x0", "time", "u", "K"), cdf=arguments(scales.cdf_of_uniform), call=scheduled
    ),
    "continuous.absorbing_nelbo": Pair(
        loss_cases.continuous("logits_x0", "x0", "xt", "time", "mask_id"),
        arguments(scales.absorbing_nelbo),
        call=scheduled,
    ),
    "continuous.uniform_nelbo": Pair(
        loss_cases.continuous("logits_x0", "x0", "xt", "time"),
        arguments(scales.uniform_nelbo),
        call=scheduled,
    ),
    "low_discrepancy": Pair(cases.low_discrepancy, cdf=arguments(scales.low_discrepancy)),
}

_A_MODULE = "a module: its public functions are walked"
_A_SOLUTION = "an interpolated solution of I(x_t; x_0): tests/test_information.py computes I densely"
_A_CHECK = "a check of arguments: the twin has none"
REASONS: dict[str, str] = {
    "sample": "draws its noise from a JAX key, and then is ancestral",
    "estimate_bound": "draws its noise from a JAX key, and then is all_t_bound",
    "stratified_bound": "draws its noise from a JAX key, and then is strata_bound",
    "Transition.loss_terms": "its outputs are posterior_kl and cross_entropy",
    "Transition.respaced": "respace is its check and this",
    "Transition.matrices": "how to cut the work into parts",
    "timesteps.empty_history": "zeros",
    "numerics.band_width": "a constant of the algorithm of log_matmul",
    "numerics.smallest_entry": "a constant of the tables of dense, which gaussian_narrow reaches",
    "mutual_information": _A_SOLUTION,
    "mutual_information_steps": _A_SOLUTION,
    "schedules.check_betas": _A_CHECK,
    "schedules.check_steps": _A_CHECK,
} | dict.fromkeys(
    (
        "continuous",
        "heads",
        "likelihood",
        "losses",
        "numerics",
        "sampling",
        "schedules",
        "timesteps",
        "transitions",
    ),
    _A_MODULE,
)


def public_names() -> dict[str, Any]:
    """All of `d3pm_jax.__all__`, the other functions of its modules, and the methods of a process."""
    found = {name: getattr(d3pm_jax, name) for name in d3pm_jax.__all__}
    for module_name, module in [item for item in found.items() if inspect.ismodule(item[1])]:
        for name, x in vars(module).items():
            ours = (
                getattr(x, "__module__", None) == module.__name__ and callable(x) and not inspect.isclass(x)
            )
            if ours and not name.startswith("_") and found.get(name) is not x:
                found[f"{module_name}.{name}"] = x
    methods = sorted(Transition.__abstractmethods__)
    return found | {f"Transition.{name}": getattr(Transition, name) for name in methods}


def twin(name: str) -> Any:
    """What torch_ref calls by the same name; a `Transition` there is a `Process`."""
    owner, _, attribute = name.rpartition(".")
    if owner == "Transition":
        return getattr(torch_ref.Process, attribute, None)
    return getattr(importlib.import_module(f"torch_ref.{owner}") if owner else torch_ref, attribute, None)
