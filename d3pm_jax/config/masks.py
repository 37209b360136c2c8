"""Says what networks minimise that fill in masks: block after block, or in any order."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import sampling
from d3pm_jax.blocks import Layout, block_layout, block_times, fill_blocks
from d3pm_jax.checks import values_in_range
from d3pm_jax.config.checks import Count, Probability, UnitInterval
from d3pm_jax.config.head import Head
from d3pm_jax.config.objective import (
    Asked,
    ContinuousAbsorbing,
    Network,
    RealTimeObjective,
    Terms,
    network_time,
    places_looked_at,
)
from d3pm_jax.config.timesteps import Timesteps
from d3pm_jax.losses import any_order
from d3pm_jax.processes import Process
from d3pm_jax.timesteps import StepNoise


@dataclasses.dataclass(frozen=True)
class Blocks(ContinuousAbsorbing):
    """Minimises the bound of blocks that come one after the other, masked each by itself (BD3-LM).

    The network is given x_t and x_0 beside each other, with `layout`, see `blocks`.
    """

    block: Count = 4
    """places of a block, which divides the length of an example; 1 is the chain rule from left to right"""
    low: UnitInterval = 0.0
    high: Probability = 1.0
    """times of training are in (low, high], by the weight of the bound, but by 1 where low is above 0.5;
    evaluation takes (0, 1], without which there is no bound"""

    estimates_bound = True
    fills_any_order = False
    tells_time = False
    by_rows = True
    looks_at = ContinuousAbsorbing.looks_at

    def check(self) -> None:
        super().check()
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}: times are in (low, high]")

    def network_layout(self, shape: tuple[int, ...]) -> Layout:
        if len(shape) != 1:
            raise ValueError(f"loss = Blocks is for sequences [L], and examples are {list(shape)}")
        return block_layout(shape[0], self.block)

    def without_layout(self, network: Network) -> Network:
        return fill_blocks(network, self.block)

    def ask(
        self, process: Process, network: Network, x0: Array, noise: StepNoise, weight: Array | None
    ) -> Asked:
        length = x0.shape[1]
        layout = self.network_layout(x0.shape[1:])
        with values_in_range():
            times = block_times(noise.t / process.T, length // self.block)  # [B, L / block]
        times = self.low + (self.high - self.low) * times
        t = jnp.repeat(times * process.T, self.block, axis=1)  # [B, L]
        xt = self.draw(process, x0, t, noise.u)
        both = jnp.concatenate([xt, x0.astype(xt.dtype)], axis=1)
        logits = network(both, network_time(process, noise.t), layout=layout)[:, :length]
        return Asked(logits, (x0, xt, t, noise.p_t), places_looked_at(self, process, xt))

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        terms = super().terms(process, logits, x0, xt, t, p_t)
        if self.low <= 0.5:
            return terms
        of_masks = jnp.where(xt == process.K - 1, terms.ce, 0.0)
        return self._terms(process, logits, x0, of_masks, p_t)

    def of_bound(self) -> "Blocks":
        return dataclasses.replace(self, low=0.0, high=1.0)

    def default_sampler(self) -> sampling.Sampler:
        return sampling.Sampler(block=self.block)

    def check_sampler(self, sampler: sampling.Sampler) -> None:
        if sampler.block is None or self.block % sampler.block:
            raise ValueError(
                f"sampler.block = {sampler.block}, and loss = Blocks(block={self.block}) predicts a block "
                f"from clean ones before it: take sampler blocks, with block = {self.block} or a divisor"
            )

    def check_known(self, known: np.ndarray) -> None:
        by_block = known.reshape(-1, known.shape[-1] // self.block, self.block)
        # The first known place of a block after unknown ones is looked for: the block right before has some.
        has_unknown_before = ~by_block[:, :-1].all(axis=-1)
        if np.any(has_unknown_before & by_block[:, 1:].any(axis=-1)):
            raise ValueError(
                f"a known place is in a later block than an unknown one, and loss = "
                f"Blocks(block={self.block}) looks at what is before a block alone: give the first places"
            )

    def check_beside(self, head: Head, timesteps: Timesteps) -> None:
        super().check_beside(head, timesteps)
        if getattr(timesteps, "power", 1.0) != 1.0:
            raise ValueError(
                f"timesteps = {timesteps} draws some times more often, and each block has its own: set "
                f"timesteps=RealTimes()"
            )


@dataclasses.dataclass(frozen=True)
class AnyOrder(RealTimeObjective):
    """Minimises the bound of filling in in any order, with n masks, n uniform in 1..L (ARDM).

    In the mean it is that of an absorbing process with any schedule, by whose terms it is evaluated.
    """

    needs_extra_mask = True
    tells_time = False
    by_rows = True

    def ask(
        self, process: Process, network: Network, x0: Array, noise: StepNoise, weight: Array | None
    ) -> Asked:
        counts = jnp.ones(x0.shape, bool) if weight is None else weight > 0
        L = counts.sum(axis=tuple(range(1, x0.ndim)))  # [B]
        n = jnp.ceil(noise.t / process.T * L).astype(jnp.int32)
        mask_id = process.K - 1  # an extra mask is the last category
        with values_in_range():
            xt = any_order.any_order_draw(x0, n, noise.u, mask_id, weight)
        logits = network(xt, network_time(process, noise.t))
        masked = any_order.count_masks(x0, xt, mask_id, weight)

        def terms(logits: Array, x0: Array, p_t: Array, masked: any_order.Masked) -> Terms:
            with values_in_range():
                loss = any_order.weigh_masks(logits, x0, masked)
            return self._terms(process, logits, x0, loss, p_t)

        return Asked(logits, (x0, noise.p_t, masked), masked.is_masked, terms)

    def check_process(self, process: Process) -> None:
        sampling.laws.require_absorbing(process, "loss = AnyOrder")
