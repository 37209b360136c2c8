"""d3pm import begins a run from a file of weights: of ours, or a checkpoint of another program."""

import dataclasses
import shlex
import warnings
from pathlib import Path
from typing import Annotated, Literal

from d3pm_jax.cli import arguments, export_weights, reading
from d3pm_jax.config import Config, Count, describe_data, io as config_io
from d3pm_jax.contrib import checkpoints, foreign, layout
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.program.machine.devices import use_all_cores
from d3pm_jax.program.parts import begin
from d3pm_jax.program.parts.completed import complete, fill_in
from d3pm_jax.program.storage import names, run_folder
from d3pm_jax.runs import exported

USAGE = "d3pm import FILE [CONFIG] --workdir DIR"


@dataclasses.dataclass(frozen=True)
class ImportCommand:
    """Begins a run from a file of weights.

    1. FILE of `d3pm export`, or of safetensors.torch.save_file: the state_dict of a network of
    torch_ref.models, in float32. Its weights become step 0 of a new run in DIR, for `d3pm sample DIR`, `d3pm
    eval DIR` and `d3pm train --workdir DIR --resume`. A file of `d3pm export` contains its config; for a file
    of PyTorch, pass CONFIG. Fields of the config are overridden as for `d3pm train`; --data.dir DIR names the
    folder of the data. A network of your own in CONFIG takes the state_dict of its twin in PyTorch: see
    docs/how-to/move-network.md for the names.

    2. FILE of another program: a U-Net of Discrete-Time-Diffusion-Models-for-Discrete-Data or an
    MNISTScoreNet (torch.save), or a checkpoint_N of the official D3PM code for images; which one it is
    follows from its content. The weights are written to DIR/weights.safetensors, as `d3pm export` would write
    them. With CONFIG, DIR is also a run, with the data, process and head of CONFIG and the network of FILE.
    All options but --workdir and --config are for these files.

    Example: d3pm import weights.safetensors --workdir runs/imported
    """

    workdir: Annotated[Path | None, arguments.name_option(metavar="DIR")] = None
    """the folder to write to"""
    config: Annotated[Path | None, arguments.name_option(metavar="CONFIG")] = None
    """the Python file that defines get_config(), the same as CONFIG after FILE"""
    check: Annotated[Path | None, arguments.name_option(metavar="CHECK.npz")] = None
    """compare with the logits of the program: a file with its x, t, logits, and label if it takes one"""
    raw: bool = False
    """take the last weights instead of their moving average"""
    heads: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """attention heads, if the file does not say (default: 1)"""
    input_range: Annotated[tuple[float, float] | None, arguments.name_option(metavar="MIN MAX")] = None
    """the x that the program scales to -1 and 1 (default: 0 and K - 1; for the official code 0 and 255)"""
    max_time: Annotated[float | None, arguments.name_option(metavar="T")] = None
    """T of the program's process, its largest time (default: 1000; for MNISTScoreNet 4)"""
    categories: Annotated[Count | None, arguments.name_option(metavar="K")] = None
    """K of a network with a logistic head (default: that of CHECK or CONFIG, or 256)"""
    output: Annotated[Literal["logits", "logistic"] | None, arguments.name_option()] = None
    """what two numbers per element mean: logits of K = 2 categories, or a logistic distribution
    (default: logits if K = 2, else as in the program)"""
    size: Annotated[tuple[Count, Count] | None, arguments.name_option(metavar="H W")] = None
    """height and width of an image (default: those of CHECK or CONFIG, or of the program, 32 32 or 28 28)"""


def execute(command: ImportCommand, words: list[str]) -> int:
    """Begins a run; returns the exit status."""
    file = arguments.take_path(words)
    positional = arguments.take_path(words)
    if positional and command.config:
        raise UserError(f"two configs, {positional} and --config {command.config}: pass one")
    if file is None:
        raise UserError(
            f"no weights: pass a file first, as in d3pm import FILE{export_weights.SUFFIX} --workdir DIR"
        )
    if file.suffix == ".py":
        other = str(positional or f"FILE{export_weights.SUFFIX}")
        raise UserError(
            f"{file} is a Python file: the file of weights comes first, as in d3pm import "
            f"{shlex.join([other, str(file)])}"
        )
    if file.is_dir():
        raise UserError(run_folder.explain_folder(file))
    config_path = command.config or positional
    is_ours = checkpoints.kind_of(file) == "safetensors"
    if is_ours:
        _refuse_foreign_options(command, file)
    config = None
    if config_path is not None:
        config = reading.read_overridden_config(config_path, words, USAGE)
    elif is_ours:
        config = reading.apply_overrides(exported.read_config(file), words, USAGE)
    elif "--help" in words:
        reading.print_help(ImportCommand, USAGE)
    elif words:
        raise UserError(f"unexpected argument {one_line(words[0], 80)}: see d3pm import --help")
    if command.workdir is None:
        raise UserError("no workdir: pass --workdir DIR, where it is written")
    if is_ours and config is not None:
        _import_ours(file, command.workdir, config, config_path)
    else:
        _import_foreign(command, file, command.workdir, config, config_path)
    return 0


