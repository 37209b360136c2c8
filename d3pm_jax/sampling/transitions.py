"""Says by which law x_s is drawn from x_t: steps that move all places, with what they remember."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from d3pm_jax.checks import call_by_signature
from d3pm_jax.checks.hints import Probability, integers_from
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.posteriors import p_logits, p_sample
from d3pm_jax.processes import Masked, Mixing, Process, expand_trailing, gather, is_category
from d3pm_jax.sampling import drawing, fields, laws, noise
from d3pm_jax.sampling.chain import Row, plan_levels
from d3pm_jax.sampling.denoiser import Answer
from d3pm_jax.sampling.steps import LawStep, Memory, Taken, View


@dataclasses.dataclass(frozen=True)
class Bayes(LawStep):
    """Draws from p(x_{t-1} | x_t), by Bayes' rule (D3PM eq. 4): `p_logits`."""

    def law(self, view: View, answer: Answer) -> Array:
        return p_logits(view.process, answer.logits, view.x, view.t, answer.belief)

    # `p_sample` draws from `p_logits`, and makes no array of its probabilities where it need not.
    def choose(self, view: View, answer: Answer) -> Array:
        def draw(view: View, answer: Answer, u: Array) -> Array:
            return p_sample(view.process, answer.logits, view.x, view.t, u, answer.belief)

        return view.by_rows(answer, draw, view.noise(noise.DRAW))


@dataclasses.dataclass(frozen=True)
class OwnReverse(LawStep):
    """Draws from the law of a function of your own: (process, logits, xt, t) -> log p(x_{t-1} | x_t)."""

    reverse: Callable[..., Array]
    by_rows = False

    def law(self, view: View, answer: Answer) -> Array:
        # As `beliefs.with_belief`: a function for "d3pm" needs no such keyword.
        belief = {} if answer.belief == "d3pm" else {"belief": answer.belief}
        arguments = (view.process, answer.logits, view.x, view.t)
        return call_by_signature("reverse", "process, logits, xt, t", self.reverse, *arguments, **belief)


@dataclasses.dataclass(frozen=True)
class Keep(LawStep):
    """Keeps x_t as often as c of the most that the marginals allow: `laws.keep_logits`."""

    c: Probability = 1.0
    """in [0, 1]; 1 draws the least noise"""
    takes_long_steps = True

    def check(self, process: Process) -> None:
        laws.require_mixing(process, "keep")

    def law(self, view: View, answer: Answer) -> Array:
        return laws.keep_logits(view.process, answer.log_denoiser, view.x, view.t, view.s, self.c)


@dataclasses.dataclass(frozen=True)
class Tweedie(LawStep):
    """Draws from the law of x_s that scores make: `laws.tweedie_logits`."""

    takes_long_steps = True
    takes_scores = True

    def check(self, process: Process) -> None:
        laws.require_mixing(process, "a step of scores")

    def law(self, view: View, answer: Answer) -> Array:
        return laws.tweedie_logits(view.process, answer.log_scores, view.x, view.t, view.s)


@dataclasses.dataclass(frozen=True)
class Mixture(LawStep):
    """Draws by Bayes' rule with probability kappa, else noises x_0 afresh: `laws.mixture_logits`."""

    kappa: Probability = 0.95
    """in [0, 1]; 1 is ancestral"""

    def law(self, view: View, answer: Answer) -> Array:
        log_denoiser = answer.log_denoiser
        law = laws.mixture_logits(view.process, answer.logits_loo, log_denoiser, view.x, view.t, self.kappa)
        if answer.belief != "official":
            return law
        # At t = 1 both parts are x_0 itself, which by the official rule may be what x_t rules out.
        at_first = expand_trailing(view.t == 1, view.x.shape)
        return jnp.where(at_first[..., None], log_denoiser, law)


# ---- Masking again ----


class Sigma(fields.Slot, abc.ABC):
    """Defines the probability sigma with which a place that is not masked is masked again."""

    def start(self, view: View) -> Memory:
        """Returns what it remembers before the first row."""
        return {}

    def remember(self, view: View, answer: Answer, x: Array) -> Memory:
        """Returns what it remembers after a row that drew x."""
        return view.memory

    @abc.abstractmethod
    def sigma(self, view: View, most: Float[Array, " B"]) -> Float[Array, " B *S"]:
        """Returns sigma for each place; at a masked place, how much more often that is unmasked.

        Args:
            view: of the row.
            most: the largest that the marginals allow, of each example.
        """


@dataclasses.dataclass(frozen=True)
class Cap(Sigma):
    """sigma = min(eta, most), most being the largest that the marginals allow."""

    eta: Probability = 0.04

    def sigma(self, view: View, most: Array) -> Array:
        return _of_places(jnp.minimum(most, self.eta), view.x)


@dataclasses.dataclass(frozen=True)
class Rescale(Sigma):
    """sigma = eta most, most being the largest that the marginals allow."""

    eta: Probability = 0.05

    def sigma(self, view: View, most: Array) -> Array:
        return _of_places(self.eta * most, view.x)


