"""Rows of training steps and of a reverse chain for `accelerator.py`, right before they are timed.

A batch repeats two examples, so that a CPU computes the loss of the same batch from those two: of the first
two steps, the second of which has the gradient and Adam in it. Parameters are away from their initial values,
by which the output is 0. A share is of the peak of the device in bfloat16, whatever a step computes in.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networks
import numpy as np
from flax import nnx
from measuring import Check, Row, attempted, in_turn, judged, times
from networks import Net

import d3pm_jax as d3pm
from d3pm_jax.runs import flops, speed
from d3pm_jax.weights import twin

DISTINCT = 2  # examples of a batch
# Of the first loss and of its change by a step, relative. The loss is off by less than one rounding of the
# type of the products, or of a sum of a thousand float32; the change has the gradient of every layer in it.
TOLERANCES = {"bfloat16": (2**-8, 0.2), "TF32": (2**-11, 0.03), "float32": (1e-5, 0.005)}
MATMUL = {"bfloat16": "default", "TF32": "tensorfloat32", "float32": "highest"}
BEST = "PyTorch at its best"  # as in `networks.py`, on a GPU torch.compile
SIDES = {"PyTorch, eager": 60, BEST: 120}  # seconds that a row may take on a GPU: both sides compile
# Of draws by the same step in two programs: logits may differ by a rounding of TF32, 2^-11, and so do the
# probabilities of which noise chooses. 1% is twenty times that.
DIFFERING = 0.01


class Sizes(NamedTuple):
    """Which networks, and how long they are timed."""

    unet: Net
    text: Net
    chain: Net
    T: int  # steps of the chain
    rounds: int


class Case(NamedTuple):
    """Which step, and beside what."""

    net: Net
    precision: str
    side: str  # of SIDES, or "ours" alone
    unit: str  # of what is counted by the second
    rounds: int


class Ours(NamedTuple):
    """Our step, compiled, after its first two."""

    step: Callable[[], Any]
    losses: list[float]
    at_peak: float | None  # seconds of a step at the peak of the device, if that is known
    temporaries: int  # bytes


def training_rows(sizes: Sizes, left: Callable[[], float]) -> Iterator[Row]:
    """Both networks in the three precisions, as long as the seconds that are left allow."""
    for name, net, unit in (("U-Net", sizes.unet, "images"), ("transformer", sizes.text, "tokens")):
        few = networks.batch(net._replace(shape=(DISTINCT, *net.shape[1:])))
        right = cache(lambda net=net, few=few: _right_losses(net, few))
        for precision in TOLERANCES:
            ours = cache(lambda net=net, few=few, precision=precision: _our_step(net, precision, few))
            for side in SIDES if torch_missing() is None else ("ours",):
                what = f"{name} training step, {precision}" + (f", beside {side}" if side != "ours" else "")
                if left() < SIDES.get(side, 0):
                    yield Row(what, correct=f"left out: takes some {SIDES[side]} s, {left():.0f} s are left")
                else:
                    case = Case(net, precision, side, unit, sizes.rounds)
                    yield attempted(
                        what, lambda w=what, c=case, r=right, o=ours, f=few: _beside(w, c, r, o, f)
                    )


def torch_missing() -> str | None:
    """Why PyTorch is not beside ours, if it is not."""
    platform = jax.default_backend()
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if platform == "gpu" and not torch.cuda.is_available():
        return "no CUDA build of torch"
    return None if platform in ("cpu", "gpu") else f"torch sees no {platform}"


def _beside(
    what: str,
    case: Case,
    right: Callable[[], list[float]],
    ours: Callable[[], Ours],
    few: tuple[np.ndarray, ...],
) -> Row:
    """Ours, and PyTorch unless it is missing."""
    checks = [_like("ours", ours().losses, right(), case.precision)]
    calls = {"ours": ours().step}
    if case.side == "ours":
        return judged(what, checks, lambda: _timed(case, calls, ours())._replace(other=torch_missing() or ""))
    with _torch(case.precision):
        calls["torch"] = step = _torch_step(case, few)
        checks.append(_like("torch", [float(step()), float(step())], right(), case.precision))
        return judged(what, checks, lambda: _timed(case, calls, ours()))


def _repeated(net: Net, few: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The batch of a network."""
    return tuple(np.tile(x, (net.shape[0] // DISTINCT, *(1,) * (x.ndim - 1))) for x in few)


def _right_losses(net: Net, few: tuple[np.ndarray, ...]) -> list[float]:
    """The losses of the first two steps in float32 on the CPU."""
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        _, state, _, update = networks.jax_training(net, False)
        state, compiled = away(state), jax.jit(update)
        state, first = compiled(state, *few[:3])
        return [float(first), float(compiled(state, *few[:3])[1])]


def away(state: tuple[Any, Any]) -> tuple[Any, Any]:
    """Parameters with noise of 0.02, about that of a layer of 2,000 inputs."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32), state[0]), state[1]


def _our_step(net: Net, precision: str, few: tuple[np.ndarray, ...]) -> Ours:
    _, state, loss, update = networks.jax_training(net, precision == "bfloat16")
    state, given = away(state), tuple(map(jnp.asarray, _repeated(net, few)[:3]))
    with jax.default_matmul_precision(MATMUL[precision]):
        compiled = jax.jit(update, donate_argnums=0).lower(state, *given).compile()
    peak = speed.PEAKS.get(jax.devices()[0].device_kind)
    at_peak = flops.of_gradient(loss, state[0], *given) / peak if peak else None

    def step() -> Any:
        nonlocal state
        state, value = jax.block_until_ready(compiled(state, *given))
        return value

    losses = [float(step()), float(step())]
    return Ours(step, losses, at_peak, compiled.memory_analysis().temp_size_in_bytes)


def _torch_step(case: Case, few: tuple[np.ndarray, ...]) -> Callable[[], Any]:
    """A step of the twin from the same parameters."""
    import torch

    best = case.side == BEST
    model, f = networks.torch_network(case.net, best)
    params = away(networks.jax_training(case.net, False)[1])[0]
    model.load_state_dict({name: torch.tensor(x) for name, x in twin.to_torch(params).items()})
    data = _repeated(case.net, few)
    return networks.torch_step("train", (model, f), data, case.precision == "bfloat16", best)


@contextmanager
def _torch(precision: str) -> Iterator[None]:
    """Says what PyTorch may do on a GPU with products of float32; takes its memory back in the end."""
    import torch

    settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [x.allow_tf32 for x in settings]
    for x in settings:
        x.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        for x, allowed in zip(settings, before, strict=True):
            x.allow_tf32 = allowed
        torch.compiler.reset()
        torch.cuda.empty_cache()


def _like(name: str, found: list[float], right: list[float], precision: str) -> Check:
    """Compares the first loss, and by how much it falls in a step."""
    errors = abs(found[0] / right[0] - 1), abs((found[0] - found[1]) / (right[0] - right[1]) - 1)
    allowed = TOLERANCES[precision]
    words = (
        f"{name} {errors[0]:.0e} in loss ({allowed[0]:.0e}), {errors[1]:.0e} in its change ({allowed[1]:.0e})"
    )
    return Check(errors[0] <= allowed[0] and errors[1] <= allowed[1], words)


def _timed(case: Case, calls: Any, ours: Ours) -> Row:
    net = case.net
    several = {name: lambda call=call: [call() for _ in range(net.steps)] for name, call in calls.items()}
    seconds = {name: x / net.steps for name, x in in_turn(several, case.rounds).items()}
    each = math.prod(net.shape) if case.unit == "tokens" else net.shape[0]
    speeds = {name: f"{each / np.median(x):,.0f} {case.unit}/s" for name, x in seconds.items()}
    share = f"{ours.at_peak / np.median(seconds['ours']):.0%}" if ours.at_peak else "peak not known"
    ratio = times(seconds["torch"] / seconds["ours"]) if "torch" in seconds else ""
    memory = f"{ours.temporaries / 1e6:,.1f} MB"
    return Row("", speeds["ours"], speeds.get("torch", ""), ratio, share, memory)


def chain_row(sizes: Sizes) -> Row:
    """Ancestral sampling as one program, beside the same steps called from Python."""
    what = f"reverse chain of {sizes.T} steps"
    return attempted(what, lambda: _chain(what, sizes.chain, sizes.T, sizes.rounds))


def _chain(what: str, net: Net, T: int, rounds: int) -> Row:
    process, key, S = d3pm.uniform(d3pm.cosine(T), net.options["K"]), jax.random.key(0), net.shape
    graphdef, state, _, _ = networks.jax_training(net, False)
    params, pairs = away(state)[0], (T, T // 2, 1)
    record = [s for t in pairs for s in (t, t - 1)]

    def whole(params: Any, process: Any, key: Any) -> Any:
        return d3pm.sampling.sample(key, nnx.merge(graphdef, params), process, S, record=record)

    def step(params: Any, process: Any, key: Any, xt: jax.Array, t: jax.Array) -> jax.Array:
        noise, ts = d3pm.sampling.per_example(key, jnp.arange(S[0]), S[1:]), jnp.full(S[:1], t)
        return d3pm.p_sample(process, nnx.merge(graphdef, params)(xt, ts), xt, ts, noise(t))

    given, steps = (params, process, key), [jnp.int32(t) for t in range(T + 1)]
    xT = jnp.zeros(S, jnp.int32)
    compiled = jax.jit(whole).lower(*given).compile()
    single = jax.jit(step).lower(*given, xT, steps[T]).compile()

    def one_by_one() -> jax.Array:
        x = xT
        for t in reversed(steps[1:]):
            x = single(*given, x, t)
        return x

    found = compiled(*given)
    check = _same_steps(found, record, lambda x, t: single(*given, x, steps[t]))
    calls = {"ours": lambda: compiled(*given), "steps": one_by_one}
    memory = compiled.memory_analysis().temp_size_in_bytes
    return judged(what, [check], lambda: _chain_timed(calls, S[0], memory, rounds))


def _same_steps(found: Any, record: list[int], step: Callable[[jax.Array, int], jax.Array]) -> Check:
    """Each recorded x_{t-1} against the one that a step alone makes of the recorded x_t."""
    after = {t: found.states[i + 1] for i, t in enumerate(record) if not i % 2}
    before = {t: found.states[i] for i, t in enumerate(record) if not i % 2}
    differ = [float(jnp.mean(step(before[t], t) != after[t])) for t in after]
    ok = max(differ) <= DIFFERING and int(found.failed_at) == 0
    each = ", ".join(f"{share:.1%} at t = {t}" for share, t in zip(differ, after, strict=True))
    return Check(ok, f"of single steps differ {each} ({DIFFERING:.0%})")


def _chain_timed(calls: Any, samples: int, memory: int, rounds: int) -> Row:
    seconds = in_turn(calls, rounds)
    ours, other = (f"{samples / np.median(seconds[name]):,.1f} samples/s" for name in calls)
    ratio = times(seconds["steps"] / seconds["ours"])
    return Row("", ours, f"{other}, a call a step", ratio, memory=f"{memory / 1e6:,.1f} MB")
