"""Opens the samplers of other programs for the adapters beside this file.

A program is a folder that its user has: an environment variable says where, and nothing here fetches one. Its
sampler is imported from there as it is. What it imports besides and a draw does not need (a trainer, a
tokenizer, kernels of a card) is replaced by modules that have every name and do nothing.
"""

import importlib
import importlib.machinery
import os
import sys
import types
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d3pm_jax.errors import UserError


class _AnyName(type):
    """The type of a class that has every attribute: each is such a class again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _make_class(name)


def _make_class(name: str) -> type:
    def accept(self, *args: Any, **kwargs: Any) -> None:
        """Takes what the class in whose place this is would take."""

    return _AnyName(name, (), {"__init__": accept})


class _StandIn(types.ModuleType):
    """A module in the place of one that a draw does not need: its names are classes that do nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _make_class(name)


class _Finder:
    """Finds the named modules, and all below them, as stand-ins, before anything that is installed."""

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name in self.names or name.startswith(tuple(f"{each}." for each in self.names)):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """A stand-in has no code."""


def open_folder(variable: str, repository: str, file: str) -> Path:
    """Returns the folder of a checkout, which an environment variable names.

    Args:
        variable: of the environment.
        repository: where the program is, as its user would clone it.
        file: a path in the checkout that has to be there.

    Raises:
        UserError: the variable is not set, or the folder has no such file.
    """
    folder = os.environ.get(variable)
    if folder is None:
        raise UserError(f"{variable} is not set: make it the folder of a checkout of {repository}")
    if not (Path(folder) / file).is_file():
        raise UserError(
            f"{variable} is {folder}, where {file} is not: make it the folder of a checkout of {repository}"
        )
    return Path(folder)


@contextmanager
def in_place_of(folder: Path, names: tuple[str, ...]):
    """Lets the block import from a folder first, with stand-ins for some modules, and forgets both then."""
    before = set(sys.modules)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}
    finder = _Finder(names)
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a program's own, about the versions of what it imports
            yield
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            module = sys.modules[name]
            if isinstance(module, _StandIn) or str(folder) in str(getattr(module, "__file__", "")):
                del sys.modules[name]
        sys.modules.update(hidden)


def load(folder: Path, module: str, without: str = "") -> types.ModuleType:
    """Imports a module of a checkout.

    Args:
        folder: of the module, or of its package.
        module: its name.
        without: the names of modules that it imports and a draw does not need, with spaces between.
    """
    warnings.filterwarnings(
        "ignore", message=".*(torch.cuda.amp|CUDA is not available)"
    )  # of draws, on a CPU
    with in_place_of(folder, tuple(without.split())):
        return importlib.import_module(module)


def read_options(variable: str, **options: Any) -> types.SimpleNamespace:
    """Returns the options of a sampler, some replaced by an environment variable such as "eta=0.02 top_p=1".

    Raises:
        UserError: a word is no such option, or its value cannot be read.
    """
    for word in os.environ.get(variable, "").split():
        name, _, value = word.partition("=")
        if name not in options:
            raise UserError(
                f"{variable}: {word} is no option: take one of {', '.join(options)} as NAME=VALUE"
            )
        try:
            options[name] = value if isinstance(options[name], str) else type(options[name])(value)
        except ValueError:
            raise UserError(f"{variable}: {word} is not a {type(options[name]).__name__}") from None
    return types.SimpleNamespace(**options)


def hollow(cls: type, **attributes: Any) -> Any:
    """Returns an object of a class with the attributes that a sampler reads, its constructor not called."""
    made = cls.__new__(cls)
    made.__dict__.update(attributes)
    return made


class Untimed:
    """A language model of masks that is told no time, as LLaDA's and Dream's are: (x) -> its logits."""

    device = "cpu"

    def __init__(self, denoise: Any, mask: int):
        self.denoise = denoise
        self.mask = mask

    def __call__(self, x: Any, attention_mask: Any = None) -> types.SimpleNamespace:
        signal = (x != self.mask).float().mean(1)  # the share of what is visible
        return types.SimpleNamespace(logits=self.denoise(x, signal))


def loop_in_python(module: types.ModuleType) -> None:
    """Lets the loops of a JAX program run in Python, so that calls of the network can be counted."""
    import jax

    def fori_loop(lower: int, upper: int, body_fun: Any, init_val: Any) -> Any:
        for i in range(lower, upper):
            init_val = body_fun(i, init_val)
        return init_val

    def scan(f: Any, init: Any, xs: Any) -> Any:
        ys = []
        for i in range(len(jax.tree.leaves(xs)[0])):
            init, y = f(init, jax.tree.map(lambda leaf, i=i: leaf[i], xs))
            ys.append(y)
        return init, jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *ys)

    lax = types.SimpleNamespace(**vars(jax.lax) | {"fori_loop": fori_loop, "scan": scan})
    module.jax = types.SimpleNamespace(**vars(jax) | {"lax": lax})
