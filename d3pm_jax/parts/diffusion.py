"""Builds a diffusion: the process, the network, and what a run asks of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import likelihood, losses, sampling
from d3pm_jax.config import Config
from d3pm_jax.config.objective import HybridLoss, HybridOfParameters, logits_keywords
from d3pm_jax.config.process import build_process, find_extra_mask
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.evaluation.bound import (
    Compiled,
    all_terms,
    few_terms,
    summarize_bound,
    summarize_parts,
)
from d3pm_jax.machine.devices import batch_sharding, replicated_sharding
from d3pm_jax.parts import network
from d3pm_jax.parts.draw import Draw, Inputs, Particles, Settled
from d3pm_jax.parts.guidance import Guidance
from d3pm_jax.parts.network import Init
from d3pm_jax.placing import place
from d3pm_jax.processes import Process, respace
from d3pm_jax.sampling import even_grid, laws
from d3pm_jax.sampling.plans import rows_of_edit
from d3pm_jax.schedules.continuous import Schedule
from d3pm_jax.training.diffusion import DiffusionLoss
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.training.step import Predict, TrainPredict


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """Holds a process and a network as a `parts.method.Method`."""

    config: Config
    process: Process
    predict: Predict
    train_predict: TrainPredict  # with a key, see `network.Network`
    loss: DiffusionLoss
    network: Predict  # like predict, for batches of any size, which is not spread over the devices
    init: Init
    classes: int | None
    dropping: Dropping | None  # of labels and conditions in training; it knows the null inputs
    extra_mask: int | None  # a mask that the data never has and the network never predicts
    mesh: jax.sharding.Mesh
    sampler: str = "ancestral"
    subject: str = "a diffusion"
    draws_samples: bool = True
    main_figures: tuple[str, ...] = ("bits_per_dim",)

    def name(self) -> str:
        """Returns the name for captions: "Uniform, K = 17, T = 100"."""
        return name_process(self.config, self.process)

    @property
    def K(self) -> int:
        """Returns the number of categories, a mask among them."""
        return self.process.K

    @property
    def num_steps(self) -> int:
        """Returns in how many steps a sample is drawn from noise, T."""
        return self.process.T

    def state_times(self) -> np.ndarray:
        """Returns the steps of the original process, [T + 1]."""
        return np.asarray(self.process.time)

    @property
    def term(self) -> likelihood.Term:
        """Returns the function of logits whose value is the term of the bound at a step, in nats."""
        return partial(losses.posterior_kl, **logits_keywords(self.config.loss))

    def make_loss(self) -> DiffusionLoss:
        """Returns the loss: the objective of the config at its spread of timesteps."""
        return self.loss

    def respaced(self, steps: int | Sequence[int]) -> "Diffusion":
        """Returns the diffusion with some of all steps of its process: so many, evenly spaced, or these.

        Raises:
            UserError: the process has no such steps.
        """
        with as_user_error():
            process = with_steps(build_process(self.config.process), steps)
        return dataclasses.replace(self, process=place(process, replicated_sharding(self.mesh)))

    def describe(self) -> dict[str, Any]:
        """Describes what a figure depends on: its steps, their grid, and the belief of the network."""
        return {**describe_steps(self.process), **logits_keywords(self.config.loss)}

    def check_draw(self, draw: Draw) -> None:
        """Refuses nothing: what a process cannot do it says itself."""

    def settle_sampler(
        self, sampler: sampling.Sampler | None, shape: tuple[int, ...], strength: float | None
    ) -> tuple[sampling.Sampler, tuple[sampling.Row, ...]]:
        """Returns the sampler of samples of a shape *S with the schedule that it needs, and its rows.

        Raises:
            UserError: it is not for this process or for edits, or for a network that may predict the mask.
        """
        if sampler is None:
            sampler = sampling.Sampler()
        process = self.process
        if sampler != sampling.Sampler():
            # A process on the devices has lost the float64 numbers that it was made from, and some plans are
            # made of them. The plain plan needs none, and to build 1,000 steps of 256 categories takes 1.5 s.
            process = build_process(self.config.process)
            if self.process.T != process.T:
                process = respace(process, self.state_times()[1:].tolist())
        with as_user_error():
            plan = sampling.make_plan(sampler, process, shape)
        mask = laws.mask_of(process)
        if sampler.needs_extra_mask and mask is not None and self.extra_mask is None:
            raise UserError(
                f"the sampler takes every mask for an unknown place, and this network may predict the mask, "
                f"category {int(mask)}: train with an extra mask, one more category than the data has; for "
                f"this run `ancestral`, `psi` and `ddim` work"
            )
        if strength is not None:
            with as_user_error():
                rows_of_edit(sampler, plan, strength, process.T)
        if getattr(self.config.model, "see_time", True):
            sampler = dataclasses.replace(sampler, step=sampler.step.with_schedule(self._continuous_schedule))
        return sampler, plan

    def _continuous_schedule(self) -> Schedule:
        """Returns the schedule of the run in continuous time.

        Raises:
            UserError: it has no such form.
        """
        schedule = getattr(self.config.process, "beta", None)
        with as_user_error("first hitting tells a network that sees time when a place is revealed, but "):
            if schedule is None:
                raise ValueError("the process has no schedule: `random_order` works for this run")
            try:
                return schedule.continuous()
            except ValueError as error:
                raise ValueError(f"{error}; `random_order` works for this run") from error

    def settle_guidance(self, guidance: Guidance, sampler: sampling.Sampler | None) -> Guidance:
        """Returns how samples are guided, with what it leaves open filled in.

        Raises:
            UserError: it is not for this run, or not for the sampler.
        """
        return guidance.settle(self.extra_mask, self.dropping, sampler or sampling.Sampler())

    def draw(self, settled: Settled, inputs: Inputs) -> sampling.Chain | sampling.Steered:
        """Draws a batch by `sampling.sample`, particles by `sampling.steer`."""
        sampler = settled.sampler
        assert sampler is not None  # as `settle_sampler` returns one
        denoiser = self._make_denoiser(settled, inputs)
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

    def _make_denoiser(self, settled: Settled, inputs: Inputs) -> sampling.Denoiser:
        """Makes what a sampler asks: the network with its inputs, or what guides it."""
        network_label = inputs.label if self.classes is not None else None
        possible_inputs = {"label": network_label, "condition": inputs.condition}
        network_inputs = {name: x for name, x in possible_inputs.items() if x is not None}

        def conditioned(x: Array, time: Array, network_inputs: Mapping[str, Array]) -> Array:
            return self.predict(inputs.params, x, time, **network_inputs)

        assert settled.sampler is not None  # as `draw` has seen
        if settled.sampler.step.tells_time:
            conditioned = call_at_steps(conditioned, inputs.process.time[-1])

        network: Any = partial(_call_with_inputs, conditioned, network_inputs)
        guidance = settled.guidance
        if guidance is not None:
            if inputs.guidance_params is not None:
                guidance = guidance.with_params(inputs.guidance_params)
            network = guidance.guide(conditioned, network_inputs, inputs.label, self.dropping)
        return sampling.Denoiser(inputs.process, network, **logits_keywords(self.config.loss))

    def explain_failure(self, failed_at: int, settled: Settled) -> str:
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

    @property
    def calls_of_bound(self) -> int:
        """Returns T, as each step is called once."""
        return self.process.T

    def times_of_terms(self, calls: int | None) -> list[int]:
        """Returns the times of the steps 1..T, whose terms a bound is the sum of."""
        return self.state_times()[1:].tolist()

    def compile_bound(self, calls: int | None, seed: int) -> Compiled:
        """Makes the jitted function of a batch of all terms of the bound, or of an estimate from some.

        Raises:
            UserError: the process has fewer steps than calls.
        """
        if calls is None:
            return all_terms(self.predict, seed, self.term)
        if not 1 <= calls <= self.process.T:
            raise UserError(f"calls = {calls}: it must be in 1..{self.process.T}, the steps of the process")
        return few_terms(self.predict, calls, seed, self.term)

    def summarize(self, bound: Any, D: int | np.ndarray, calls: int | None) -> dict[str, Any]:
        """Returns the figures of a bound, with its parts where all terms were computed."""
        # With all terms it is a `likelihood.Bound`, and with an estimate the nats of each example, [N].
        if calls is None:
            return summarize_bound(np.asarray(bound.total()), D) | summarize_parts(bound, D)
        return summarize_bound(bound, D)

    def describe_terms(self, calls: int | None) -> str:
        """Says which terms a bound is computed from."""
        if calls is None:
            return "all"
        return f"{calls} for each example, stratified"

    def describe_bound(self, figures: dict[str, Any], amount: str) -> str:
        """Says how much a bound is, and then its parts, or from how many terms it is estimated."""
        bound = f"{len(figures['times'])} steps: {amount}"
        if "steps" not in figures:
            return f"{bound}, estimated from {figures['calls']} of them for each example"
        parts = {
            "reconstruction -log p(x_0 | x_1)": figures["reconstruction"],
            f"denoising, t = 2..{len(figures['times'])}": sum(figures["steps"][1:]),
            "prior KL(q(x_T | x_0) || p(x_T))": figures["prior"],
        }
        return f"{bound}: " + ", ".join(f"{name} {value:.4g}" for name, value in parts.items())

    def nats_of_means(self, means: dict[str, float | int]) -> float:
        """Returns nats per element of the bound, the sum over T steps of what kl is the mean of."""
        return means["kl"] * self.process.T


def _call_with_inputs(
    network: Callable[..., Array], inputs: Mapping[str, Array], x: Array, time: Array
) -> Array:
    """Calls a network of (x, time, inputs) with these inputs."""
    return network(x, time, inputs)


def call_at_steps(network: Callable[..., Array], T: Array) -> Callable[..., Array]:
    """Makes a network of (x, time in [0, 1], ..), which is told the first of 1..T not before the time."""

    def call(x: Array, time: Array, *args: Any, **keywords: Any) -> Array:
        step = jnp.ceil(time * T).astype(jnp.int32)
        return network(x, jnp.clip(step, 1, T), *args, **keywords)

    return call


def make_diffusion(
    config: Config, description: Description, steps: int | Sequence[int] | None, mesh: jax.sharding.Mesh
) -> Diffusion:
    """Builds the process and the network of a config.

    Args:
        config: of the run.
        description: of the data.
        steps: take only so many of the steps of the process, evenly spaced, or only these; all by default.
        mesh: of the devices.

    Raises:
        ValueError, UserError: a value of the config cannot be used.
    """
    full_process = build_process(config.process)
    config.loss.check_process(full_process)

    # A process may refuse data of this shape, and does so when it is called: shapes without numbers are
    # enough for that.
    x0 = jax.ShapeDtypeStruct(description.shape, np.int32)
    t = jax.ShapeDtypeStruct((), np.int32)
    jax.eval_shape(full_process.log_q_probs, x0, t)

    extra_mask = find_extra_mask(config.process, full_process, description.categories)
    if config.loss.needs_extra_mask and extra_mask is None:
        raise ValueError(
            f"loss = {type(config.loss).__name__} needs an extra mask, one more category than the data has, "
            f"which has {description.categories}: set process.K = {description.categories + 1} and "
            f"process.mask_id = {description.categories}"
        )
    process = with_steps(full_process, steps)
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
    classes = network.network_classes(config, description)
    return Diffusion(
        config=config,
        process=place(process, replicated_sharding(mesh)),
        predict=network.spread_over_mesh(functions.predict, sharding),
        train_predict=network.spread_over_mesh(functions.train_predict, sharding),
        loss=DiffusionLoss(objective, config.timesteps, network.spread_over_mesh(network_of_loss, sharding)),
        network=functions.predict,
        init=functions.init,
        classes=classes,
        dropping=network.make_dropping(config.train.drop_condition, classes, description),
        extra_mask=functions.extra_mask,
        mesh=mesh,
    )


def _is_of_cpus(mesh: jax.sharding.Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def with_steps(process: Process, steps: int | Sequence[int] | None) -> Process:
    """Returns a process with all of its steps (None), a number of evenly spaced steps, or the listed steps.

    Raises:
        ValueError: it has no such steps.
    """
    if steps is None:
        return process
    if isinstance(steps, int):
        steps = even_grid(process.T, steps)
    return respace(process, steps)


def describe_steps(process: Process) -> dict[str, Any]:
    """Describes the steps of a process and their grid: "even, of 1000", or their times."""
    state_times = np.asarray(process.time)
    full_T = int(state_times[-1])
    times = state_times[1:].tolist()
    if times == even_grid(full_T, len(times)):
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
