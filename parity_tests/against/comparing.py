"""One call of a user's function beside the same call of the JAX kernel: value and gradient."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from parity_tests import frameworks, run
from parity_tests.against import hints
from parity_tests.against.inputs import Call, calls
from parity_tests.against.loading import place
from parity_tests.against.signatures import Ours
from parity_tests.compare import TOLERANCES
from parity_tests.frameworks import DIFFERENTIABLE, Arguments, Function, precision
from parity_tests.pairs import PAIRS


class Finding(NamedTuple):
    """What came of one comparison."""

    function: str
    process: str
    dtype: str
    what: str
    input: str
    size: int = 0  # numbers compared
    differ: int = 0  # of which differ
    difference: float = 0.0  # the largest; where some differ, at the worst place
    theirs: str = ""  # the number there
    ours: str = ""
    note: str = ""  # what is wrong besides
    skipped: bool = False
    hints: tuple[str, ...] = ()  # what the differences are, tested

    @property
    def ok(self) -> bool:
        return not self.differ and not self.note


class Unfit(Exception):
    """Says what is wrong with the result of a function as a whole."""


class Raised(Exception):
    """Holds what a function raised."""

    def __init__(self, error: BaseException):
        self.error = error


def findings(ours: Ours, f: Function, dtype: str, path: Path) -> Iterator[Finding]:
    """Every comparison of one function in one float type."""
    for call in calls(ours, f, dtype):
        what = "draw" if PAIRS[call.pair].scale is None else "value"
        finding = Finding(ours.name, call.process, dtype, what, call.input)
        with precision(dtype):
            try:
                yield from _compare(finding, call)
            except NotImplementedError:
                yield finding._replace(skipped=True)
            except Raised as error:
                yield finding._replace(note=f"raises {place(error.error, path)}")
            except Unfit as error:
                yield finding._replace(note=str(error))


def _compare(finding: Finding, call: Call) -> Iterator[Finding]:
    dtype = finding.dtype
    twin = run.in_torch(call.pair, call.case, dtype)
    weights = [frameworks.weight(x, i) * (i == 0) for i, x in enumerate(twin.outputs)]
    ours = run.in_jax(call.pair, call.case, dtype, PAIRS[call.pair].jit, weights)
    value, gradients = _theirs(call, dtype, ours.outputs[0], weights[0])
    scales, gradient_scales = run.measured(call.pair, call.case, ours)
    yield _difference(finding, call, value, ours.outputs[0], scales[0])
    for k, expected in ours.gradients.items():
        of_argument = finding._replace(what=f"gradient of {k}")
        if k in gradients:
            given = _where_finite(gradients[k], expected, ours.outputs[0])
            yield _difference(of_argument, call, given, expected, gradient_scales[k])
        else:
            yield of_argument._replace(note="the result does not depend on it, or is detached")


def _where_finite(gradient: np.ndarray, expected: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The gradient, and what is expected where a loss is infinite, which has none."""
    infinite = np.isinf(value).reshape(value.shape + (1,) * (gradient.ndim - value.ndim))
    return np.where(infinite, expected, gradient) if gradient.ndim > value.ndim else gradient


def _theirs(
    call: Call, dtype: str, like: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The value, and the gradients of sum(weight * value)."""
    args = run.torch_arguments(call.case, dtype)
    leaves = {k: x.requires_grad_() for k, x in args.items() if k in DIFFERENTIABLE and torch.is_tensor(x)}
    writable = {k: x.clone() for k, x in leaves.items()}  # a leaf itself may not be written to
    try:
        value = _checked(call.theirs({**args, **writable}), like).cpu()
        found = value.detach().clone().numpy()
        if not leaves or not value.requires_grad:
            return found, {}
        gradients = torch.autograd.grad(
            value, list(leaves.values()), torch.as_tensor(weight), allow_unused=True
        )
    except Unfit:
        raise
    except (Exception, SystemExit) as error:  # whatever other people's code may raise
        if isinstance(error, NotImplementedError) and not _of_torch(error):
            raise
        raise Raised(error) from error
    return found, {k: g.numpy() for k, g in zip(leaves, gradients, strict=True) if g is not None}


def _of_torch(error: NotImplementedError) -> bool:
    """Whether PyTorch raised it, for a type that an operation of its does not take."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "not implemented for '" in str(error) or Path(torch.__file__).parent in Path(last.filename).parents


def _checked(value: Any, like: np.ndarray) -> torch.Tensor:
    """The tensor, or the first of a tuple, if it is like ours."""
    value = value[0] if isinstance(value, tuple | list) and value else value
    if not torch.is_tensor(value):
        raise Unfit(f"gives {type(value).__name__}, no tensor")
    if tuple(value.shape) != like.shape:
        raise Unfit(f"gives shape {list(value.shape)}, not {list(like.shape)}")
    given, integers = str(value.dtype).removeprefix("torch."), like.dtype.kind == "i"
    if integers and (value.is_floating_point() or value.is_complex()):
        raise Unfit(f"gives {given}, no integers")
    if not integers and given != like.dtype:
        cure = "; --dtype float32 compares what it computes" if given == "float32" else ""
        raise Unfit(f"gives {given}, not {like.dtype}{cure}")
    return value


def _difference(
    finding: Finding, call: Call, theirs: np.ndarray, ours: np.ndarray, scale: np.ndarray
) -> Finding:
    """The finding with how many numbers differ and where most."""
    distance = hints.distance(theirs, ours, scale, finding.what == "draw")
    differ = distance > TOLERANCES[finding.dtype]["draw" if finding.what == "draw" else "yours"]
    at = np.unravel_index(np.argmax(distance), distance.shape)
    if not differ.any():
        finite = np.isfinite(theirs)
        largest = np.abs(theirs[finite] - ours[finite].astype(theirs.dtype)).max(initial=0.0)
        return finding._replace(size=differ.size, difference=float(largest))
    told = hints.tested(call, finding.dtype, theirs, ours, scale) if finding.what == "value" else ()
    return finding._replace(
        input="; ".join(filter(None, (finding.input, _where(call.case.args, at)))),
        size=differ.size,
        differ=int(differ.sum()),
        difference=float(np.abs(np.float64(theirs[at]) - np.float64(ours[at]))),
        theirs=f"{theirs[at]:.6g}",
        ours=f"{ours[at]:.6g}",
        hints=told,
    )


def _where(args: Arguments, at: tuple[Any, ...]) -> str:
    """The arguments at a place of the result, and the place."""
    given = {k: np.asarray(args[k]) for k in ("K", "T", "t", "x0", "xt", "u") if k in args}
    found = [f"{k} = {x[at[: x.ndim]]:.6g}" for k, x in given.items() if x.ndim <= len(at)]
    return ", ".join([*found, f"at {[int(i) for i in at]}"])
