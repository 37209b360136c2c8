"""Makes what is judged: named samplers, samplers of one's own, and functions of another library."""

import bisect
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from d3pm_jax import numerics
from d3pm_jax.config.io import load_module
from d3pm_jax.config.samplers import choose_sampler, default_fields
from d3pm_jax.errors import UserError, as_user_error, describe_returned, one_line
from d3pm_jax.judge.targets import Noise, Target, make_network, make_process
from d3pm_jax.keys import make_key
from d3pm_jax.processes import is_category
from d3pm_jax.sampling import Chain, Denoiser, Sampler, make_plan, sample

# What a float32 may be off: 1 - 1e-7 + 1e-7 is no error of anybody's.
ROUNDING = 1e-6
SMALLEST = 1e-7  # signal that is left at the end, below which it is none
CONTRACT = "sample(denoise, K, L, n, seed, calls)"


class Subject(NamedTuple):
    """Holds what is judged."""

    name: str
    noise: Noise
    draw: Callable[[Target, int, int, int], tuple[np.ndarray, int | float | None]]
    """(target, n, seed, calls) -> int32 [n, L], and the calls of the network, None where not known"""
    claim: Callable[[int], Sampler] | None = None
    """calls -> the sampler that it is, or says that it is; None where it says nothing"""
    follows_calls: bool = True
    """whether the number of calls changes what it does"""
    alphas: Callable[[int], np.ndarray] | None = None
    """steps -> the signal left at t / steps, t = 0..steps, float64 [steps + 1], of its claim; None:
    1 - t / steps"""


# ---- Samplers of this library ----


def sampler_subject(name: str, sampler: Sampler | Callable[[int], Sampler], noise: Noise = "mask") -> Subject:
    """Makes the subject of a sampler of this library.

    Args:
        name: to print.
        sampler: or one for each number of calls.
        noise: of the process that it is run on.
    """

    def draw(target: Target, n: int, seed: int, calls: int) -> tuple[np.ndarray, float]:
        used = resolve(sampler, calls)
        steps = fit_steps(used, noise, (target.K, target.length), calls)
        draw_chain = _compile(used, steps, noise, target.leave_one_out, (n, target.length, target.K))
        chain = draw_chain(make_key(seed))
        if int(chain.failed_at) > 0:
            raise UserError(f"{name}: nothing could be drawn in row {int(chain.failed_at)} of its chain")
        return check_samples(name, chain.x0, n, target), float(np.mean(chain.calls))

    follows_calls = not (isinstance(sampler, Sampler) and sampler.step.goes_by_masks)
    return Subject(name, noise, draw, partial(resolve, sampler), follows_calls)


def fit_steps(sampler: Sampler, noise: Noise, sizes: tuple[int, int], calls: int) -> int:
    """Returns with how many steps of the process a sampler takes at most so many calls, at least one.

    Args:
        sampler: to take them.
        noise: of the process.
        sizes: K and L.
        calls: of the network.

    Raises:
        UserError: the sampler is not for such a process.
    """
    K, length = sizes

    def count_calls(steps: int) -> int:
        plan = make_plan(sampler, make_process(noise, K, steps), (length,))
        return sampler.step.count_calls(plan) or steps

    with as_user_error():
        fitting = bisect.bisect_right(range(1, calls + 1), calls, key=count_calls)
    return max(1, fitting)


@lru_cache(maxsize=8)
def _compile(
    sampler: Sampler,
    steps: int,
    noise: Noise,
    leave_one_out: Callable[[Array, Array], Array],
    sizes: tuple[int, int, int],
) -> Callable[[Array], Chain]:
    """Compiles a sampler with the network of a target: key -> Chain of n examples; sizes are n, L and K."""
    n, length, K = sizes
    process = make_process(noise, K, steps)
    denoiser = Denoiser(process, make_network(leave_one_out, process), "leave_one_out")
    return jax.jit(lambda key: sample(key, denoiser, (n, length), sampler))


# ---- Functions of another library ----


