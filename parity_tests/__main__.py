"""Print the parity report; exit with status 1 when a comparison fails."""

import argparse
import sys
from pathlib import Path

import jax

from parity_tests import page, report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parity_tests", description=__doc__)
    parser.add_argument("--dtype", choices=report.DTYPES, action="append", help="only this float type")
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
    args = parser.parse_args()
    if args.html and not args.html.parent.is_dir():
        parser.error(f"{args.html.parent} is not a directory: make it, or write --html elsewhere")
    try:
        device = jax.devices(args.device)[0]
    except RuntimeError:
        print(f"JAX finds no {args.device}: install '.[cuda]' on a machine that has one", file=sys.stderr)
        return 1
    matmul = args.matmul_precision or ("default" if args.device == "gpu" else "highest")
    found = report.collect(args.dtype or report.DTYPES, device, None if matmul == "highest" else matmul)
    print(report.text(found, args.markdown, args.all))
    if args.html:
        args.html.write_text(page.page(found))
    return 1 if report.failed(found.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
