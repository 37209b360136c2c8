"""Training and sampling steps of the networks beside their PyTorch twins, in turn, each in its own process.

    python benchmarks/networks.py [train] [sample] [--nets big small score text] [--rounds N] [--bfloat16]

A training step is forward, backward and Adam on the mean cross entropy of x_0; a sampling step is forward
and a draw of every element from its logits. JAX runs as `d3pm` does: one device per CPU core and, in
training, memory that is kept from step to step, or the accelerator. PyTorch runs eagerly as users write it,
and at its best settings: channels last for images, huge pages and a malloc that keeps them, or
`torch.compile` on a GPU. Compare ratios, not times: they are medians over rounds, and a round counts only
while every side has its cores to itself.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Net(NamedTuple):
    """A network and its batch."""

    name: str  # in d3pm_jax.models and torch_ref.models
    options: dict[str, Any]
    shape: tuple[int, ...]  # of x_t, [B, H, W, C] or [B, L]
    steps: int  # per round


NETS = {
    "big": Net(
        "UNet",
        {"K": 256, "size": 32, "ch": 64, "ch_mult": (1, 2, 2), "attn_resolutions": (16,)},
        (32, 32, 32, 1),
        2,
    ),
    "small": Net(
        "UNet",
        {"K": 17, "size": 8, "ch": 32, "ch_mult": (1, 2), "attn_resolutions": (4,)},
        (128, 8, 8, 1),
        10,
    ),
    "score": Net("ScoreNet", {"K": 2, "ch": 32, "ch_mult": (1, 2, 2), "attn": (1,)}, (64, 28, 28, 1), 4),
    "text": Net("Transformer", {"K": 69, "width": 128, "num_layers": 4, "num_heads": 4}, (32, 128), 6),
    "text256": Net("Transformer", {"K": 28, "width": 256, "num_layers": 6, "num_heads": 8}, (16, 256), 2),
    "cifar": Net(
        "UNet",
        {"K": 256, "size": 32, "ch": 128, "ch_mult": (1, 2, 2, 2), "attn_resolutions": (16,)},
        (128, 32, 32, 3),
        10,
    ),
}
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
STEPS = {"train": "training", "sample": "sampling"}
SIDES = {"torch": {}, "torch, best": MALLOC, "jax": {}}
Step = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="STEP", help="train, sample (both)")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["big", "small", "score"])
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (9)")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16 on both sides")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.what) - set(STEPS):
        parser.error(f"unknown step {unknown.pop()}: choose from train, sample")
    if args.worker:
        serve(args.worker, args.what[0], NETS[args.nets[0]], args.bfloat16)
        return
    for what in args.what or STEPS:
        for net in args.nets:
            print(f"\n{STEPS[what]} step, {net}: {NETS[net].name} {NETS[net].options}, x_t {NETS[net].shape}")
            compare(what, net, args.rounds, args.bfloat16)


def compare(what: str, net: str, rounds: int, bfloat16: bool) -> None:
    """Times rounds in which every side takes its turn, twice as many at most as are to count."""
    command = [sys.executable, __file__, what, "--nets", net]
    if bfloat16:
        command.append("--bfloat16")
    workers = {
        side: subprocess.Popen(
            [*command, "--worker", side],
            env=os.environ | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side, env in SIDES.items()
    }
    ask = {side: (lambda worker=worker: _ask(worker)) for side, worker in workers.items()}
    counted: list[dict[str, dict[str, float]]] = []
    try:
        about = {side: f() for side, f in ask.items()}
        for _ in range(2 * rounds):
            took = {side: f() for side, f in ask.items()}
            if all(times["cores"] >= about[side]["least_cores"] for side, times in took.items()):
                counted.append(took)
            if len(counted) == rounds:
                break
    finally:
        for worker in workers.values():
            worker.kill()
    report(counted, rounds, about)


def report(counted: list[dict[str, dict[str, float]]], rounds: int, about: dict[str, dict[str, Any]]) -> None:
    """Prints a side's time, its ratios to both of PyTorch, and where it ran, side after side."""
    if len(counted) < rounds:
        print(f"  only {len(counted)} of {2 * rounds} rounds count: other processes hold the cores")
    if not counted:
        return
    for side in SIDES:
        seconds = np.array([times[side]["seconds"] for times in counted])
        start = f"{side:12s} {np.median(seconds) * 1e3:8.1f} ms a step"
        for base in ("torch", "torch, best"):
            ratios = seconds / np.array([times[base]["seconds"] for times in counted])
            text = f"{np.median(ratios):6.2f} of {base} ({ratios.min():.2f} to {ratios.max():.2f})"
            print(f"  {start}  {text}")
            start = " " * 32
        cores = np.median([times[side]["cores"] for times in counted])
        print(f"  {'':12s} {cores:8.2f} cores busy, {about[side]['where']}", flush=True)


def _ask(worker: subprocess.Popen) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(worker.args)} stopped")  # its error is on the screen
    return json.loads(line)


def serve(side: str, what: str, net: Net, bfloat16: bool) -> None:
    """Prints the time of some steps for every line of input; for the first line, where they run."""
    make_side = torch_side
    if side == "jax":
        make_side = jax_side
    step, where, is_on_cpu = make_side(what, net, bfloat16, side != "torch")
    step()
    least_cores = 0.0
    if is_on_cpu:
        least_cores = 0.7 * len(os.sched_getaffinity(0))
    input()
    print(json.dumps({"where": where, "least_cores": least_cores}), flush=True)
    for _ in sys.stdin:
        wall_start = time.perf_counter()
        cpu_start = time.process_time()
        for _ in range(net.steps):
            step()
        wall = time.perf_counter() - wall_start
        cpu_time = time.process_time() - cpu_start
        print(json.dumps({"seconds": wall / net.steps, "cores": cpu_time / wall}), flush=True)