class Denoise:
    """Is what a function of another library calls as the network: `denoise(x, alpha)`.

    x is integers [n, L] in NumPy, PyTorch or JAX, masks K; alpha is the signal left, a number or [n]. What
    it returns is float32 of the library of x.
    """

    def __init__(self, target: Target) -> None:
        """Keeps the target, and counts calls."""
        self.target = target
        self.calls: int | None = 0

    def __call__(self, x: Any, alpha: Any) -> Any:
        """Returns log p(x_0 | x), normalised, [n, L, K]."""
        return self._answer("denoiser", x, alpha)

    def leave_one_out(self, x: Any, alpha: Any) -> Any:
        """Returns log p(x_0 at a place | x at the others), normalised, [n, L, K]."""
        return self._answer("leave_one_out", x, alpha)

    def log_scores(self, x: Any, alpha: Any) -> Any:
        """Returns log p_t(y) / p_t(x), y with another category at a place: [n, L, K], or K + 1 with masks.

        It is 0 at x itself, and -inf where y is none that noise turns into x, or x into y.
        """
        return self._answer("log_scores", x, alpha)

    def _answer(self, form: str, x: Any, alpha: Any) -> Any:
        if isinstance(x, Tracer):
            # Of a program that is compiled nothing is known here: no value, and not how often it runs.
            self.calls = None
            return self._compute(form, x, jnp.broadcast_to(alpha, x.shape[:1]))
        if self.calls is not None:
            self.calls += 1
        x_checked, alpha_checked = self._check(x, alpha)
        answer = np.array(self._compute(form, x_checked, alpha_checked))
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(x, torch.Tensor):
            return torch.as_tensor(answer, device=x.device)
        return jnp.asarray(answer) if isinstance(x, jax.Array) else answer

    def _compute(self, form: str, x: Array, alpha: Array) -> Array:
        loo = self.target.leave_one_out(x, alpha)
        return convert(form, self.target.noise, loo, x, alpha).astype(jnp.float32)

    def _check(self, x: Any, alpha: Any) -> tuple[Array, Array]:
        """Raises UserError for what is no x_t, or no signal left."""
        states = to_host("denoise(x, alpha): x", x)
        target = self.target
        values = f"0..{target.K - 1}"
        most = target.K - 1
        if target.noise == "mask":
            values += f", and {target.K} for the mask"
            most = target.K
        if (
            not np.issubdtype(states.dtype, np.integer)
            or states.ndim != 2
            or states.shape[1] != target.length
        ):
            raise UserError(
                f"denoise(x, alpha): x is {describe_returned(states)}: pass integers [n, {target.length}]"
            )
        wrong = states[(states < 0) | (states > most)]
        if len(wrong):
            raise UserError(f"denoise(x, alpha): x holds {wrong[0]}: categories are {values}")
        signal = to_host("denoise(x, alpha): alpha", alpha)
        if signal.shape not in ((), (len(states),)):
            raise UserError(
                f"denoise(x, alpha): alpha has shape {list(signal.shape)}: pass a number, or [{len(states)}]"
            )
        outside = ~((signal >= -ROUNDING) & (signal <= 1 + ROUNDING))
        if outside.any():
            raise UserError(
                f"denoise(x, alpha): alpha = {float(signal[outside].flat[0]):g} is outside [0, 1]: it is the "
                f"signal left, 1 for clean data"
            )
        signal = np.broadcast_to(np.clip(signal, 0.0, 1.0), len(states))
        return jnp.asarray(states, jnp.int32), jnp.asarray(signal, jnp.float32)


