"""The commands in the shell blocks of the pages, their options, files, extras and targets are all there."""

import glob
import importlib
import itertools
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from d3pm_jax.cli import arguments, main, reading

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("pretrained/*.md")]
# Folders of the repository; in others are files of the reader's.
OURS = (
    "configs/",
    "benchmarks/",
    "examples/",
    "notebooks/",
    "pretrained/",
    "docs/",
    "parity_tests/",
    "tests/",
)


def shell_blocks(page):
    return re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.S)


def list_commands(page):
    """The words of each command in the shell blocks of a page, without comments."""
    commands = []
    for line in "".join(shell_blocks(page)).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words = list(lexer)
        is_break = [word in (";", "&", "&&", "||", "|") for word in words]
        for separated, group in itertools.groupby(zip(is_break, words, strict=True), key=lambda x: x[0]):
            if not separated:
                commands.append([word for _, word in group])
    return commands


def find_program(name, words):
    """The words after a program, whatever stands before it, such as srun; None where it is not called."""
    for i, word in enumerate(words):
        if word.startswith(f"{name} "):  # a command of a shell on another machine
            return shlex.split(word)[1:]
        if word == name or word.endswith(f"/{name}"):
            return words[i + 1 :]
    return None


def read_d3pm(words, configs, monkeypatch):
    """Reads a command as `d3pm` does, its config too where it is ours, and executes nothing.

    `configs` holds the config of each --workdir, for the commands that resume it.
    """
    command_name = words[0]
    module = importlib.import_module(f"d3pm_jax.cli.{main.COMMANDS[command_name].module}")

    def execute(command, more):
        paths = []
        while (path := arguments.take_path(more)) is not None:
            paths += sorted(glob.glob(str(ROOT / path))) or [path]
        files = [path for path in paths if str(path).startswith(f"{ROOT}/configs/")]
        workdir = getattr(command, "workdir", None)
        for file in files:
            configs[workdir] = reading.read_overridden_config(Path(file), list(more), "")
        if not files and workdir in configs:
            reading.apply_overrides(configs[workdir], more, "")
        assert files or all("." in word for word in more if word.startswith("--"))
        return 0

    monkeypatch.setattr(module, "execute", execute)
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    return ended.value.code


NAMES = [str(page.relative_to(ROOT)) for page in PAGES if shell_blocks(page)]
FAST = ("README.md", "CONTRIBUTING.md", "docs/start.md")


def test_fast_pages_have_shell_blocks():
    assert set(FAST) <= set(NAMES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in NAMES]
)
def test_shell_blocks(name, monkeypatch, capsys):
    page = ROOT / name
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    configs = {}
    for block in shell_blocks(page):
        subprocess.run(["bash", "-n"], input=block.encode(), check=True)
    for words in list_commands(page):
        line = shlex.join(words)
        for word in words:
            if word.startswith(OURS) and "." in word:
                assert glob.glob(str(ROOT / word)), f"{line}: there is no {word}"
        d3pm_words = find_program("d3pm", words)
        if d3pm_words is not None:
            assert read_d3pm(d3pm_words, configs, monkeypatch) == 0, f"{line}: {capsys.readouterr().err}"
        for target in words[1:] if words[0] == "make" else []:
            assert target in targets or "=" in target, line
        for names in re.findall(r"\.\[([\w,]+)\]", line):
            assert set(names.split(",")) <= set(extras), line
        script = next((word for word in words if re.match(r"(benchmarks|examples|tools)/", word)), None)
        if script is not None and d3pm_words is None:  # `d3pm` has read its own options above
            options = {word.partition("=")[0] for word in words if re.match(r"--[\w-]+(=|$)", word)}
            source = (ROOT / script).read_text()
            # They are options of argparse, or arguments of a function that tyro calls.
            arguments_of_tyro = {f"--{name.replace('_', '-')}" for name in re.findall(r"(\w+): ", source)}
            named = {option for option in options if f'"{option}"' in source}
            if "tyro.cli(main)" in source:
                named |= arguments_of_tyro
            assert options <= named, line