def options(net: Net) -> dict[str, Any]:
    """Returns what a network is built with, by names that both sides have."""
    common: dict[str, Any] = {"max_time": 1000, "dropout": 0.0}
    if len(net.shape) == 4:
        common |= {"num_res_blocks": 2, "channels": net.shape[-1]}
    return common | net.options


def batch(net: Net) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns x_0, x_t, t and u."""
    rng = np.random.default_rng(0)
    x0, xt = rng.integers(0, net.options["K"], (2, *net.shape)).astype(np.int32)
    t = rng.integers(1, 1001, net.shape[0]).astype(np.int32)
    u = rng.random(net.shape, np.float32)
    return x0, xt, t, u


def torch_network(net: Net, best: bool) -> tuple[Any, Any]:
    """Returns the twin of a network on its device, and how it is called."""
    import torch

    from torch_ref import models

    device = torch_device()
    model = getattr(models, net.name)(**options(net)).to(device)
    if best and len(net.shape) == 4:
        model = model.to(memory_format=torch.channels_last)
    if best and device == "cuda":
        return model, torch.compile(model)
    return model, model


def torch_device() -> str:
    """Returns the device that PyTorch runs on."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "cpu"


def torch_step(
    what: str, network: tuple[Any, Any], data: tuple[np.ndarray, ...], bfloat16: bool, best: bool
) -> Step:
    """Returns a step of training, which gives its loss, or of sampling, on x_0, x_t, t and u."""
    import torch

    model, f = network
    device = next(model.parameters()).device
    data_x0, data_xt, data_t, data_u = data
    x0 = torch.as_tensor(data_x0, device=device).long()
    xt = torch.as_tensor(data_xt, device=device).long()
    t = torch.as_tensor(data_t, device=device).long()
    u = torch.as_tensor(data_u, device=device)

    def logits() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return f(xt, t).float()

    if what == "sample":
        step = torch_sampling(logits, u)
    else:
        step = torch_training(model, logits, x0, best)

    def finished() -> Any:
        result = step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return result

    return finished


def torch_training(model: Any, logits: Callable[[], Any], x0: Any, best: bool) -> Step:
    """Returns a step of Adam on the mean cross entropy."""
    import torch
    import torch.nn.functional as F

    adam = torch.optim.Adam(model.parameters(), lr=2e-4, fused=best)

    def train() -> Any:
        adam.zero_grad()
        loss = F.cross_entropy(logits().flatten(0, -2), x0.flatten())
        loss.backward()
        adam.step()
        return loss.detach()

    return train


def torch_sampling(logits: Callable[[], Any], u: Any) -> Step:
    """Returns a draw: the inverse cumulative distribution of the logits at u."""
    import torch

    @torch.no_grad()
    def sample() -> Any:
        cdf = logits().softmax(-1).cumsum(-1)
        return (u[..., None] >= cdf[..., :-1]).sum(-1)

    return sample


def torch_side(what: str, net: Net, bfloat16: bool, best: bool) -> tuple[Step, str, bool]:
    import torch

    device = torch_device()
    step = torch_step(what, torch_network(net, best), batch(net), bfloat16, best)
    return step, f"PyTorch {torch.__version__} on {device}", device == "cpu"


def jax_training(net: Net, bfloat16: bool) -> tuple[Any, Any, Callable[..., Any], Callable[..., Any]]:
    """Returns a network, its state, its loss of (params, x_0, x_t, t), and its training step."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from d3pm_jax import models

    arguments = options(net)
    if bfloat16:
        arguments["dtype"] = jnp.bfloat16
    graphdef, params = nnx.split(getattr(models, net.name)(**arguments, rngs=nnx.Rngs(0)))
    adam = optax.adam(2e-4)

    def loss(params: Any, x0: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
        logits = nnx.merge(graphdef, params)(xt, t)
        return optax.softmax_cross_entropy_with_integer_labels(logits, x0).mean()

    def update(state: Any, *data: jax.Array) -> Any:
        params, opt_state = state
        value, gradient = jax.value_and_grad(loss)(params, *data)
        updates, opt_state = adam.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return graphdef, (params, adam.init(params)), loss, update


def jax_side(what: str, net: Net, bfloat16: bool, _: bool) -> tuple[Step, str, bool]:
    from d3pm_jax.cpu.malloc import keep_freed_memory
    from d3pm_jax.program.machine.devices import (
        batch_sharding,
        make_mesh,
        replicated_sharding,
        use_all_cores,
    )

    use_all_cores(net.shape[0])
    features = 0
    if what == "train":
        features_of_an_element = net.options.get("ch") or 4 * net.options["width"]  # in a layer
        features = math.prod(net.shape) * features_of_an_element
    keep_freed_memory(features)
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import d3pm_jax as d3pm

    mesh = make_mesh()
    graphdef, state, _loss, update = jax_training(net, bfloat16)
    state = jax.device_put(state, replicated_sharding(mesh))
    x0, xt, t, u = jax.device_put(tuple(map(jnp.asarray, batch(net))), batch_sharding(mesh))
    compiled = jax.jit(update, donate_argnums=0)
    drawn = jax.jit(lambda params, xt, t, u: d3pm.categorical(nnx.merge(graphdef, params)(xt, t), u))

    def train() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, x0, xt, t))

    def sample() -> None:
        jax.block_until_ready(drawn(state[0], xt, t, u))

    kind = jax.devices()[0].device_kind
    where = f"JAX {jax.__version__} on {mesh.size} x {kind}"
    return {"train": train, "sample": sample}[what], where, jax.default_backend() == "cpu"


if __name__ == "__main__":
    main()
