"""Opens the file of a user."""

import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from parity_tests.against.signatures import FUNCTIONS, PROGRAM, Signature


class Refused(Exception):
    """Says in a line what is wrong with the file."""


class Loaded(NamedTuple):
    """What is compared of a file."""

    module: ModuleType
    functions: dict[str, Callable[..., Any]]  # that have names of ours
    notes: list[str]  # a line for each whose name is nearly one


def load(path: Path) -> Loaded:
    """Runs a file and takes the functions that `--list` names.

    Raises:
        Refused: the file is not there, does not run, has none, or one with other arguments.
    """
    module = _run_file(path)
    defined = {name: f for name, f in vars(module).items() if _is_user_function(f)}
    functions = {name: defined[name] for name in (*FUNCTIONS, *PROGRAM) if name in defined}
    notes = []
    for name in defined:
        if name not in functions:
            notes += [f"{name} is not compared: do you mean {near}?" for near in _near_names(name)]
    if not functions:
        raise Refused(
            "\n".join(
                [
                    f"{path} has no function that --list names: define loss, sample or another of them",
                    *notes,
                ]
            )
        )

    wrong = []
    for name, f in functions.items():
        line = (
            _describe_wrong_arguments(f, FUNCTIONS[name])
            if name in FUNCTIONS
            else _describe_wrong_call(f, name)
        )
        if line:
            wrong.append(f"{path}: {line}")
    if wrong:
        raise Refused("\n".join(wrong))
    return Loaded(module, functions, notes)


def takes(f: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument of this name."""
    parameters = inspect.signature(f).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def place(error: BaseException, path: Path) -> str:
    """The error in a line, with the last line of the file that it went through."""
    words = type(error).__name__
    if str(error):
        words += f": {error}"
    words = " ".join(words.split())
    steps = traceback.extract_tb(error.__traceback__)
    lines = [step.lineno for step in steps if Path(step.filename) == path.resolve()]
    if not lines:
        return words
    return f"{words} at {path.name}:{lines[-1]}"


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise Refused(f"{path} is not a file")
    spec = importlib.util.spec_from_file_location("against_" + path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise Refused(f"{path} is not a Python file: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    # The file may import what lies beside it, and a dataclass looks for its module among those of Python.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise Refused(_does_not_run(error, path)) from error
    return module


def _does_not_run(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    return f"{path} does not run: {place(error, path)}"


def _is_user_function(x: Any) -> bool:
    """A function, or something like one, that is not of a library: `linear` of torch.nn.functional is not."""
    if not callable(x) or inspect.isclass(x) or inspect.isbuiltin(x):
        return False
    # It may have no signature, and an attribute of other people's objects may raise anything.
    try:
        inspect.signature(x)
        return isinstance(x, torch.nn.Module | partial) or not _is_library(x.__module__)
    except Exception:
        return False


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    folders = Path(getattr(sys.modules.get(top), "__file__", None) or "").parts
    return top in sys.stdlib_module_names or "site-packages" in folders or "dist-packages" in folders


def _describe_wrong_arguments(f: Callable[..., Any], signature: Signature) -> str:
    """Says what a function should take; "" where it takes it."""
    parameters = list(inspect.signature(f).parameters)
    arguments = [*signature.required, *(name for name in signature.optional if name in parameters)]
    try:
        inspect.signature(f).bind(**dict.fromkeys(arguments))
    except TypeError:
        call = f"{signature.name}({', '.join(parameters)})"
        return f"{call} should take ({', '.join(signature.required)}), by these names; else rename it"
    return ""


def _describe_wrong_call(f: Callable[..., Any], name: str) -> str:
    """Says what a function of a program should take, by position; "" where it takes it."""
    try:
        inspect.signature(f).bind(*PROGRAM[name])
    except TypeError:
        call = f"{name}({', '.join(inspect.signature(f).parameters)})"
        return f"{call} should take ({', '.join(PROGRAM[name])}), in this order; else rename it"
    return ""


def _near_names(name: str) -> list[str]:
    return difflib.get_close_matches(name, (*FUNCTIONS, *PROGRAM), n=1, cutoff=0.75)
