"""One call of a user's function beside the same call of the JAX kernel: value and gradient."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from parity_tests import frameworks, run
from parity_tests.against import hints
from parity_tests.against.inputs import Call, calls
from parity_tests.against.loading import place
from parity_tests.against.signatures import Signature
from parity_tests.compare import TOLERANCES
from parity_tests.frameworks import DIFFERENTIABLE, Arguments, Function, precision
from parity_tests.pairs import PAIRS

# Of a gradient of finite values.
WHY_NAN = (
    "as of a log of 0 or a torch.where whose other branch is infinite: pass either a finite argument there"
)


class Finding(NamedTuple):
    """The result of one comparison."""

    function: str
    process: str
    dtype: str
    quantity: str  # "value", "draw" or "gradient of ..."
    input: str
    size: int = 0  # numbers compared
    differ: int = 0  # how many of these differ
    difference: float = 0.0  # the largest; where some differ, at the worst place
    theirs: str = ""  # the number there
    ours: str = ""
    note: str = ""  # what is wrong besides
    skipped: bool = False
    hints: tuple[str, ...] = ()  # slips that were tested and give just these numbers

    @property
    def ok(self) -> bool:
        return not self.differ and not self.note


class Unfit(Exception):
    """Says what is wrong with the result of a function as a whole."""


class Raised(Exception):
    """Holds what a function raised, and how it was called, in words."""

    def __init__(self, error: BaseException, words: str = ""):
        self.error = error
        self.words = words


def findings(signature: Signature, f: Function, dtype: str, path: Path) -> Iterator[Finding]:
    """Every comparison of one function in one float type."""
    for call in calls(signature, f, dtype):
        is_draw = PAIRS[call.pair].scale is None
        quantity = "draw" if is_draw else "value"
        finding = Finding(signature.name, call.process, dtype, quantity, call.input)
        yield from guarded(finding, path, partial(_compare, call))


def guarded(
    finding: Finding, path: Path, compare: Callable[[Finding], Iterator[Finding]]
) -> Iterator[Finding]:
    """What a comparison finds, or why it could not be made."""
    with precision(finding.dtype):
        try:
            yield from compare(finding)
        except NotImplementedError:
            yield finding._replace(skipped=True)
        except Raised as error:
            yield finding._replace(note=f"raises {place(error.error, path)}{error.words}")
        except Unfit as error:
            yield finding._replace(note=str(error))


def _compare(call: Call, finding: Finding) -> Iterator[Finding]:
    dtype = finding.dtype
    twin = run.call_torch(call.pair, call.case, dtype)
    # A user's function has one result, which is our first: the others have no part in the gradient.
    weights = [frameworks.weight(x, i) * (i == 0) for i, x in enumerate(twin.outputs)]
    ours = run.call_jax(call.pair, call.case, dtype, PAIRS[call.pair].jit, weights)
    value, gradients = _evaluate_theirs(call, dtype, ours.outputs[0], weights[0])
    scales, gradient_scales = run.measure_scales(call.pair, call.case, ours)
    yield _measure_difference(finding, call, value, ours.outputs[0], scales[0])
    for argument, expected in ours.gradients.items():
        of_argument = finding._replace(quantity=f"gradient of {argument}")
        if argument in gradients:
            gradient = _where_finite(gradients[argument], expected, ours.outputs[0])
            yield _measure_difference(of_argument, call, gradient, expected, gradient_scales[argument])
        else:
            yield of_argument._replace(note="the result does not depend on it, or is detached")


def _where_finite(gradient: np.ndarray, expected: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The gradient, and the expected one where a loss is infinite, which has none."""
    if gradient.ndim <= value.ndim:
        return gradient
    infinite = np.isinf(value).reshape(value.shape + (1,) * (gradient.ndim - value.ndim))
    return np.where(infinite, expected, gradient)


