"""Rows of training steps and of a reverse chain for `accelerator.py`, right before they are timed.

A batch repeats two examples, so that a CPU computes the loss of the same batch from those two: of the first
two steps, the second of which has the gradient and Adam in it. Parameters are away from their initial values,
by which the output is 0. A share is of the peak of the device in bfloat16, whatever a step computes in.
PyTorch is at its best as in `networks.py`: torch.compile on a GPU, channels last on a CPU.
"""

import gc
import math
from collections.abc import Callable
from functools import cache, partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import networks
import numpy as np
from accelerator_parity import SECONDS as PARITY
from flax import nnx
from measuring import Check, Row, Rows, in_time, judged, temporaries, within
from networks import Net

import d3pm_jax as d3pm
from d3pm_jax.program.compiled import flops
from d3pm_jax.program.loop import speed
from d3pm_jax.weights import twin

DISTINCT = 2  # examples of a batch
SECONDS = 120  # that a row may take: both sides compile
# Of draws by the same step in two programs: logits may differ by a rounding of TF32, 2^-11, and so do the
# probabilities of which noise chooses. 1% is twenty times that.
DIFFERING = 0.01
# How float32 is multiplied, by JAX's names, and how far the first loss and its change by a step may be off,
# relative. The loss is off by less than one rounding of the type of the products, or of a sum of a thousand
# float32; the change has the gradient of every layer in it.
PRECISIONS = {
    "bfloat16": ("default", 2**-8, 0.03),
    "TF32 (on a TPU: 3 x bfloat16)": ("tensorfloat32", 2**-11, 0.01),
    "float32": ("highest", 1e-5, 0.005),
}
# Wide enough for a step to change the loss by more than its rounding in bfloat16, by half a percent or more.
TINY = {"K": 5, "size": 8, "ch": 16, "ch_mult": (1, 2), "attn_resolutions": (4,), "groups": 4}
SMALL = {
    "U-Net": Net("UNet", TINY | {"num_res_blocks": 1}, (4, 8, 8, 1), 1),
    "transformer": Net("Transformer", {"K": 7, "width": 64, "num_layers": 2, "num_heads": 2}, (4, 64), 1),
}
TEXT8 = {"K": 28, "width": 768, "num_layers": 12, "num_heads": 12}  # as D3PM's, which reads 256 letters
FULL = {"U-Net": networks.NETS["cifar"], "transformer": Net("Transformer", TEXT8, (64, 256), 1)}


def training(small: bool, end: float) -> Rows:
    """Yields both networks in a precision, then in the next, while there is time for the first of parity."""
    nets = FULL
    if small:
        nets = SMALL
    right = {name: cache(partial(_right_losses, net)) for name, net in nets.items()}
    for precision in PRECISIONS:
        for name, net in nets.items():
            row = partial(_training, net, precision, right[name])
            row = partial(in_time, SECONDS, end - PARITY["bfloat16"], row)
            yield f"{name} training step, {precision}", row
            if torch_missing() is None:
                free_torch()


def torch_missing() -> str | None:
    """Says why PyTorch is not beside ours, if it is not."""
    platform = jax.default_backend()
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if platform == "gpu" and not torch.cuda.is_available():
        return "no CUDA build of torch"
    if platform not in ("cpu", "gpu"):
        return f"torch sees no {platform}"
    return None


def free_torch() -> None:
    """Gives back the memory of a model of which nothing is left."""
    import torch

    if torch.cuda.is_available():
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def _training(net: Net, precision: str, right: Callable[[], list[float]]) -> Row:
    """Checks and times our step, and that of PyTorch unless it is missing."""
    step, at_peak, memory = _our_step(net, precision)
    missing = torch_missing()
    calls = {"ours": step}
    if not missing:
        calls["torch"] = _torch_step(net, precision)
    checks = [_like(name, [float(f()), float(f())], right(), precision) for name, f in calls.items()]
    count = net.shape[0]
    unit = "images"
    if net.name == "Transformer":
        count = math.prod(net.shape)
        unit = "tokens"

    def share(seconds: float) -> str:
        if not at_peak:
            return "peak not known"
        return f"{at_peak / seconds:.0%}"

    row = judged(checks, calls, lambda s: f"{count / s:,.0f} {unit}/s", share, memory)
    return row._replace(other=row.other or missing or "")


