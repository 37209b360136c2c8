"""d3pm sample draws samples, as arrays and as their kind wants to be seen; of images, chains end to end."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from tyro.conf import UseAppendAction

from d3pm_jax.cli import arguments
from d3pm_jax.config import Choice, Count, Epsilon, Natural, NonEmptyStr, Seed, describe_sampler
from d3pm_jax.data.columns import split_at_name
from d3pm_jax.data.source import open_npy
from d3pm_jax.errors import UsageError, UserError, as_user_error, one_line
from d3pm_jax.files import describe_content, write_npy, write_text
from d3pm_jax.keys import make_key
from d3pm_jax.kinds import Samples, files
from d3pm_jax.program.machine.terminal import Terminal
from d3pm_jax.program.measure import filling, record, step_costs
from d3pm_jax.program.measure.samples import (
    Drawn,
    chains_to_show,
    choose_sampler_of,
    describe_drawing,
    rows_of_batch,
    settle,
    times_to_show,
    write_samples,
)
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.parts.by_classifier import ClassifierGuidance
from d3pm_jax.program.parts.draw import Draw, Settled
from d3pm_jax.program.parts.guidance import ClassifierFreeGuidance, Guidance
from d3pm_jax.program.storage import names, run_folder
from d3pm_jax.runs.run import Run, open_run
from d3pm_jax.sampling import Known, PartWay, Place, Sampler, find_level

GIF_CHAINS = 25  # samples in the GIF
MADE_FROM_SHOWN = 64  # samples beside which that is written which they were made from, at most
CLAMPED = (
    "note: the network was not trained with known elements among the noise, so the others fit them "
    "only roughly: {closer} more closely, Absorbing with see_time=False exactly; see docs/how-to/inpaint.md"
)
NEARLY_EXACT = (
    "note: the other elements fit the known ones nearly exactly in one pass, by ancestral sampling: only the "
    "time that the network sees is off"
)


class Flag(NamedTuple):
    """Says how names of files tell an option, and which others it goes with.

    Names of files, and the JSON beside the samples, tell the options that decide what the samples are.
    """

    in_names: Literal["value", "name", "beside", "nowhere"] = "value"
    """whether names tell its value, only that it was given, or it beside the one that it needs"""
    needs: tuple[str, ...] = ()  # other options, without any of which it means nothing
    cure: str = ""  # what to do where none of them is given
    excludes: tuple[str, ...] = ()  # options that it cannot be given with

    @property
    def is_told(self) -> bool:
        """Tells whether names of files and the JSON have the option by its name."""
        return self.in_names in ("value", "name")


TO_GUIDE = "say how far to guide, as --guidance 2"
EXAMPLES_TOO = "pass the examples too, as --given FILE"
TO_GIVE = "pass --known MASK too (which elements stay), or --strength 0.5 (how far to edit)"
# In the order of names of files.
FLAGS = {
    "workdir": Flag("nowhere"),
    "own_file": Flag("nowhere"),
    "data_dir": Flag("nowhere"),
    "num": Flag("nowhere"),
    "gif": Flag("nowhere"),
    "batch_size": Flag("nowhere"),
    "coordinator": Flag("nowhere"),
    "num_processes": Flag("nowhere"),
    "process_id": Flag("nowhere"),
    "connect_timeout": Flag("nowhere"),
    "step": Flag(),
    "steps": Flag(),
    "grid": Flag(),
    "seed": Flag(),
    "label": Flag(),
    "length": Flag(),
    "strength": Flag(needs=("given",), cure=EXAMPLES_TOO),
    "sampler": Flag(),
    "guidance": Flag(),
    "guidance_on": Flag("beside", ("guidance",), TO_GUIDE, ("classifier",)),
    "guidance_late": Flag("beside", ("guidance",), TO_GUIDE, ("classifier",)),
    "classifier": Flag("beside", ("guidance",), TO_GUIDE),
    "exact": Flag("beside", ("classifier",), "say by which classifier, as --classifier RUN"),
    "condition": Flag("name"),
    "prompt": Flag("name"),
    "infill": Flag("name", excludes=("prompt",)),
    "where": Flag("name", excludes=("prompt", "infill", "length")),
    "given": Flag("name", ("known", "strength"), TO_GIVE, ("prompt", "infill", "where")),
    "known": Flag("name", ("given",), EXAMPLES_TOO),
}


@arguments.list_own_options_first
@dataclasses.dataclass(frozen=True)
class SampleCommand(arguments.Computation):
    """Draws samples of a run, and shows them beside data and as chains.

    Draw 64 samples by 20 steps: d3pm sample runs/digits --num 64 --steps 20

    Complete left halves of images: d3pm sample runs/digits --given images.npy --known left
    """

    num: Annotated[Count, arguments.name_option(metavar="N")] = 256
    """how many samples to draw"""
    seed: Annotated[Seed, arguments.name_option(metavar="N")] = 0
    """seed of the noise; sample i does not depend on --num and --batch-size"""
    batch_size: Annotated[Count, arguments.name_option(metavar="B")] = 128
    """samples per batch"""
    gif: bool = False
    """also write a GIF of the reverse process of 25 samples; not for text and arrays"""
    label: Annotated[Natural | None, arguments.name_option(metavar="C")] = None
    """draw all samples of class C (default: sample i of class i modulo the number of classes)"""
    condition: Annotated[Path | None, arguments.name_option(metavar="FILE.npy")] = None
    """for a network that takes conditions: an array [N, ..] of them; sample i has row i modulo N"""
    guidance: Annotated[float | None, arguments.name_option(metavar="G")] = None
    """how strongly to follow the label or condition: 0 not at all, 1 as learnt, above 1 more strongly;
    needs --classifier, or a run with --train.drop-condition above 0;
    such a run calls its network twice per step, unless G is 0 or 1"""
    guidance_on: Annotated[Place | None, arguments.name_option()] = None
    """with --guidance: the law to guide (default: x_0 for a process with an extra mask, else x_s)"""
    guidance_late: Annotated[Natural | None, arguments.name_option(metavar="STEP")] = None
    """with --guidance: guide only at steps t <= STEP, where samples are nearly done"""
    classifier: Annotated[Path | None, arguments.name_option(metavar="RUN")] = None
    """with --guidance: the run of the classifier that guides towards the label;
    configs/digits_noisy_classifier.py trains one"""
    exact: bool = False
    """with --classifier: evaluate every change of every element, instead of a gradient; for small examples"""
    steps: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """use only N steps of the process instead of all"""
    grid: arguments.Grid = "even"
    sampler: Annotated[Choice | None, arguments.name_option(metavar="NAME")] = None
    """the sampler (default: that of the config, or ancestral);
    --sampler.FIELD VALUE sets a field of it, --sampler help lists all samplers with their fields"""
    prompt: Annotated[str | None, arguments.name_option(metavar="TEXT")] = None
    """only text: every sample begins with this; not with --infill"""
    infill: Annotated[str | None, arguments.name_option(metavar="TEXT")] = None
    """only text: fill the gaps in this, each written [MASK:N] for N tokens, as "The [MASK:12] fox\""""
    where: Annotated[
        tuple[NonEmptyStr, ...] | None, UseAppendAction, arguments.name_option(metavar="COLUMN=VALUE")
    ] = None
    """only tables: every sample has this value in this column; give it once for each column;
    a number means its bin, and the word missing a missing value"""
    length: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """only text and padded data: elements of each sample (default: of padded data those of test example i,
    of other texts, and with --prompt, --infill or --given, all)"""
    given: Annotated[Path | None, arguments.name_option(metavar="FILE")] = None
    """complete examples (--known) or edit them (--strength): sample i is made from example i modulo N;
    FILE is .npy of integers [*S] or [N, *S]; for images also .png; for text also .txt, an example per line"""
    known: Annotated[str | None, arguments.name_option(metavar="MASK")] = None
    """with --given: which elements stay, while the others are drawn;
    MASK is .npy of booleans [*S] or [N, *S]; filled: all elements of FILE that the data may have, no masks
    and no -1; or for images left, right, top, bottom, center or border"""
    strength: Annotated[Epsilon | None, arguments.name_option(metavar="S")] = None
    """with --given: how far to edit, above 0 and at most 1, for example 0.5;
    noises the examples for this share of the steps, and draws the way back"""

    def __post_init__(self) -> None:
        """Raises UsageError for options that do not go together."""
        values = {name: getattr(self, name) for name in FLAGS}
        asked = {name for name, value in values.items() if value is not None and value is not False}
        for name, flag in FLAGS.items():
            option = f"argument --{name.replace('_', '-')}"
            for other in flag.excludes:
                if {name, other} <= asked:
                    raise UsageError(f"{option}: not allowed with argument --{other}")
            if name in asked and flag.needs and asked.isdisjoint(flag.needs):
                raise UsageError(f"{option}: {flag.cure}")
        # Words that are no pairs are refused before the run is opened.
        for word in self.where or ():
            if "=" not in word:
                raise UsageError(f"argument --where: expected COLUMN=VALUE, got {one_line(repr(word))}")

    def split_where(self, names: Sequence[str]) -> dict[str, str]:
        """Returns the values of --where by columns, which have these names.

        Raises:
            UsageError: a column is there twice.
        """
        values: dict[str, str] = {}
        for word in self.where or ():
            name, value = split_at_name(word, names)
            if name in values:
                raise UsageError(f"argument --where: give each column once, got {one_line(repr(word))}")
            values[name] = value
        return values

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
    run = arguments.open_with_others(command, min(command.batch_size, command.num))
    kind = run.parts.kind
    levels = run.parts.recipe.categories
    examples = None
    if kind.sample_files == "pictures":
        kept_examples = run_folder.read_examples(run.workdir, run.parts.description)
        if kept_examples is not None:
            examples = Samples(kept_examples["x"], levels, kept_examples.get("condition"))
    known = _read_known(command, run)
    if command.steps is not None:
        # Steps that there are not are refused before the best ones are looked for.
        run.respaced(command.steps)
        run = run.respaced(step_costs.choose_steps(run.parts, run.workdir, command.steps, command.grid))
    sampler = choose_sampler_of(run.parts, command.sampler and command.sampler.sampler)
    sampler_name = ""  # where a run takes its steps by itself
    if command.sampler is not None:
        sampler_name = command.sampler.name
    elif sampler is not None:
        sampler_name = describe_sampler(sampler)
    draw = _make_draw(command, known, sampler)
    settled, _ = settle(run.parts, draw, command.num, command.batch_size)
    if command.gif and not settled.rows_are_steps:
        raise UserError(
            "--gif: a GIF shows x_t at each step of the process, and the rows of the sampler "
            f"{sampler_name} are not such steps; leave it out"
        )
    times = times_to_show(settled, files.count_states(kind, command.gif))
    if command.gif and not times:
        raise UserError(
            "--gif: a GIF shows chains from noise to data, and a flow draws samples in one pass; leave it out"
        )
    key = make_key(command.seed)
    with Terminal("sample", command.num).show_bar() as terminal:
        drawn = run.sample(
            key,
            command.num,
            dataclasses.replace(draw, record=times),
            batch_size=command.batch_size,
            progress=terminal.advance,
            chains=GIF_CHAINS,
        )
    samples = drawn.x0
    options = _describe_draw(command, draw, known) | describe_drawing(sampler, settled.guidance, drawn)
    suffix = _name_files(command, settled.guidance)
    path, replaced = write_samples(run.parts, run.workdir, samples, options, suffix)

    shown = Samples(samples, levels, draw.condition)
    chains = chains_to_show(run.parts, key, shown, drawn.states, times, settled, examples)
    if command.given is not None and known is not None:
        made_from = _show_known(known, command.strength, len(samples), samples.shape[1:], levels)
        write_npy(run.workdir / f"{names.MADE_FROM}{suffix}.npy", made_from)
        chains = chains._replace(given=Samples(made_from, levels))
    captions = [run.caption, *_describe_request(sampler_name, settled)]
    if command.label is not None:
        captions.append(f"class {command.label}")
    caption = "; ".join(captions)
    files_by_content = files.write_chains(kind, command.workdir, suffix, chains, caption, command.gif)

    classes = _describe_classes(command, settled, run, bool((samples < 0).any()))
    print(f"{len(samples)} samples of step {run.step}{classes}, int32 {samples.shape}: {path}{replaced}")
    for line in _describe_way(command, sampler_name, settled, run, drawn):
        print(line)
    frame = kind.make_frame(samples, command.seed)
    if frame is not None:
        table = path.with_suffix(".csv")
        write_text(table, frame.to_csv(index=False))
        files_by_content["as a table"] = table
    for content_name, file in files_by_content.items():
        print(f"{content_name}: {file}")
    if known is not None and np.any(known.mask) and filling.find_fillable_mask(run.parts) is None:
        print(_describe_fit(run.parts, settled))
    for line in kind.in_words(samples):
        print(line)
    return 0


