"""Says by which law x_s is drawn from x_t: the transitions of a sampler, with what each of them remembers."""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from torch_ref import beliefs, numerics
from torch_ref.beliefs import Belief
from torch_ref.posteriors import p_logits
from torch_ref.processes.base import Process, expand_trailing
from torch_ref.sampling import laws
from torch_ref.sampling.chain import Row, plan_levels
from torch_ref.sampling.noise import DRAW, PHASE

Memory = dict[str, Tensor]


class View(NamedTuple):
    """Holds what a transition sees of a row."""

    process: Process
    logits: Tensor  # [B, *S, K]  of the network, shaped
    belief: Belief  # what they are
    x: Tensor  # [B, *S]
    t: Tensor  # [B]
    s: Tensor  # [B]
    noise: Callable[[int], Tensor]  # of this row, by stream
    memory: Memory
    may_change: Tensor  # [B, *S]  the places that a row may change

    @property
    def log_denoiser(self) -> Tensor:
        """Returns log p(x_0 | x_t), normalised."""
        return laws.denoiser_of(self.process, self.logits, self.x, self.t, self.belief)

    @property
    def logits_loo(self) -> Tensor:
        """Returns leave-one-out logits of x_0."""
        return laws.leave_one_out_of(self.process, self.logits, self.x, self.t, self.belief)


class Transition(abc.ABC):
    """Says by which law x_s is drawn, given x_t and what the network believes."""

    needs_extra_mask: ClassVar[bool] = False

    def plan(self, process: Process) -> tuple[Row, ...]:
        """Returns the rows that it takes by default: T, ..., 0."""
        return plan_levels(range(process.T, -1, -1))

    def start(self, x: Tensor, noise: Callable[[int], Tensor]) -> Memory:
        """Returns what it remembers before the first row."""
        return {}

    @abc.abstractmethod
    def law(self, view: View) -> Tensor:
        """Returns log p(x_s | x_t) of each category, [B, *S, K]."""

    def draw(self, view: View) -> tuple[Tensor, Memory]:
        """Draws x_s, and returns what it remembers then."""
        x = numerics.categorical(self.law(view), view.noise(DRAW))
        return x, self.remember(view, x)

    def remember(self, view: View, x: Tensor) -> Memory:
        """Returns what it remembers after a row that drew x."""
        return view.memory


@dataclasses.dataclass(frozen=True)
class Bayes(Transition):
    """Draws from p(x_{t-1} | x_t), by Bayes' rule."""

    def law(self, view: View) -> Tensor:
        return p_logits(view.process, view.logits, view.x, view.t, view.belief)


@dataclasses.dataclass(frozen=True)
class OwnReverse(Transition):
    """Draws from the law of a function of your own: (process, logits, xt, t) -> log p(x_{t-1} | x_t)."""

    reverse: Callable[..., Tensor]

    def law(self, view: View) -> Tensor:
        reverse = beliefs.with_belief(view.belief, self.reverse)
        return reverse(view.process, view.logits, view.x, view.t)


@dataclasses.dataclass(frozen=True)
class Keep(Transition):
    """Keeps x_t as often as c of the most that the marginals allow."""

    c: float = 1.0

    def law(self, view: View) -> Tensor:
        return laws.keep_logits(view.process, view.log_denoiser, view.x, view.t, view.s, self.c)


@dataclasses.dataclass(frozen=True)
class Mixture(Transition):
    """Draws by Bayes' rule with probability kappa, else noises x_0 afresh."""

    kappa: float = 0.95

    def law(self, view: View) -> Tensor:
        return laws.mixture_logits(
            view.process, view.logits_loo, view.log_denoiser, view.x, view.t, self.kappa
        )


# ---- Masking again ----


class Sigma(abc.ABC):
    """Defines the probability sigma with which a place that is not masked is masked again."""

    @abc.abstractmethod
    def sigma(self, view: View, most: Tensor) -> Tensor:
        """Returns it for each place, from the largest that the marginals allow, [B]."""


@dataclasses.dataclass(frozen=True)
class Cap(Sigma):
    """sigma = min(eta, most), most being the largest that the marginals allow."""

    eta: float = 0.04

    def sigma(self, view: View, most: Tensor) -> Tensor:
        return _of_places(_at_most(most, self.eta), view.x)


@dataclasses.dataclass(frozen=True)
class Rescale(Sigma):
    """sigma = eta most, most being the largest that the marginals allow."""

    eta: float = 0.05

    def sigma(self, view: View, most: Tensor) -> Tensor:
        return _of_places(self.eta * most, view.x)


@dataclasses.dataclass(frozen=True)
class LeastConfident(Sigma):
    """sigma = most softmax(-c) over places, c being the probability that each had when it was unmasked."""

    def sigma(self, view: View, most: Tensor) -> Tensor:
        may_mask = (view.x != laws.mask_of(view.process)) & view.may_change
        share = torch.zeros(view.x.shape)
        for b in range(len(share)):
            share[b][may_mask[b]] = (-view.memory["confidence"][b][may_mask[b]]).softmax(dim=0)
        return _of_places(most, view.x) * share


@dataclasses.dataclass(frozen=True)
class WhileHeld(Sigma):
    """sigma = min(held, most) in rows that hold a level, and 0 in the others."""

    held: float = 0.02

    def sigma(self, view: View, most: Tensor) -> Tensor:
        return _of_places(torch.where(view.s == view.t, _at_most(most, self.held), 0.0), view.x)


