"""Reads the command line, d3pm train | eval | sample | ..., and imports only the file of the command."""

import contextlib
import errno
import importlib
import itertools
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from d3pm_jax import __version__
from d3pm_jax.cli.tracebacks import is_of_user, shorten_traceback
from d3pm_jax.errors import UsageError, UserError, one_line
from d3pm_jax.extras import require
from d3pm_jax.program.machine import signals

GRACE = 3.0  # seconds that the first process waits, before it ends, for others that fail as it does
# What to do about an error of the operating system.
CURES = {
    errno.ENOSPC: "make room and run the command again, a training with --resume: what was saved is intact",
    errno.ENOENT: "check the path, and that its folder exists",
    errno.EISDIR: "name a file in it",
    errno.ENOTDIR: "a part of this path is a file, name a folder there",
}
# How JAX begins what it says of a device that JAX_PLATFORMS asks for and that it cannot use.
NO_DEVICE = ("Unable to initialize backend", "Unknown backend")
# Settings by which JAX refuses what commands do; who looks for such places in code of their own sets them.
STRICT = (
    "jax_debug_infs",
    "jax_debug_nans",
    "jax_disable_jit",
    "jax_error_checking_behavior_divide",
    "jax_error_checking_behavior_nan",
    "jax_error_checking_behavior_oob",
    "jax_no_execution",
    "jax_no_tracing",
    "jax_transfer_guard_device_to_device",
    "jax_transfer_guard_device_to_host",
    "jax_transfer_guard_host_to_device",
    "jax_transfer_guard",
)
LENIENT = (None, False, "allow", "ignore", "log", "log_explicit")


class Command(NamedTuple):
    """Describes a command; its file has a dataclass, `TrainCommand` of train, and `execute(command, words)`.

    `execute` returns the exit status; `words` are those of a config, which the dataclass has no field for.
    """

    module: str
    text: str  # of the overview: what the command is for
    takes_config: bool = False  # whether CONFIG and overrides of its fields may follow


COMMANDS = {
    "train": Command("train", "train a model, or resume a run", takes_config=True),
    "eval": Command("eval", "compute bits per dimension on the test split"),
    "sample": Command("sample", "draw samples, and show them beside data"),
    "schedule": Command(
        "schedule", "plot how a process removes information, without training", takes_config=True
    ),
    "report": Command("report", "write an HTML page about runs, to read and compare them"),
    "judge": Command("judge", "say which law samplers draw from, own and foreign ones"),
    "export": Command("export_weights", "write the weights of a run to a file for PyTorch"),
    "import": Command("import_weights", "begin a run from a file of weights", takes_config=True),
    "presample": Command("presample", "draw the noise of a training in advance", takes_config=True),
}
HELP = ("-h", "--help")
TRACEBACK = "--traceback"
OVERVIEW = """usage: d3pm [-h] [--version] COMMAND ...

Train and use diffusion models on discrete data.

positional arguments:
  COMMAND
{commands}

options:
  -h, --help   show this help message and exit
  --version    show program's version number and exit
  --traceback  show the whole traceback of an error; may follow any command

Begin with a config, a Python file that defines get_config():
  d3pm train CONFIG --workdir DIR
  d3pm sample DIR
`d3pm COMMAND --help` explains the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the console script. Exits with 0 (done), 1 (an error of the user's), 2 (bad usage) or 130."""
    words = sys.argv[1:] if argv is None else list(argv)
    shows_traceback = TRACEBACK in words
    words = [word for word in words if word != TRACEBACK]
    command = next((word for word in words if word in COMMANDS), "")
    try:
        with (
            signals.end_on_signals(lambda name: _tell(command, f"stopped by {name}")),
            warnings.catch_warnings(),
        ):
            warnings.showwarning = _print_warning
            sys.exit(_execute(command, words))
    except KeyboardInterrupt as stopped:
        _fail(command, f"stopped by {stopped or 'SIGINT'}", signals.STOPPED)
    except BrokenPipeError:
        # The reader of standard output has closed it. Python would print an error when it flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end(1)
    except Exception as error:
        message = _describe_error(error)
        if message is None and not _others_wait():
            raise
        if message is None or shows_traceback:
            traceback.print_exc()
        if message is None:
            _end(1)
        _fail(command, f"error: {message}", error.status if isinstance(error, UserError) else 1)


def _print_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """Prints a warning as a line, with the place that gave it where that is in a file of the user's."""
    place = f"{filename}, line {lineno}: " if is_of_user(filename) else ""
    with contextlib.suppress(OSError):
        print(f"warning: {place}{one_line(message, 1000)}", file=sys.stderr, flush=True)