@dataclasses.dataclass(frozen=True)
class LeastConfident(Sigma):
    """sigma = most softmax(-c) over places, c being the probability that each had when it was unmasked."""

    def sigma(self, view: View, most: Array) -> Array:
        is_left_out = view.x == laws.mask_of(view.process)
        if view.may_change is not None:
            is_left_out |= ~view.may_change
        doubt = jnp.where(is_left_out, -jnp.inf, -view.memory["confidence"])
        share = _softmax_over_places(doubt)
        return _of_places(most, view.x) * share

    def start(self, view: View) -> Memory:
        return {"confidence": jnp.zeros(view.x.shape, view.process.log_prior().dtype)}

    # What counts is the probability of the category that a mask has just become.
    def remember(self, view: View, answer: Answer, x: Array) -> Memory:
        log_p = answer.log_drawn
        if log_p is None:
            log_p = answer.by_rows(_log_probability_of, x)
        p = jnp.exp(log_p)
        before = view.memory["confidence"]
        was_masked = view.x == laws.mask_of(view.process)
        return view.memory | {"confidence": jnp.where(was_masked, p.astype(before.dtype), before)}


def _log_probability_of(answer: Answer, x: Array) -> Array:
    """Returns log p(x_0 = x) of each place."""
    return drawing.log_p_at(answer.log_denoiser, x)


class _Given(Sigma):
    """Returns sigma of places as it was computed before."""

    def __init__(self, values: Array) -> None:
        """Keeps what it returns."""
        self.values = values

    def sigma(self, view: View, most: Array) -> Array:
        return self.values


@dataclasses.dataclass(frozen=True)
class WhileHeld(Sigma):
    """sigma = min(held, most) in rows that hold a level, and 0 in the others."""

    held: Probability = 0.02

    def sigma(self, view: View, most: Array) -> Array:
        return _of_places(jnp.where(view.s == view.t, jnp.minimum(most, self.held), 0.0), view.x)


def _of_places(x: Array, places: Array) -> Array:
    """Returns one number of each example for all of its places."""
    return jnp.broadcast_to(expand_trailing(x, places.shape), places.shape)


def _softmax_over_places(x: Array) -> Array:
    """Returns the softmax over all places of an example; 0 where all are -inf."""
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    top = jnp.max(flat, axis=-1, keepdims=True, initial=-jnp.inf)
    weights = jnp.exp(flat - jnp.where(top == -jnp.inf, 0.0, top))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return (weights / jnp.where(total == 0, 1.0, total)).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class Remask(LawStep):
    """Unmasks as ancestral sampling does and more often, and masks again with sigma: `laws.remask_logits`."""

    schedule: Sigma = Cap()
    takes_long_steps = True
    needs_extra_mask = True

    def check(self, process: Process) -> None:
        laws.require_absorbing(process, "masking again")

    def start(self, view: View) -> Memory:
        return self.schedule.start(view)

    def sigma(self, view: View) -> Array:
        """Returns the probability of masking each place again."""
        sigma = self.schedule.sigma(view, laws.most_remasked(view.process, view.t, view.s))
        fields.check_returned(self.schedule, "sigma", sigma, jnp.floating, view.x.shape)
        return sigma

    def law(self, view: View, answer: Answer) -> Array:
        sigma = self.sigma(view)
        return laws.remask_logits(view.process, answer.log_denoiser, view.x, view.t, view.s, sigma)

    # sigma of a place may depend on all places, and is computed before some of them are drawn.
    def draw(self, view: View) -> Taken:
        if type(self).law is not Remask.law or type(self).choose is not Remask.choose:
            return super().draw(view)

        def draw(view: View, answer: Answer, u: Array, sigma: Array) -> tuple[Array, Array]:
            step = dataclasses.replace(self, schedule=_Given(sigma))
            return drawing.draw_remasked(answer, view.s, sigma, u, lambda: step.checked_law(view, answer))

        answer = view.ask(view.x, view.t)
        x, log_drawn = view.by_rows(answer, draw, view.noise(noise.DRAW), self.sigma(view))
        memory = self.remember(view, answer._replace(log_drawn=log_drawn), x)
        return Taken(x, memory, view.see(answer))

    def remember(self, view: View, answer: Answer, x: Array) -> Memory:
        return self.schedule.remember(view, answer, x)


