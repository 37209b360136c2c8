"""What a file may have beside kernels: the schedule, the loss and the sampler of a program of its own."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from d3pm_jax.beliefs import Belief
from parity_tests.against import hints
from parity_tests.against.comparing import Raised, Unfit, check_value, is_of_torch
from parity_tests.against.loading import Refused
from parity_tests.against.signatures import PROGRAM

CONTINUOUS = {"linear": "1 - t", "cosine": "cos(pi t / 2)", "polynomial": "1 - t^2"}
STEPS = ("linear", "cosine", "cosine_squared", "reciprocal", "log_linear", "polynomial")
Slip = tuple[str, Callable[[], np.ndarray]]  # in words, and the numbers that it gives


class Program(NamedTuple):
    """The functions of a file that make a program, and what the file says of them."""

    functions: dict[str, Callable[..., Any]]
    noise: str = "mask"
    schedule: str = ""  # which one of ours it is meant to be
    T: int = 0  # of the loss; 0: time is continuous
    ce_weight: float = 0.0
    belief: Belief = "d3pm"

    @property
    def assumed(self) -> str:
        """The schedule that a loss and a sampler are taken to have where the file has none, else ""."""
        if {"alpha", "alpha_bar"} & set(self.functions):
            return ""
        return "alpha_bar = 1 - t / T" if self.T else "alpha = 1 - t"

    def give_schedule(self, difference: str) -> str:
        """Says what is not as with the schedule that is assumed, and the cure."""
        return f"{difference} of {self.assumed}: give the file's {self.assumed.split()[0]}"

    def alphas(self, steps: int) -> np.ndarray:
        """alpha_bar at t = 0..steps, float64 [steps + 1], as the file has it; else it falls evenly."""
        if "alpha_bar" in self.functions:
            total = as_array(call(self.functions["alpha_bar"], steps), (steps,))
        elif "alpha" in self.functions:
            t = torch.arange(1, steps + 1) / steps
            total = as_array(call(self.functions["alpha"], t), (steps,))
        else:
            total = 1 - np.arange(1, steps + 1) / steps
        total = np.concatenate([[1.0], total])
        # A cosine of 1e-17, or below 0, is meant to be 0.
        if abs(total[-1]) < 1e-7:
            total[-1] = 0.0
        return total

    def process(self, lib: ModuleType, steps: int, K: int) -> Any:
        """The forward process of so many steps, as d3pm_jax or torch_ref has it.

        Raises:
            Unfit: the alphas do not fall.
        """
        with warnings.catch_warnings():
            # How much of x_0 is left in x_T is for the user to choose.
            warnings.simplefilter("ignore")
            try:
                betas = lib.from_alpha_bar(self.alphas(steps))
            except ValueError as error:
                raise Unfit(
                    "cannot be compared: the file's alpha does not fall from 1 at every step"
                ) from error
            return lib.uniform(betas, K) if self.noise == "uniform" else lib.absorbing(betas, K + 1, K)

    def level_and_rate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(t) and -alpha'(t) of continuous time."""
        if "alpha" not in self.functions:
            return 1 - t, torch.ones_like(t)
        t = t.clone().requires_grad_()
        level = call(self.functions["alpha"], t)
        if not (torch.is_tensor(level) and level.requires_grad):
            raise Unfit("needs alpha(t) that can be differentiated: compute it with torch, of t itself")
        (derivative,) = torch.autograd.grad(level.sum(), t)
        return level.detach(), -derivative


def read(module: ModuleType, functions: dict[str, Callable[..., Any]], path: Path) -> Program:
    """The program of a file.

    Raises:
        Refused: it says something of itself that is none of the values that there are.
    """
    own = {name: f for name, f in functions.items() if name in PROGRAM}
    if not own:
        return Program({})
    said = {}
    for name, default in Program._field_defaults.items():
        said[name] = getattr(module, name, default)
    program = Program(own, **said)
    schedules = STEPS if "alpha_bar" in own else CONTINUOUS
    _check_one_of(path, "noise", program.noise, ("mask", "uniform"))
    if program.schedule not in ("", *schedules):
        ours = STEPS
        if "alpha_bar" not in own:
            ours = [f"{name} ({formula})" for name, formula in CONTINUOUS.items()]
        raise Refused(
            f"{path}: schedule = {program.schedule!r} is none of {', '.join(ours)}: leave it out for another"
        )
    _check_one_of(path, "belief", program.belief, get_args(Belief))
    if not isinstance(program.T, int) or program.T < 0:
        raise Refused(f"{path}: T = {program.T!r} is no number of steps: leave it out for continuous time")
    if {"loss", "alpha_bar"} <= set(own) and not program.T:
        raise Refused(f"{path}: alpha_bar is a schedule of steps: say T = ..., the steps of the loss")
    return program


def _check_one_of(path: Path, name: str, value: Any, values: Sequence[str]) -> None:
    if value not in values:
        raise Refused(f"{path}: {name} = {value!r} is none of {', '.join(filter(None, values))}")


def call(f: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of the user's."""
    return call_as("", f, *args)


def call_as(words: str, f: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of the user's; words say how, where it raises."""
    try:
        return f(*args)
    except Unfit:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, NotImplementedError) and not is_of_torch(error):
            raise
        raise Raised(error, words) from error


def as_array(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of the user's as an array, if they have this shape and the default type of floats."""
    like = torch.empty(shape).numpy()
    return check_value(x, like).detach().cpu().numpy().copy()


def fitting_slips(
    slips: Iterable[Slip], theirs: np.ndarray, ours: np.ndarray, scale: np.ndarray, tolerance: float
) -> Iterator[str]:
    """The words of the slips that give these numbers, NaN where they are NaN."""
    for words, numbers in slips:
        with np.errstate(all="ignore"):
            of_slip = numbers()
        size = np.maximum(scale, np.abs(np.nan_to_num(of_slip)))
        apart = hints.distance(theirs, of_slip, size)
        apart[np.isnan(theirs) & np.isnan(of_slip)] = 0.0
        moves = hints.distance(of_slip, ours, scale) > tolerance
        if (apart <= tolerance).all() and moves.any():
            yield words