@partial(jax.jit, static_argnums=(0, 1))
def convert(form: str, noise: Noise, loo: Array, x: Array, alpha: Array) -> Array:
    """Converts log p(x_0 at a place | x at the others) to what is asked for."""
    if form == "leave_one_out":
        return loo
    K = loo.shape[-1]
    signal = alpha[:, None, None]
    is_x = is_category(x, K)
    if form == "denoiser":
        if noise == "mask":
            return jnp.where((x == K)[..., None], loo, jnp.where(is_x, 0.0, -jnp.inf))
        return numerics.log_normalize(loo + jnp.log(signal * is_x + (1 - signal) / K))
    # log p_t of each category at a place, given the others. What is visible may only be masked.
    log_p = jnp.log(signal * jnp.exp(loo) + (1 - signal) / K)
    if noise == "mask":
        of_mask = jnp.broadcast_to(jnp.log(1 - signal), (*x.shape, 1))
        of_data = jnp.where(is_x | (x == K)[..., None], jnp.log(signal) + loo, -jnp.inf)
        log_p = jnp.concatenate([of_data, of_mask], axis=-1)
    of_x = jnp.take_along_axis(log_p, x[..., None], axis=-1)
    ratios = jnp.where(of_x == -jnp.inf, -jnp.inf, log_p - of_x)
    return jnp.where(is_category(x, log_p.shape[-1]), 0.0, ratios)


def function_subject(
    name: str,
    function: Callable[..., Any],
    noise: Noise = "mask",
    claim: Callable[[int], Sampler] | None = None,
) -> Subject:
    """Makes the subject of `sample(denoise, K, L, n, seed, calls) -> ints [n, L]`."""

    def draw(target: Target, n: int, seed: int, calls: int) -> tuple[np.ndarray, int | float | None]:
        denoise = Denoise(target)
        try:
            x = function(denoise, target.K, target.length, n, seed, calls)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{name} raised {type(error).__name__}: {one_line(error)}; called as {CONTRACT} with "
                f"K = {target.K}, L = {target.length}, n = {n}, seed = {seed}, calls = {calls}"
            ) from error
        return check_samples(name, x, n, target), denoise.calls

    return Subject(name, noise, draw, claim)


def check_samples(name: str, x: Any, n: int, target: Target) -> np.ndarray:
    """Returns samples as int32 [n, L].

    Raises:
        UserError: they are something else.
    """
    samples = to_host(f"{name}: what it returned", x)
    if not np.issubdtype(samples.dtype, np.integer):
        raise UserError(f"{name} returned {describe_returned(samples)}: return integers [n, L]")
    if samples.shape != (n, target.length):
        raise UserError(
            f"{name} returned {describe_returned(samples)}, asked for n = {n}, L = {target.length}: "
            f"return [{n}, {target.length}]"
        )
    masks = int(np.sum(samples == target.K))
    if target.noise == "mask" and masks:
        raise UserError(
            f"{name} left {masks} places at the mask, {target.K}, in {n} samples: draw these too before it "
            f"returns"
        )
    wrong = samples[(samples < 0) | (samples >= target.K)]
    if len(wrong):
        raise UserError(f"{name} returned the category {wrong[0]}: categories are 0..{target.K - 1}")
    return samples.astype(np.int32)


def to_host(what: str, x: Any) -> np.ndarray:
    """Returns an array of NumPy, PyTorch or JAX on the host.

    Raises:
        UserError: it is none.
    """
    detached = x.detach().cpu() if hasattr(x, "detach") else x
    if str(getattr(x, "dtype", "")) == "torch.bfloat16":
        detached = detached.float()  # NumPy has no such type
    try:
        array = np.asarray(detached)
    except Exception as error:
        raise UserError(f"{what} is {describe_returned(x)}, no array: {one_line(error)}") from error
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise UserError(
            f"{what} is {describe_returned(x)}: pass an array of numbers of NumPy, PyTorch or JAX"
        )
    return array


# ---- Words ----


def read_subject(text: str, noise: Noise = "mask") -> Subject:
    """Reads what to judge: NAME or NAME:field=value,.., or FILE.py or FILE.py:FUNCTION.

    Args:
        text: its words. A file has `sample` or FUNCTION, which is a function of `CONTRACT` or a `Sampler`;
            and may have noise = "uniform", claims = "NAME:field=value,..", and alpha(t), the signal left at
            times in [0, 1], which a claimed sampler of levels has at evenly spaced times.
        noise: that samplers of this library are run on.

    Raises:
        UserError: there is no such sampler, file or function.
    """
    head, _, rest = text.partition(":")
    if head.endswith(".py"):
        return _read_file(Path(head), rest or "sample", noise)
    sampler = read_sampler(text)
    return sampler_subject(text, sampler, noise)


