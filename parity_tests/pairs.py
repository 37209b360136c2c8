"""Every public kernel: its cases and the scale of its result, or the reason why it has no twin."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

import d3pm_jax
import torch_ref
from d3pm_jax.processes import Process
from parity_tests import (
    calls,
    cases,
    flow_cases,
    flow_scales,
    loss_cases,
    projected,
    sampling_cases,
    sampling_scales,
    scales,
)
from parity_tests.cases import Case
from parity_tests.frameworks import DIFFERENTIABLE, Arguments, Function, flat

Maker = Callable[[str], Iterator[Case]]
Measure = Callable[[Function, Arguments], Any]  # of a call of the twin in float64


class Pair(NamedTuple):
    """How one kernel is compared with its twin."""

    cases: Maker
    scale: Measure | None = None  # of each float output; None: the outputs are integers
    gradient_scale: Measure | None = None  # None: as for the outputs
    cdf: Measure | None = None  # for draws: where along u the result changes
    call: Callable[[ModuleType, str], Function] = calls.by_name
    dtypes: tuple[str, ...] = ("float64", "float32")
    jit: bool = True
    differentiable: tuple[str, ...] = DIFFERENTIABLE


def arguments(f: Callable[..., Any]) -> Measure:
    return lambda call, args: f(**args)


def result(f: Callable[..., Any]) -> Measure:
    return lambda call, args: f(*flat(call(**args)))


def rows_of(*names: str) -> Measure:
    """The rows of the arguments of these names."""
    return lambda call, args: scales.rows(*(args[name] for name in names))


def _process(*families: str) -> Pair:
    """A constructor: Q and Qbar relative to their entries, the prior as logs, alpha_bar relative to 1."""

    def scale(Q: Tensor, Qbar: Tensor, log_pi: Tensor, *alpha_bar: Tensor) -> tuple[Tensor, ...]:
        return (*scales.probabilities(Q, Qbar), scales.entries(log_pi), *map(scales.ones, alpha_bar))

    return Pair(cases.tables(*families), result(scale), call=calls.all_tables)


def _schedule(size: Callable[..., Any] = scales.ones, **kwargs: float) -> Pair:
    return Pair(cases.schedule(**kwargs), result(size), dtypes=("float64",), jit=False)


def _of_numpy(maker: Maker, size: Callable[..., Any] = scales.ones) -> Pair:
    """From NumPy arrays to numbers in [-1, 1], or of another size."""
    return Pair(maker, result(size), call=calls.of_numpy, dtypes=("float64",), jit=False)


_POSTERIOR = ("process", "logits_x0", "x0", "xt", "t", "belief")
_P = ("process", "logits_x0", "xt", "t", "belief")


def _renamed(logits: str) -> Maker:
    """The logits by another name."""
    take = cases.from_clean("process", "logits_x0", "xt", "t")

    def rename(dtype: str) -> Iterator[Case]:
        for case in take(dtype):
            args = dict(case.args)
            args[logits] = args.pop("logits_x0")
            yield case._replace(args=args)

    return rename


PAIRS: dict[str, Pair] = {
    "linear": _schedule(start=0.02, stop=1.0),
    "cosine": _schedule(scales.near_zero, offset=0.1, largest=0.9),
    "cosine_squared": _schedule(scales.near_zero, offset=0.1, smallest=0.1),
    "reciprocal": _schedule(scale=1.5),
    "log_linear": _schedule(scales.near_zero, eps=0.1),
    "polynomial": _schedule(scales.near_zero, power=2.5),
    "schedules.information_left": _of_numpy(cases.resampled),
    "schedules.information_left_by_rate": _of_numpy(cases.by_rate),
    "from_alpha_bar": Pair(
        cases.falling, result(scales.near_zero), call=calls.on_host, dtypes=("float64",), jit=False
    ),
    "uniform": _process("uniform"),
    "absorbing": _process("absorbing", "absorbing_extra"),
    "autoregressive": Pair(
        cases.positional,
        arguments(scales.by_position),
        arguments(lambda logits_x0, **_: scales.rows(logits_x0)),
        call=calls.by_position,
    ),
    "by_place": Pair(
        cases.by_place,
        arguments(scales.by_place),
        call=calls.kernels_by_place,
        dtypes=("float64",),  # float32 is that of the kernels
    ),
    "marginal": _process("marginal", "marginal_reset", "marginal_slow"),
    "masked": _process("masked", "masked_dense"),
    "interpolating": _process("interpolating", "interpolating_slow"),
    "gaussian": _process("gaussian", "gaussian_narrow", "gaussian_bands"),
    "banded": _process("banded"),
    "random_walk": _process("random_walk", "random_walk_prior", "random_walk_knn"),
    "from_rate": _process("from_rate", "from_rate_knn"),
    "knn_graph": _of_numpy(cases.graph),
    "knn_rate": _of_numpy(cases.graph),
    "hierarchical_rate": _of_numpy(cases.level_rates),
    "processes.unit_rows": _of_numpy(cases.points),
    "processes.rank_weights": _of_numpy(cases.distances(), torch.abs),
    "processes.gaussian_weights": _of_numpy(cases.distances(scale=0.7), torch.abs),
    "dense": _process("dense", "dense_prior"),
    "Process.Q": Pair(cases.from_clean("process", "t"), result(scales.probabilities), call=calls.method),
    "Process.Qbar": Pair(cases.from_clean("process", "t"), result(scales.probabilities), call=calls.method),
    "Process.log_q_probs": Pair(
        cases.from_clean("process", "x0", "t"), result(scales.entries), call=calls.method
    ),
    "Process.log_q_back": Pair(
        cases.from_clean("process", "xt", "t"), result(scales.entries), call=calls.method
    ),
    "Process.log_q_x0": Pair(
        cases.from_clean("process", "xt", "t"), result(scales.entries), call=calls.method
    ),
    "Process.log_push": Pair(
        cases.from_clean("process", "log_p", "t"), arguments(scales.log_push), call=calls.normalised_push
    ),
    "Process.log_prior": Pair(cases.taking("process"), result(scales.entries), call=calls.method),
    "Process.draw_q": Pair(
        cases.draws("x0", scales.cdf_of_draw_q, quick=tuple(cases.FAMILIES)),
        cdf=arguments(scales.cdf_of_draw_q),
        call=calls.method,
    ),
    "Process.draw_step": Pair(
        cases.draws("x", scales.cdf_of_draw_step),
        cdf=arguments(scales.cdf_of_draw_step),
        call=calls.method,
        differentiable=(),
    ),
    "Process.draw_prior": Pair(
        cases.taking("process", "u", quick=tuple(cases.FAMILIES)),
        cdf=arguments(lambda process, u: scales.cdf(process.log_prior())),
        call=calls.method,
    ),
    "losses.marginal_kl": Pair(
        cases.taking("process", "logits_x0", "x0", "t", t_of_elements=True), arguments(scales.marginal_kl)
    ),
    "respace": Pair(
        cases.respaced("uniform", "marginal", "dense_prior", "masked_dense"),
        _process().scale,
        call=calls.respaced_tables,
        jit=False,  # jit keeps only rounded tables
    ),
    "log_add": Pair(cases.log_pairs("a", "b"), arguments(lambda a, b: scales.entries(torch.maximum(a, b)))),
    "log_sum": Pair(cases.log_arrays("x"), rows_of("x")),
    "log_normalize": Pair(cases.log_arrays("logits"), rows_of("logits")),
    "log_matmul": Pair(cases.log_matmul, arguments(scales.log_matmul)),
    "log_prob": Pair(cases.log_prob, rows_of("logits")),
    "kl": Pair(
        cases.log_pairs("log_q", "log_p"),
        arguments(scales.divergence),
        rows_of("log_q", "log_p"),
        call=calls.normalised_kl,
    ),
    "kl_logits": Pair(
        cases.log_pairs("log_q", "logits"),
        arguments(lambda log_q, logits: scales.divergence(log_q, logits, logits)),
        rows_of("log_q", "logits"),
        call=calls.of_normalised_q,
    ),
    "categorical": Pair(cases.categorical, cdf=arguments(lambda log_p, u: scales.cdf(log_p))),
    "residual": Pair(cases.residual, rows_of("output")),
    "heads.log_scores": Pair(cases.residual, rows_of("output")),
    "heads.absorbing_log_scores": Pair(cases.residual, rows_of("output")),
    "forbid": Pair(cases.forbid, rows_of("logits")),
    "heads.forbid_beyond": Pair(cases.forbid_beyond, rows_of("logits"), jit=False),
    "logistic": Pair(
        loss_cases.logistic, arguments(scales.logistic), arguments(scales.two_edges(scales.logistic))
    ),
    "heads.residual_logistic": Pair(
        loss_cases.residual_logistic,
        arguments(scales.residual_logistic),
        arguments(scales.two_edges(scales.residual_logistic)),
    ),
    "heads.bounded_logistic": Pair(
        loss_cases.bounded_logistic,
        arguments(scales.bounded_logistic),
        arguments(scales.two_edges(scales.bounded_logistic)),
    ),
    "numerics.log1mexp": Pair(loss_cases.log1mexp, result(scales.entries)),
    "q_sample": Pair(
        cases.taking("process", "x0", "t", "u", families=cases.ALL_SITUATIONS),
        cdf=arguments(scales.cdf_of_draw_q),
    ),
    "q_posterior": Pair(cases.taking("process", "x0", "xt", "t"), arguments(scales.q_posterior)),
    "log_p_x0": Pair(cases.taking("process", "logits_x0"), rows_of("logits_x0")),
    "p_logits": Pair(cases.taking(*_P), arguments(scales.p_logits)),
    "posteriors.p_joint": Pair(
        cases.taking(*_P, families=cases.ALL_SITUATIONS, quick=("dense",)), arguments(scales.p_logits)
    ),
    "p_prev": Pair(cases.taking("process", "logits_prev", "xt", "t"), rows_of("logits_prev")),
    "p_sample": Pair(cases.p_sample, cdf=arguments(scales.cdf_of_p_sample)),
    "posterior_kl": Pair(
        cases.taking(*_POSTERIOR), arguments(scales.posterior_kl), arguments(scales.reverse_gradient)
    ),
    "direct_kl": Pair(
        cases.taking("process", "logits_prev", "x0", "xt", "t"),
        arguments(scales.direct_kl),
        arguments(scales.direct_gradient),
    ),
    "cross_entropy": Pair(cases.taking("process", "logits_x0", "x0"), rows_of("logits_x0")),
    "smoothed_cross_entropy": Pair(loss_cases.smoothed, rows_of("logits_x0")),
    "hybrid": Pair(
        cases.taking(
            *(*_POSTERIOR, "ce_weight"),
            t_of_elements=True,
            families=cases.ALL_SITUATIONS,
            quick=("marginal",),
            quick_beliefs=("d3pm",),  # the others are those of posterior_kl
        ),
        arguments(scales.hybrid),
        arguments(scales.reverse_gradient),
        dtypes=("float64",),  # float32 is that of its two terms
    ),
    "losses.projected": Pair(
        projected.cases,
        arguments(projected.scale),
        arguments(projected.gradient_scale),
        call=projected.weighted_sum,
        differentiable=("hidden", "kernel", "bias"),
    ),
    "prior_kl": Pair(cases.taking("process", "x0"), arguments(scales.prior_kl)),
    "bits_per_dim": Pair(cases.bits_per_dim, rows_of("nats")),
    "all_t_bound": Pair(
        cases.all_t_bound,
        arguments(scales.all_t_bound),
        rows_of("logits"),
        call=calls.bound_by_table,
        dtypes=("float64",),  # float32 is that of its terms
    ),
    "sampling.run": Pair(cases.ancestral, call=calls.chain_by_table, dtypes=("float64",), differentiable=()),
    "blocks.block_layout": Pair(
        loss_cases.layouts, call=calls.as_whole_numbers, dtypes=("float64",), jit=False
    ),
    "blocks.block_times": Pair(loss_cases.times_of_blocks, result(scales.ones)),
    "timesteps.uniform": Pair(cases.uniform_steps, cdf=arguments(lambda u, T: scales.steps(T))),
    "timesteps.antithetic": Pair(cases.antithetic, result(scales.ones)),
    "timesteps.probabilities": Pair(loss_cases.histories, result(scales.ones), call=calls.of_history),
    "timesteps.importance": Pair(
        loss_cases.importance, cdf=arguments(lambda u, p: scales.cdf(p.log())), call=calls.steps_alone
    ),
    "timesteps.update": Pair(loss_cases.update, arguments(scales.update), call=calls.of_history),
    "stochastic_bound": Pair(
        loss_cases.stochastic_bound, arguments(scales.stochastic_bound), arguments(scales.stochastic_gradient)
    ),
    "losses.mean_over_steps": Pair(loss_cases.weighted, result(torch.abs), arguments(scales.mean_gradient)),
    "timesteps.stratified": Pair(
        loss_cases.stratified, cdf=arguments(scales.stratified), call=calls.steps_alone
    ),
    "chain_rule": Pair(
        loss_cases.chain_rule,
        arguments(scales.chain_rule),
        arguments(scales.chain_rule_gradient),
        call=calls.fill_in_by_table,
    ),
    "strata_bound": Pair(
        loss_cases.strata_bound,
        arguments(scales.strata_bound),
        rows_of("logits"),
        call=calls.strata_by_table,
        dtypes=("float64",),  # float32 is that of its terms
    ),
    "likelihood.trajectory_log_weight": Pair(
        loss_cases.paths,
        arguments(scales.path_weight),
        rows_of("logits"),
        call=calls.weight_by_table,
        dtypes=("float64",),  # float32 is that of its terms
    ),
    "orders.mixture": Pair(
        loss_cases.mixtures, arguments(scales.mixture), result(lambda nats, effective: scales.ones(nats))
    ),
    "orders.all_orders": Pair(
        loss_cases.all_orders,
        arguments(scales.all_orders),
        arguments(lambda x0, **args: scales.chain_rule_gradient(x0=x0, order=x0, **args)),
        call=calls.fill_in_by_table,
    ),
    "orders.given_first": Pair(loss_cases.orders, result(scales.ones), call=calls.with_given),
    "orders.by_block": Pair(loss_cases.blocks, result(scales.ones)),
    "enumeration.list_examples": Pair(loss_cases.numbers_of_examples, dtypes=("float64",), jit=False),
    "enumeration.fill_in_law": Pair(
        loss_cases.fill_in_laws,
        arguments(scales.fill_in_law),
        call=calls.fill_in_by_table,
        dtypes=("float64",),
        jit=False,
        differentiable=(),
    ),
    "enumeration.chain_law": Pair(
        loss_cases.chain_laws,
        arguments(scales.chain_law),
        call=calls.law_by_table,
        dtypes=("float64",),  # float32 is that of its terms
    ),
    "enumeration.conditional": Pair(
        loss_cases.conditionals,
        arguments(scales.conditional),
        result(scales.ones),
        call=calls.with_given,
        differentiable=("log_law",),
    ),
    "mean_and_se": Pair(loss_cases.values, result(scales.mean_and_se)),
    "schedules.continuous.linear": Pair(loss_cases.levels, result(scales.level)),
    "schedules.continuous.cosine": Pair(loss_cases.levels, result(scales.level)),
    "schedules.continuous.polynomial": Pair(loss_cases.levels, result(scales.level)),
    "losses.continuous.absorbing_draw": Pair(
        loss_cases.continuous("x0", "time", "u", "mask_id"),
        cdf=arguments(scales.cdf_of_absorbing),
        call=calls.scheduled,
    ),
    "losses.continuous.uniform_draw": Pair(
        loss_cases.continuous("x0", "time", "u", "K"),
        cdf=arguments(scales.cdf_of_uniform),
        call=calls.scheduled,
    ),
    "losses.continuous.absorbing_nelbo": Pair(
        loss_cases.continuous("logits_x0", "x0", "xt", "time", "mask_id"),
        arguments(scales.absorbing_nelbo),
        call=calls.scheduled,
    ),
    "losses.continuous.uniform_nelbo": Pair(
        loss_cases.continuous("logits_x0", "x0", "xt", "time"),
        arguments(scales.uniform_nelbo),
        call=calls.scheduled,
    ),
    "losses.score_entropy.absorbing_score_entropy": Pair(
        loss_cases.scored("x0", "xt", "time", "mask_id"),
        arguments(scales.absorbing_score_entropy),
        call=calls.scheduled,
    ),
    "losses.score_entropy.uniform_score_entropy": Pair(
        loss_cases.scored("x0", "xt", "time"),
        arguments(scales.uniform_score_entropy),
        call=calls.scheduled,
    ),
    "losses.continuous.uniform_generalized_kl": Pair(
        loss_cases.continuous("logits_x0", "x0", "xt", "time"),
        arguments(scales.absorbing_nelbo),
        call=calls.scheduled,
    ),
    "losses.any_order.any_order_draw": Pair(loss_cases.any_order("x0", "n", "u", "mask_id", "weight")),
    "losses.any_order.any_order_nelbo": Pair(
        loss_cases.any_order("logits_x0", "x0", "xt", "mask_id", "weight"), arguments(scales.any_order_nelbo)
    ),
    "losses.gidd.gidd_draw": Pair(
        loss_cases.gidd("x0", "time", "u", "mask_id", "K"), cdf=arguments(scales.cdf_of_gidd)
    ),
    "losses.gidd.gidd_nelbo": Pair(
        loss_cases.gidd("logits_x0", "x0", "xt", "time", "mask_id"), arguments(scales.gidd_nelbo)
    ),
    "beliefs.to_denoiser": Pair(_renamed("logits_loo"), arguments(scales.converted)),
    "beliefs.to_leave_one_out": Pair(_renamed("logits_denoiser"), arguments(scales.converted)),
    "beliefs.denoiser_of": Pair(
        sampling_cases.by_belief("marginal", "masked"), arguments(sampling_scales.believed)
    ),
    "beliefs.leave_one_out_of": Pair(
        sampling_cases.by_belief("marginal", "masked"), arguments(sampling_scales.believed)
    ),
    "sampling.best_grid": Pair(loss_cases.best_grids, call=calls.as_array, dtypes=("float64",), jit=False),
    "sampling.even_grid": Pair(loss_cases.grids, call=calls.as_array, dtypes=("float64",), jit=False),
    "sampling.laws.mask_of": Pair(sampling_cases.with_mask, dtypes=("float64",)),
    "sampling.laws.keep_logits": Pair(
        sampling_cases.steps_back(
            sampling_cases.MIXING, "process", "log_denoiser", "xt", "t", "s", c=(0.3, 1.0, 0.0)
        ),
        arguments(sampling_scales.keep),
    ),
    "sampling.laws.mixture_logits": Pair(
        sampling_cases.steps_back(
            sampling_cases.ANY, "process", "logits_loo", "xt", "t", kappa=(0.3, 1.0, 0.0)
        ),
        arguments(sampling_scales.mixture),
        call=calls.of_one_belief,
    ),
    "sampling.laws.remask_logits": Pair(sampling_cases.remasked, arguments(sampling_scales.keep)),
    "sampling.laws.most_remasked": Pair(
        sampling_cases.steps_back(("absorbing_extra",), "process", "t", "s", quick="absorbing_extra"),
        arguments(sampling_scales.levels),
    ),
    "sampling.laws.renoise_logits": Pair(sampling_cases.noised_again, arguments(sampling_scales.renoise)),
    "sampling.laws.log_ratios": Pair(
        sampling_cases.steps_back(sampling_cases.ANY, "process", "logits_loo", "xt", "t"),
        arguments(sampling_scales.ratios),
    ),
    "sampling.laws.log_rates": Pair(
        sampling_cases.before(sampling_cases.WITH_RATES, "process", "logits_loo", "xt", "t"),
        arguments(sampling_scales.rates),
    ),
    "sampling.laws.score_log_rates": Pair(
        sampling_cases.scored("process", "log_scores", "xt", "t", "s"), arguments(sampling_scales.score_rates)
    ),
    "sampling.laws.tweedie_logits": Pair(
        sampling_cases.scored("process", "log_scores", "xt", "t", "s"), arguments(sampling_scales.tweedie)
    ),
    "sampling.laws.corrector_log_rates": Pair(
        sampling_cases.steps_back(sampling_cases.MIXING, "process", "logits_loo", "xt", "t", h=(0.2,)),
        arguments(sampling_scales.corrector),
    ),
    "sampling.laws.euler_logits": Pair(
        sampling_cases.rates, arguments(sampling_scales.leaps), arguments(sampling_scales.leaps_gradient)
    ),
    "sampling.laws.poisson_logits": Pair(sampling_cases.rates, arguments(sampling_scales.leaps)),
    "sampling.laws.leaving_probability": Pair(
        sampling_cases.laws_of_leaving, arguments(sampling_scales.leaving)
    ),
    "sampling.laws.leaving_logits": Pair(sampling_cases.laws_of_leaving, rows_of("log_p")),
    "sampling.laws.gibbs_logits": Pair(
        sampling_cases.steps_back(sampling_cases.ANY, "process", "logits_loo", "xt", "t"),
        arguments(sampling_scales.gibbs),
    ),
    "sampling.shaping.top_k": Pair(sampling_cases.shaped("k", 2, 1, cases.K), result(scales.ones)),
    "sampling.shaping.top_p": Pair(sampling_cases.shaped("p", 0.7, 1.0, 0.05), result(scales.ones)),
    "sampling.shaping.top_p_below": Pair(sampling_cases.shaped("p", 0.7, 1.0, 0.05), result(scales.ones)),
    "sampling.places.rank": Pair(
        sampling_cases.scores("score", "candidates"), call=calls.of_booleans, dtypes=("float64",)
    ),
    "sampling.places.take_first": Pair(
        sampling_cases.scores("score", "candidates", "count"), call=calls.of_booleans, dtypes=("float64",)
    ),
    "sampling.places.cosine_counts": Pair(sampling_cases.tables_of_counts, dtypes=("float64",), jit=False),
    "sampling.places.count_above": Pair(
        sampling_cases.falling_probabilities("threshold", 0.5, 1.5), dtypes=("float64",)
    ),
    "sampling.places.count_by_factor": Pair(
        sampling_cases.falling_probabilities("factor", 1.0, 0.1, 100.0), dtypes=("float64",)
    ),
    "sampling.places.count_by_entropy": Pair(sampling_cases.rising_entropies, dtypes=("float64",)),
    "sampling.places.next_hitting": Pair(sampling_cases.hitting, result(scales.ones)),
    "sampling.places.time_of": Pair(sampling_cases.shares_of_time, result(scales.ones), call=calls.scheduled),
    "sampling.speculative.acceptance": Pair(sampling_cases.drafts, result(scales.ones), differentiable=()),
    "sampling.speculative.leftover_logits": Pair(
        sampling_cases.pairs_of_laws, arguments(sampling_scales.differences_of_laws), differentiable=()
    ),
    "sampling.guidance.combine_logits": Pair(
        sampling_cases.guided_logits, arguments(sampling_scales.combined), differentiable=("logits",)
    ),
    "sampling.guidance.tilt_logits": Pair(
        sampling_cases.tilted_logits, arguments(sampling_scales.tilted), differentiable=("log_p",)
    ),
    "sampling.guidance.first_order_changes": Pair(
        sampling_cases.classified,
        arguments(sampling_scales.sums_of_weights),
        call=calls.by_table_of_weights,
        differentiable=(),
    ),
    "sampling.guidance.all_changes": Pair(
        sampling_cases.classified,
        arguments(sampling_scales.sums_of_weights),
        call=calls.by_table_of_weights,
        differentiable=(),
    ),
    "sampling.steering.resample": Pair(
        sampling_cases.resampled,
        result(scales.ones),
        call=calls.as_floats,
        dtypes=("float64",),
        differentiable=(),
    ),
    "sampling.steering.effective_size": Pair(
        sampling_cases.weighted, result(scales.ones), dtypes=("float64",), differentiable=()
    ),
    "low_discrepancy": Pair(cases.low_discrepancy, cdf=arguments(scales.low_discrepancy)),
    "flows.softplus_threshold": Pair(
        flow_cases.thresholds, arguments(flow_scales.softplus_threshold), differentiable=("u",)
    ),
    "flows.gumbel": Pair(
        flow_cases.gumbels, arguments(flow_scales.gumbel), differentiable=("phi", "gumbel_noise")
    ),
    "flows.log_gumbel_posterior": Pair(
        flow_cases.posteriors, arguments(flow_scales.log_gumbel_posterior), differentiable=("phi", "v")
    ),
    "flows.log_gumbel": Pair(
        flow_cases.vectors, arguments(flow_scales.log_gumbel), differentiable=("phi", "v")
    ),
    "flows.gumbel_threshold": Pair(
        flow_cases.gumbel_thresholds, arguments(flow_scales.gumbel_threshold), differentiable=("u", "phi")
    ),
    "flows.signed_softplus": Pair(
        flow_cases.signs, arguments(flow_scales.signed_softplus), differentiable=("u",)
    ),
    "flows.count_digits": Pair(flow_cases.alphabets, call=calls.as_array, dtypes=("float64",), jit=False),
    "flows.to_digits": Pair(flow_cases.codes, dtypes=("float64",)),
    "flows.from_digits": Pair(flow_cases.digits, dtypes=("float64",)),
    "flows.draw_code": Pair(
        flow_cases.draw_code,
        result(lambda code, log_n: (scales.ones(code), scales.ones(log_n))),
        call=calls.as_floats,
        differentiable=(),
    ),
    "flows.from_code": Pair(flow_cases.from_code, dtypes=("float64",)),
    "flows.affine": Pair(
        flow_cases.affine("v"), arguments(flow_scales.affine), differentiable=("v", "shift", "log_scale")
    ),
    "flows.invert_affine": Pair(
        flow_cases.affine("z"),
        arguments(flow_scales.invert_affine),
        differentiable=("z", "shift", "log_scale"),
    ),
    "flows.mixture_logit": Pair(
        flow_cases.mixture("v"),
        arguments(flow_scales.mixture_logit),
        arguments(flow_scales.mixture_gradient),
        differentiable=("v", "logit_weights", "means", "log_scales"),
    ),
    "flows.invert_mixture_logit": Pair(
        flow_cases.mixture("z"), arguments(flow_scales.invert_mixture_logit), differentiable=()
    ),
    "flows.bounded_log_scale": Pair(
        flow_cases.bounds, arguments(flow_scales.bounded_log_scale), differentiable=("raw", "log_bound")
    ),
    "flows.mixture_affine": Pair(
        flow_cases.mixture_affine("v"),
        arguments(flow_scales.mixture_affine),
        arguments(flow_scales.mixture_affine_gradient),
        differentiable=("v", "params"),
    ),
    "flows.invert_mixture_affine": Pair(
        flow_cases.mixture_affine("z"), arguments(flow_scales.invert_mixture_affine), differentiable=()
    ),
    "flows.coupling": Pair(
        flow_cases.couplings("v", "transform"),
        arguments(flow_scales.coupling),
        arguments(lambda **args: flow_scales.coupling(**args)[0]),
        call=calls.conditioned,
        differentiable=("v", "weights"),
    ),
    "flows.invert_coupling": Pair(
        flow_cases.couplings("z", "inverse"),
        arguments(flow_scales.invert_coupling),
        call=calls.conditioned,
        differentiable=("z", "weights"),
    ),
    "flows.autoregressive": Pair(
        flow_cases.autoregressive("v", "transform"),
        arguments(flow_scales.autoregressive),
        arguments(lambda **args: flow_scales.autoregressive(**args)[0]),
        call=calls.conditioned,
        differentiable=("v", "weights"),
    ),
    "flows.invert_autoregressive": Pair(
        flow_cases.autoregressive("z", "inverse"),
        arguments(flow_scales.invert_autoregressive),
        call=calls.conditioned,
        differentiable=("z", "weights"),
    ),
    "flows.linear": Pair(
        flow_cases.linear("v"),
        arguments(flow_scales.linear),
        arguments(flow_scales.linear_gradient),
        differentiable=("v", "matrix"),
    ),
    "flows.invert_linear": Pair(
        flow_cases.linear("z"),
        arguments(flow_scales.invert_linear),
        arguments(flow_scales.invert_linear_gradient),
        differentiable=("z", "matrix"),
    ),
    "flows.importance_bound": Pair(
        flow_cases.log_weights, arguments(flow_scales.importance_bound), differentiable=("log_weights",)
    ),
}

# Where public names are, beside the flat ones. The numbers of `compat` are those of other programs, and the
# tests of d3pm_jax hold them to these.
KERNEL_MODULES = (
    "beliefs",
    "numerics",
    "schedules",
    "schedules.continuous",
    "processes",
    "posteriors",
    "heads",
    "blocks",
    "losses",
    "losses.any_order",
    "losses.continuous",
    "losses.score_entropy",
    "losses.gidd",
    "timesteps",
    "sampling",
    "sampling.guidance",
    "sampling.laws",
    "sampling.places",
    "sampling.shaping",
    "sampling.speculative",
    "sampling.steering",
    "likelihood",
    "orders",
    "enumeration",
    "oracles",
    "flows",
)
_A_KEY = "draws its noise from a key of its own framework (test_keys.py gives it to both), and then is "
_A_SOLUTION = (
    "an interpolated solution of I(x_t; x_0): tests/schedules/test_information.py computes I densely"
)
_A_CHECK = "a check of arguments: the twin has none"
_OF_LAYOUTS = "two halves of x and of logits, which tests/test_blocks.py compares with a call for each block"
_OF_SAMPLERS = "of the loop of all samplers, which tests/sampling enumerates: "
_OF_STATES = "sums over all states, which tests/test_oracles.py takes one by one in NumPy"
REASONS: dict[str, str] = {
    "oracles.markov_chain": _OF_STATES,
    "oracles.network": _OF_STATES,
    "oracles.product_mixture": _OF_STATES,
    "oracles.table": _OF_STATES,
    "oracles.tree": _OF_STATES,
    "beliefs.strip_evidence": "of a denoiser `to_leave_one_out`, which has a pair; others as they are",
    "Denoiser": "holds a process, a network and a belief: sampling.run is called with it",
    "sample": _A_KEY + "sampling.run",
    "estimate_bound": _A_KEY + "all_t_bound",
    "stratified_bound": _A_KEY + "strata_bound",
    "sampling.make_plan": _OF_SAMPLERS + "the rows that a sampler takes, whole numbers",
    "sampling.steer": _OF_SAMPLERS + "its particles are selected by sampling.steering.resample",
    "sampling.best_of": _A_KEY + "sampling.steering.choose_best of what sampling.run draws",
    "sampling.steering.choose_best": "the first of the largest numbers that a user's function gives",
    "sampling.guidance.classifier_free": "combine_logits of two calls of a network: see sampling.run",
    "sampling.guidance.by_classifier": "tilt_logits of a law by first_order_changes or by all_changes",
    "sampling.laws.require_mixing": _A_CHECK,
    "sampling.laws.require_absorbing": _A_CHECK,
    "sampling.laws.is_absorbing": "tells a family, as `mask_of` does",
    "sampling.per_example": "draws from a key of its own framework: all other kernels take the noise",
    "Process.respaced": "respace is its check and this",
    "Process.places": "the shape of the places of by_place",
    "Process.common": "what the places of by_place have in common",
    "Process.check_places": _A_CHECK,
    "Process.positional": "what the library refuses a mask on top of",
    "Process.time": "which step each t is: the networks of sampling.run and all_t_bound are called with it",
    "blocks.fill_blocks": _OF_LAYOUTS,
    "losses.any_order.count_masks": "counts of masks: any_order_nelbo is called with them",
    "losses.any_order.weigh_masks": "any_order_nelbo of masks that are counted",
    "timesteps.empty_history": "zeros",
    "numerics.band_width": "a constant of the algorithm of log_matmul",
    "numerics.smallest_entry": "a constant of the tables of dense, which gaussian_narrow reaches",
    "mutual_information": _A_SOLUTION,
    "mutual_information_steps": _A_SOLUTION,
    "schedules.check_betas": _A_CHECK,
    "processes.allow_identity": _A_CHECK,
    "beliefs.with_belief": "a function with the keyword `belief`, which each pair is compared with",
}
# Parameters of a kernel that its twin has not.
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "sampling.run": ("sampler", "plan", "watch"),  # the twin runs ancestral chains alone
    "sample": ("sampler", "start", "plan"),
}


def public_names() -> dict[str, Any]:
    """All of `d3pm_jax.__all__`, the other functions of `KERNEL_MODULES`, and the members of a process."""
    functions = {name: getattr(d3pm_jax, name) for name in d3pm_jax.__all__}
    for module in KERNEL_MODULES:
        for name, x in _functions(importlib.import_module(f"d3pm_jax.{module}")):
            if x not in functions.values():
                functions[f"{module}.{name}"] = x
    for name, x in vars(Process).items():
        if not name.startswith("_"):
            functions[f"Process.{name}"] = x
    return functions


def _functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The kernels: of a package those of its `__all__`, of a module all that it defines, listed or not."""
    is_package = hasattr(module, "__path__")
    for name, x in vars(module).items():
        if inspect.isclass(x) or not callable(x):
            continue
        origin = getattr(x, "__module__", None) or ""
        if is_package:
            is_public = name in module.__all__ and origin.startswith("d3pm_jax")
        else:
            is_public = not name.startswith("_") and origin == module.__name__
        if is_public:
            yield name, x


def twin(name: str) -> Any:
    """The function of torch_ref of the same name, or None."""
    module, _, attribute = name.rpartition(".")
    if module == "Process":
        home = torch_ref.Process
    elif module:
        home = importlib.import_module(f"torch_ref.{module}")
    else:
        home = torch_ref
    return getattr(home, attribute, None)
