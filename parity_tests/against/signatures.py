"""The functions that a file may have, as `torch_ref` has them: arguments, equation, result. No JAX here."""

import inspect
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import torch_ref

SCHEDULES = ("linear", "cosine", "cosine_squared", "reciprocal", "log_linear", "polynomial", "from_alpha_bar")
CONSTRUCTORS = (
    "uniform",
    "absorbing",
    "marginal",
    "interpolating",
    "gaussian",
    "banded",
    "random_walk",
    "from_rate",
)
MEMBERS = {
    "Q": "[B, K, K]",
    "Qbar": "[B, K, K]",
    "log_q_probs": "[B, *S, K]",
    "log_q_back": "[B, *S, K]",
    "log_q_x0": "[B, *S, K]",
    "log_prior": "[K]",
}
KERNELS = {
    "q_sample": "integers [B, *S]",
    "q_posterior": "[B, *S, K]",
    "p_logits": "[B, *S, K]",
    "p_sample": "integers [B, *S]",
    "posterior_kl": "[B, *S]",
    "losses.marginal_kl": "[B, *S]",
    "direct_kl": "[B, *S]",
    "cross_entropy": "[B, *S]",
    "smoothed_cross_entropy": "[B, *S]",
    "hybrid": "[B, *S], the loss",
    "prior_kl": "[B, *S]",
    "stochastic_bound": "[B]",
    "bits_per_dim": "[B]",
    "logistic": "[.., K]",
}
PROCESSES = {
    "uniform": "",
    "absorbing": "the mask is K // 2, a category that x_0 has too",
    "absorbing_extra": "the mask is K - 1, which x_0 never is",
    "marginal": "noise from any pi, one entry of it 0",
    "masked": "a mask K - 1 on top of a marginal process",
    "gaussian": "",
    "dense": "any matrices, some entries 0",
}
PROGRAM = {  # what a program has, and its arguments, in their order
    "alpha": ("t",),
    "alpha_derivative": ("t",),
    "alpha_bar": ("T",),
    "loss": ("network", "x0", "K"),
    "sample": ("denoise", "K", "L", "n", "seed", "calls"),
}
ANY = ("cross_entropy", "smoothed_cross_entropy")  # the process does not matter
UNUSED = ("self", "u_low")


class Signature(NamedTuple):
    """A function that a file may have, and its arguments and result."""

    pair: str  # its name in `pairs.PAIRS`
    required: tuple[str, ...]
    optional: dict[str, Any]  # the defaults of `torch_ref`
    equation: str
    result: str

    @property
    def name(self) -> str:
        """The last part: a file has no sub-packages."""
        return self.pair.rpartition(".")[2]

    @property
    def text(self) -> str:
        return f"{self.name}({', '.join([*self.required, *(f'{name}=' for name in self.optional)])})"


def _signature(pair: str, result: str) -> Signature:
    twin = attrgetter(pair)(torch_ref)
    parameters = [p for p in inspect.signature(twin).parameters.values() if p.name not in UNUSED]
    required = tuple(p.name for p in parameters if p.default is p.empty)
    if pair.startswith("Process."):
        required = ("process", *required)
    optional = {p.name: p.default for p in parameters if p.default is not p.empty}
    return Signature(pair, required, optional, (inspect.getdoc(twin) or "").split("\n")[0], result)


def _every() -> Iterator[Signature]:
    yield from (_signature(name, "[T], at t = 1..T") for name in SCHEDULES)
    yield from (_signature(name, "[T, K, K], Q at t = 1..T") for name in CONSTRUCTORS)
    yield from (_signature(f"Process.{name}", result) for name, result in MEMBERS.items())
    yield from (_signature(name, result) for name, result in KERNELS.items())


FUNCTIONS: dict[str, Signature] = {signature.name: signature for signature in _every()}

HEADER = """\
A file may have any of these functions, with arguments of these names; those that end in = it may leave out.
They get tensors on the CPU and give one, of the float type that is compared. Logs are natural; losses are per
element and in nats. Gradients are those with respect to logits.

  t [B] int64           1..T
  x0, xt [B, *S] int64  categories 0..K - 1; xt can come of x0
  logits_x0 [B, *S, K]  the output of a network; some entries are -inf
  u [B, *S]             uniform noise: a draw is the first category whose cumulative probability is above u
  beta [T], pi [K], W and R [K, K], durations [T]      float64
  process               .K and .T; .Q(t) and .Qbar(t) [.., K, K], where Q[i, j] = q(x_t = j | x_{t-1} = i) and
                        t = 0 is the identity; .log_prior() [K]; .name; .beta [T], None where there is none

  ce_weight             0.01; a loss with a weight of its own takes this, or multiplies by 0.01 / its own

A function may raise NotImplementedError for a process, or for an input. Correct code in probabilities has NaN
gradients where a logit is -inf, of a log of 0. If yours never meets one, say so, and those calls are skipped:

    if torch.isinf(logits_x0).any():
        raise NotImplementedError

Give posterior_kl and cross_entropy beside hybrid: then you see which of its two terms differs. Q of uniform
and of gaussian is symmetric, so only the other processes show a transposed matrix. The names of the
processes, and what is not usual in them:
"""


OF_PROGRAM = """\

A schedule, a loss and a sampler
--------------------------------
A file may have these beside kernels, or alone. They are called by position and draw their own noise. Data are
0..K - 1; of masked noise the mask is K. What they are meant to be, the file says in names of its own:

  noise = "mask"        or "uniform"
  schedule = "cosine"   which of ours alpha or alpha_bar is: linear, cosine, polynomial; of alpha_bar also
                        cosine_squared, reciprocal, log_linear. Without it, it is only seen to fall from 1
  T = 1000              of a loss of steps; without it time is continuous
  ce_weight = 0.01      of a loss of steps, as is belief = "d3pm"

alpha(t) -> [N], of times t [N] in [0, 1]
    The probability that nothing has happened to x_0, which is 1 at t = 0.

alpha_derivative(t) -> [N]
    d alpha / dt.

alpha_bar(T) -> [T], at t = 1..T
    The same of T steps.

loss(network, x0, K) -> [], [B] or [B, L], nats, the mean over the places and examples that it leaves out
    x0 [B, L]. It draws t and x_t, and calls network(xt, t) once, with t [B] in (0, 1], or in 1..T. The logits
    are [B, L, K + 1] for masks, [B, L, K] for uniform noise. In continuous time it is the bound of MDLM and
    MD4, or of UDLM; of steps it is KL + ce_weight cross entropy, with no factor T. Ours is computed of the
    x_t and t that the network was asked at, and the laws of both are tested.

sample(denoise, K, L, n, seed, calls) -> integers [n, L]
    An ancestral sampler in so many steps: evenly spaced times of the file's alpha(t), or the steps of its
    alpha_bar(calls). denoise(x, alpha) -> log p(x_0 | x_t) [n, L, K] is asked at the alpha of x_t, a number
    or [n]; denoise.leave_one_out(x, alpha) -> log p(x_0 at a place | x_t at the others), which D3PM's formula
    of the step back takes of uniform noise. Its law is tested on a random network, K = 3 and L = 4."""


def listing() -> str:
    """The text that `--list` prints."""
    lines = [HEADER]
    lines += [f"  {name:17}{note}".rstrip() for name, note in PROCESSES.items()]
    for signature in FUNCTIONS.values():
        lines += ["", f"{signature.text} -> {signature.result}", f"    {signature.equation}"]
    return "\n".join([*lines, OF_PROGRAM])