@dataclasses.dataclass(frozen=True)
class RemaskLoop(Remask):
    """Goes down to a level, holds it while places are masked again, and goes on (ReMDM-loop)."""

    schedule: Sigma = WhileHeld()
    rows: Annotated[int, integers_from(3)] = 100
    """in all, at least 3: 45% before the level, 50% at it, 5% after it, and at least 1 each"""
    alpha: Probability = 0.9
    """the level that is held: the step whose alpha is nearest"""

    def plan(self, process: Process, places: int) -> tuple[Row, ...]:
        spec = laws.require_absorbing(process, "masking again").spec
        if spec is None:
            raise ValueError(
                "the process came out of a JAX transformation such as jit, which keeps only its rounded "
                "tables: pass plan = make_plan(sampler, process, shape), made outside of it"
            )
        alpha_bar = np.cumprod(1 - spec.beta)  # float64 [T], of t = 1..T
        held = int(np.argmin(np.abs(alpha_bar - self.alpha))) + 1
        before = max(round(0.45 * self.rows), 1)
        after = max(round(0.05 * self.rows), 1)
        if before + after >= self.rows or before > process.T - held or after > held:
            raise ValueError(
                f"rows = {self.rows}: 45% of them go down from {process.T} to step {held}, whose alpha is "
                f"nearest to {self.alpha}, and 5% from there to 0, by at least a step each: change rows, or "
                f"take more steps"
            )
        down = [process.T - (process.T - held) * i // before for i in range(before)]
        hold = [held] * (self.rows - before - after)
        last = [held - held * i // after for i in range(after + 1)]
        return plan_levels([*down, *hold, *last])


# ---- Rates ----


class Leap(LawStep):
    """Moves along reverse rates, by a rule that turns them into a law."""

    leaps = True
    takes_scores = True

    @abc.abstractmethod
    def leap(self, log_rate: Float[Array, " B *S K"], x: Array) -> Float[Array, " B *S K"]:
        """Returns the law of a leap from x along rates, normalised logs."""

    def check(self, process: Process) -> None:
        common = process.common
        is_on_top = isinstance(common, Masked) and isinstance(common.inner, Mixing)
        if not is_on_top:
            laws.require_mixing(process, "a rate")

    def law(self, view: View, answer: Answer) -> Array:
        leap = self.leap(answer.log_rates(view.s), view.x)

        # The last row, and one from where nothing is left of x_0, takes no rates: they have no end there.
        takes_bayes = (view.s == 0) | _nothing_left(view.process, view.t)
        is_bayes = takes_bayes.reshape(len(view.x), *(1,) * view.x.ndim)
        return jnp.where(is_bayes, answer.log_bayes(view.s), leap)


@dataclasses.dataclass(frozen=True)
class Euler(Leap):
    """Moves along reverse rates: to y with probability R_y / max(1, sum R). `laws.euler_logits`."""

    def leap(self, log_rate: Array, x: Array) -> Array:
        return laws.euler_logits(log_rate, x)


@dataclasses.dataclass(frozen=True)
class Poisson(Leap):
    """Moves along reverse rates where there is one event in all: `laws.poisson_logits` (tau-leaping)."""

    def leap(self, log_rate: Array, x: Array) -> Array:
        return laws.poisson_logits(log_rate, x)


def _nothing_left(process: Process, t: Array) -> Array:
    """Tells where alpha is 0, or with a mask on top the probability of no mask."""
    common = process.common
    if isinstance(common, Masked) and isinstance(common.inner, Mixing):
        no_mask = gather(common.log_keep_bar, t)
        return (no_mask == -jnp.inf) | (gather(common.inner.log_alpha_bar, t) == -jnp.inf)
    assert isinstance(common, Mixing)
    return gather(common.log_alpha_bar, t) == -jnp.inf


@dataclasses.dataclass(frozen=True)
class Stratified(LawStep):
    """Moves when the sum of the probabilities of leaving passes a whole number, from a random phase on.

    So a place moves as often as by Bayes' rule on average, and nearly as often each time (2601.02799).
    """

    can_be_guided = False

    def start(self, view: View) -> Memory:
        return {"clock": view.noise(noise.PHASE)}

    # Given the phases all is certain but where x_t goes.
    def law(self, view: View, answer: Answer) -> Array:
        log_p, is_due, _ = self._hazard(view, answer)
        stays = jnp.where(is_category(view.x, log_p.shape[-1]), 0.0, -jnp.inf)
        return jnp.where(is_due[..., None], laws.leaving_logits(log_p, view.x), stays)

    # The clocks go on by the same logits that x_s is drawn of.
    def draw(self, view: View) -> Taken:
        def move(view: View, answer: Answer, u: Array, clock: Array) -> tuple[Array, Array]:
            view = view._replace(memory=view.memory | {"clock": clock})
            drawn = inverse_cdf.categorical(self.checked_law(view, answer), u)
            return drawn, self._hazard(view, answer)[2]

        answer = view.ask(view.x, view.t)
        x, clock = view.by_rows(answer, move, view.noise(noise.DRAW), view.memory["clock"])
        return Taken(x, self.remember(view, answer, x) | {"clock": clock}, view.see(answer))

    def _hazard(self, view: View, answer: Answer) -> tuple[Array, Array, Array]:
        """Returns the law of a step by Bayes' rule, which places are due to leave, and their clocks then."""
        log_p = p_logits(view.process, answer.logits, view.x, view.t, answer.belief)
        before = view.memory["clock"]
        after = before + laws.leaving_probability(log_p, view.x).astype(before.dtype)
        # A row of no law is due, so that nothing can be drawn and the chain says so.
        has_no_law = ~(jnp.max(log_p, axis=-1) > -jnp.inf)
        return log_p, (jnp.floor(after) > jnp.floor(before)) | has_no_law, after
