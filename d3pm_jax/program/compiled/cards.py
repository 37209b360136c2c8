"""Describes accelerators that are not at hand, for which XLA compiles all the same.

`describe_devices("h100:8")` makes eight devices that can stand in a mesh. Programs are lowered and compiled
for them, with shapes as arguments, and never run.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.extend import backend
from jax.sharding import Mesh, use_abstract_mesh

from d3pm_jax.errors import UserError
from d3pm_jax.extras import write_install
from d3pm_jax.program.compiled import pallas, programs

EXTRA = "compiled"

# A card at hand tries out how to cut a product into tiles. Without one XLA takes the first way that it knows,
# and for some products knows none: these parts of its errors say so.
NO_TILES = ("tile sizes", "No supported config")
# What is tried, one after the other: in the words of a note, and the options of XLA.
FALLBACKS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "products are cut as with --xla_gpu_experimental_force_split_k=1": {
        "xla_gpu_experimental_force_split_k": 1
    },
    "products are left to cuBLAS, as with --xla_gpu_enable_triton_gemm=false": {
        "xla_gpu_enable_triton_gemm": False
    },
}


@dataclasses.dataclass(frozen=True)
class Card:
    """Holds the facts of an accelerator.

    Peaks are those that its maker publishes, without the factor 2 of sparsity. None was measured here.
    """

    name: str
    label: str  # as JAX names the device
    memory: int  # bytes
    bandwidth: float  # bytes per second of its memory
    # FLOP per second by type of matrix product, see `programs.Kernel.flops`; of a fused multiply and add, in
    # float32 and without matrix units, is "vector".
    peaks: Mapping[str, float]
    # What XLA has to know of a GPU; None of a TPU.
    cores: int | None = None
    fpus_per_core: int = 128
    clock_ghz: float = 0.0
    l2_cache: int = 0
    shared_memory_per_core: int = 233472
    capability: int = 9


CARDS = {
    card.name: card
    for card in (
        Card(
            "a100",
            "NVIDIA A100-SXM4-80GB",
            memory=85100068864,
            bandwidth=2039.04e9,
            peaks={"bf16": 312e12, "tf32": 156e12, "f32": 19.5e12, "f64": 19.5e12, "vector": 19.5e12},
            cores=108,
            fpus_per_core=64,
            clock_ghz=1.41,
            l2_cache=41943040,
            shared_memory_per_core=167936,
            capability=8,
        ),
        Card(
            "h100",
            "NVIDIA H100 80GB HBM3",
            memory=84942979072,
            bandwidth=3352.32e9,
            peaks={"bf16": 989e12, "tf32": 494e12, "f32": 67e12, "f64": 67e12, "vector": 67e12},
            cores=132,
            clock_ghz=1.98,
            l2_cache=52428800,
        ),
        Card(
            "h200",
            "NVIDIA H200 141GB HBM3e",
            memory=151397597184,
            bandwidth=4800e9,
            peaks={"bf16": 989e12, "tf32": 494e12, "f32": 67e12, "f64": 67e12, "vector": 67e12},
            cores=132,
            clock_ghz=1.98,
            l2_cache=52428800,
        ),
        Card(
            "b200",
            "NVIDIA B200",
            memory=191514411008,
            bandwidth=7672.32e9,
            peaks={"bf16": 2250e12, "tf32": 1125e12, "f32": 75e12, "f64": 37e12, "vector": 75e12},
            cores=148,
            clock_ghz=1.965,
            l2_cache=132644864,
            capability=10,
        ),
        # Its matrix units multiply bfloat16 alone. XLA makes six such products of one in float32, where the
        # highest precision is asked for, and one by default.
        Card(
            "v5e",
            "TPU v5 lite",
            memory=16 * 2**30,
            bandwidth=819e9,
            peaks={"bf16": 197e12, "tf32": 197e12, "f32": 197e12 / 6},
        ),
    )
}


def describe_devices(words: str) -> tuple[Card, list[Any]]:
    """Describes the devices of a host: of "h100:8" eight, of "h100" one.

    It keeps JAX to the CPU of this machine, where it has not begun to compute.

    Raises:
        UserError: the card is not known, there are none, or what compiles for it is not installed.
    """
    name, colon, number_text = words.partition(":")
    card = CARDS.get(name)
    if card is None:
        raise UserError(f"card {name!r} is not known: take one of {', '.join(CARDS)}, as in h100 or h100:8")
    number = 1
    if colon:
        if not number_text.isdecimal() or int(number_text) < 1:
            raise UserError(f"{words!r} is {number_text or 'no'} cards: pass at least 1, as in {name}:8")
        number = int(number_text)

    # The plugin is loaded without a driver, or beside one that this process leaves alone.
    jax.config.update("jax_platforms", "cpu")
    # XLA would say on the terminal how long it compiles, and that there is no driver.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if card.cores is None:
        return card, _describe_tpus(card, number)
    find_toolkit(card)
    try:
        topology = topologies.get_topology_desc(
            card.label, "cuda", target_config=_write_target(card), topology=f"1x1x{number}"
        )
    except Exception as error:
        raise UserError(_explain_missing(card, "jax_cuda12_plugin")) from error
    return card, list(topology.devices)


class Compiled(NamedTuple):
    """Holds a program that was compiled for a card, and what it moves and computes."""

    executable: Any
    program: programs.Program
    fallback: str  # one of `FALLBACKS`, where XLA knew no tiles for a product; else ""


@contextlib.contextmanager
def as_default(mesh: Mesh) -> Iterator[None]:
    """Makes `jax.extend.backend.get_default_device` return the first device of a described mesh in the block.

    Libraries of kernels, such as tokamax, ask it which card they write for. JAX has no setting for this: its
    default device has to be one that computes. JAX 0.12 lowers kernels for the card of the mesh of the block,
    and would take the first device of the process; Pallas asks it which TPU it writes for.
    """
    get_default_device = backend.get_default_device
    backend.get_default_device = lambda: mesh.devices.flat[0]
    try:
        with use_abstract_mesh(mesh.abstract_mesh):
            yield
    finally:
        backend.get_default_device = get_default_device


def compile_for(
    card: Card, mesh: Mesh, trace: Callable[[], Any], more_options: Mapping[str, Any] | None = None
) -> Compiled:
    """Traces, lowers and compiles a program for a card, and counts it.

    Args:
        card: that the devices of the mesh describe.
        mesh: of the program.
        trace: returns the traced program.
        more_options: further options of XLA.

    Returns:
        The program, with the fallback that it was compiled with.
    """
    # Where rows are spread over cards kernels are lowered while XLA compiles.
    with as_default(mesh), pallas.watch_calls() as calls:
        traced = trace()
        calls.append(traced.jaxpr)
        executable, fallback = _compile(card, traced.lower(), more_options or {})
    program = programs.count_program(executable.as_text(), pallas.count_calls(calls))
    return Compiled(executable, program, fallback)


def _compile(card: Card, lowered: Any, more_options: Mapping[str, Any]) -> tuple[Any, str]:
    """Compiles a program for a card; returns the fallback too."""
    if card.cores is None:
        return lowered.compile(compiler_options=dict(more_options)), ""
    options = {
        "xla_gpu_cuda_data_dir": str(find_toolkit(card)),
        "xla_gpu_autotune_level": 0,
        **more_options,
    }
    *fallbacks, last = FALLBACKS
    for fallback in fallbacks:
        try:
            return lowered.compile(compiler_options={**options, **FALLBACKS[fallback]}), fallback
        except jax.errors.JaxRuntimeError as error:
            if not any(words in str(error) for words in NO_TILES):
                raise
    return lowered.compile(compiler_options={**options, **FALLBACKS[last]}), last


def find_toolkit(card: Card) -> Path:
    """Returns the folder of ptxas and libdevice, which compile for a GPU.

    Raises:
        UserError: it is not installed, or the plugin of JAX is not.
    """
    for module in ("jax_cuda12_plugin", "nvidia.cuda_nvcc"):
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:
            spec = None
        if spec is None:
            raise UserError(_explain_missing(card, module))
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or [])))


def _explain_missing(card: Card, module: str) -> str:
    return (
        f"compiling for a described {card.name} needs {module}, in an environment of its own: "
        f"{write_install(EXTRA, 'train')}"
    )


def _write_target(card: Card) -> str:
    """Writes the facts of a GPU as XLA reads them, a GpuTargetConfigProto in text."""
    facts = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": card.shared_memory_per_core,
        # A block may have all of a core's but 1 kB, which the system has.
        "shared_memory_per_block_optin": card.shared_memory_per_core - 1024,
        "threads_per_core_limit": 2048,
        "core_count": card.cores,
        "fpus_per_core": card.fpus_per_core,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "memory_bandwidth": int(card.bandwidth),
        "l2_cache_size": card.l2_cache,
        "clock_rate_ghz": card.clock_ghz,
        "device_memory_size": card.memory,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in facts.items())
    return (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {card.capability} }}\n}}\n"
        f'platform_name: "CUDA"\n'
        f"dnn_version_info {{ major: 9 minor: 10 patch: 0 }}\n"
        f'device_description_str: "{card.label}"\n'
    )


def _describe_tpus(card: Card, number: int) -> list[Any]:
    """Describes TPUs of a v5e: those of a host, or one of them."""
    if find_spec("libtpu") is None:
        raise UserError(
            f"compiling for a described {card.name} needs libtpu, in an environment of its own: "
            f"{write_install('tpu', 'train')}"
        )
    shapes = {1: "2x2x1", 4: "2x2x1", 8: "2x4x1"}
    if number not in shapes:
        raise UserError(f"a host of a v5e has 1, 4 or 8 chips, not {number}: pass v5e:4")
    # libtpu would ask a server of the cloud what it runs on.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"v5litepod-{max(number, 4)}")
    topology = topologies.get_topology_desc(platform="tpu", topology_name=f"v5e:{shapes[number]}")
    return list(topology.devices)[:number]
