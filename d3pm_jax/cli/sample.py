"""d3pm sample draws samples, as arrays and as their kind wants to be seen; of images, chains end to end."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from d3pm_jax.cli import arguments, samplers
from d3pm_jax.cli.given import check_options, read_given
from d3pm_jax.config.checks import Count, Natural, Seed
from d3pm_jax.data.source import open_npy
from d3pm_jax.errors import UsageError, UserError, as_user_error
from d3pm_jax.files import describe_content, write_npy
from d3pm_jax.kinds.base import STATES, check_gif
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import record, step_costs
from d3pm_jax.measure.bounds import find_mask
from d3pm_jax.measure.samples import (
    Options,
    chains_to_show,
    choose_sampler_of,
    describe_drawing,
    draw_samples,
    plan_sampler,
    settle_guidance,
    times_to_show,
    write_samples,
)
from d3pm_jax.parts.by_classifier import ClassifierGuidance
from d3pm_jax.parts.guidance import ClassifierFreeGuidance, Guidance
from d3pm_jax.runs.run import open_run
from d3pm_jax.sampling.editing import find_level
from d3pm_jax.sampling.guidance import Place
from d3pm_jax.sampling.named import describe_sampler
from d3pm_jax.storage import run_folder
from d3pm_jax.storage.names import MADE_FROM

GIF_CHAINS = 25  # samples in the GIF
CLAMPED = (
    "known elements stand among noise that the network was trained without: the others follow them only "
    "roughly, by --sampler repaint more closely, see docs/control.md; exact for Absorbing with see_time=False"
)


@dataclasses.dataclass(frozen=True)
class SampleCommand(arguments.Computation):
    """Draws samples, beside data and as chains."""

    steps: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """take N steps of the process in place of all"""
    sampler: Annotated[str | None, arguments.name_option(metavar="NAME")] = None
    """how a sample is drawn (as the config says, or ancestrally);
    --sampler.FIELD VALUE sets a field of it, --sampler help lists all samplers with their fields"""
    num: Annotated[Count, arguments.name_option(metavar="N")] = 256
    """samples to draw"""
    label: Annotated[Natural | None, arguments.name_option(metavar="C")] = None
    """of this class; without, sample i is of class i modulo all"""
    guidance: Annotated[float | None, arguments.name_option(metavar="G")] = None
    """of a run with --train.drop-condition above 0: 1 is the class or condition as it was learnt, above 1
    more of it, 0 none of it; but for 1 and 0 a step is two calls of the network. With --classifier of any"""
    guidance_on: Annotated[Place | None, arguments.name_option()] = None
    """the law that is guided (x_0 of a process with an extra mask, x_s of others)"""
    guidance_late: Annotated[Natural | None, arguments.name_option(metavar="T")] = None
    """guide at steps up to T alone, where samples are nearly done"""
    classifier: Annotated[Path | None, arguments.name_option(metavar="RUN")] = None
    """guide towards the class by the classifier of this run, as of configs/digits_noisy_classifier.py"""
    exact: bool = False
    """with --classifier: try every change of every element, in place of the gradient; for small examples"""
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
    condition: Annotated[Path | None, arguments.name_option(metavar="FILE.npy")] = None
    """conditions [N, ..] of a network that takes them; sample i has row i modulo N"""
    length: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """of text: tokens of a sample (as the data has)"""
    given: Annotated[Path | None, arguments.name_option(metavar="FILE")] = None
    """make samples from an example, or from N of them: sample i from example i modulo N;
    .npy of integers [*S] or [N, *S], of images also .png, of text also .txt with an example in each line"""
    known: Annotated[str | None, arguments.name_option(metavar="MASK")] = None
    """the elements of --given that stay: .npy of booleans [*S] or [N, *S],
    or of images left, right, top, bottom, center or border; the others are drawn"""
    strength: Annotated[float | None, arguments.name_option(metavar="S")] = None
    """edit --given: noise it for S of the steps, above 0 and at most 1, and draw the way back"""

    def __post_init__(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.prompt is not None and self.infill is not None:
            raise UsageError("argument --infill: not allowed with argument --prompt")
        for option, text in (("prompt", self.prompt), ("infill", self.infill)):
            if text is not None and self.given is not None:
                raise UsageError(f"argument --given: not allowed with argument --{option}")
        check_options(self.given, self.known, self.strength)
        for option, value in (("on", self.guidance_on), ("late", self.guidance_late)):
            if value is not None and self.guidance is None:
                raise UsageError(f"argument --guidance-{option}: say how far to guide, as --guidance 2")
            if value is not None and self.classifier is not None:
                raise UsageError(f"argument --guidance-{option}: not allowed with argument --classifier")
        if self.classifier is not None and self.guidance is None:
            raise UsageError("argument --classifier: say how far to guide, as --guidance 2")
        if self.exact and self.classifier is None:
            raise UsageError("argument --exact: say by which classifier, as --classifier RUN")

    def make_guidance(self) -> Guidance | None:
        """Makes what the samples are guided by; None for nothing.

        Raises:
            UserError: there is no such classifier.
        """
        if self.guidance is None:
            return None
        if self.classifier is None:
            return ClassifierFreeGuidance(self.guidance, self.guidance_on, self.guidance_late)
        return ClassifierGuidance(open_run(self.classifier), self.guidance, self.exact)


def execute(command: SampleCommand, words: list[str]) -> int:
    """Draws samples and writes them; returns the exit status."""
    arguments.check_grid(command.grid, command.steps)
    choice = samplers.choose(command.sampler, words)
    run = arguments.open_with_others(command, min(command.batch_size, command.num))
    kind = run.parts.kind
    examples = None
    example_inputs = {}
    if kind.beside_data:
        examples = run_folder.read_examples(run.workdir, run.parts.description)
        example_inputs = run_folder.read_example_inputs(run.workdir, run.parts.description) or {}
    num_states = kind.num_states(command.gif)
    known_elements = kind.parse_given(command.prompt, command.infill, command.length)
    shape = None if command.length is None else (command.length,)
    made_from = None
    if command.given is not None:
        size = shape or run.parts.description.shape
        made_from = read_given(kind, command.given, command.known, command.strength, size)
        known_elements = made_from.elements
    if command.steps is not None:
        # Steps that there are not are refused before the best ones are looked for.
        run.respaced(command.steps)
        run = run.respaced(step_costs.choose_steps(run.parts, run.workdir, command.steps, command.grid))
    conditions = None
    if command.condition is not None:
        conditions = _read_condition_file(command.condition)
    sampler = choose_sampler_of(run.parts, None if choice is None else choice.sampler)
    planned = plan_sampler(run.parts, sampler, shape, command.strength)
    guidance = settle_guidance(run.parts, command.make_guidance(), planned, shape)
    sampler_name = command.sampler
    if sampler_name is None and sampler is not None:
        sampler_name = describe_sampler(sampler)
    if command.gif and planned is not None and not planned.rows_are_steps:
        raise UserError(
            f"--gif: a GIF shows x_t by t, and the rows of the sampler {sampler_name} are no steps of the "
            f"process; leave it out"
        )
    times = times_to_show(run.parts, planned, num_states)
    check_gif(command.gif, times)
    key = jax.random.key(command.seed)
    with Terminal("sample", command.num).show_bar() as terminal:
        options = Options(
            label=command.label,
            batch_size=command.batch_size,
            progress=terminal.advance,
            known_elements=known_elements,
            shape=shape,
            condition=conditions,
            sampler=sampler,
            guidance=guidance,
        )
        drawn = draw_samples(run.parts, key, command.num, options, times, GIF_CHAINS, command.strength)
    samples = drawn.x0

    text_options = {"prompt": command.prompt, "infill": command.infill, "length": command.length}
    more_options: dict[str, Any] = {name: text for name, text in text_options.items() if text is not None}
    suffix = record.file_suffix(
        step=command.step,
        steps=command.steps,
        grid=command.grid,
        seed=command.seed,
        label=command.label,
        length=command.length,
        strength=command.strength,
        **({} if choice is None else choice.options),
        **({} if guidance is None else guidance.options()),
    )
    more_options |= describe_drawing(sampler, drawn, guidance)
    if conditions is not None:
        more_options["condition"] = describe_content(conditions)
        suffix += "_condition"
    if command.prompt is not None:
        suffix += "_prompt"
    if command.infill is not None:
        suffix += "_infill"
    if made_from is not None:
        more_options |= made_from.content
        suffix += made_from.suffix
    path, replaced = write_samples(
        run.parts, run.workdir, samples, command.grid, command.seed, command.label, more_options, suffix
    )

    if examples is not None:
        examples = examples[: len(samples)]
    strip = times_to_show(run.parts, planned, STATES)
    chains = chains_to_show(
        run.parts,
        key,
        samples,
        drawn.states,
        times,
        strip,
        examples,
        conditions,
        example_inputs.get("condition"),
    )
    if made_from is not None:
        given = made_from.for_samples(len(samples), samples.shape[1:], run.parts.categories)
        write_npy(run.workdir / f"{MADE_FROM}{suffix}.npy", given)
        chains = chains._replace(given=given)
    files_by_content = kind.save_samples(command.workdir, suffix, chains, run.caption, command.gif)

    classes = ""
    if command.label is not None:
        classes = f", all of class {command.label}"
    else:
        num_classes = run.parts.classes
        if guidance is not None and guidance.classes is not None:
            num_classes = guidance.classes
        if num_classes is not None:
            classes = f", sample i of class i modulo {num_classes}"
    if command.condition is not None:
        classes += f", sample i with row i of {command.condition} modulo its rows"
    print(f"{len(samples)} samples of step {run.step}{classes}, int32 {samples.shape}: {path}{replaced}")
    if command.strength is not None:
        assert planned is not None
        level = find_level(command.strength, run.parts.method.num_steps)
        print(f"edits of {command.given}, from step {level} of {run.parts.method.num_steps} on")
    ways = []
    if sampler is not None:
        ways.append(f"by {sampler_name}")
    if guidance is not None:
        ways.append(f"guided, {guidance.in_words()}")
    if ways:
        print(f"{', '.join(ways)}: {np.mean(drawn.calls):.4g} calls of the network for each sample")
    for content, file in files_by_content.items():
        print(f"{content}: {file}")
    has_known = command.prompt is not None or command.infill is not None
    if made_from is not None:
        has_known = made_from.has_known
    if has_known and find_mask(run.parts) is None:
        print(CLAMPED)
    for line in kind.in_words(samples):
        print(line)
    return 0


def _read_condition_file(path: Path) -> np.ndarray:
    """Reads conditions [N, ..] from a file of NumPy.

    Raises:
        UserError: there is no such file, or it is none of NumPy.
    """
    with as_user_error():
        return np.array(open_npy(path))