def _at_most(x: Tensor, largest: float) -> Tensor:
    """min(x, largest), whose gradient is shared where both are equal, as in JAX and not by torch.clamp."""
    return torch.minimum(x, torch.as_tensor(largest, dtype=x.dtype, device=x.device))


def _of_places(x: Tensor, places: Tensor) -> Tensor:
    """Returns one number of each example for all of its places."""
    return expand_trailing(x, places.shape).expand(places.shape)


@dataclasses.dataclass(frozen=True)
class Remask(Transition):
    """Unmasks as ancestral sampling does and more often, and masks again with sigma."""

    schedule: Sigma = Cap()
    needs_extra_mask = True

    def start(self, x: Tensor, noise: Callable[[int], Tensor]) -> Memory:
        if not isinstance(self.schedule, LeastConfident):
            return {}
        return {"confidence": torch.zeros(x.shape)}

    def law(self, view: View) -> Tensor:
        sigma = self.schedule.sigma(view, laws.most_remasked(view.process, view.t, view.s))
        return laws.remask_logits(view.process, view.log_denoiser, view.x, view.t, view.s, sigma)

    def remember(self, view: View, x: Tensor) -> Memory:
        if "confidence" not in view.memory:
            return view.memory
        # What counts is the probability of the category that a mask has just become.
        drawn = x.clamp(min=0)[..., None]
        p = view.log_denoiser.gather(-1, drawn)[..., 0].exp()
        was_masked = view.x == laws.mask_of(view.process)
        return view.memory | {"confidence": torch.where(was_masked, p, view.memory["confidence"])}


@dataclasses.dataclass(frozen=True)
class RemaskLoop(Remask):
    """Goes down to a level, holds it while places are masked again, and goes on."""

    schedule: Sigma = WhileHeld()
    rows: int = 100
    alpha: float = 0.9

    def plan(self, process: Process) -> tuple[Row, ...]:
        # The step in 1..T whose alpha is nearest is held.
        held = int((laws.alphas(process)[1:] - self.alpha).abs().argmin()) + 1
        before = max(round(0.45 * self.rows), 1)
        after = max(round(0.05 * self.rows), 1)
        down = [process.T - (process.T - held) * i // before for i in range(before)]
        hold = [held] * (self.rows - before - after)
        last = [held - held * i // after for i in range(after + 1)]
        return plan_levels([*down, *hold, *last])


# ---- Rates ----


class Leap(Transition):
    """Moves along reverse rates, by a rule that turns them into a law."""

    @abc.abstractmethod
    def leap(self, log_rate: Tensor, x: Tensor) -> Tensor:
        """Returns the law of a leap along these rates."""

    def law(self, view: View) -> Tensor:
        log_rate = laws.log_rates(view.process, view.logits_loo, view.x, view.t, view.s)
        leap = self.leap(log_rate, view.x)
        bayes = p_logits(view.process, view.logits, view.x, view.t, view.belief)

        # The last row, and one from where nothing is left of x_0, takes no rates: they have no end there.
        takes_bayes = (view.s == 0) | _nothing_left(view.process, view.t)
        return torch.where(expand_trailing(takes_bayes, bayes.shape), bayes, leap)


@dataclasses.dataclass(frozen=True)
class Euler(Leap):
    """Moves along reverse rates: to y with probability R_y / max(1, sum R)."""

    def leap(self, log_rate: Tensor, x: Tensor) -> Tensor:
        return laws.euler_logits(log_rate, x)


@dataclasses.dataclass(frozen=True)
class Poisson(Leap):
    """Moves along reverse rates where there is one event in all."""

    def leap(self, log_rate: Tensor, x: Tensor) -> Tensor:
        return laws.poisson_logits(log_rate, x)


def _nothing_left(process: Process, t: Tensor) -> Tensor:
    """Tells where alpha is 0, or with a mask on top the probability of no mask."""
    if process.inner is None:
        return laws.alphas(process)[t] == 0
    no_mask = torch.cumprod(1 - laws.gammas(process), dim=0)
    return (no_mask[t] == 0) | _nothing_left(process.inner, t)


@dataclasses.dataclass(frozen=True)
class Stratified(Transition):
    """Moves when the sum of the probabilities of leaving passes a whole number, from a random phase on."""

    def start(self, x: Tensor, noise: Callable[[int], Tensor]) -> Memory:
        return {"clock": noise(PHASE)}

    def law(self, view: View) -> Tensor:
        log_p = self._by_bayes(view)
        before = view.memory["clock"]
        is_due = self._clock_after(view).floor() > before.floor()
        stays = torch.nn.functional.one_hot(view.x, view.process.K).to(log_p.dtype).log()
        law = torch.where(is_due[..., None], laws.leaving_logits(log_p, view.x), stays)
        # A place without a law has none either way.
        has_no_law = ~(log_p.amax(dim=-1, keepdim=True) > -torch.inf)
        return torch.where(has_no_law, -torch.inf, law)

    def remember(self, view: View, x: Tensor) -> Memory:
        return view.memory | {"clock": self._clock_after(view)}

    def _clock_after(self, view: View) -> Tensor:
        return view.memory["clock"] + laws.leaving_probability(self._by_bayes(view), view.x)

    def _by_bayes(self, view: View) -> Tensor:
        return p_logits(view.process, view.logits, view.x, view.t, view.belief)