def _read_known(command: SampleCommand, run: Run) -> Known | None:
    """Reads what samples have from the start, of a text or of files; None for nothing.

    Raises:
        UserError: a text or a file cannot be used.
    """
    kind = run.parts.kind
    if command.where is not None:
        columns = run.parts.description.columns or ()
        return kind.find_known(command.split_where([column.name for column in columns]))
    if command.given is None:
        return kind.parse_given(command.prompt, command.infill, command.length)
    shape = run.parts.description.shape if command.length is None else (command.length,)
    x0 = kind.read_given(command.given, shape)
    if command.known is None:
        # Of an edit nothing stays.
        return Known(x0, np.zeros(shape, bool))
    if command.known == "filled":
        return Known(x0, (x0 >= 0) & (x0 < run.parts.recipe.categories))
    return Known(x0, kind.parse_known(command.known, shape))


def _show_known(
    known: Known, strength: float | None, n: int, shape: tuple[int, ...], levels: int
) -> np.ndarray:
    """Returns what each of the first n samples is made from, [n, *S]; what is drawn from noise is a mask.

    Args:
        known: the elements.
        strength: of an edit, which noises what it is given; None: what is not known is drawn from noise.
        n: how many samples there are; of more than `MADE_FROM_SHOWN` the first ones count.
        shape: *S of a sample.
        levels: categories that the data may have, the first of the others is the mask.
    """
    index = np.arange(min(n, MADE_FROM_SHOWN))
    rows = (rows_of_batch(np.asarray(array), index, shape) for array in known)
    x0, is_known = (np.broadcast_to(array, (len(index), *shape)) for array in rows)
    if strength is not None:
        return x0.astype(np.int32)
    return np.where(is_known, x0, levels).astype(np.int32)