def _batch(net: Net, examples: int) -> tuple[np.ndarray, ...]:
    """Returns x_0, x_t, t and u, the DISTINCT examples over and over."""
    distinct = networks.batch(net._replace(shape=(DISTINCT, *net.shape[1:])))
    return tuple(np.concatenate([x] * (examples // DISTINCT)) for x in distinct)


def _right_losses(net: Net) -> list[float]:
    """Computes the losses of the first two steps in float32 on the CPU."""
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        _, state, _, update = networks.jax_training(net, False)
        compiled = jax.jit(update)
        data = _batch(net, DISTINCT)[:3]
        state, first = compiled(away(state), *data)
        _, second = compiled(state, *data)
        return [float(first), float(second)]


def away(state: tuple[Any, Any]) -> tuple[Any, Any]:
    """Adds noise of 0.02 to parameters, about that of a layer of 2,000 inputs."""
    rng = np.random.default_rng(1)
    params, opt_state = state
    params = jax.tree.map(lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32), params)
    return params, opt_state


def _our_step(net: Net, precision: str) -> tuple[Callable[[], Any], float | None, str]:
    """Returns our step, its seconds at the peak of the device, if that is known, and its temporaries."""
    _, state, loss, update = networks.jax_training(net, precision == "bfloat16")
    state = away(state)
    data = tuple(map(jnp.asarray, _batch(net, net.shape[0])[:3]))
    with jax.default_matmul_precision(PRECISIONS[precision][0]):
        compiled = jax.jit(update, donate_argnums=0).lower(state, *data).compile()
    peak = speed.PEAKS.get(jax.devices()[0].device_kind)
    at_peak = None
    if peak:
        at_peak = flops.count_flops(loss, state[0], *data) / peak

    def step() -> Any:
        nonlocal state
        state, value = jax.block_until_ready(compiled(state, *data))
        return value

    return step, at_peak, temporaries(compiled)


def _torch_step(net: Net, precision: str) -> Callable[[], Any]:
    """Returns a step of the twin from the same parameters, with products of float32 as the precision says."""
    import torch

    for settings in (torch.backends.cuda.matmul, torch.backends.cudnn):
        settings.allow_tf32 = precision != "float32"
    model, f = networks.torch_network(net, True)
    params = away(networks.jax_training(net, False)[1])[0]
    model.load_state_dict({name: torch.tensor(x) for name, x in twin.to_torch(params).items()})
    data = _batch(net, net.shape[0])
    return networks.torch_step("train", (model, f), data, precision == "bfloat16", True)


def _like(name: str, losses: list[float], right: list[float], precision: str) -> Check:
    """Compares the first loss, and by how much it changes in a step."""
    loss_error = abs(losses[0] / right[0] - 1)
    change = losses[0] - losses[1]
    right_change = right[0] - right[1]
    change_error = abs(change / right_change - 1)
    _, loss_tolerance, change_tolerance = PRECISIONS[precision]
    return within(name, loss=(loss_error, loss_tolerance), change=(change_error, change_tolerance))


def chain(small: bool, _: float) -> Rows:
    """Yields ancestral sampling as one program, beside the same steps called from Python."""
    net = networks.NETS["big"]
    T = 100
    if small:
        net = SMALL["U-Net"]
        T = 6
    yield f"reverse chain of {T} steps", partial(_chain, net, T)


def _chain(net: Net, T: int) -> Row:
    process = d3pm.uniform(d3pm.cosine(T), net.options["K"])
    key = jax.random.key(0)
    S = net.shape
    graphdef, state, _, _ = networks.jax_training(net, False)
    record = [T, T - 1, T // 2, T // 2 - 1, 1, 0]

    def whole(params: Any, process: Any, key: Any) -> Any:
        return d3pm.sample(key, d3pm.Denoiser(process, nnx.merge(graphdef, params)), S, record=record)

    def step(params: Any, process: Any, key: Any, xt: jax.Array, t: jax.Array) -> jax.Array:
        noise = d3pm.sampling.per_example(key, jnp.arange(S[0]), S[1:])
        ts = jnp.full(S[:1], t)
        return d3pm.p_sample(process, nnx.merge(graphdef, params)(xt, ts), xt, ts, noise(t))

    inputs = (away(state)[0], process, key)
    steps = [jnp.int32(t) for t in range(T + 1)]
    xT = jnp.zeros(S, jnp.int32)
    compiled = jax.jit(whole).lower(*inputs).compile()
    single = jax.jit(step).lower(*inputs, xT, steps[T]).compile()

    def one_by_one() -> jax.Array:
        return reduce(lambda x, t: single(*inputs, x, t), reversed(steps[1:]), xT)

    check = _same_steps(compiled(*inputs), record, lambda x, t: single(*inputs, x, steps[t]))
    calls = {"ours": lambda: compiled(*inputs), "steps": one_by_one}
    return judged([check], calls, lambda s: f"{S[0] / s:,.1f} samples/s", memory=temporaries(compiled))


def _same_steps(chain: Any, record: list[int], step: Callable[[jax.Array, int], jax.Array]) -> Check:
    """Compares each recorded x_{t-1} with the one that a step alone makes of the recorded x_t."""
    states = chain.states
    ts = record[::2]
    differ = [float(jnp.mean(step(states[2 * i], t) != states[2 * i + 1])) for i, t in enumerate(ts)]
    each = ", ".join(f"{share:.1%} at t = {t}" for share, t in zip(differ, ts, strict=True))
    ok = max(differ) <= DIFFERING and int(chain.failed_at) == 0
    return Check(ok, f"of single steps differ {each} ({DIFFERING:.0%})")
