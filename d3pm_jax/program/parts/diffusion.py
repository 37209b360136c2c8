"""Makes the recipe of a diffusion: of a process and a network."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import losses, sampling
from d3pm_jax.checks import is_array
from d3pm_jax.config import (
    Config,
    HybridLoss,
    HybridOfParameters,
    Objective,
    build_process,
    check_instance,
    logits_keywords,
)
from d3pm_jax.config.samplers import describe_sampler
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error, wrong_return
from d3pm_jax.evaluation.bound import (
    Compiled,
    all_terms,
    few_terms,
    real_time_nats,
    summarize_bound,
    summarize_parts,
)
from d3pm_jax.placing import place
from d3pm_jax.processes import Process, respace
from d3pm_jax.program.machine.devices import batch_sharding, replicated_sharding
from d3pm_jax.program.parts import network
from d3pm_jax.program.parts.draw import Draw, Inputs, Particles, Settled
from d3pm_jax.program.parts.guidance import Guidance
from d3pm_jax.program.parts.recipe import Bound, Diffusion, Drawing, Figures, Recipe
from d3pm_jax.schedules.continuous import Schedule
from d3pm_jax.training.diffusion import DiffusionLoss, Predict
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.types import Params


def make_diffusion(
    config: Config,
    description: Description,
    full_process: Process,
    extra_mask: int | None,
    mesh: jax.sharding.Mesh,
) -> Callable[[Process], Recipe]:
    """Builds the network of a config that trains a diffusion; returns its recipe as a function of a process.

    Args:
        config: of the run, with the numbers of its data.
        description: of the data.
        full_process: the process with all of its steps; the recipe may be made with fewer.
        extra_mask: its mask, where the data never has it.
        mesh: of the devices.

    Raises:
        ValueError, UserError: a value of the config cannot be used.
    """
    # A process may refuse data of this shape, and does so when it is called: shapes without numbers are
    # enough for that.
    x0 = jax.ShapeDtypeStruct(description.shape, np.int32)
    t = jax.ShapeDtypeStruct((), np.int32)
    log_p = jax.ShapeDtypeStruct((*description.shape, full_process.K), np.float32)
    for method, arguments, shape in (
        (full_process.log_q_probs, (x0, t), log_p.shape),
        (full_process.log_q_back, (x0, t), log_p.shape),
        (full_process.log_push, (log_p, t), log_p.shape),
        (full_process.log_prior, (), (*full_process.places, full_process.K)),
    ):
        rows = jax.eval_shape(method, *arguments)
        if not is_array(rows, shape, jnp.floating):
            raise wrong_return(method, rows, f"logs of the K probabilities, of a float type, {list(shape)}")

    functions = network.split_network(config, description, full_process, extra_mask)
    sharding = batch_sharding(mesh)

    # A CPU sums over parts of the logits, and needs these again for the gradient. An objective of the user's
    # own takes logits.
    objective: Any = config.loss
    network_of_loss = functions.train_predict
    takes_parameters = isinstance(objective, HybridLoss) and type(objective).terms is HybridLoss.terms
    if functions.train_parameters is not None and takes_parameters and not _is_of_cpus(mesh):
        objective = HybridOfParameters(objective)
        network_of_loss = functions.train_parameters
    loss = DiffusionLoss(objective, config.timesteps, network.spread_over_mesh(network_of_loss, sharding))

    def predict(params: Params, xt: Array, t: Array, *args: Any, **inputs: Any) -> Any:
        call = config.loss.without_layout(partial(functions.predict, params))
        return call(xt, t, *args, **inputs)

    diffusion = Diffusion(
        predict=network.spread_over_mesh(predict, sharding),
        network=predict,
        term=partial(losses.posterior_kl, **logits_keywords(config.loss)),
    )
    make_bound = partial(_make_bound, diffusion)
    if config.loss.estimates_bound:
        predict_by_layout = network.spread_over_mesh(functions.predict, sharding)
        make_bound = partial(_make_estimated_bound, config.loss, predict_by_layout)
    dropping = functions.dropping
    make_denoiser = partial(_make_denoiser, config, diffusion.predict, functions.classes, dropping)

    def make_recipe(process: Process) -> Recipe:
        times = np.asarray(process.time)
        placed = place(process, replicated_sharding(mesh))
        return Recipe(
            name=name_process(config, process),
            K=process.K,
            times=times,
            conditions={**describe_steps(process), **logits_keywords(config.loss)},
            init=functions.init,
            loss=loss,
            bound=make_bound(times),
            process=placed,
            respace=partial(respace_recipe, make_recipe, config),
            draw=Drawing(
                describe_sampler(config.loss.default_sampler()),
                partial(_settle, config, description, placed, dropping, functions.extra_mask),
                partial(_draw_batch, make_denoiser),
                _explain_failure,
            ),
            diffusion=diffusion,
            classes=functions.classes,
            dropping=dropping,
            extra_mask=functions.extra_mask,
        )

    return make_recipe


def _is_of_cpus(mesh: jax.sharding.Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _make_bound(diffusion: Diffusion, times: np.ndarray) -> Bound:
    """Makes the bound: of all terms, each of which is a call, or estimated from so many of them."""
    T = len(times) - 1

    def compile_terms(calls: int | None, seed: int) -> Compiled:
        if calls is None:
            return all_terms(diffusion.predict, seed, diffusion.term)
        if not 1 <= calls <= T:
            raise UserError(f"calls = {calls}: it must be in 1..{T}, the steps of the process")
        return few_terms(diffusion.predict, calls, seed, diffusion.term)

    def summarize(bound: Any, D: int | np.ndarray, calls: int | None) -> Figures:
        # With all terms it is a `likelihood.Bound`, and with an estimate the nats of each example, [N].
        if calls is None:
            return summarize_bound(np.asarray(bound.total()), D) | summarize_parts(bound, D)
        return summarize_bound(bound, D)

    def describe(figures: Figures, figures_in_words: str) -> str:
        bound = f"{len(figures['times'])} steps: {figures_in_words}"
        if "steps" not in figures:
            return f"{bound}, estimated from {figures['calls']} of them for each example"
        parts = {
            "reconstruction -log p(x_0 | x_1)": figures["reconstruction"],
            f"denoising, t = 2..{len(figures['times'])}": sum(figures["steps"][1:]),
            "prior KL(q(x_T | x_0) || p(x_T))": figures["prior"],
        }
        return f"{bound}: " + ", ".join(f"{name} {value:.4g}" for name, value in parts.items())

    return Bound(
        calls=T,
        compile=compile_terms,
        times=lambda calls: times[1:].tolist(),
        summarize=summarize,
        describe=describe,
        main_figures=("bits_per_dim",),
        # kl is the mean over t of what the bound is the sum of.
        nats=lambda means: means["kl"] * T,
        some_terms="{calls} for each example, stratified",
    )


def _make_estimated_bound(objective: Objective, predict: Predict, times: np.ndarray) -> Bound:
    """Makes the bound of an objective in continuous time, estimated from as many times as there are steps."""
    T = len(times) - 1
    of_bound = objective.of_bound()

    def compile_times(calls: int | None, seed: int) -> Compiled:
        return real_time_nats(predict, of_bound.compute, calls or T, seed)

    def describe(figures: Figures, figures_in_words: str) -> str:
        calls = figures.get("calls", T)
        return f"continuous time: {figures_in_words}, estimated from {calls} times for each example"

    return Bound(
        calls=T,
        compile=compile_times,
        times=lambda calls: times[1:].tolist(),
        summarize=lambda nats, D, calls: summarize_bound(nats, D),
        describe=describe,
        main_figures=("bits_per_dim",),
        # What training alone does otherwise makes its mean no bound.
        nats=lambda means: means["kl"] * T if of_bound == objective else None,
        some_terms="{calls} real times for each example",
        all_terms=f"{T} real times for each example",
    )


def _settle(
    config: Config,
    description: Description,
    process: Process,
    dropping: Dropping | None,
    extra_mask: int | None,
    draw: Draw,
    settled: Settled,
) -> Settled:
    """Fills in the sampler with the schedule that it needs, its rows, and what the guidance leaves open.

    Raises:
        UserError: the sampler is not for this process or for edits, or for a network that may predict the
            mask, or the guidance is not for this run or this sampler.
    """
    sampler = settled.sampler or config.loss.default_sampler()
    with as_user_error():
        config.loss.check_sampler(sampler)
    if isinstance(settled.select, Particles) and config.loss.head_gives != "logits":
        raise UserError(
            f"particles are scored by draws of x_0, and the network gives {config.loss.head_gives}: take "
            f"BestOf, which scores samples when they are finished"
        )
    if config.head.projected:
        _check_projected(settled, sampler)
    process_of_plan = process
    if sampler != sampling.Sampler():
        # A process on the devices has lost the float64 numbers that it was made from, and some plans are
        # made of them. The plain plan needs none, and to build 1,000 steps of 256 categories takes 1.5 s.
        process_of_plan = build_process(config.process)
        if process.T != process_of_plan.T:
            process_of_plan = respace(process_of_plan, np.asarray(process.time)[1:].tolist())
    with as_user_error():
        plan = sampling.make_plan(sampler, process_of_plan, settled.shape[1:])
    mask = None
    if sampler.needs_extra_mask and extra_mask is None:
        # Tables on devices that are only described have no numbers to tell it by.
        mask = sampling.laws.mask_of(process)
    if mask is not None:
        raise UserError(
            f"the sampler takes every mask for an unknown place, and this network may predict the mask, "
            f"category {int(mask)}: train with an extra mask, one more category than the data has; for "
            f"this run `ancestral`, `psi` and `ddim` work"
        )
    if settled.strength is not None:
        with as_user_error():
            sampling.rows_of_edit(sampler, plan, settled.strength, process.T)
    if getattr(config.model, "see_time", True):
        make_schedule = partial(_make_continuous_schedule, config)
        sampler = dataclasses.replace(sampler, step=sampler.step.with_schedule(make_schedule))
    guidance = settled.guidance
    if guidance is not None:
        guidance.check_run(description, config, draw.shape)
        # Scores have no law of x_0 to guide, so that x_s is what is guided, also of masks.
        guided_mask = extra_mask if config.loss.head_gives == "logits" else None
        guidance = guidance.settle(guided_mask, dropping, sampler)
        check_instance("what guidance.settle returns", guidance, Guidance, "return a runs.Guidance, as self")
    return dataclasses.replace(settled, sampler=sampler, plan=plan, guidance=guidance)


def _check_projected(settled: Settled, sampler: sampling.Sampler) -> None:
    """Raises UserError for draws that need the logits of all places in memory."""
    users = {
        "guidance": settled.guidance is not None,
        "select = Particles": isinstance(settled.select, Particles),
        sampler.user_of_all_logits: sampler.user_of_all_logits != "",
    }
    for user, is_used in users.items():
        if is_used:
            raise UserError(
                f"{user} needs all logits in memory, and head.projected = True makes them some places at a "
                f"time: leave it out, or turn that off by d3pm train CONFIG --resume --head.no-projected"
            )


def _make_continuous_schedule(config: Config) -> Schedule:
    """Makes the schedule of a run in continuous time.

    Raises:
        UserError: it has no such form.
    """
    schedule = getattr(config.process, "beta", None)
    with as_user_error("first hitting tells a network that sees time when a place is revealed, but "):
        if schedule is None:
            raise ValueError("the process has no schedule: `random_order` works for this run")
        try:
            return schedule.continuous()
        except ValueError as error:
            raise ValueError(f"{error}; `random_order` works for this run") from error


def _draw_batch(
    make_denoiser: Callable[[Settled, Inputs], sampling.Denoiser], settled: Settled, inputs: Inputs
) -> sampling.Chain | sampling.Steered:
    """Draws a batch by `sampling.sample`, particles by `sampling.steer`."""
    sampler = settled.sampler
    assert sampler is not None  # as `_settle` fills one in
    denoiser = make_denoiser(settled, inputs)
    known = None
    if inputs.known is not None:
        known = sampling.Known(*(jnp.broadcast_to(x, settled.shape) for x in inputs.known))
    select = settled.select
    if isinstance(select, Particles):
        return sampling.steer(
            inputs.key,
            select.score,
            select.n,
            denoiser,
            settled.shape,
            sampler,
            first=inputs.first,
            known=known,
            plan=settled.plan,
        )
    # Candidates are beside each other.
    P = settled.per_sample
    start = None
    if settled.strength is not None:
        x0 = jnp.repeat(jnp.broadcast_to(inputs.start, settled.shape), P, axis=0)
        start = sampling.PartWay(x0, settled.strength)
    if known is not None:
        known = sampling.Known(*(jnp.repeat(x, P, axis=0) for x in known))
    return sampling.sample(
        inputs.key,
        denoiser,
        (settled.shape[0] * P, *settled.shape[1:]),
        sampler,
        first=inputs.first * P,
        known=known,
        start=start,
        plan=settled.plan,
        record=settled.record,
    )


def _make_denoiser(
    config: Config,
    predict: Predict,
    classes: int | None,
    dropping: Dropping | None,
    settled: Settled,
    inputs: Inputs,
) -> sampling.Denoiser:
    """Makes what a sampler asks: the network with its inputs, or what guides it."""
    # Labels of a network that takes none are of what guides it, as a classifier.
    label_of_network = None if classes is None else inputs.label
    possible_inputs = {
        "label": label_of_network,
        "condition": inputs.condition,
        "weight": inputs.weight,
    }
    network_inputs = {name: x for name, x in possible_inputs.items() if x is not None}

    def conditioned(x: Array, time: Array, network_inputs: Mapping[str, Array]) -> Any:
        return predict(inputs.params, x, time, **network_inputs)

    assert settled.sampler is not None  # as `_draw_batch` has seen
    if settled.sampler.step.tells_time:
        conditioned = call_at_whole_steps(conditioned, inputs.process.time[-1])

    network: Any = partial(conditioned, network_inputs=network_inputs)
    guidance = settled.guidance
    if guidance is not None:
        if inputs.guidance_params is not None:
            guidance = guidance.with_params(inputs.guidance_params)
        network = guidance.guide(conditioned, network_inputs, inputs.label, dropping)
    return config.loss.make_denoiser(inputs.process, network)


def _explain_failure(failed_at: int, settled: Settled) -> str:
    """Says why a step of the chain had nothing to draw from, and what to do."""
    sampler = settled.sampler
    if sampler is not None and sampler.step.goes_by_masks:
        return (
            f"the network gave no distribution with {failed_at} rows left, or places were still masked "
            f"after the last row: use another checkpoint, or a step whose num_rows is larger"
        )
    return (
        f"the network gave no distribution at t = {failed_at}: its weights are not finite, or it "
        "gives probability 0 to every x_0 that can lead to x_t; use another checkpoint"
    )


def call_at_whole_steps(network: Callable[..., Any], T: Array) -> Callable[..., Any]:
    """Makes a network of times between steps, which is told the first of 1..T not before the time."""

    def call(x: Array, time: Array, *args: Any, **keywords: Any) -> Any:
        step = jnp.ceil(time).astype(jnp.int32)
        return network(x, jnp.clip(step, 1, T), *args, **keywords)

    return call


def with_steps(process: Process, steps: int | Sequence[int] | None) -> Process:
    """Returns a process with all of its steps (None), a number of evenly spaced steps, or the listed steps.

    Raises:
        ValueError: it has no such steps.
    """
    if steps is None:
        return process
    if isinstance(steps, int):
        steps = sampling.even_grid(process.T, steps)
    return respace(process, steps)


def respace_recipe(
    make_recipe: Callable[[Process], Recipe], config: Config, steps: int | Sequence[int]
) -> Recipe:
    """Makes the recipe of a config with other steps of its process, which `with_steps` takes.

    Raises:
        ValueError: the process has no such steps.
    """
    # The process is built again: the numbers in float64 that it is made from are let go on purpose once it is
    # on the devices, since a run keeps its recipe, and few runs are asked for other steps.
    return make_recipe(with_steps(build_process(config.process), steps))


def describe_steps(process: Process) -> dict[str, Any]:
    """Describes the steps of a process and their grid: "even, of 1000", or their times."""
    state_times = np.asarray(process.time)
    full_T = int(state_times[-1])
    times = state_times[1:].tolist()
    if times == sampling.even_grid(full_T, len(times)):
        grid = f"even, of {full_T}"
    else:
        grid = f"{times} of {full_T}"
    return {"steps": process.T, "grid": grid}


def name_process(config: Config, process: Process) -> str:
    """Names a process: "Uniform, K = 17, T = 100"."""
    # `process.T` is the number of steps that are taken. The last time is T of the process with all steps.
    full_T = int(process.time[-1])
    if full_T == process.T:
        steps = f"T = {full_T}"
    else:
        steps = f"{process.T} of T = {full_T} steps"
    return f"{type(config.process).__name__}, K = {process.K}, {steps}"
