"""Says what a network believes of x_0: a `Denoiser` is asked at x_t, and gives an `Answer`."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax.beliefs import Belief, denoiser_of, leave_one_out_of
from d3pm_jax.checks import SelfChecked, declared, is_known
from d3pm_jax.errors import describe_returned
from d3pm_jax.posteriors import p_logits
from d3pm_jax.processes import Process, is_category
from d3pm_jax.projection import at_places, by_rows, check_process, now_or_later, require_array
from d3pm_jax.sampling import laws
from d3pm_jax.sampling.fields import check_returned
from d3pm_jax.sampling.network import Guided, Logits, Network, TimeUnit, call_network, tell_unit_time

NO_LOGITS = (
    "the network gives log scores, which are no logits of x_0: ask it by the steps Tweedie, Euler and Poisson"
)


class Answer(NamedTuple):
    """Holds what a network said of x_0 at x_t, and converts it to what a step needs.

    Where it gave a `projection.Projection`, `by_rows` makes answers of some places at a time; of all places
    it converts nothing, and raises ValueError.
    """

    process: Process
    logits: Any  # [B, *S, K], or a Projection
    belief: Belief  # what the logits are
    x: Int[Array, " B *S"]  # x_t
    t: Int[Array, " B"]
    said: Any  # those of the network itself, where these were shaped
    # of answers of some places at a time: shapes them as a sampler does
    shaping: Callable[[Any], Any] | None = None
    # whether the logits are others than what the network said, but for the mask
    is_shaped: bool = False
    # log p(x_0 = what was drawn) of places that are masked, where the draw gave it too
    log_drawn: Array | None = None

    @property
    def log_denoiser(self) -> Array:
        """Returns log p(x_0 | x_t), normalised, [B, *S, K]."""
        return denoiser_of(self.process, self._in_memory, self.x, self.t, self.belief)

    @property
    def logits_loo(self) -> Array:
        """Returns leave-one-out logits of x_0, [B, *S, K]."""
        return leave_one_out_of(self.process, self._in_memory, self.x, self.t, self.belief)

    @property
    def log_kept(self) -> Array:
        """Returns log p(x_0 = x_t) of each place as if it were masked, of a process of masks, [B, *S].

        That is what the network says of x_t, before it is shaped, among all categories but the mask.
        """
        mask = laws.mask_of(self.process)
        assert mask is not None, "no other process has one"
        mask = jnp.broadcast_to(mask, self.x.shape)
        said = require_array(self.said, "what reads an answer other than by `by_rows`")
        logits = jnp.where(is_category(mask, self.process.K), -jnp.inf, said)
        log_p = denoiser_of(self.process, logits, mask, self.t, self.belief)
        return jnp.take_along_axis(log_p, self.x[..., None], axis=-1)[..., 0]

    @property
    def _in_memory(self) -> Array:
        return require_array(self.logits, "what reads an answer other than by `by_rows`")

    @property
    def log_scores(self) -> Array:
        """Returns log scores as `laws.tweedie_logits` takes them, [B, *S, K]."""
        if laws.mask_of(self.process) is None:
            return laws.log_ratios(self.process, self.logits_loo, self.x, self.t)
        return self.log_denoiser

    def log_rates(self, s: Array) -> Float[Array, " B *S K"]:
        """Returns the log rates of the reverse process from t to s, as `laws.log_rates` does."""
        return laws.log_rates(self.process, self.logits_loo, self.x, self.t, s)

    def log_bayes(self, s: Array) -> Float[Array, " B *S K"]:
        """Returns log p(x_s | x_t) by Bayes' rule, s = t - 1."""
        return p_logits(self.process, self._in_memory, self.x, self.t, self.belief)

    def shaped_by(self, shape: Callable[["Answer"], "Answer"]) -> "Answer":
        """Returns the answer shaped as a sampler does it, at once where its logits are in memory."""
        return now_or_later(self.said, lambda: shape(self), lambda: self._replace(shaping=shape))

    def denoiser_at(self, places: Int[Array, "B n"]) -> Float[Array, "B n K"]:
        """Returns log p(x_0 | x_t) at some places of each example, by their numbers in memory."""

        def make() -> Array:
            said = at_places(self.said, places)
            x_in_line = self.x.reshape(len(self.x), math.prod(self.x.shape[1:]))
            x = jnp.take_along_axis(x_in_line, places, axis=1)
            answer = self._replace(logits=said, said=said, x=x, shaping=None)
            if self.shaping is not None:
                answer = self.shaping(answer)
            return answer.log_denoiser

        return now_or_later(self.said, lambda: at_places(self.log_denoiser, places), make)

    def by_rows(self, f: Callable[..., Any], *rows: Any) -> Any:
        """Returns f(answer, *rows), arrays with one number for each place.

        Args:
            f: of an answer in memory it is called once. Where a `projection.Projection` stands for the logits
                it is called with answers of some places at a time, [n, K] with x [n] and t [n], and what it
                returns of a place may depend on that place alone.
            rows: trees of arrays of a shape that that of x begins with; of some places they come as [n].
        """

        def call(said: Array, x: Array, t: Array, *rows: Any) -> Any:
            answer = self._replace(logits=said, said=said, x=x, t=t, shaping=None)
            if self.shaping is not None:
                answer = self.shaping(answer)
            return f(answer, *rows)

        return now_or_later(
            self.said, lambda: f(self, *rows), lambda: by_rows(self.said, call, self.x, self.t, *rows)
        )


