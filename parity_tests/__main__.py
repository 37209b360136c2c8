"""Print the parity report; exit with status 1 when a comparison fails, 2 when it could not be asked for."""

import argparse
import sys
from pathlib import Path

from parity_tests.compare import TOLERANCES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m parity_tests", description=__doc__)
    parser.add_argument("--dtype", choices=TOLERANCES, action="append", help="only this float type")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where JAX computes")
    parser.add_argument(
        "--matmul-precision",
        choices=("default", "high", "highest"),
        help="show what it costs networks and training beside the highest; by default, on a gpu, default",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write one self-contained page")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument(
        "--all", action="store_true", help="print every comparison, not the worst of each kind"
    )
    parser.add_argument(
        "--against",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE.py",
        help="compare the PyTorch functions of a file, under the names of --list, with JAX",
    )
    parser.add_argument(
        "--list", action="store_true", help="print which functions --against compares, and their arguments"
    )
    return parser


def main() -> int:
    """Prints what the words ask for, and returns the exit status."""
    try:
        return _execute()
    except KeyboardInterrupt:
        print("python -m parity_tests: stopped by SIGINT", file=sys.stderr, flush=True)
        return 130


def _execute() -> int:
    parser = _parser()
    args = parser.parse_args()
    if args.list:
        from parity_tests.against import signatures

        print(signatures.listing())
        return 0
    if args.against:
        return _against(parser, args)
    if args.html and not args.html.parent.is_dir():
        parser.error(f"{args.html.parent} is not a directory: make it, or write --html elsewhere")
    return _report(args)


def _against(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Compares a file: 0 where all agrees, 1 where something differs, 2 where there is nothing to compare."""
    of_report = {
        "--html": args.html,
        "--device": args.device != "cpu",
        "--matmul-precision": args.matmul_precision,
    }
    for option, value in of_report.items():
        if value:
            parser.error(f"{option} does not go with --against: leave it out")
    if "bfloat16" in (args.dtype or ()):
        parser.error("--against compares float64 and float32: leave --dtype bfloat16 out")
    if args.against == Path():
        parser.error("--against needs a file of functions: --against FILE.py; --list names them")
    from parity_tests.against import command

    return command.against(args.against, args.dtype or command.DTYPES, args.markdown, args.all)


def _report(args: argparse.Namespace) -> int:
    import jax

    from parity_tests import page, report

    try:
        device = jax.devices(args.device)[0]
    except RuntimeError:
        print(
            f"JAX finds no {args.device}: install '.[cuda13]', or '.[cuda12]' for older cards and drivers, "
            "on a machine that has one",
            file=sys.stderr,
        )
        return 1
    matmul = args.matmul_precision
    if matmul is None and args.device == "gpu":
        matmul = "default"
    # The highest precision is the one that everything is compared in: it has nothing to be held beside.
    if matmul == "highest":
        matmul = None

    content = report.collect(args.dtype or report.DTYPES, device, matmul)
    print(report.text(content, args.markdown, args.all))
    if args.html:
        args.html.write_text(page.make_page(content))
    return int(bool(report.failed(content.rows)))


if __name__ == "__main__":
    sys.exit(main())
