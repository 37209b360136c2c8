"""A small coupling flow in both frameworks: its bound, every gradient, and a training from the same noise."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import d3pm_jax
import torch_ref
from parity_tests import calls, compare, procedures
from parity_tests.compare import TOLERANCES, Row
from parity_tests.families import random
from parity_tests.frameworks import precision, to_jax, to_torch
from parity_tests.procedures import Outcome, largest_entry
from parity_tests.settings import Arrays

B = 4
L = 3  # symbols of a text
K = 4
NUM_FIXED = 2
P = 2 + 3 * 2  # parameters of a number: a mixture of two
STEPS = 50
LEARNING_RATE = 1e-2
TITLE = "coupling flow"
TO_THE_LEFT = np.arange(L)[::-1].copy()


class Trained(NamedTuple):
    """The bound before the first step, its gradients, and the weights and the loss after each step."""

    bound: np.ndarray  # [B]
    gradients: Arrays
    parameters: list[Arrays]
    losses: np.ndarray  # [STEPS]


def outcome(dtype: str) -> Outcome:
    """JAX beside PyTorch; in float32 both also beside PyTorch in float64, with the same noise."""
    with precision(dtype), jax.default_matmul_precision("highest"):
        sides = {"jit": train_jax(), "torch": train_torch()}
    if dtype == "float32":
        with precision("float64"):
            sides["torch64"] = train_torch()

    rows = []
    drift = {}
    for first, second in (("torch", "jit"), ("torch", "torch64"), ("jit", "torch64")):
        if second in sides:
            sides_compared = f"{first} = {second}"
            rows += _compare(dtype, sides_compared, sides[first], sides[second])
            drift[sides_compared] = procedures.measure_drift(
                sides[first].parameters, sides[second].parameters
            )
    return Outcome(rows, f"{TITLE}, {dtype}", drift)


def log_weights(lib: ModuleType, weights: Any, x: Any, noise: Any) -> Any:
    """log p(v) - log q(v | x) [B], of symbols x [B, L] and noise [B, L, K].

    q draws from a normal distribution of each symbol, and lifts by `softplus_threshold`. p is two couplings
    with a reversal of the text and a linear layer between them, from normal numbers.
    """
    flows = lib.flows
    u, log_scale = flows.affine(noise, weights["encoder.shift"][x], weights["encoder.log_scale"][x])
    v, log_det_of_u = flows.softplus_threshold(u, x)
    log_q = _log_normal(noise) - log_scale.reshape(B, -1).sum(1) - log_det_of_u.sum(1)

    first = calls.linear_conditioner(lib, weights["first"])
    v, log_det = flows.coupling(first, v, NUM_FIXED, flows.mixture_affine)
    v = v[:, TO_THE_LEFT]
    v, log_det_of_matrix = flows.linear(v, weights["matrix"])
    second = calls.linear_conditioner(lib, weights["second"])
    v, log_det_of_second = flows.coupling(second, v, NUM_FIXED, flows.mixture_affine)

    # One shift and scale for all positions of all texts.
    everywhere = 0 * x
    z, log_scale = flows.affine(v, weights["base.shift"][everywhere], weights["base.log_scale"][everywhere])
    log_p = _log_normal(z) + log_scale.reshape(B, -1).sum(1)
    return log_p + log_det + log_det_of_matrix + log_det_of_second - log_q


def _log_normal(z: Any) -> Any:
    """log density of standard normal numbers, summed over each example."""
    return (-0.5 * z * z - 0.5 * math.log(2 * math.pi)).reshape(B, -1).sum(1)


def bound(lib: ModuleType, weights: Any, x: Any, noise: Any) -> Any:
    """The ELBO [B]: `importance_bound` of one draw."""
    return lib.flows.importance_bound(log_weights(lib, weights, x, noise)[None])


def start() -> Arrays:
    """The weights from which training begins; float32 holds all."""
    rng = random(60)
    shapes = {
        "encoder.shift": (K, K),
        "encoder.log_scale": (K, K),
        "first": (L * NUM_FIXED, L * (K - NUM_FIXED), P),
        "matrix": (K, K),
        "second": (L * NUM_FIXED, L * (K - NUM_FIXED), P),
        "base.shift": (1, K),
        "base.log_scale": (1, K),
    }
    weights = {name: 0.2 * rng.normal(size=shape) for name, shape in shapes.items()}
    weights["matrix"] += np.eye(K)
    return {name: x.astype(np.float32) for name, x in weights.items()}


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts in which symbols follow each other, and the noise of a step, which float32 holds."""
    rng = random(61, step)
    x = (rng.integers(0, K, (B, 1)) + np.arange(L)) % K
    return x, rng.normal(size=(B, L, K)).astype(np.float32)


