"""d3pm export writes the weights of a run as a safetensors file."""

import argparse
from pathlib import Path

import jax

from d3pm_jax.cli import arguments
from d3pm_jax.errors import UserError
from d3pm_jax.runs import exported

SUFFIX = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.epilog = (
        "The tensors have the names and layouts of torch_ref.models, in float32, to the bit; the config as "
        "JSON and the step are in the metadata. torch_ref.runs.exported.denoiser(FILE) is the network in "
        "PyTorch; safetensors.torch.load_file and `d3pm import` read the tensors."
    )
    arguments.add_checkpoint(parser)
    parser.add_argument("--to", choices=["torch"], required=True, help="whose names and layouts")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the file, replaced if there is one (DIR/weights.safetensors)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="the last weights, in place of their moving average"
    )


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Writes the file; returns the exit status."""
    path = args.out or args.workdir / f"weights{SUFFIX}"
    if path.suffix != SUFFIX:
        raise UserError(f"--out {path}: the file is one of safetensors, name it FILE{SUFFIX}")
    run = arguments.open_named(args, 1, folder=path.parent)
    exported.export(run, path, args.raw)
    kind, sizes = "raw" if args.raw else "ema", [x.size for x in jax.tree.leaves(run.params)]
    print(f"{kind} weights of step {run.step}, {len(sizes)} tensors, {sum(sizes):,} numbers: {path}")
    return 0