def _make_draw(command: SampleCommand, known: Known | None, sampler: Sampler | None) -> Draw:
    """Returns what a command asks for of a run.

    Raises:
        UserError: a file cannot be read, or there is no such classifier.
    """
    condition = None
    if command.condition is not None:
        with as_user_error():
            condition = np.array(open_npy(command.condition))
    start = None
    if command.strength is not None and known is not None:
        start = PartWay(known.x0, command.strength)
    return Draw(
        label=command.label,
        condition=condition,
        known=known,
        start=start,
        sampler=sampler,
        guidance=command.make_guidance(),
        shape=None if command.length is None else (command.length,),
    )


def _describe_draw(command: SampleCommand, draw: Draw, known: Known | None) -> dict[str, Any]:
    """Returns what a command asks for, as the JSON beside the samples has it."""
    options = {name: getattr(command, name) for name, flag in FLAGS.items() if flag.is_told}
    # Files are told by their contents.
    if draw.condition is not None:
        options["condition"] = describe_content(draw.condition)
    if command.given is not None and known is not None:
        options["given"] = describe_content(np.asarray(known.x0))
    if command.known is not None and known is not None and command.known.endswith(".npy"):
        options["known"] = describe_content(np.asarray(known.mask))
    return options


def _name_files(command: SampleCommand, guidance: Guidance | None) -> str:
    """Returns the suffix of the names of files, which tells what was asked for."""
    # Options that names tell in another way: a sampler with its fields, and a word in place of a file.
    special_names: dict[str, dict[str, Any]] = {}
    if command.sampler is not None:
        special_names["sampler"] = command.sampler.options
    if guidance is not None:
        special_names["guidance"] = guidance.options()
    if command.known is not None and not command.known.endswith(".npy"):
        special_names["known"] = {"known": command.known}
    options: dict[str, Any] = {}
    for name, flag in FLAGS.items():
        value = getattr(command, name)
        if flag.is_told and value is not None:
            options |= special_names.get(name, {name: value if flag.in_names == "value" else ""})
    return record.file_suffix(**options)