class ScoreAnswer(Answer):
    """Holds the log scores that a network gave at x_t; it has no logits of x_0."""

    __slots__ = ()

    @property
    def logits(self) -> Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Raises TypeError: scores are no logits of x_0."""
        raise TypeError(NO_LOGITS)

    @property
    def log_scores(self) -> Array:
        return self.said

    def log_rates(self, s: Array) -> Array:
        return laws.score_log_rates(self.process, self.said, self.x, self.t, s)

    def log_bayes(self, s: Array) -> Array:
        return laws.tweedie_logits(self.process, self.said, self.x, self.t, s)

    # A sampler that would shape them is refused before it runs.
    def shaped_by(self, shape: Callable[[Answer], Answer]) -> Answer:
        return super().shaped_by(lambda answer: answer)


@dataclasses.dataclass(frozen=True, eq=False)
class Denoiser(SelfChecked):
    """Holds a network, the process that it was trained on, what its logits of x_0 are, and its unit of time.

        denoiser = Denoiser(process, lambda xt, time: network(params, xt, time), "leave_one_out", time="unit")
        chain = sampling.sample(key, denoiser, shape=(16, 64))
        bound = likelihood.estimate_bound(key, denoiser, process, x0, index, belief=denoiser.belief)

    It stands wherever a network is asked for: called with (x_t, process.time[t]), it tells the network that
    time in the unit of the network. A bound refuses one of another belief, K or last step than its own: a
    respaced process keeps the last step, and another T needs a new Denoiser. Under `jit` make it inside of
    the compiled function, of a process and parameters that are arguments of it.
    """

    process: Process
    network: Network
    """(x_t int32 [B, *S], time [B]) -> logits of x_0 [B, *S, K]; or one that `guidance` made"""
    belief: Belief = "d3pm"
    """what the logits are, see `beliefs`"""
    time: TimeUnit = "steps"
    """what the network was trained with: "steps", process.time[t] in 1..T, or "unit", t / T in (0, 1]"""
    kind: ClassVar[type[Answer]] = Answer
    """what holds what the network said"""

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError for arguments that are none of these."""
        network = _check_network(self.process, self.network, self.belief, self.time)
        object.__setattr__(self, "network", network)

    def __call__(self, x: Array, time: Array) -> Logits:
        """Returns the logits of the network at x_t, called as all networks here are: with the time in steps.

        Raises:
            TypeError: guidance changes the law of x_s, of which no logits of x_0 say anything.
        """
        return self._network_of_steps(x, time)

    @property
    def _network_of_steps(self) -> Network:
        """Returns the network, or its guidance, as one that is called with steps."""
        if self.time == "steps":
            return self.network
        return tell_unit_time(self.network, self.process)

    @property
    def K(self) -> int:
        """Returns the number of categories."""
        return self.process.K

    @property
    def T(self) -> int:
        """Returns the number of steps."""
        return self.process.T

    @property
    def calls(self) -> int:
        """Returns how many calls of the network an answer takes."""
        return self.network.calls if isinstance(self.network, Guided) else 1

    @property
    def guided(self) -> Guided | None:
        """Returns the guidance of the law of x_s; None where there is none."""
        if isinstance(self.network, Guided) and self.network.changes_law:
            return self.network
        return None

    def ask_each(self, x: Array, t: Array, time: Array) -> list[Answer]:
        """Asks the network at x_t, for each of the laws that guidance of x_s makes one of: without it, one.

        Args:
            x: categories [B, *S].
            t: the step of each example, [B].
            time: of each example in steps, [B]: process.time[t], or a real number between steps.
        """
        network = self._network_of_steps
        if isinstance(network, Guided):
            each = network.beliefs(x, time)
            if not isinstance(each, list | tuple) or not each:
                raise TypeError(
                    f"{type(network).__name__}.beliefs returns {describe_returned(each)}: return a list "
                    f"of logits of x_0"
                )
            for logits in each:
                check_returned(network, "beliefs", logits, jnp.floating, (*x.shape, self.K))
        else:
            each = [call_network(network, x, time)]
        return [self.answer(logits, x, t) for logits in each]

    def answer(self, logits: Logits, x: Array, t: Array) -> Answer:
        """Returns logits of x_0 at x_t as an answer."""
        check_process(logits, self.process)
        return self.kind(self.process, logits, self.belief, x, t, logits)

    def check_sampler(self, sampler: Any) -> None:
        """Raises ValueError for a sampler that needs what the network does not say."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scores(Denoiser):
    """Holds a network of log scores in the place of a `Denoiser`, as SEDD trains one.

        scores = Scores(process, lambda xt, time: log_scores(params, xt, time))
        chain = sampling.sample(key, scores, shape=(16, 64), sampler=named.tweedie())

    Its network returns log scores [B, *S, K] as `laws.tweedie_logits` takes them. Asked for logits of x_0, as
    a bound or another step does, it raises TypeError.
    """

    belief: ClassVar[Belief] = "leave_one_out"  # pyright: ignore
    kind = ScoreAnswer

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError for arguments that are none of these, or guidance of x_0."""
        super().__post_init__()
        laws.require_mixing(self.process, "a network of scores")
        if isinstance(self.network, Guided) and not self.network.changes_law:
            name = type(self.network).__name__
            raise ValueError(f"{name} guides x_0, and the network gives log scores: guide x_s")

    def __call__(self, x: Array, time: Array) -> Array:
        """Raises TypeError: what calls a network as all here are called takes logits of x_0."""
        raise TypeError(NO_LOGITS)

    def check_sampler(self, sampler: Any) -> None:
        sampler.check_scores()


