"""Evaluate and sample a trained run in both frameworks, from the same noise; status 1 if they differ.

    python -m parity_tests.trained RUN [--steps N] [--limit N] [--samples N] [--data.dir DIR]

JAX does it as `d3pm eval` and `d3pm sample` do, PyTorch from the file of `d3pm export RUN --to torch` alone,
with dense matrices and the eager networks of `torch_ref`.
"""

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import arg

import torch_ref
from d3pm_jax.cli import arguments
from d3pm_jax.cli.reading import OPTIONS
from d3pm_jax.config.checks import Count, check_fields
from d3pm_jax.program.machine.setup import set_up
from d3pm_jax.program.parts.draw import Draw
from d3pm_jax.runs.run import Run
from d3pm_jax.sampling import per_example
from d3pm_jax.sampling.noise import EVALUATION, SAMPLING
from torch_ref.runs import exported, processes

TOLERANCE = 1e-5  # bits/dim

NoiseOfStep = Callable[[int], Tensor]


@dataclasses.dataclass(frozen=True)
class Trained(arguments.Checkpoint):
    """Compares a trained run in both frameworks."""

    steps: Annotated[Count | None, arg(metavar="N")] = None
    """evenly spaced, in place of all"""
    limit: Annotated[Count, arg(metavar="N")] = 64
    """test examples"""
    samples: Annotated[Count, arg(metavar="N")] = 16
    """to draw"""


class Twin:
    """The network and the process of a run in PyTorch, from its exported file."""

    def __init__(self, run: Run, steps: int | None, config_options: list[str]):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.safetensors"
            command = [sys.executable, "-m", "d3pm_jax", "export", run.workdir, *config_options]
            command += ["--to", "torch", "--step", str(run.step), "--out", file]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            self.network = exported.denoiser(file)
            self.logits_keywords = exported.logits_keywords(file)
            self.process = processes.process(file)
        if steps is not None:
            grid = torch_ref.sampling.even_grid(self.process.T, steps)
            self.process = torch_ref.processes.respace(self.process, grid)

    def bound(
        self,
        x0: np.ndarray,
        labels: np.ndarray | None,
        noise: NoiseOfStep,
        conditions: np.ndarray | None = None,
    ) -> np.ndarray:
        """The bound in nats per example [N]."""
        posterior_kl = partial(torch_ref.losses.posterior_kl, **self.logits_keywords)
        steps, prior = torch_ref.likelihood.all_t_bound(
            self._denoise(labels, conditions), self.process, torch.tensor(x0).long(), noise, posterior_kl
        )
        return (steps.sum(dim=0) + prior).double().numpy()

    def sample(
        self, labels: np.ndarray | None, noise: NoiseOfStep, conditions: np.ndarray | None = None
    ) -> np.ndarray:
        """x_0 [N, *S] of a chain with this noise."""
        denoise = self._denoise(labels, conditions)
        denoiser = torch_ref.Denoiser(self.process, denoise, self.logits_keywords["belief"])
        xT = self.process.draw_prior(noise(0))
        return torch_ref.sampling.run(denoiser, xT, lambda t, stream: noise(t)).x0.numpy()

    def _denoise(self, labels: np.ndarray | None, conditions: np.ndarray | None) -> Callable[..., Tensor]:
        extra_inputs = {}
        if labels is not None:
            extra_inputs["label"] = torch.tensor(labels).long()
        if conditions is not None:
            extra_inputs["condition"] = torch.tensor(conditions)
        return partial(self.network, **extra_inputs)


def noise_in_torch(use: int, n: int, shape: tuple[int, ...]) -> NoiseOfStep:
    """t -> the noise that the commands draw for examples 0..n - 1, as a tensor."""
    key = jax.random.fold_in(jax.random.key(0), use)
    draw = per_example(key, jnp.arange(n, dtype=jnp.int32), shape)
    return lambda t: torch.tensor(np.asarray(draw(jnp.asarray(t, jnp.int32))))


def compare(run: Run, twin: Twin, limit: int, samples: int) -> bool:
    """Prints the bound and the samples of both, and returns whether they agree."""
    x0, labels = run.read_split("test", limit)
    conditions = run.read_batch("test", limit).get("condition")
    figures = run.evaluate_on(x0, labels, batch_size=min(128, len(x0)), condition=conditions)
    in_jax = figures["bits_per_dim"]

    # A network without classes takes no labels, although the data may have them.
    labels_or_none = None
    classes_or_none = None
    if run.parts.recipe.classes is not None:
        labels_or_none = labels
        classes_or_none = np.arange(samples) % run.parts.recipe.classes

    nats = twin.bound(x0, labels_or_none, noise_in_torch(EVALUATION, len(x0), x0.shape[1:]), conditions)
    in_torch = float(nats.mean()) / (x0[0].size * np.log(2))
    print(
        f"{len(x0)} test examples, {run.process.T} steps: "
        f"bits/dim {in_jax:.7f} in JAX, {in_torch:.7f} in PyTorch"
    )

    conditions_of_samples = None
    if conditions is not None:
        conditions_of_samples = conditions[np.arange(samples) % len(conditions)]
    drawn = run.sample(jax.random.key(0), samples, Draw(condition=conditions_of_samples)).x0
    noise = noise_in_torch(SAMPLING, samples, x0.shape[1:])
    differ = drawn != twin.sample(classes_or_none, noise, conditions_of_samples)
    wrong = int(differ.reshape(samples, -1).any(axis=1).sum())
    print(f"{samples} samples: {wrong} differ, in {differ.sum():,} of {drawn.size:,} elements")
    return abs(in_jax - in_torch) <= TOLERANCE and wrong == 0


def main() -> int:
    command = tyro.cli(
        Trained,
        prog="python -m parity_tests.trained",
        config=OPTIONS,
    )
    try:
        check_fields("", command)
    except ValueError as error:
        sys.exit(str(error))
    set_up()

    run = arguments.open_named(command, command.limit)
    arguments.check_data(command, run)
    if command.steps is not None:
        run = run.respaced(command.steps)
    config_options = []
    if command.own_file is not None:
        config_options = ["--config", str(command.own_file)]
    with torch.no_grad():
        twin = Twin(run, command.steps, config_options)
        agree = compare(run, twin, command.limit, command.samples)
    return int(not agree)


if __name__ == "__main__":
    sys.exit(main())