def _refuse_foreign_options(command: ImportCommand, file: Path) -> None:
    """Raises UserError for options of checkpoints of other programs, where the file is not one."""
    for field in dataclasses.fields(command):
        if field.name not in ("workdir", "config") and getattr(command, field.name) != field.default:
            flag = "--" + field.name.replace("_", "-")
            raise UserError(
                f"{flag} is only for checkpoints of other programs, and {file} is not one: leave it out"
            )


def _import_ours(file: Path, folder: Path, config: Config, config_path: Path | None) -> None:
    """Begins a run from a file that `d3pm export` wrote, or from a state_dict of the twin."""
    # With a config of the user's the data describes itself, and may be other data.
    description = exported.read_description(file) if config_path is None else None
    begin.begin_from_file(file, config, folder, description)
    print(f"{file} is step 0 of a new run in {folder}")
    train = ["d3pm", "train", "--workdir", str(folder), "--resume"]
    own_file = config_io.own_file(config)
    if own_file is not None:
        train += ["--config", str(own_file)]
    print(f"train it with: {shlex.join(train)}")


def _import_foreign(
    command: ImportCommand, file: Path, folder: Path, config: Config | None, config_path: Path | None
) -> None:
    """Writes the weights of a checkpoint of another program, and a run where there is a config."""
    run_folder.check_empty(folder)
    use_all_cores(1)

    # Warnings that are raised while reading and building are printed as notes, after the command's own
    # output.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if config is None:
            _write_network(command, file, folder)
        else:
            _write_run(command, file, folder, config, config_path)
    for warning in caught:
        print(f"note: {one_line(warning.message, 300)}")


def _write_network(command: ImportCommand, file: Path, folder: Path) -> None:
    """Writes the weights alone, where there is no config to begin a run with."""
    checkpoint, size = _read_network(command, file)
    if size is None:
        size = checkpoint.size, checkpoint.size
        print(f"note: images of {size[0]} x {size[1]}: the file does not say (--size)")
    foreign.write_weights(folder, checkpoint, size)
    print(f"{checkpoint.weights_kind} weights: {folder / names.WEIGHTS}")
    print(
        "this is a network to use from Python, not a run: to begin a run, pass --config CONFIG (see d3pm "
        "import --help)"
    )


def _write_run(
    command: ImportCommand, file: Path, folder: Path, config: Config, config_path: Path | None
) -> None:
    """Begins a run from the weights, and writes them."""
    description = describe_data(config.data)
    config = fill_in(config, description)
    checkpoint, _ = _read_network(command, file, config, config_path)
    if command.size is not None:
        raise UserError(
            f"--size {list(command.size)}: the size follows from the data of {config_path}; leave it out"
        )
    foreign.check_data(file, checkpoint, description, config_path)
    fitted = foreign.fit_config(config, checkpoint, description)
    completed = complete(fitted, description)
    print(f"note: this model replaces that of {config_path}: {one_line(fitted.model, 400)}")
    if fitted.head != config.head:
        head = one_line(fitted.head, 200)
        print(f"note: this head of the program replaces that of {config_path}: {head}")
    T = foreign.begin_run(file, checkpoint, completed, folder, config_path)
    if checkpoint.T != T:
        print(
            f"note: the process has T = {T}, but the network was made for {checkpoint.T} steps (--max-time)"
        )
    print(f"{checkpoint.weights_kind} weights: {folder / names.WEIGHTS}")
    print(f"it is step 0 of a new run in {folder}, for d3pm sample, eval and train --resume")


def _read_network(
    command: ImportCommand, file: Path, config: Config | None = None, config_path: Path | None = None
) -> tuple[layout.Foreign, tuple[int, int] | None]:
    """Reads the network of a file, prints what is assumed of it, and compares it where there is a check.

    Returns:
        The checkpoint, and the size of images where the command or the check says it.
    """
    options = layout.ImportOptions(
        raw=command.raw,
        num_heads=command.heads,
        input_range=command.input_range,
        max_time=command.max_time,
        K=command.categories,
        output=command.output,
    )
    arrays = None if command.check is None else foreign.read_check(command.check)
    if arrays is not None and arrays["logits"].ndim:
        K = arrays["logits"].shape[-1]
        options = options.with_categories(K, f"the last axis of logits in {command.check}")
    if config is not None:
        options = options.with_categories(getattr(config.process, "K", None), f"process.K of {config_path}")

    with as_user_error():
        checkpoint = checkpoints.read_network(file, options)
    print(f"{file} is of {checkpoint.program}: {checkpoint.weights_kind} weights of step {checkpoint.step}")
    for note in checkpoint.notes:
        print(f"note: {one_line(note, 300)}")

    if command.check is None or arrays is None:
        return checkpoint, command.size
    text, size = foreign.compare_logits(file, checkpoint, command.check, arrays)
    print(text)
    return checkpoint, command.size or size
