"""Every option of every command, and every field of a config, with every word: a value, or one line."""

import collections
import importlib
import math

import pytest

from d3pm_jax.cli import reading
from d3pm_jax.cli.main import COMMANDS
from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from tests import tiny

WORDS = (
    "abc",
    "",
    "-1",
    "0",
    "3",
    "2.5",
    "nan",
    "-inf",
    "1e400",
    "9" * 5000,
    "None",
    "true",
    "[]",
    "1,2",
    "1_000",
    "\u0663",
    "0x10",
    " 7",
    "a\nb",
    "--seed",
    "-",
    "{}",
)


def list_calls():
    """Yields a flag, a word, and a function that reads them and returns the value of the field."""
    for name, entry in COMMANDS.items():
        module = importlib.import_module(f"d3pm_jax.cli.{entry.module}")
        cls = getattr(module, f"{name.capitalize()}Command")
        needed = [] if entry.takes_config else ["DIR"]
        for flag, option in reading._list_options(cls, cls).items():
            if flag == reading.FOLDERS or option.switch is not None:
                continue
            for word in WORDS:

                def read(cls=cls, words=(*needed, flag, word), name=name, field=option.field):
                    return getattr(reading.read_command(cls, list(words), name)[0], field)

                yield f"{name} {flag}", word, read
    config = tiny.get_config()
    for flag, option in reading._list_options(type(config), config).items():
        if option.switch is not None:
            continue
        for word in WORDS:

            def override(words=(flag, word), field=option.field):
                changed = reading.apply_overrides(config, list(words), "")
                config_io.check_config(changed)
                return config_io.flatten_config(changed).get(field)

            yield flag, word, override


@pytest.mark.slow
def test_every_option_takes_a_word_or_refuses_it_in_one_line():
    counts = collections.Counter()
    for flag, word, read in list_calls():
        try:
            value = read()
        except UserError as error:
            said = str(error)
            counts["clear"] += 1
            assert "\n" not in said, (flag, word)
            assert len(said) < 1000, (flag, word)
            # A name is its last part where a part checks itself.
            names = (flag.split()[-1].split(".")[-1].strip("-"), f" {word} ")
            assert any(name in said.replace("_", "-") for name in names), (flag, word, said)
            continue
        counts["taken"] += 1
        if type(value) is int:
            assert value == int(word), (flag, word)
        if type(value) is float:
            assert math.isfinite(value), (flag, word)
            assert value == float(word), (flag, word)
    print(dict(counts))
    assert counts["clear"] > 1000
