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
from typing import Any

import torch

from parity_tests.against.signatures import FUNCTIONS, Ours


class Refused(Exception):
    """Says in a line what is wrong with the file."""


def load(path: Path) -> tuple[dict[str, Callable[..., Any]], list[str]]:
    """The functions of a file that have names of ours, and a line for each whose name is nearly one.

    Raises:
        Refused: the file is not there, does not run, has none, or one with other arguments.
    """
    found = {name: f for name, f in vars(_module(path)).items() if _is_own(f)}
    functions = {name: found[name] for name in FUNCTIONS if name in found}
    others = [name for name in found if name not in functions]
    near = [f"{name} is not compared: do you mean {x}?" for name in others for x in _near(name)]
    if not functions:
        raise Refused("\n".join([f"{path} has no function that --list names", *near]))
    if wrong := [line for name, f in functions.items() if (line := _wrong(f, FUNCTIONS[name]))]:
        raise Refused("\n".join(f"{path}: {line}" for line in wrong))
    return functions, near


def takes(f: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument of this name."""
    parameters = inspect.signature(f).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def place(error: BaseException, path: Path) -> str:
    """The error in a line, with the last line of the file that it went through."""
    steps = traceback.extract_tb(error.__traceback__)
    lines = [step.lineno for step in steps if Path(step.filename) == path.resolve()]
    what = " ".join(f"{type(error).__name__}{': ' if str(error) else ''}{error}".split())
    return f"{what} at {path.name}:{lines[-1]}" if lines else what


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise Refused(f"{path} is not a file")
    spec = importlib.util.spec_from_file_location("against_" + path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise Refused(f"{path} is not a Python file: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # for what lies beside it
    sys.modules[spec.name] = module  # a dataclass looks for its module there
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


def _is_own(x: Any) -> bool:
    """A function, or something like one, that is not of a library: `linear` of torch.nn.functional is not."""
    if not callable(x) or inspect.isclass(x) or inspect.isbuiltin(x):
        return False
    try:
        inspect.signature(x)
        return isinstance(x, torch.nn.Module | partial) or not _of_library(x.__module__)
    except Exception:  # no signature, or whatever an attribute of other people's objects raises
        return False


def _of_library(module: str) -> bool:
    top = module.partition(".")[0]
    folders = Path(getattr(sys.modules.get(top), "__file__", None) or "").parts
    return top in sys.stdlib_module_names or "site-packages" in folders or "dist-packages" in folders


def _wrong(f: Callable[..., Any], ours: Ours) -> str:
    theirs = list(inspect.signature(f).parameters)
    given = [*ours.required, *(name for name in ours.optional if name in theirs)]
    try:
        inspect.signature(f).bind(**dict.fromkeys(given))
    except TypeError:
        given = f"{ours.name}({', '.join(theirs)})"
        return f"{given} should take ({', '.join(ours.required)}), by these names; else rename it"
    return ""


def _near(name: str) -> list[str]:
    return difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.75)
