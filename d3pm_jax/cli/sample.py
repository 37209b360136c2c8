"""d3pm sample draws samples, as arrays and as their kind wants to be seen; of images, chains end to end."""

import argparse

import jax

from d3pm_jax.cli import arguments
from d3pm_jax.kinds.base import STATES
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import grids, record
from d3pm_jax.measure.exact import mask_of
from d3pm_jax.measure.samples import chains_to_show, spaced, write
from d3pm_jax.storage import workdir

GIF_CHAINS = 25  # samples in the GIF
CLAMPED = (
    "known characters stand among noise that the network was trained without: the rest follows them only "
    "roughly, see docs/text.md; exact for Absorbing with see_time=False"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    arguments.add_checkpoint(parser)
    arguments.add_cluster(parser)
    arguments.add_steps(parser, arguments.positive, "N", "take N steps of the process in place of all")
    parser.add_argument(
        "--num", type=arguments.positive, default=256, metavar="N", help="samples to draw (256)"
    )
    parser.add_argument(
        "--label",
        type=arguments.not_negative,
        metavar="C",
        help="of this class; without, sample i is of class i modulo all",
    )
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=128, metavar="B", help="samples at a time (128)"
    )
    parser.add_argument(
        "--seed",
        type=arguments.seed,
        default=0,
        metavar="N",
        help="of the noise (0); sample i is the same for every N and B",
    )
    text = f"of images: the reverse process of {GIF_CHAINS} samples as a GIF as well"
    parser.add_argument("--gif", action="store_true", help=text)
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--prompt", metavar="TEXT", help="of text: every sample begins with this")
    known.add_argument(
        "--infill",
        metavar="TEXT",
        help='of text: every sample has this, with a gap for each [MASK:N], as "The [MASK:12] fox"',
    )
    parser.add_argument(
        "--length", type=arguments.positive, metavar="N", help="of text: tokens of a sample (as the data has)"
    )


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Samples; returns the exit status."""
    arguments.check_grid(args)
    run = arguments.open_named(args, min(args.batch_size, args.num))
    kind, examples = run.parts.kind, None
    if kind.beside_data:
        examples = workdir.read_examples(run.workdir, run.parts.description)
    num_states = kind.num_states(args.gif)
    given = kind.parse_given(args.prompt, args.infill, args.length)
    shape = None if args.length is None else (args.length,)
    if args.steps is not None:
        run = run.respaced(grids.choose(run.parts, run.workdir, args.steps, args.grid))
    times, key = spaced(run.process.T, num_states), jax.random.key(args.seed)
    with Terminal("sample", args.num).shown() as terminal:
        samples, reverse = run.sample(
            key, args.num, args.label, args.batch_size, times, terminal.advance, GIF_CHAINS, given, shape
        )
    options = {"prompt": args.prompt, "infill": args.infill, "length": args.length}
    asked = {name: value for name, value in options.items() if value is not None}
    known = [name for name in ("prompt", "infill") if name in asked]
    suffix = record.suffix(
        step=args.step,
        steps=args.steps,
        grid=args.grid,
        seed=args.seed,
        label=args.label,
        length=args.length,
    )
    suffix += "".join(f"_{name}" for name in known)
    path, replaced = write(run.parts, run.workdir, samples, args.grid, args.seed, args.label, asked, suffix)
    beside = None if examples is None else examples[: len(samples)]
    strip = spaced(run.process.T, STATES)
    chains = chains_to_show(run.parts, key, samples, reverse, times, strip, beside)
    written = kind.save_samples(args.workdir, suffix, chains, run.caption, args.gif)
    classes = run.parts.classes
    of_class = "" if classes is None else f", sample i of class i modulo {classes}"
    of_class = of_class if args.label is None else f", all of class {args.label}"
    print(f"{len(samples)} samples of step {run.step}{of_class}, int32 {samples.shape}: {path}{replaced}")
    for words, file in written.items():
        print(f"{words}: {file}")
    if known and mask_of(run.parts) is None:
        print(CLAMPED)
    for line in kind.in_words(samples):
        print(line)
    return 0