def train_jax() -> Trained:
    """Trains with Adam of Optax."""
    optimizer = optax.adam(LEARNING_RATE)

    def loss(weights: Any, x: Any, noise: Any) -> tuple[Any, Any]:
        nats = bound(d3pm_jax, weights, x, noise)
        return -jnp.mean(nats), nats

    @jax.jit
    def step(weights: Any, state: Any, x: Any, noise: Any) -> tuple[Any, ...]:
        (value, nats), gradients = jax.value_and_grad(loss, has_aux=True)(weights, x, noise)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(weights, updates), state, value, nats, gradients

    weights: Any = {name: to_jax(x) for name, x in start().items()}
    state = optimizer.init(weights)
    bounds = []
    every_gradients = []
    parameters = []
    losses = []
    for i in range(STEPS):
        x, noise = batch(i)
        weights, state, value, nats, gradients = step(weights, state, to_jax(x), to_jax(noise))
        bounds.append(np.asarray(nats))
        every_gradients.append(jax.device_get(gradients))
        parameters.append(jax.device_get(weights))
        losses.append(np.asarray(value))
    return Trained(bounds[0], every_gradients[0], parameters, np.stack(losses))


def train_torch() -> Trained:
    """Trains with Adam of PyTorch."""
    weights = {name: to_torch(x).requires_grad_() for name, x in start().items()}
    optimizer = torch.optim.Adam(list(weights.values()), LEARNING_RATE)
    bounds = []
    every_gradients = []
    parameters = []
    losses = []
    for i in range(STEPS):
        x, noise = batch(i)
        nats = bound(torch_ref, weights, to_torch(x), to_torch(noise))
        loss = -nats.mean()
        optimizer.zero_grad()
        loss.backward()
        bounds.append(nats.detach().numpy())
        every_gradients.append({name: w.grad.numpy().copy() for name, w in weights.items()})
        optimizer.step()
        # The optimizer writes into its tensors: what is to stay is copied.
        parameters.append({name: w.detach().numpy().copy() for name, w in weights.items()})
        losses.append(loss.detach().numpy())
    return Trained(bounds[0], every_gradients[0], parameters, np.stack(losses))


def _compare(dtype: str, sides: str, actual: Trained, expected: Trained) -> Iterator[Row]:
    """Every difference as a row, on the scale of the largest entry of an array."""
    pairs = [("forward", "bound", "before step 1", actual.bound, expected.bound)]
    for name, y in expected.gradients.items():
        pairs.append(("parameter", "gradient", f"{name}, step 1", actual.gradients[name], y))
    for n in (1, STEPS):
        for name, y in expected.parameters[n - 1].items():
            x = actual.parameters[n - 1][name]
            pairs.append(("trained", f"parameters, step {n}", name, x, y))
    pairs.append(("trained", "loss, every step", "loss", actual.losses, expected.losses))

    for tolerance, quantity, case, x, y in pairs:
        difference = compare.compare_arrays(x, y, largest_entry(y), dtype)
        yield compare.make_row(
            TITLE, case, dtype, f"{sides} {quantity}", difference, TOLERANCES[dtype][tolerance]
        )
