"""Builds an argmax flow, and what a run asks of it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax import flows, sampling
from d3pm_jax.config import Config, ScoreNet, Spec, Transformer, UNet
from d3pm_jax.config.from_data import filled_field
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, wrong_return
from d3pm_jax.evaluation.bound import Compiled, format_with_error, summarize_bound
from d3pm_jax.evaluation.flow_bound import (
    compile_log_weights,
    draw_each,
    elbo_and_importance_bound,
)
from d3pm_jax.machine.devices import batch_sharding
from d3pm_jax.models import variables
from d3pm_jax.parts.draw import Draw, Inputs, Particles, Settled
from d3pm_jax.parts.guidance import Guidance
from d3pm_jax.parts.network import Init
from d3pm_jax.sampling.noise import fold_in_each
from d3pm_jax.training.flow import FlowLoss
from d3pm_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Flow:
    """Holds an argmax flow as a `parts.method.Method`."""

    config: Config
    module: variables.SplitModule
    init: Init
    K: int
    shape: tuple[int, ...]  # *S of an example
    sharding: jax.sharding.NamedSharding  # of a batch
    process: None = None
    classes: None = None
    dropping: None = None
    extra_mask: None = None
    sampler: str = "flow"
    subject: str = "a flow"
    draws_samples: bool = True
    main_figures: tuple[str, ...] = ("bits_per_dim",)
    calls_of_bound: int = 1
    num_steps: int = 0

    def name(self) -> str:
        """Returns the name for captions: "Argmax, K = 68"."""
        return f"{type(self.config.process).__name__}, K = {self.K}"

    @property
    def num_digits(self) -> int:
        """Returns how many numbers a category becomes."""
        return flows.count_digits(self.K, 2)

    def state_times(self) -> np.ndarray:
        """Returns the time of the data alone, [1]: a flow has no steps."""
        return np.zeros(1, np.int32)

    def make_loss(self) -> FlowLoss:
        """Makes the loss: minus the ELBO."""

        def log_weights(params: Params, x: Array, u: Array, normal: Array, key: Array) -> tuple[Array, Any]:
            x = jax.lax.with_sharding_constraint(x, self.sharding)
            if self.module.takes_keyword("key"):
                return self.module.call(params, key, x, u, normal, key=key)
            return self.module.call(params, key, x, u, normal)

        return FlowLoss(log_weights, self.num_digits)

    def respaced(self, steps: int | Sequence[int]) -> "Flow":
        """Raises UserError, as there are no steps."""
        raise UserError(
            f"steps = {steps}: the run trains a flow, which draws a sample at once: leave steps out"
        )

    def describe(self) -> dict[str, Any]:
        """Describes what a figure depends on, where a diffusion has its steps, their grid and the belief."""
        return {"steps": 0, "grid": "-", "belief": "-"}

    def compute_log_weights(self, params: Params, x: Array, u: Array, normal: Array) -> Array:
        """Computes log p(v) - log q(v | x) of one v for each example, [B], without dropout.

        Raises:
            UserError: the examples have another shape.
        """
        self._check_shape(x.shape[1:])
        x = jax.lax.with_sharding_constraint(x, self.sharding)
        return self.module.merge(params)(x, u, normal)

    def draw(self, settled: Settled, inputs: Inputs) -> sampling.Chain:
        """Draws samples from the flow: a chain without states, which failed where v is no number."""
        N = settled.shape[0] * settled.per_sample
        first = inputs.first * settled.per_sample
        keys = fold_in_each(inputs.key, first + jnp.arange(N, dtype=jnp.int32))
        _, normal = draw_each(keys, self.shape, self.num_digits)
        normal = jax.lax.with_sharding_constraint(normal, self.sharding)
        x = self.module.merge(inputs.params).draw(normal)  # [N, *S]
        failed_at = jnp.any(x < 0).astype(jnp.int32)
        states = jnp.zeros((0, *x.shape), jnp.int32)
        calls = jnp.ones(x.shape[:1], jnp.int32)
        return sampling.Chain(x, states, failed_at, calls, jnp.asarray(1, jnp.int32))

    def settle_guidance(self, guidance: Guidance, sampler: sampling.Sampler | None) -> Guidance:
        """Raises UserError, as there is no chain to guide."""
        raise UserError(
            "the run trains a flow, which draws a sample at once and cannot be guided: leave --guidance or "
            "guidance out"
        )

    def settle_sampler(
        self, sampler: sampling.Sampler | None, shape: tuple[int, ...], strength: float | None
    ) -> tuple[None, tuple[sampling.Row, ...]]:
        """Raises UserError for a sampler, as there is no chain for it to draw."""
        if sampler is not None:
            raise UserError(
                "the run trains a flow, which draws a sample at once and takes no sampler: leave --sampler "
                "or sampler out"
            )
        return None, ()

    def check_draw(self, draw: Draw) -> None:
        """Refuses what a flow cannot do: states on the way, another shape, and elements that are known.

        Raises:
            UserError: one of them is asked for.
        """
        if draw.record:
            raise UserError("the run trains a flow, which has no states to record: leave record out")
        if draw.known is not None or draw.start is not None:
            raise UserError(
                "the run trains a flow, which fills in no known elements and edits nothing: leave --prompt, "
                "--infill, --given, known or start out"
            )
        if isinstance(draw.select, Particles):
            raise UserError(
                "the run trains a flow, which draws a sample at once and steers no particles: take "
                "runs.BestOf(score, n)"
            )
        if draw.shape is not None:
            self._check_shape(draw.shape)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless examples have the shape that the flow is for."""
        if shape != self.shape:
            raise UserError(
                f"examples of shape {list(shape)}: the flow of this run takes only {list(self.shape)}"
            )

    def explain_failure(self, failed_at: int, settled: Settled) -> str:
        """Says why v is no number, and what to do."""
        return "the flow gave no numbers: its weights are not finite; use another checkpoint"

    def times_of_terms(self, calls: int | None) -> list[int]:
        """Returns no times: the bound of a flow has no terms of steps."""
        return []

    def compile_bound(self, calls: int | None, seed: int) -> Compiled:
        """Makes the jitted function of a batch of log weights [draws, B]: one draw, or as many as calls."""
        return compile_log_weights(self.compute_log_weights, self.num_digits, calls or 1, seed)

    def summarize(self, bound: Any, D: int | np.ndarray, calls: int | None) -> dict[str, Any]:
        """Returns the figures of the ELBO; of several draws those of the IWBO, and the ELBO beside it."""
        elbo, importance_bound = elbo_and_importance_bound(bound)
        elbo_figures = summarize_bound(elbo, D)
        if calls is None:
            return elbo_figures
        beside = {
            "elbo_bits_per_dim": elbo_figures["bits_per_dim"],
            "elbo_standard_error": elbo_figures["standard_error"],
        }
        return summarize_bound(importance_bound, D) | beside

    def describe_terms(self, calls: int | None) -> str:
        """Names the bound, and how many v it is computed from."""
        if calls is None:
            return "ELBO, 1 draw for each example"
        return f"IWBO({calls})"

    def describe_bound(self, figures: dict[str, Any], amount: str) -> str:
        """Says how much the ELBO is, or the IWBO, and then the ELBO beside it."""
        if "calls" not in figures:
            return f"ELBO: {amount}"
        elbo = format_with_error(figures["elbo_bits_per_dim"], figures["elbo_standard_error"], 3)
        return f"IWBO({figures['calls']}): {amount}, beside an ELBO of {elbo} bits/dim"

    def nats_of_means(self, means: dict[str, float | int]) -> float:
        """Returns nats per element of the bound, which is the loss."""
        return means["loss"]


