"""Reads what a function becomes on an accelerator, which needs none: its program as it is handed to XLA.

    python -m tests.lowering.programs

prints how many loops there are in losses with their gradients, draws and reverse steps of each family, and
how large the largest array in between is, at batch 128 of 32 x 32 x 3, K = 256, in float32.
"""

import importlib
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton

import d3pm_jax as d3pm
from tests.families import FAMILIES

if jax.__version_info__ >= (0, 12):
    # It lowers a kernel for the card of the process, and knows no other door for a CPU that stands for one
    # where nothing says on what mesh arguments are. Its module is another one since 0.12.1.
    gpu_info = importlib.import_module(triton.GpuInfo.__module__)
    gpu_info.registry["cpu"] = lambda: triton.get_gpu_info_from_version(triton.GpuVersion.H100)

PLATFORMS = ("cuda", "tpu")
LOOP = re.compile(r"stablehlo\.while\b")
CALL = re.compile(r"stablehlo\.custom_call @(\w+)")
# A kernel of Pallas, __gpu$xla.gpu.triton, what says how its rows are spread over devices, and in what order
# axes lie in memory.
EXPECTED = {"__gpu", "CustomSPMDPartitioning", "LayoutConstraint"}
ARRAY = re.compile(r"tensor<((?:\d+x)*)([a-z]+\d+)>")


class Program(NamedTuple):
    """The loops, calls and arrays of a program for one platform."""

    loops: int
    calls: set[str]  # to functions that XLA does not have itself, host callbacks among them, but for kernels
    shapes: set[tuple[int, ...]]  # of all arrays
    largest: int  # bytes of the largest array


def lower_for(platform: str, traced: Any) -> Any:
    """Lowers a traced program for a platform; kernels of "cuda" are those of an H100."""
    return traced.lower(lowering_platforms=(platform,))


def lower(f: Callable[..., Any], *args: Any, platforms: tuple[str, ...] = PLATFORMS) -> dict[str, Program]:
    """Traces a function once, and reads its program for each platform."""
    if not hasattr(f, "trace"):
        f = jax.jit(f)
    traced = f.trace(*args)
    return {p: read_program(lower_for(p, traced).as_text()) for p in platforms}


def read_program(text: str) -> Program:
    """Reads a program in StableHLO."""
    shapes = set()
    largest = 0
    for dims, dtype in ARRAY.findall(text):
        shape = tuple(int(n) for n in dims.split("x")[:-1])
        bits = int(re.sub("[a-z]", "", dtype))
        shapes.add(shape)
        largest = max(largest, math.prod(shape) * bits // 8)
    return Program(len(LOOP.findall(text)), set(CALL.findall(text)) - EXPECTED, shapes, largest)


def gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that gives the sum of the floats of f, and its gradient for the first argument."""

    def total(x: Any, *args: Any) -> Any:
        leaves = jax.tree.leaves(f(x, *args))
        return sum(jnp.sum(y) for y in leaves if jnp.issubdtype(y.dtype, jnp.floating))

    return jax.value_and_grad(total)


K = 256
SHAPE = (128, 32, 32, 3)
NAMES = ("uniform", "absorbing", "gaussian", "marginal", "masked", "masked gaussian")


def functions_of_process(
    process: Any, shape: tuple[int, ...] = SHAPE
) -> dict[str, tuple[Callable[..., Any], tuple]]:
    """Returns functions of a process and their arguments."""
    x = jax.ShapeDtypeStruct(shape, jnp.int32)
    u = jax.ShapeDtypeStruct(shape, jnp.float32)
    logits = jax.ShapeDtypeStruct((*shape, process.K), jnp.float32)
    t = jax.ShapeDtypeStruct(shape[:1], jnp.int32)

    def hybrid(belief: Any) -> Callable[..., Any]:
        return gradient(lambda l, p, x0, xt, t: d3pm.hybrid(p, l, x0, xt, t, 0.001, belief=belief).loss)

    functions: dict[str, tuple[Callable[..., Any], tuple]] = {}
    for belief in ("d3pm", "leave_one_out", "denoiser"):
        functions[f"hybrid, {belief}"] = (hybrid(belief), (logits, process, x, x, t))
    functions["q_sample"] = (lambda p, x, t, u: d3pm.q_sample(p, x, t, u, u), (process, x, t, u))
    functions["p_sample"] = (
        lambda p, l, x, t, u: d3pm.p_sample(p, l, x, t, u, u_low=u),
        (process, logits, x, t, u),
    )
    return functions


def main() -> None:
    for family in NAMES:
        process = FAMILIES[family](K, 1000)
        for name, (f, args) in functions_of_process(process).items():
            programs = lower(f, *args, platforms=(*PLATFORMS, "cpu"))
            loops = ", ".join(f"{platform} {program.loops}" for platform, program in programs.items())
            largest = programs["cuda"].largest / 1e6
            print(f"{family:16s} {name:22s} loops: {loops}; largest array: {largest:.0f} MB")


if __name__ == "__main__":
    main()