def read_sampler(text: str) -> Sampler | Callable[[int], Sampler]:
    """Reads NAME or NAME:field=value,..; one that is told its rows has as many as it is given calls.

    Raises:
        UserError: there is no such sampler or field.
    """
    name, _, written = text.partition(":")
    fields = {}
    for pair in filter(None, written.split(",")):
        field, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"{one_line(text, 80)}: write fields as NAME:field=value,field=value")
        fields[field] = value
    with as_user_error():
        sampler = choose_sampler(name, fields).sampler
    if "rows" not in default_fields(name) or "rows" in fields:
        return sampler
    return lambda calls: choose_sampler(name, fields | {"rows": calls}).sampler


def _read_file(path: Path, name: str, noise: Noise) -> Subject:
    """Makes the subject of a file."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; name a Python file that has {CONTRACT}")
    folder = str(path.resolve().parent)
    # What lies beside a file can be imported there, as where Python runs it; but of what is imported later a
    # file of the same name comes second.
    sys.path.insert(0, folder)
    try:
        module = load_module(path)
    finally:
        sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)
    function = getattr(module, name, None)
    label = f"{path}:{name}"
    if isinstance(function, Sampler):
        return sampler_subject(label, function, noise)
    if not callable(function):
        raise UserError(f"{path} has no function {name}: define {CONTRACT} there, or name it as FILE.py:NAME")
    own_noise: Any = getattr(module, "noise", "mask")
    if own_noise not in get_args(Noise):
        raise UserError(f"{path}: noise = {one_line(repr(own_noise), 80)}: it must be 'mask' or 'uniform'")
    claims = getattr(module, "claims", None)
    if claims is None:
        return function_subject(label, function, own_noise)
    if not isinstance(claims, str):
        raise UserError(f"{path}: claims = {one_line(repr(claims), 80)}: write NAME or NAME:field=value,..")
    sampler = read_sampler(claims)
    subject = function_subject(label, function, own_noise, partial(resolve, sampler))
    if not callable(getattr(module, "alpha", None)):
        return subject
    return subject._replace(alphas=partial(_compute_alphas, f"{path}: alpha", module.alpha))


def _compute_alphas(name: str, alpha: Callable[[Any], Any], steps: int) -> np.ndarray:
    """Returns alpha(t) of a file at t = 0, 1 / steps, .., 1; it is handed times in NumPy, else in PyTorch.

    Raises:
        UserError: it raises, or returns something else than the signal left.
    """
    t = np.arange(1, steps + 1) / steps
    try:
        try:
            returned = alpha(t)
        except Exception:
            torch = sys.modules.get("torch")
            if torch is None:
                raise
            returned = alpha(torch.as_tensor(t))
    except Exception as error:
        raise UserError(
            f"{name} raised {type(error).__name__}: {one_line(error)}; called with t [N]"
        ) from error
    signal = to_host(f"{name}(t)", returned)
    if signal.shape != t.shape or not np.issubdtype(signal.dtype, np.floating):
        raise UserError(
            f"{name}(t) returned {describe_returned(signal)}: return floats of the shape of t, [N]"
        )
    alphas = np.concatenate([[1.0], signal])
    # A cosine of 1e-17, or below 0, is meant to be 0.
    if abs(alphas[-1]) < SMALLEST:
        alphas[-1] = 0.0
    return alphas


def resolve(sampler: Sampler | Callable[[int], Sampler], calls: int) -> Sampler:
    """Returns a sampler, of one for each number of calls that for so many."""
    return sampler if isinstance(sampler, Sampler) else sampler(calls)