def _describe_classes(command: SampleCommand, settled: Settled, run: Run, is_padded: bool) -> str:
    """Says of which classes, lengths and conditions samples are."""
    num_classes = run.parts.recipe.classes
    if settled.guidance is not None and settled.guidance.classes is not None:
        num_classes = settled.guidance.classes
    classes = ""
    if command.label is not None:
        classes = f", all of class {command.label}"
    elif num_classes is not None:
        classes = f", sample i of class i modulo {num_classes}"
    if is_padded:
        classes += ", sample i as long as test example i of examples.npy modulo its rows"
    if command.condition is not None:
        classes += f", sample i with row i of {command.condition} modulo its rows"
    return classes


def _describe_way(
    command: SampleCommand, sampler_name: str, settled: Settled, run: Run, drawn: Drawn
) -> list[str]:
    """Says from where samples were edited, and by which sampler and guidance they were drawn, in lines."""
    lines = []
    if command.strength is not None:
        steps = run.parts.recipe.num_steps
        level = find_level(command.strength, steps)
        lines.append(f"edits of {command.given}, from step {level} of {steps} on")
    ways = _describe_request(sampler_name, settled)
    if ways:
        num_inputs = f"{np.mean(drawn.calls):.4g}"
        cost = f"{num_inputs} calls of the network for each sample"
        if settled.sampler is not None and settled.sampler.step.asks_many:
            # An input for each sample, several of them in a call.
            cost = (
                f"{num_inputs} inputs of the network for each sample, {drawn.program_calls} calls of batches"
            )
        lines.append(f"{', '.join(ways)}: {cost}")
    return lines


def _describe_request(sampler_name: str, settled: Settled) -> list[str]:
    """Says by which sampler and guidance samples are drawn, in words; none by default."""
    words = []
    if sampler_name:
        words.append(f"by {sampler_name}")
    if settled.guidance is not None:
        words.append(f"guided, {settled.guidance.in_words()}")
    return words


def _describe_fit(parts: Parts, settled: Settled) -> str:
    """Says how well samples fit their known elements, of a run whose samples do not fit them exactly."""
    if filling.find_absorbing_mask(parts) is None:
        closer = "--sampler repaint fits them"
        if settled.sampler is not None and settled.sampler.passes > 1:
            closer = f"more than {settled.sampler.passes} passes (--sampler.passes) fit them"
        return CLAMPED.format(closer=closer)
    # Among extra masks a network is trained with clean elements: it only expects more or fewer at this time.
    if getattr(parts.config.model, "see_time", False):
        return f"{NEARLY_EXACT}; a network with see_time=False is exact"
    return NEARLY_EXACT
