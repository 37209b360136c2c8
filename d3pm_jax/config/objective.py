"""Says what a config minimises."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, Int

from d3pm_jax import sampling
from d3pm_jax.beliefs import Belief
from d3pm_jax.blocks import Layout
from d3pm_jax.checks import is_array, values_in_range
from d3pm_jax.config.checks import CheckedPart, NotNegative, UnitInterval, UpTo2, says, undefined_method
from d3pm_jax.config.head import Head, HeadGives
from d3pm_jax.config.schedule import Reciprocal, Schedule
from d3pm_jax.config.timesteps import Timesteps
from d3pm_jax.config.trained import CLASSIFIER, DIFFUSION, Trained
from d3pm_jax.errors import wrong_return
from d3pm_jax.losses import (
    continuous,
    cross_entropy,
    fused_logistic,
    gidd,
    prior_kl,
    score_entropy,
    variational,
)
from d3pm_jax.posteriors import q_sample
from d3pm_jax.processes import Process, expand_trailing, for_each_place, for_each_size, interpolating
from d3pm_jax.projection import by_rows, require_array
from d3pm_jax.schedules.continuous import Level
from d3pm_jax.timesteps import StepNoise

COMPARED = 16  # steps at which the process is compared with alpha
NEAR = 1e-5  # how far probabilities in float32 may be off


class Terms(NamedTuple):
    """Holds the loss terms of each element of a batch, [B, *S]."""

    loss: Array  # divided by T p_t: its mean over elements is minimised
    kl: Array  # the term of the bound, in nats
    ce: Array  # cross entropy, in nats


# (x, time, **inputs) -> what the head makes of the output of the network: logits of x_0 [B, *S, K], say
Network = Callable[..., Any]


class Asked(NamedTuple):
    """Holds what a network said of a batch, and what the terms of an objective are of besides."""

    logits: Any  # what the head makes of the output: logits [B, *S, K], or a `Projection` of them
    rows: tuple  # what the terms are of besides, x_0 first: arrays of a shape that [B, *S] begins with
    looks_at: Array | None = None  # bool [B, *S]: see `Objective.looks_at`
    terms: Callable[..., Terms] | None = None  # (logits, *rows) -> Terms; None: `terms` of the objective


def ask_once(objective: Any, process: Process, network: Network, x0: Array, noise: StepNoise) -> Asked:
    """Asks a network once, at the x_t that an objective draws."""
    t, p_t, u = noise
    xt = objective.draw(process, x0, t, u)  # int32 [B, *S]
    if not is_array(xt, x0.shape, jnp.integer):
        raise wrong_return(objective.draw, xt, f"x_t, {x0.dtype} {list(x0.shape)}, like x_0")
    return Asked(network(xt, network_time(process, t)), (x0, xt, t, p_t))


def compute_terms(objective: Any, process: Process, logits: Any, x0: Array, *rows: Any) -> Terms:
    """Returns the terms that an objective makes of logits, checked; of some places alone all are [n]."""
    terms = objective.terms(process, logits, x0, *rows)
    check_terms(objective.terms, terms, x0)
    return Terms(*terms)


def terms_of(objective: Any, process: Process, asked: Asked) -> Callable[..., Terms]:
    """Returns the function of logits and rows, as an objective asked for them, that makes its terms.

    Raises:
        ValueError: a `Projection` stands for logits, and it does not say that it takes some places alone.
    """
    if not is_by_rows(objective):
        require_array(asked.logits, f"loss = {type(objective).__name__}, which does not say by_rows = True,")
    return asked.terms or partial(compute_terms, objective, process)


def network_time(process: Process, t: Array) -> Array:
    """Returns what a network is told of t: the step of the original process, of real times themselves."""
    # A respaced process shows the network the step numbers of the original.
    if jnp.issubdtype(t.dtype, jnp.integer):
        return process.time[t]
    return t


def check_terms(method: Callable[..., Any], terms: Any, x0: Array) -> None:
    """Raises UserError unless what a method returned are the terms of each element of x_0."""
    are_terms = isinstance(terms, tuple | list) and len(terms) == 3
    if not are_terms or not all(is_array(term, x0.shape, jnp.floating) for term in terms):
        cure = f"Terms(loss, kl, ce), each of a float type and of shape {list(x0.shape)}"
        raise wrong_return(method, terms, cure)


@dataclasses.dataclass(frozen=True)
class Objective(CheckedPart):
    """Says what to minimise. A class of your own defines `terms`, and may define the other methods.

    One that calls its network otherwise than once, at one x_t, defines `ask`; or `compute`, where it calls it
    more often.
    """

    trains: ClassVar[Trained] = DIFFUSION
    """what a run with this objective trains"""
    needs_extra_mask: ClassVar[bool] = False
    """whether it is for a process whose mask the data never has, and the network never predicts"""
    head_gives: ClassVar[HeadGives] = "logits"
    """what the head gives, see `Head.gives`"""
    estimates_bound: ClassVar[bool] = False
    """whether evaluation takes the mean of its own kl over real times, and not the terms of the process"""
    fills_any_order: ClassVar[bool] = True
    """whether a network that sees no time says what is behind a mask, whichever others there are"""
    tells_time: ClassVar[bool] = True
    """whether the time that the network is told is that of x_t; else it has to be a network that sees none"""
    by_rows: ClassVar[bool] = False
    """whether `terms` of a place are of its logits and rows alone, as `Head.projected` needs; a class with
    `terms` or `ask` of its own says so itself, whatever it derives from"""

    @values_in_range()
    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        """Draws the x_t that the network is given; u: uniform noise [B, *S]."""
        return q_sample(process, x0, t, u)

    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        """Returns the loss terms of each element of a batch; p_t [B] are the probabilities of its t."""
        raise undefined_method(self, "terms")

    def compute(
        self, process: Process, network: Network, x0: Array, noise: StepNoise, weight: Array | None
    ) -> Terms:
        """Calls the network, and returns the `Terms` of each element of a batch; by ask and terms.

        Args:
            process: the forward process.
            network: (x, time, **inputs) -> what the head makes of its output; `network_time` is the time.
            x0: examples, int32 [B, *S].
            noise: t with its probability, and uniform noise.
            weight: of each element, [B, *S]; 0 on padding. None: each counts once.
        """
        asked = self.ask(process, network, x0, noise, weight)
        return by_rows(asked.logits, terms_of(self, process, asked), *asked.rows)

    def ask(
        self, process: Process, network: Network, x0: Array, noise: StepNoise, weight: Array | None
    ) -> Asked:
        """Asks the network, by default once at the x_t of `draw`; the arguments are those of `compute`.

        Returns:
            Logits and the rows that `terms` takes behind them, which are x_0, x_t, t and p_t; or others,
            with the function that takes those.
        """
        asked = ask_once(self, process, network, x0, noise)
        return asked._replace(looks_at=places_looked_at(self, process, asked.rows[1]))

    def looks_at(self, process: Process, xt: Array) -> Array | None:
        """Tells where loss and kl depend on the logits, else they are 0, bool [B, *S]; None: anywhere.

        It is said of the `terms` of the class that it stands in, and has to be said again of others.
        """
        return None

    def of_bound(self) -> "Objective":
        """Returns the objective whose kl the bound is made of: without what differs in training alone."""
        return self

    def network_layout(self, shape: tuple[int, ...]) -> Layout | None:
        """Returns what the places of the network are in `ask`, of examples of shape *S; None: theirs.

        Raises:
            ValueError: it is not for examples of this shape.
        """
        return None

    def without_layout(self, network: Network) -> Network:
        """Returns a network that is called as in `ask` as one that samplers ask: of x [B, *S] alone."""
        return network

    def make_denoiser(self, process: Process, network: Network) -> sampling.Denoiser:
        """Makes what samplers ask of a network, as `without_layout` returns it."""
        return sampling.Denoiser(process, network, logits_keywords(self)["belief"])

    def default_sampler(self) -> sampling.Sampler:
        """Returns how samples are drawn where nobody says how."""
        return sampling.Sampler()

    def check_sampler(self, sampler: sampling.Sampler) -> None:
        """Raises ValueError for a sampler that asks what a network of this objective does not say."""

    def check_known(self, known: np.ndarray) -> None:
        """Raises ValueError for known places, bool [*S] or [N, *S], that the network would not look at."""

    def needs_mask_of(self, process: Process) -> bool:
        """Tells whether a mask of the process must be an extra one."""
        return self.needs_extra_mask

    def check_process(self, process: Process) -> None:
        """Raises ValueError for a process that it cannot be minimised with."""

    def check_beside(self, head: Head, timesteps: Timesteps) -> None:
        """Raises ValueError for a head, or times, that it cannot be minimised with."""
        if timesteps.real:
            raise ValueError(
                f"timesteps = {timesteps} draws real times, but {type(self).__name__} needs whole "
                "steps: take LowDiscrepancy()"
            )


@dataclasses.dataclass(frozen=True)
class X0Objective(Objective):
    """Describes what trains a network of x_0."""

    belief: Belief = "leave_one_out"
    """what the logits mean in both terms: "leave_one_out" or "denoiser";
    "d3pm": as published, one in each term;
    "official": the same, but at t = 1 the prediction of x_0 itself, as in the official code"""


@dataclasses.dataclass(frozen=True)
class HybridLoss(X0Objective):
    """Minimises KL_t + ce_weight CE, averaged over t and elements (D3PM)."""

    ce_weight: NotNegative = 0.001
    """lambda, the weight of the cross entropy; 0: the bound alone"""
    by_rows = True

    def looks_at(self, process: Process, xt: Array) -> Array | None:
        # An absorbing process is certain of what is not masked, and so is its evidence. The cross entropy of
        # logits without that evidence is not 0 there, nor is the bound of the official code at t = 1.
        of_bound = self.ce_weight == 0 and self.belief != "official"
        is_absorbing = getattr(process.common, "pi_kind", None) == "point"
        if is_absorbing and (of_bound or self.belief == "leave_one_out"):
            return xt == sampling.laws.mask_of(process)
        return None

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        hybrid = variational.hybrid(process, logits, x0, xt, t, self.ce_weight, **logits_keywords(self))
        return Terms(variational.per_step(hybrid.loss, p_t, process.T), hybrid.kl, hybrid.ce)


@dataclasses.dataclass(frozen=True)
class HybridOfParameters:
    """Computes `HybridLoss` from what a `LogisticHead` makes its logits of, which need no memory then."""

    objective: HybridLoss

    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        """Draws x_t as the objective does."""
        return self.objective.draw(process, x0, t, u)

    @values_in_range()
    def terms(self, process: Process, logits: Any, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        """Returns the terms of the objective; `LogisticHead.parameters` stand in the place of logits."""
        loc, log_scale = logits
        keywords = logits_keywords(self.objective)
        hybrid = fused_logistic.hybrid(
            process, loc, log_scale, x0, xt, t, self.objective.ce_weight, **keywords
        )
        return Terms(variational.per_step(hybrid.loss, p_t, process.T), hybrid.kl, hybrid.ce)


@dataclasses.dataclass(frozen=True)
class StochasticBound(X0Objective):
    """Minimises the whole bound, nats per example: KL_t / p_t + prior KL, summed (Multinomial Diffusion)."""

    by_rows = True

    def ask(
        self, process: Process, network: Network, x0: Array, noise: StepNoise, weight: Array | None
    ) -> Asked:
        asked = super().ask(process, network, x0, noise, weight)
        elements = x0.size // len(x0)

        def terms_of_places(logits: Array, x0: Array, *rows: Array) -> Terms:
            terms = compute_terms(self, process, logits, x0, *rows)
            # Of some places alone each was taken for an example.
            return terms._replace(loss=terms.loss * (elements // (x0.size // len(x0))))

        if not says(self, "ask", "terms"):
            # Other terms may have addends without this factor.
            require_array(asked.logits, f"loss = {type(self).__name__}, with terms of its own,")
        return asked._replace(terms=terms_of_places)

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        hybrid = variational.hybrid(process, logits, x0, xt, t, 0.0, **logits_keywords(self))
        bound = hybrid.kl / expand_trailing(p_t, x0.shape) + prior_kl(process, x0)  # [B, *S]

        # The loss is averaged over elements: so many make the sum of an example of that mean.
        elements_per_example = x0.size // x0.shape[0]
        return Terms(bound * elements_per_example, hybrid.kl, hybrid.ce)

    def check_process(self, process: Process) -> None:
        # A positional process may ask for the shape of the data, which is not known here.
        if process.positional:
            return
        if jnp.isinf(prior_kl(process, jnp.zeros(process.places, jnp.int32))).any():
            raise ValueError(
                "the prior KL, and so the stochastic bound, is infinite: end process.beta at 1, as "
                "Reciprocal() does"
            )


@dataclasses.dataclass(frozen=True)
class LabelLoss(Objective):
    """Minimises -log p(label | x_t, t), averaged over t in 0..T, of a classifier and no diffusion."""

    trains: ClassVar[Trained] = CLASSIFIER


@dataclasses.dataclass(frozen=True)
class RealTimeObjective(Objective):
    """Describes what is minimised at real times. The network is told time T, in steps."""

    belief: ClassVar[Belief] = "leave_one_out"

    def check_beside(self, head: Head, timesteps: Timesteps) -> None:
        if not timesteps.real:
            raise ValueError(
                f"timesteps = {timesteps} draws whole steps, but {type(self).__name__} needs real "
                "times: set timesteps=RealTimes()"
            )

    @values_in_range()
    def _terms(self, process: Process, logits: Array, x0: Array, loss: Array, p_t: Array) -> Terms:
        ce = cross_entropy(process, logits, x0)
        return Terms(variational.per_step(loss, p_t, process.T), loss / process.T, ce)


@dataclasses.dataclass(frozen=True)
class Continuous(RealTimeObjective):
    """Minimises the bound in continuous time.

    `d3pm eval` and `d3pm sample` run the process of the config, which has to be the same at its steps.
    """

    alpha: Schedule = Reciprocal()
    """the schedule of the process, one that has a form in continuous time"""

    def check(self) -> None:
        self.alpha.continuous()


@dataclasses.dataclass(frozen=True)
class ContinuousAbsorbing(Continuous):
    """Minimises the bound of an absorbing process in continuous time (MD4, MDLM)."""

    needs_extra_mask = True
    by_rows = True

    # An extra mask is the last category.

    def looks_at(self, process: Process, xt: Array) -> Array | None:
        return xt == process.K - 1

    @values_in_range()
    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        return continuous.absorbing_draw(self.alpha.continuous(), x0, t / process.T, u, process.K - 1)

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        alpha = self.alpha.continuous()

        def nelbo(K: int, *arguments: Array) -> Array:
            return continuous.absorbing_nelbo(alpha, *arguments, mask_id=K - 1)

        loss = _bound_by_place(process, nelbo, logits, x0, xt, t / process.T)
        return self._terms(process, logits, x0, loss, p_t)

    def check_process(self, process: Process) -> None:
        _check_absorbing(self, process)


@dataclasses.dataclass(frozen=True)
class ContinuousUniform(Continuous):
    """Minimises the bound of a uniform process in continuous time (UDLM)."""

    by_rows = True

    @values_in_range()
    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        return _draw_uniform(process, self.alpha.continuous(), x0, t / process.T, u)

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        alpha = self.alpha.continuous()

        def nelbo(K: int, *arguments: Array) -> Array:
            return continuous.uniform_nelbo(alpha, *arguments)

        loss = _bound_by_size(process, nelbo, logits, x0, xt, t / process.T)
        return self._terms(process, logits, x0, loss, p_t)

    def check_process(self, process: Process) -> None:
        _check_uniform(self, process)


@dataclasses.dataclass(frozen=True)
class ScoreEntropy(Continuous):
    """Minimises the score entropy of an absorbing or uniform process, by a network of log scores (SEDD).

    Its kl is the bound, and its ce is that too: there are no logits of x_0. With uniform noise the times end
    at the last step but one, where x_t is drawn from pi; the bound has the prior KL of that step.
    """

    head_gives: ClassVar[HeadGives] = "log scores"
    estimates_bound: ClassVar[bool] = True
    fills_any_order: ClassVar[bool] = False
    by_rows = True

    def ask(
        self, process: Process, network: Network, x0: Array, noise: StepNoise, weight: Array | None
    ) -> Asked:
        if _has_mask(process):
            return super().ask(process, network, x0, noise, weight)

        # Where alpha falls to 0 all scores are 1, and others cost as 1 / (1 - time): their mean would be
        # infinite. Such scores say nothing of x_0, so that a sampler takes its first step without them.
        share = 1 - 1 / process.T
        asked = super().ask(process, network, x0, noise._replace(t=share * noise.t), weight)
        with values_in_range():
            level = self.alpha.continuous()(jnp.asarray(share))
            prior = _uniform_prior_kl(process, level, x0)

        def terms_with_prior(logits: Array, *rows: Array) -> Terms:
            *rows_of_terms, prior = rows
            loss, kl, _ = compute_terms(self, process, logits, *rows_of_terms)
            kl = share * kl + prior / process.T
            return Terms(share * loss + prior, kl, kl)

        return asked._replace(rows=(*asked.rows, prior), terms=terms_with_prior)

    def looks_at(self, process: Process, xt: Array) -> Array | None:
        return xt == process.K - 1 if _has_mask(process) else None

    @values_in_range()
    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        if _has_mask(process):
            return ContinuousAbsorbing(self.alpha).draw(process, x0, t, u)
        return ContinuousUniform(self.alpha).draw(process, x0, t, u)

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        alpha = self.alpha.continuous()

        def of_masks(K: int, *arguments: Array) -> Array:
            return score_entropy.absorbing_score_entropy(alpha, *arguments, mask_id=K - 1)

        def of_uniform(K: int, *arguments: Array) -> Array:
            return score_entropy.uniform_score_entropy(alpha, *arguments)

        if _has_mask(process):
            loss = _bound_by_place(process, of_masks, logits, x0, xt, t / process.T)
        else:
            loss = _bound_by_size(process, of_uniform, logits, x0, xt, t / process.T)
        kl = loss / process.T
        return Terms(variational.per_step(loss, p_t, process.T), kl, kl)

    def needs_mask_of(self, process: Process) -> bool:
        return _has_mask(process)

    def check_process(self, process: Process) -> None:
        if _has_mask(process):
            _check_absorbing(self, process)
        else:
            _check_uniform(self, process)

    def make_denoiser(self, process: Process, network: Network) -> sampling.Denoiser:
        return sampling.Scores(process, network)

    def default_sampler(self) -> sampling.Sampler:
        return sampling.named.tweedie()

    def check_sampler(self, sampler: sampling.Sampler) -> None:
        sampler.check_scores()


def _has_mask(process: Process) -> bool:
    return sampling.laws.mask_of(process) is not None


@for_each_size
def _uniform_prior_kl(process: Process, level: Level, x0: Int[Array, "*S"]) -> Array:
    """Returns KL(alpha onehot(x_0) + (1 - alpha) / K || 1 / K) for each element [*S], in nats."""
    own = level.alpha + level.beta / process.K  # the probability of x_0
    kl = own * jnp.log(process.K * own) + xlogy(1 - own, level.beta)
    return jnp.broadcast_to(kl, x0.shape)


@dataclasses.dataclass(frozen=True)
class GeneralizedKL(Continuous):
    """Minimises the generalised KL of discrete flow matching, from uniform noise (flow_matching).

    A bound that exact beliefs do not make tight: evaluation takes the terms of the process.
    """

    belief: ClassVar[Belief] = "denoiser"
    by_rows = True

    @values_in_range()
    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        return _draw_uniform(process, self.alpha.continuous(), x0, t / process.T, u)

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        alpha = self.alpha.continuous()

        def nelbo(K: int, *arguments: Array) -> Array:
            return continuous.uniform_generalized_kl(alpha, *arguments)

        loss = _bound_by_size(process, nelbo, logits, x0, xt, t / process.T)
        return self._terms(process, logits, x0, loss, p_t)

    def check_process(self, process: Process) -> None:
        _check_uniform(self, process)


@dataclasses.dataclass(frozen=True)
class GIDD(RealTimeObjective):
    """Minimises the bound of a mask that moves on to tokens, or its terms with other weights (GIDD).

    With `RealTimes(power=2)`, as terms of the bound are large near time 0.
    """

    p_uniform: UnitInterval
    """of the process"""
    gamma: UpTo2 = 1.0
    """of the process"""
    weights: Literal["bound", "clipped", "dynamic"] = "bound"
    """of training: those of the bound, those but at most 2, or those of `losses.gidd.GiddLoss.dynamic`"""
    needs_extra_mask = True
    by_rows = True

    @values_in_range()
    def draw(self, process: Process, x0: Array, t: Array, u: Array) -> Array:
        K = process.K
        return gidd.gidd_draw(x0, t / process.T, u, K - 1, K, self.p_uniform, self.gamma)

    @values_in_range()
    def terms(self, process: Process, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> Terms:
        time = t / process.T
        losses = gidd.gidd_nelbo(logits, x0, xt, time, process.K - 1, self.p_uniform, self.gamma)
        loss = variational.per_step(getattr(losses, self.weights), p_t, process.T)
        return self._terms(process, logits, x0, losses.bound, p_t)._replace(loss=loss)

    def check_process(self, process: Process) -> None:
        K = process.K
        expected = interpolating(process.T, K, K - 1, self.p_uniform, self.gamma)
        if not _are_same(process, expected):
            raise ValueError(
                f"{self} does not fit this process: take process = Interpolating with the same p_uniform and "
                f"gamma, and mask_id = {K - 1}"
            )


# The K of a place is that of its own process.


@for_each_size
def _draw_uniform(
    process: Process,
    alpha: continuous.Schedule,
    x0: Int[Array, "*S"],
    time: Float[Array, "..."],
    u: Float[Array, "*S"],
) -> Array:
    return continuous.uniform_draw(alpha, x0, time, u, process.K)


def _bound_by_process(
    process: Process,
    nelbo: Callable[..., Array],
    logits: Float[Array, "*S K"],
    x0: Int[Array, "*S"],
    xt: Int[Array, "*S"],
    time: Float[Array, "..."],
) -> Array:
    """Returns nelbo(K, logits, x0, xt, time) with the K of the process."""
    return nelbo(process.K, logits, x0, xt, time)


# Absorbing needs K for its mask alone, uniform noise counts categories.
_bound_by_place = for_each_place(_bound_by_process)
_bound_by_size = for_each_size(_bound_by_process)


def _check_absorbing(objective: Continuous, process: Process) -> None:
    """Raises ValueError for another process than the absorbing one of an objective."""
    cure = f"give both the same schedule, and process = Absorbing with mask_id = {process.K - 1}"
    _check_same(objective, process, lambda K: jax.nn.one_hot(K - 1, K), cure)


def _check_uniform(objective: Continuous, process: Process) -> None:
    """Raises ValueError for another process than the uniform one of an objective."""
    cure = "give both the same schedule, and process = Uniform"
    _check_same(objective, process, lambda K: jnp.full(K, 1 / K), cure)


def _check_same(objective: Continuous, process: Process, pi_of: Callable[[int], Array], cure: str) -> None:
    """Raises ValueError where q(x_t | x_0) is not alpha onehot(x_0) + (1 - alpha) pi at time t / T.

    Args:
        objective: whose `alpha` it is.
        process: to compare with.
        pi_of: K -> [K], where the process ends.
        cure: what to do about another process.
    """
    name = type(objective).__name__
    T = process.T

    # Each step with another x_0 in turn.
    t = _choose_steps(T)
    if process.positional:
        raise ValueError(f"{name} is for a process that treats all elements alike: take HybridLoss()")
    level = objective.alpha.continuous()(jnp.asarray(t / T, jnp.float32))
    numbers = np.arange(len(t), dtype=np.int32).reshape(-1, *(1,) * len(process.places))
    numbers = jnp.broadcast_to(numbers, (len(t), *process.places))
    off = np.asarray(_measure_difference(process, pi_of, level, numbers, jnp.asarray(t)))
    off = off.reshape(len(t), -1).max(axis=1)  # [steps]
    if off.max() > NEAR:
        raise ValueError(
            f"{name} with alpha = {objective.alpha} does not fit this process: q(x_t | x_0) differs by "
            f"{off.max():.2g} at t = {t[off.argmax()]}; {cure}"
        )


def _choose_steps(T: int) -> np.ndarray:
    """Returns some of the steps 1..T, at which a process is compared."""
    return np.unique(np.linspace(1, T, min(T, COMPARED)).round()).astype(np.int32)


def _are_same(process: Process, expected: Process) -> bool:
    """Tells whether Q and Qbar are those of a process of like elements, each at some steps."""
    if process.positional or process.places:
        return False
    t = jnp.asarray(_choose_steps(process.T))
    x = jnp.arange(len(t), dtype=jnp.int32) % (process.K - 1)
    of_both = [(jnp.exp(p.log_q_probs(x, t)), jnp.exp(p.log_q_back(x, t))) for p in (process, expected)]
    # Other noise may have the same Qbar alone.
    return all(np.abs(a - b).max() <= NEAR for a, b in zip(*of_both, strict=True))


@for_each_size
def _measure_difference(
    process: Process,
    pi_of: Callable[[int], Array],
    level: Level,
    numbers: Int[Array, "*S"],
    t: Int[Array, "..."],
) -> Array:
    """Returns how far q(x_t | x_0) is from alpha onehot(x_0) + (1 - alpha) pi, for an x_0 by its number."""
    # The last category may be a mask, which x_0 never is.
    x0 = numbers % max(1, process.K - 1)
    alpha, beta = (expand_trailing(x, x0.shape)[..., None] for x in level)
    pi = jnp.broadcast_to(pi_of(process.K), (*x0.shape, process.K))
    expected = alpha * jax.nn.one_hot(x0, process.K) + beta * pi
    return jnp.abs(jnp.exp(process.log_q_probs(x0, t)) - expected).max(axis=-1)


def is_by_rows(objective: Any) -> bool:
    """Tells whether the terms of an objective are those of each place alone, and it has no `compute`."""
    is_said = says(objective, "by_rows", "ask", "terms", "compute")
    return is_said and objective.by_rows and not has_own_compute(objective)


def places_looked_at(objective: Objective, process: Process, xt: Array) -> Array | None:
    """Returns what an objective says by `looks_at`; None where its `terms` are those of another class."""
    return objective.looks_at(process, xt) if says(objective, "looks_at", "terms") else None


def has_own_compute(objective: Any) -> bool:
    """Tells whether an objective calls its network by a method `compute` of its own."""
    return getattr(type(objective), "compute", Objective.compute) is not Objective.compute


def logits_keywords(objective: Objective) -> dict[str, Belief]:
    """Returns what the logits of an objective are, as the keyword `belief` of a reverse step and a bound.

    They are as published for an objective that has no field of this name.
    """
    return {"belief": getattr(objective, "belief", "d3pm")}