def make_flow(config: Config, description: Description, mesh: jax.sharding.Mesh) -> Flow:
    """Builds the flow of a config.

    Raises:
        ValueError, UserError: the data is padded or has conditions, the model is no flow,
            or a part is set that a flow has no use for.
    """
    _check_config(config, description)
    K = filled_field(config.process, "K")
    if description.categories > K:
        raise ValueError(
            f"process.K = {K}, but the data has {description.categories} categories: set it to "
            f"{description.categories}"
        )
    spec = Spec(description.shape, K, outputs=None, classes=None, T=1)

    def build(key: Key[Array, ""]) -> nnx.Module:
        module = config.model.build(spec, nnx.Rngs(key))
        if not callable(getattr(module, "draw", None)):
            raise _no_flow(config)
        return module

    module, shapes = variables.split_module(build)

    def init(key: Key[Array, ""]) -> Params:
        return variables.init_variables(build, key)

    flow = Flow(
        config=config,
        module=module,
        init=init,
        K=K,
        shape=description.shape,
        sharding=batch_sharding(mesh),
    )
    _check_call(flow, shapes)
    return flow


def _no_flow(config: Config) -> ValueError:
    """Makes the error of a model that builds no flow."""
    return ValueError(
        f"model = {type(config.model).__name__} builds no flow, as process = Argmax() needs: take "
        f"ArgmaxCoupling or ArgmaxAR"
    )


def _check_config(config: Config, description: Description) -> None:
    """Raises ValueError for what a flow cannot have."""
    if isinstance(config.model, UNet | ScoreNet | Transformer):
        raise _no_flow(config)
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    for name in config.process.unused_parts:
        if getattr(config, name) != defaults[name]:
            raise ValueError(
                f"{name} = {getattr(config, name)} is for a diffusion, but process = Argmax() trains a "
                f"flow: leave {name} out"
            )
    if config.train.remat:
        raise ValueError("train.remat = True does nothing in a flow: leave it out")
    if config.train.drop_condition:
        raise ValueError(
            f"train.drop_condition = {config.train.drop_condition} drops labels and conditions, and a flow "
            f"takes neither: leave it out"
        )
    if config.train.noise is not None:
        raise ValueError(f"train.noise = {config.train.noise!r} is only for a diffusion: leave it out")
    if description.padded:
        raise ValueError("the data is padded, but a flow takes whole examples: take packing='wrapped'")
    if description.condition is not None:
        raise ValueError("the data has a condition, but a flow takes none: take a diffusion")


def _check_call(flow: Flow, shapes: Params) -> None:
    """Raises ValueError where the flow does not give a log weight for each example.

    It is called once on shapes without numbers, before a run begins.
    """
    x = jnp.zeros((2, *flow.shape), jnp.int32)
    normal = jnp.zeros((2, *flow.shape, flow.num_digits))
    u = jnp.zeros(x.shape)
    log_weights, _ = jax.eval_shape(flow.module.call, shapes, jax.random.key(0), x, u, normal)
    if getattr(log_weights, "shape", None) != (2,):
        raise wrong_return(flow.module.called_method, log_weights, "log weights, one for each example")
