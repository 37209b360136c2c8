"""Defines what a run trains: a loss, a bound and a way to draw samples, of a diffusion or of a flow.

What trains, evaluates, samples and reports a run calls these, and does not ask which of them it has. A
classifier of noised examples is one too, which has figures in place of a bound, and draws no samples.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from d3pm_jax.evaluation.bound import Compiled
from d3pm_jax.parts.draw import Draw, Inputs, Settled
from d3pm_jax.parts.guidance import Guidance
from d3pm_jax.parts.network import Init
from d3pm_jax.sampling import Chain, Row, Sampler, Steered
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.training.loss import BatchLoss


@runtime_checkable
class Method(Protocol):
    """Defines what a run trains, as `Diffusion`, `Flow` and `Classifier` of their modules do."""

    @property
    def subject(self) -> str:
        """Returns what is trained, for messages: "a diffusion"."""
        ...

    @property
    def draws_samples(self) -> bool:
        """Tells whether `draw` draws samples; a classifier draws none."""
        ...

    def name(self) -> str:
        """Returns the name for captions: "Uniform, K = 17, T = 100"."""
        ...

    @property
    def K(self) -> int:
        """Returns the number of categories, a mask among them."""
        ...

    @property
    def extra_mask(self) -> int | None:
        """Returns a mask that the data never has and the network never predicts; None for none."""
        ...

    @property
    def classes(self) -> int | None:
        """Returns how many classes labels may name; None where the network takes no labels."""
        ...

    @property
    def dropping(self) -> Dropping | None:
        """Returns what drops labels and conditions in training, and knows the null inputs; None for none."""
        ...

    @property
    def process(self) -> Any:
        """Returns the forward process, an argument of all compiled functions; None of a flow."""
        ...

    @property
    def num_steps(self) -> int:
        """Returns in how many steps a sample is drawn from noise: T of a diffusion, 0 of a flow."""
        ...

    def state_times(self) -> np.ndarray:
        """Returns the time of every state of a sample, int [num_steps + 1], 0 of the data first.

        Times are steps of the process with all of its steps.
        """
        ...

    def make_loss(self) -> BatchLoss:
        """Makes the loss of a batch, and its noise."""
        ...

    @property
    def init(self) -> Init:
        """Returns the function of a key that draws the first weights."""
        ...

    def respaced(self, steps: int | Sequence[int]) -> "Method":
        """Returns the method with fewer steps: so many, evenly spaced, or these.

        Raises:
            UserError: it has no such steps.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Describes what a figure depends on: its steps, their grid, and the belief of the network."""
        ...

    @property
    def sampler(self) -> str:
        """Returns the name of the way that samples are drawn."""
        ...

    def check_draw(self, draw: Draw) -> None:
        """Raises UserError for a request that this method cannot meet: a program would say so late."""
        ...

    def settle_sampler(
        self, sampler: Sampler | None, shape: tuple[int, ...], strength: float | None
    ) -> tuple[Sampler | None, tuple[Row, ...]]:
        """Returns the sampler that draws samples of a shape *S, and its rows from T to 0.

        Args:
            sampler: None where none is asked for.
            shape: of a sample.
            strength: of edits; None for samples.

        Raises:
            UserError: it is not for this run, or for edits.
        """
        ...

    def settle_guidance(self, guidance: Guidance, sampler: Sampler | None) -> Guidance:
        """Returns how samples are guided, with what it leaves open filled in.

        Raises:
            UserError: it is not for this run, or not for the sampler.
        """
        ...

    def draw(self, settled: Settled, inputs: Inputs) -> Chain | Steered:
        """Draws a batch of samples; of candidates all chains, and of particles what `sampling.steer` returns.

        Sample i depends on the key, i, its label, its condition and its known elements alone.
        """
        ...

    def explain_failure(self, failed_at: int, settled: Settled) -> str:
        """Says why there are no samples where `Chain.failed_at` is not 0, and what to do."""
        ...

    def compile_bound(self, calls: int | None, seed: int) -> Compiled:
        """Makes the jitted function of a batch whose results `summarize` takes.

        Args:
            calls: of the network for each example; None for as many as the whole bound takes.
            seed: of the noise.

        Raises:
            UserError: there are not so many calls to make.
        """
        ...

    @property
    def calls_of_bound(self) -> int:
        """Returns how many calls of the network for each example the bound takes by default."""
        ...

    @property
    def main_figures(self) -> tuple[str, ...]:
        """Returns the names of the figures of `summarize` that stand for all, as in lines of metrics."""
        ...

    def times_of_terms(self, calls: int | None) -> list[int]:
        """Returns the times of the terms of a bound, or of other figures, computed by so many calls."""
        ...

    def summarize(self, bound: Any, D: int | np.ndarray, calls: int | None) -> dict[str, Any]:
        """Returns the figures of a bound by name, `evaluation.bound.summarize_bound` and its parts.

        Args:
            bound: of a function of `compile_bound`, by `evaluation.bound.evaluate_bound`.
            D: elements of an example, or the sum of the weights of each, [N].
            calls: as for `compile_bound`.
        """
        ...

    def describe_terms(self, calls: int | None) -> str:
        """Says in words what a bound of so many calls is made of, for its protocol."""
        ...

    def describe_bound(self, figures: dict[str, Any], amount: str) -> str:
        """Says in a line of text which bound it is, its amount, and what it consists of.

        Args:
            figures: of the bound, by name.
            amount: the bound in words: "2.1 bits/dim, 90 nats".
        """
        ...

    def nats_of_means(self, means: dict[str, float | int]) -> float | None:
        """Returns nats per element of the bound, as the means of metrics say; None where there is none."""
        ...
