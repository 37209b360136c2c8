"""d3pm sample draws samples, as arrays and as their kind wants to be seen; of images, chains end to end."""

import dataclasses
from typing import Annotated

import jax

from d3pm_jax.cli import arguments
from d3pm_jax.config.checks import Count, Natural, Seed
from d3pm_jax.errors import UsageError
from d3pm_jax.kinds.base import STATES
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import record, step_costs
from d3pm_jax.measure.bounds import find_mask
from d3pm_jax.measure.samples import chains_to_show, evenly_spaced, write_samples
from d3pm_jax.storage import run_folder

GIF_CHAINS = 25  # samples in the GIF
CLAMPED = (
    "known characters stand among noise that the network was trained without: the rest follows them only "
    "roughly, see docs/text.md; exact for Absorbing with see_time=False"
)


@dataclasses.dataclass(frozen=True)
class SampleCommand(arguments.Computation):
    """Draws samples, beside data and as chains."""

    steps: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """take N steps of the process in place of all"""
    num: Annotated[Count, arguments.name_option(metavar="N")] = 256
    """samples to draw"""
    label: Annotated[Natural | None, arguments.name_option(metavar="C")] = None
    """of this class; without, sample i is of class i modulo all"""
    batch_size: Annotated[Count, arguments.name_option(metavar="B")] = 128
    """samples at a time"""
    seed: Annotated[Seed, arguments.name_option(metavar="N")] = 0
    """of the noise; sample i is the same for every N and B"""
    gif: bool = False
    """of images: the reverse process of 25 samples as a GIF as well"""
    prompt: Annotated[str | None, arguments.name_option(metavar="TEXT")] = None
    """of text: every sample begins with this; not together with --infill"""
    infill: Annotated[str | None, arguments.name_option(metavar="TEXT")] = None
    """of text: every sample has this, with a gap for each [MASK:N], as "The [MASK:12] fox\""""
    length: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """of text: tokens of a sample (as the data has)"""

    def __post_init__(self) -> None:
        """Raises UsageError where both texts are given."""
        if self.prompt is not None and self.infill is not None:
            raise UsageError("argument --infill: not allowed with argument --prompt")


def execute(command: SampleCommand, words: list[str]) -> int:
    """Samples; returns the exit status."""
    arguments.check_grid(command.grid, command.steps)
    run = arguments.open_with_others(command, min(command.batch_size, command.num))
    kind = run.parts.kind
    examples = None
    if kind.beside_data:
        examples = run_folder.read_examples(run.workdir, run.parts.description)
    num_states = kind.num_states(command.gif)
    given = kind.parse_given(command.prompt, command.infill, command.length)
    shape = None if command.length is None else (command.length,)
    if command.steps is not None:
        run = run.respaced(step_costs.choose_steps(run.parts, run.workdir, command.steps, command.grid))
    times, key = evenly_spaced(run.process.T, num_states), jax.random.key(command.seed)
    with Terminal("sample", command.num).show_bar() as terminal:
        samples, reverse = run.sample(
            key,
            command.num,
            command.label,
            command.batch_size,
            times,
            terminal.advance,
            GIF_CHAINS,
            given,
            shape,
        )
    options = {"prompt": command.prompt, "infill": command.infill, "length": command.length}
    asked = {name: value for name, value in options.items() if value is not None}
    known = [name for name in ("prompt", "infill") if name in asked]
    suffix = record.file_suffix(
        step=command.step,
        steps=command.steps,
        grid=command.grid,
        seed=command.seed,
        label=command.label,
        length=command.length,
    )
    suffix += "".join(f"_{name}" for name in known)
    path, replaced = write_samples(
        run.parts, run.workdir, samples, command.grid, command.seed, command.label, asked, suffix
    )
    beside = None if examples is None else examples[: len(samples)]
    strip = evenly_spaced(run.process.T, STATES)
    chains = chains_to_show(run.parts, key, samples, reverse, times, strip, beside)
    written = kind.save_samples(command.workdir, suffix, chains, run.caption, command.gif)
    classes = run.parts.classes
    of_class = "" if classes is None else f", sample i of class i modulo {classes}"
    of_class = of_class if command.label is None else f", all of class {command.label}"
    print(f"{len(samples)} samples of step {run.step}{of_class}, int32 {samples.shape}: {path}{replaced}")
    for what, file in written.items():
        print(f"{what}: {file}")
    if known and find_mask(run.parts) is None:
        print(CLAMPED)
    for line in kind.in_words(samples):
        print(line)
    return 0