def _evaluate_theirs(
    call: Call, dtype: str, like: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The value of the user's function, and the gradients of sum(weight * value)."""
    args = run.torch_arguments(call.case, dtype)
    leaves = {}
    for name, x in args.items():
        if name in DIFFERENTIABLE and torch.is_tensor(x):
            leaves[name] = x.requires_grad_()
    # The function may write into its arguments, which PyTorch forbids for a leaf itself.
    writable = {name: x.clone() for name, x in leaves.items()}

    # Other people's code may raise anything, and `sys.exit` too.
    try:
        value = check_value(call.theirs({**args, **writable}), like).cpu()
        array = value.detach().clone().numpy()
        if not leaves or not value.requires_grad:
            return array, {}
        gradients = torch.autograd.grad(
            value, list(leaves.values()), torch.as_tensor(weight), allow_unused=True
        )
    except Unfit:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, NotImplementedError) and not is_of_torch(error):
            raise
        raise Raised(error) from error

    by_name = {}
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            by_name[name] = gradient.numpy()
    return array, by_name


def is_of_torch(error: NotImplementedError) -> bool:
    """Whether PyTorch raised it, for a type that an operation of its does not take."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "not implemented for '" in str(error) or Path(torch.__file__).parent in Path(last.filename).parents


def check_value(value: Any, like: np.ndarray) -> torch.Tensor:
    """Returns the tensor, or the first of a tuple, if its shape and type are those of ours."""
    if isinstance(value, tuple | list) and value:
        value = value[0]
    if not torch.is_tensor(value):
        raise Unfit(f"gives {type(value).__name__}, no tensor")
    if tuple(value.shape) != like.shape:
        raise Unfit(f"gives shape {list(value.shape)}, not {list(like.shape)}")

    dtype = str(value.dtype).removeprefix("torch.")
    if like.dtype.kind == "i":
        if value.is_floating_point() or value.is_complex():
            raise Unfit(f"gives {dtype}, no integers")
    elif dtype != like.dtype:
        message = f"gives {dtype}, not {like.dtype}"
        if dtype == "float32":
            message += "; --dtype float32 compares what it computes"
        raise Unfit(message)
    return value


def _measure_difference(
    finding: Finding, call: Call, theirs: np.ndarray, ours: np.ndarray, scale: np.ndarray
) -> Finding:
    is_draw = finding.quantity == "draw"
    return measure(
        finding,
        theirs,
        ours,
        scale,
        lambda: hints.find_slips(call, finding.dtype, theirs, ours, scale, is_draw),
        lambda at: _describe_place(call.case.args, at),
    )


def measure(
    finding: Finding,
    theirs: np.ndarray,
    ours: np.ndarray,
    scale: np.ndarray,
    find_slips: Callable[[], Iterable[str]],
    describe: Callable[[tuple[Any, ...]], str],
) -> Finding:
    """The finding with how many numbers differ and where most; slips are looked for where some do."""
    is_draw = finding.quantity == "draw"
    tolerance = TOLERANCES[finding.dtype]["draw" if is_draw else "yours"]
    distance = hints.distance(theirs, ours, scale, is_draw)
    differ = distance > tolerance
    if not differ.any():
        finite = np.isfinite(theirs)
        largest = np.abs(theirs[finite] - ours[finite].astype(theirs.dtype)).max(initial=0.0)
        return finding._replace(size=differ.size, difference=float(largest))

    slips = ()
    if not finding.quantity.startswith("gradient"):
        slips = tuple(find_slips())
    note = ""
    num_nan = int((np.isnan(theirs) & ~np.isnan(ours)).sum())
    if num_nan and finding.quantity.startswith("gradient"):
        note = f"{num_nan} are NaN, {WHY_NAN}"
    at = np.unravel_index(np.argmax(distance), distance.shape)
    return finding._replace(
        note=note,
        input="; ".join(filter(None, (finding.input, describe(at)))),
        size=differ.size,
        differ=int(differ.sum()),
        difference=float(np.abs(np.float64(theirs[at]) - np.float64(ours[at]))),
        theirs=f"{theirs[at]:.6g}",
        ours=f"{ours[at]:.6g}",
        hints=slips,
    )


def _describe_place(args: Arguments, at: tuple[Any, ...]) -> str:
    """The arguments at a place of the result, and the place."""
    words = []
    for name in ("K", "T", "t", "x0", "xt", "u"):
        if name not in args:
            continue
        x = np.asarray(args[name])
        if x.ndim <= len(at):
            words.append(f"{name} = {x[at[: x.ndim]]:.6g}")
    return ", ".join([*words, f"at {[int(i) for i in at]}"])
