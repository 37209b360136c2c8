"""d3pm train | eval | sample | ...: reads the command line; each command imports what it needs."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from d3pm_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """The console script. Exits with 0 (done), 1 (an error of the user's), 2 (bad usage) or 130."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not args.takes_config:
        parser.error(f"unknown argument {rest[0]}: see d3pm {args.command} --help")
    try:
        sys.exit(args.run(args, rest))
    except UserError as error:
        print(f"d3pm {args.command}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"d3pm {args.command}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        print(f"d3pm {args.command}: error: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="d3pm", description="Train and use diffusion models on discrete data.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(_command(commands, "train", _train, "train a model, or go on with a run", takes_config=True))
    _add_eval(_command(commands, "eval", _eval, "bits per dimension on the test split, with its parts"))
    _add_sample(_command(commands, "sample", _sample, "draw samples, beside data and as chains"))
    text = "draw how a process removes information, without training"
    _add_schedule(_command(commands, "schedule", _schedule, text, takes_config=True))
    _add_export(_command(commands, "export", _export, "write the weights of a run for PyTorch"))
    _add_import(
        _command(commands, "import", _import, "begin a run from a file of weights", takes_config=True)
    )
    text = "draw the noise of a training in advance, for other programs or --train.noise"
    _add_presample(_command(commands, "presample", _presample, text, takes_config=True))
    return parser


def _command(
    commands: argparse._SubParsersAction, name: str, run: Callable, text: str, takes_config: bool = False
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, add_help=not takes_config, allow_abbrev=False
    )
    parser.set_defaults(run=run, takes_config=takes_config)
    if takes_config:
        parser.add_argument(
            "-h", "--help", action="store_true", help="this text; after CONFIG, its fields as well"
        )
        parser.set_defaults(parser=parser)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.usage = "d3pm train CONFIG --workdir DIR [--resume] [OVERRIDES]"
    parser.epilog = (
        "CONFIG is a Python file that defines get_config(); it comes first. Every field of the config can "
        "be overridden, for example --train.steps 200 --process.steps 50; `d3pm train CONFIG --help` lists "
        "them. A run is resumed with `d3pm train --workdir DIR --resume`."
    )
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="where everything is written")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in DIR from its last checkpoint"
    )


def _add_eval(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N examples of the split")
    parser.add_argument(
        "--batch-size", type=_positive, default=128, metavar="B", help="examples at a time (128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")


def _add_sample(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--num", type=_positive, default=256, metavar="N", help="samples to draw (256)")
    parser.add_argument(
        "--batch-size", type=_positive, default=128, metavar="B", help="samples at a time (128)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the noise (0); sample i is the same for every N and B"
    )


def _add_schedule(parser: argparse.ArgumentParser) -> None:
    parser.usage = "d3pm schedule CONFIG [--out FILE.png] [OVERRIDES]"
    parser.epilog = (
        "CONFIG and OVERRIDES are those of d3pm train. The picture shows, for one element with uniform "
        "p(x_0): how often x_t is still x_0, the part of the information I(x_t; x_0) that is left, and the "
        "weight of the cross entropy in the bound."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("schedule.png"),
        metavar="FILE.png",
        help="the picture (schedule.png)",
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The tensors have the names and layouts of torch_ref.models, in float32, to the bit; the config as "
        "JSON and the step are in the metadata. Read them with safetensors.torch.load_file, or `d3pm import`."
    )
    _add_checkpoint(parser)
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


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.usage = "d3pm import FILE [CONFIG] --workdir DIR [OVERRIDES]"
    parser.epilog = (
        "FILE is one of `d3pm export`, or of safetensors.torch.save_file with the state_dict of a network of "
        "torch_ref.models in float32; it comes first. It becomes step 0 of a new run in DIR, weights and "
        "moving average, for `d3pm sample DIR`, `d3pm eval DIR` and `d3pm train --workdir DIR --resume`. "
        "Without CONFIG the config in FILE is used, which a file of PyTorch lacks; OVERRIDES are those of "
        "d3pm train."
    )
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="where the run is written")


def _add_presample(parser: argparse.ArgumentParser) -> None:
    parser.usage = "d3pm presample CONFIG [--steps N] --out FILE.array_record [OVERRIDES]"
    parser.epilog = (
        "CONFIG and OVERRIDES are those of d3pm train. For every step, FILE holds the t and the uniforms "
        "that training would draw: with --train.noise FILE it ends with the same bits, and "
        "torch_ref.noise.read_bank gives them to PyTorch. Not for Importance(), whose t depend on the losses."
    )
    parser.add_argument("--steps", type=_positive, metavar="N", help="of the training (train.steps)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.array_record", help="the file, replaced if there is one"
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, metavar="DIR", help="the --workdir of `d3pm train`")
    parser.add_argument("--step", type=int, metavar="STEP", help="which checkpoint (the last)")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where data sets lie, if not where the run found them"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_checkpoint(parser)
    parser.add_argument(
        "--steps",
        type=_positive,
        metavar="N",
        help="take N evenly spaced steps of the process in place of all",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    args.config = _first(rest)
    if _only_help(args, args.config):
        return 0
    from d3pm_jax.cli import train

    return train.execute(args, rest)


def _eval(args: argparse.Namespace, _: list[str]) -> int:
    from d3pm_jax.cli import evaluate

    return evaluate.execute(args)


def _sample(args: argparse.Namespace, _: list[str]) -> int:
    from d3pm_jax.cli import sample

    return sample.execute(args)


def _schedule(args: argparse.Namespace, rest: list[str]) -> int:
    args.config = _first(rest)
    if _only_help(args, args.config):
        return 0
    from d3pm_jax.cli import schedule

    return schedule.execute(args, rest)


def _export(args: argparse.Namespace, _: list[str]) -> int:
    from d3pm_jax.cli import weights

    return weights.export_weights(args)


def _import(args: argparse.Namespace, rest: list[str]) -> int:
    args.file, args.config = _first(rest), _first(rest)
    if _only_help(args, args.file):
        return 0
    from d3pm_jax.cli import weights

    return weights.import_weights(args, rest)


def _presample(args: argparse.Namespace, rest: list[str]) -> int:
    args.config = _first(rest)
    if _only_help(args, args.config):
        return 0
    from d3pm_jax.cli import presample

    return presample.execute(args, rest)


def _first(rest: list[str]) -> Path | None:
    """Takes a path from the front of rest, if there is one."""
    return Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None


def _only_help(args: argparse.Namespace, given: Path | None) -> bool:
    """Answers --help, where no file is given whose fields could be shown."""
    if args.help and given is None:
        args.parser.print_help()
        return True
    return False