@declared()
def _check_network(process: Process, network: Network, belief: Belief, time: TimeUnit) -> Network:
    """Returns the network with what it returns checked."""
    return network


def check_agrees(network: Network, process: Process, belief: Belief, term: Callable[..., Any]) -> None:
    """Refuses a `Denoiser` of another belief or process than those by which a bound takes its logits.

    Args:
        network: of the bound; one that is no `Denoiser` says nothing of this.
        process: that of the Denoiser, or one respaced from it. Under `jit` its times are not known.
        belief: what the bound was told; with "d3pm" a term takes logits as it does by itself.
        term: of the bound; one without the keyword `belief` goes with any Denoiser.

    Raises:
        ValueError: they are not the same.
    """
    if isinstance(network, Denoiser):
        if belief == "d3pm":
            parameter = inspect.signature(term).parameters.get("belief")
            belief = getattr(parameter, "default", network.belief)
        pairs = {
            "belief": [belief, network.belief],
            "process.K": [process.K, network.process.K],
            "process.time[-1]": [x.time.tolist()[-1] for x in (process, network.process) if is_known(x.time)],
        }
        for name, values in pairs.items():
            if len(set(values)) > 1:
                raise ValueError(
                    f"{name} = {values[0]!r}, and the Denoiser has {values[1]!r}: pass "
                    f"belief=denoiser.belief and denoiser.process, or one respaced from it, or make a new "
                    f"Denoiser"
                )