def _describe_error(error: Exception) -> str | None:
    """Returns the line that is printed of an error, or None for one of this library's."""
    cure = _find_cure(error)
    short_form = shorten_traceback(error)
    if short_form is not None:
        return f"{short_form}{cure}; {TRACEBACK} shows all of it"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        message = error.strerror or one_line(error)
        if error.filename is not None:
            message += f": {error.filename}"
        return f"{message}{cure}"
    if cure:
        return f"{one_line(error, 300)}{cure}"
    if str(error).startswith(NO_DEVICE) or _is_missing_card(error):
        platforms = os.environ.get("JAX_PLATFORMS")
        if not platforms:
            return f"{one_line(error, 300)}; set JAX_PLATFORMS=cpu to compute without it"
        reason = one_line(str(error) or "there is no such device", 300)
        return f"JAX_PLATFORMS={platforms}: {reason}; unset it, or set it to cpu"
    strict_settings = _list_strict_settings()
    if strict_settings:
        return f"{' '.join(strict_settings)} forbids what commands do ({one_line(error, 200)}): unset it"
    # Where others wait, JAX has been imported already: it joined the processes.
    if _others_wait() and isinstance(error, sys.modules["jax"].errors.JaxRuntimeError):
        return f"another process has ended, or cannot be reached: {one_line(error, 300)}"
    return None


def _is_missing_card(error: Exception) -> bool:
    """Says whether an error is that of JAX_PLATFORMS=cuda without a card, an assertion without a word."""
    if not isinstance(error, AssertionError) or "jax" not in sys.modules:
        return False
    try:
        sys.modules["jax"].devices()
    except (AssertionError, RuntimeError):
        return True
    return False


def _list_strict_settings() -> list[str]:
    """Lists the settings of `STRICT` that are on by variables of the environment."""
    if "jax" not in sys.modules:
        return []
    values = sys.modules["jax"].config.values
    names = [name for name in STRICT if name.upper() in os.environ and values.get(name) not in LENIENT]
    return [f"{name.upper()}={os.environ[name.upper()]}" for name in names]


def _find_cure(error: Exception) -> str:
    """Returns what to do about a path, a full disk or too little memory, as the end of a message; else ""."""
    # JAX has no class of its own for a device that is out of memory.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "; take smaller batches, or a smaller network"
    if isinstance(error, OSError) and error.errno in CURES:
        return f"; {CURES[error.errno]}"
    return ""


def _execute(name: str, words: list[str]) -> int:
    """Reads the words and executes the command of a name, "" for none; returns the exit status."""
    start = words.index(name) if name else len(words)
    for word in words[:start]:
        if word in HELP:
            lines = [f"    {name:<10}{command.text}" for name, command in COMMANDS.items()]
            print(OVERVIEW.format(commands="\n".join(lines)), end="")
            return 0
        if word == "--version":
            print(f"d3pm_jax {__version__}")
            return 0
        if not word.startswith("-"):
            choices = ", ".join(COMMANDS)
            raise UsageError(f"argument COMMAND: invalid choice: {word!r} (choose from {choices})")
    if not name:
        raise UsageError("the following arguments are required: COMMAND")

    # It needs tyro, which an extra brings, and --version needs neither.
    require("the command", "tyro")
    from d3pm_jax.cli import reading
    from d3pm_jax.config.samplers import describe_samplers

    words = [*words[:start], *words[start + 1 :]]
    entry = COMMANDS[name]
    module = importlib.import_module(f"d3pm_jax.cli.{entry.module}")
    command_class = getattr(module, f"{name.capitalize()}Command")

    takes_sampler = entry.takes_config or hasattr(command_class, "sampler")
    if takes_sampler and ("--sampler=help" in words or ("--sampler", "help") in itertools.pairwise(words)):
        print(describe_samplers())
        return 0
    plain_words = [word for word in words if word not in HELP]
    asks_for_help = plain_words != words
    if asks_for_help and not entry.takes_config:
        reading.print_help(command_class, f"d3pm {name}")
    command, config_words = reading.read_command(command_class, plain_words, name)
    if asks_for_help:
        names_config = config_words and not config_words[0].startswith("-")
        if not names_config:
            reading.print_help(command_class, module.USAGE)
        # The command reads the config first, and then prints its fields.
        config_words.append("--help")
    return module.execute(command, config_words)


def _fail(command: str, text: str, status: int) -> NoReturn:
    _tell(command, text)
    _end(status)


def _end(status: int) -> NoReturn:
    """Ends the process; of several at once, without JAX, which would wait for the others that wait for it."""
    if not _others_wait():
        sys.exit(status)
    sys.stderr.flush()
    if sys.modules["jax"].process_index() == 0:
        time.sleep(GRACE)
    os._exit(status)


def _others_wait() -> bool:
    """Returns whether this is one of several processes of a run."""
    # JAX is not imported for the question: a command that has not imported it has joined no others.
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _tell(command: str, text: str) -> None:
    program = f"d3pm {command}".rstrip()
    # The reader of standard error may have closed it.
    with contextlib.suppress(OSError):
        print(f"{program}: {text}", file=sys.stderr, flush=True)
