"""Makes the recipe of an argmax flow."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax import flows, sampling
from d3pm_jax.config import Config, Spec, filled_field
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, wrong_return
from d3pm_jax.evaluation.bound import (
    compile_log_weights,
    draw_each,
    elbo_and_importance_bound,
    format_with_error,
    summarize_bound,
)
from d3pm_jax.keys import make_key
from d3pm_jax.models import variables
from d3pm_jax.program.machine.devices import batch_sharding
from d3pm_jax.program.parts.draw import Draw, Inputs, Particles, Settled
from d3pm_jax.program.parts.network import call_in_training
from d3pm_jax.program.parts.recipe import Bound, Drawing, Figures, Recipe
from d3pm_jax.sampling.noise import fold_in_each
from d3pm_jax.training.flow import FlowLoss
from d3pm_jax.types import Params


def make_flow(config: Config, description: Description, mesh: jax.sharding.Mesh) -> Recipe:
    """Makes the recipe of a config that trains a flow.

    Raises:
        ValueError, UserError: the model builds no flow, or none of such data.
    """
    if description.sizes is not None:
        raise ValueError(
            f"places have categories of their own, and a flow has {description.categories} for all: take "
            f"process = ByPlace, with a network and objective of diffusion"
        )
    K = filled_field(config.process, "K")
    shape = description.shape
    num_digits = flows.count_digits(K, 2)  # how many numbers a category becomes
    sharding = batch_sharding(mesh)
    spec = Spec(shape, K, outputs=None, classes=None, T=1)

    def build(key: Key[Array, ""]) -> nnx.Module:
        module = config.model.build(spec, nnx.Rngs(key))
        if not callable(getattr(module, "draw", None)):
            raise ValueError(
                f"model = {type(config.model).__name__} builds no flow, as process = Argmax() needs: take "
                f"ArgmaxCoupling or ArgmaxAR"
            )
        return module

    module, shapes = variables.split_module(build)
    _check_call(module, shapes, shape, num_digits)

    def train_log_weights(params: Params, x: Array, u: Array, normal: Array, key: Array) -> tuple[Array, Any]:
        x = jax.lax.with_sharding_constraint(x, sharding)
        return call_in_training(module, params, key, x, u, normal)

    def compute_log_weights(params: Params, x: Array, u: Array, normal: Array) -> Array:
        """Computes log p(v) - log q(v | x) of one v for each example, [B], without dropout."""
        _check_shape(x.shape[1:], shape)
        x = jax.lax.with_sharding_constraint(x, sharding)
        return module.merge(params)(x, u, normal)

    def draw_batch(settled: Settled, inputs: Inputs) -> sampling.Chain:
        """Draws samples from the flow: a chain without states, which failed where v is no number."""
        N = settled.shape[0] * settled.per_sample
        first = inputs.first * settled.per_sample
        keys = fold_in_each(inputs.key, first + jnp.arange(N, dtype=jnp.int32))
        _, normal = draw_each(keys, shape, num_digits)
        normal = jax.lax.with_sharding_constraint(normal, sharding)
        x = module.merge(inputs.params).draw(normal)  # [N, *S]
        failed_at = jnp.any(x < 0).astype(jnp.int32)
        states = jnp.zeros((0, *x.shape), jnp.int32)
        calls = jnp.ones(x.shape[:1], jnp.int32)
        return sampling.Chain(x, states, failed_at, calls, jnp.asarray(1, jnp.int32))

    return Recipe(
        name=f"{type(config.process).__name__}, K = {K}",
        K=K,
        times=np.zeros(1, np.int32),
        conditions={"steps": 0, "grid": "-", "belief": "-"},
        init=partial(variables.init_variables, build),
        loss=FlowLoss(train_log_weights, num_digits),
        bound=_make_bound(compute_log_weights, num_digits),
        draw=Drawing(
            "flow",
            partial(_settle, shape),
            draw_batch,
            lambda failed_at, settled: (
                "the flow gave no numbers: its weights are not finite; use another checkpoint"
            ),
        ),
    )


def _make_bound(compute_log_weights: Callable[..., Array], num_digits: int) -> Bound:
    """Makes the bound: the ELBO of one draw of v, or the IWBO of as many draws as calls."""

    def summarize(log_weights: Any, D: int | np.ndarray, calls: int | None) -> Figures:
        """Returns the figures of the ELBO; of several draws those of the IWBO, and the ELBO beside it."""
        elbo, importance_bound = elbo_and_importance_bound(log_weights)
        elbo_figures = summarize_bound(elbo, D)
        if calls is None:
            return elbo_figures
        beside = {
            "elbo_bits_per_dim": elbo_figures["bits_per_dim"],
            "elbo_standard_error": elbo_figures["standard_error"],
        }
        return summarize_bound(importance_bound, D) | beside

    def describe(figures: Figures, figures_in_words: str) -> str:
        if "calls" not in figures:
            return f"ELBO: {figures_in_words}"
        elbo = format_with_error(figures["elbo_bits_per_dim"], figures["elbo_standard_error"], 3)
        return f"IWBO({figures['calls']}): {figures_in_words}, beside an ELBO of {elbo} bits/dim"

    return Bound(
        calls=1,
        compile=lambda calls, seed: compile_log_weights(compute_log_weights, num_digits, calls or 1, seed),
        times=lambda calls: [],
        summarize=summarize,
        describe=describe,
        main_figures=("bits_per_dim",),
        nats=lambda means: means["loss"],
        some_terms="IWBO({calls})",
        all_terms="ELBO, 1 draw for each example",
    )


def _settle(shape: tuple[int, ...], draw: Draw, settled: Settled) -> Settled:
    """Refuses what a flow cannot do: states on the way, another shape, known elements, guidance, a sampler.

    Raises:
        UserError: one of them is asked for.
    """
    _check_shape(settled.shape[1:], shape)
    is_made_from_known = draw.known is not None or draw.start is not None
    refusals = [
        (len(settled.record) > 0, "has no states to record: leave record out"),
        (
            is_made_from_known,
            "fills in no known elements and edits nothing: leave --prompt, --infill, --given, known or start "
            "out",
        ),
        (
            isinstance(settled.select, Particles),
            "draws a sample at once and steers no particles: take runs.BestOf(score, n)",
        ),
        (
            settled.sampler is not None,
            "draws a sample at once and takes no sampler: leave --sampler or sampler out",
        ),
        (
            settled.guidance is not None,
            "draws a sample at once and cannot be guided: leave --guidance or guidance out",
        ),
    ]
    for is_asked, refusal in refusals:
        if is_asked:
            raise UserError(f"the run trains a flow, which {refusal}")
    return settled


def _check_shape(shape: tuple[int, ...], shape_of_flow: tuple[int, ...]) -> None:
    """Raises UserError unless examples have the shape that the flow is for."""
    if shape != shape_of_flow:
        raise UserError(
            f"examples of shape {list(shape)}: the flow of this run takes only {list(shape_of_flow)}"
        )


def _check_call(
    module: variables.SplitModule, shapes: Params, shape: tuple[int, ...], num_digits: int
) -> None:
    """Raises ValueError where the flow does not give a log weight for each example.

    It is called once on shapes without numbers, before a run begins.
    """
    x = jnp.zeros((2, *shape), jnp.int32)
    normal = jnp.zeros((2, *shape, num_digits))
    u = jnp.zeros(x.shape)
    log_weights, _ = jax.eval_shape(module.call, shapes, make_key(0), x, u, normal)
    if getattr(log_weights, "shape", None) != (2,):
        raise wrong_return(module.called_method, log_weights, "log weights, one for each example")
