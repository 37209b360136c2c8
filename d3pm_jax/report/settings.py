"""Shows the configs of runs: the fields that differ, then all of them."""

from collections.abc import Sequence
from typing import Any

from d3pm_jax.config import Config, io as config_io
from d3pm_jax.report.folder import Reported
from d3pm_jax.show.markup import (
    Html,
    join,
    table,
    tag,
)


def settings(runs: Sequence[Reported]) -> Html:
    """Returns what differs between runs side by side, and folded all fields of each."""
    configs = [flat(each.run.config) for each in runs]
    differ, rest = compared(configs)
    head: list[object] = ["field", *(each.name for each in runs)]
    found = []
    if len(runs) > 1 and differ:
        found.append(table(head, [_row(name, configs) for name in differ]))
    elif len(runs) > 1:
        found.append(tag("p", "The configs are the same."))
    words = f"{len(rest)} fields, the same of all" if len(runs) > 1 else f"all {len(rest)} fields"
    folded = table(["field", "value"], [[name, _value(configs[0][name])] for name in rest])
    return join(*found, tag("details", tag("summary", words), folded))


def compared(configs: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the fields that differ between configs, or are not in all, and those that are the same."""
    names = list(dict.fromkeys(name for config in configs for name in config))
    differ = [name for name in names if len({_present(name, config) for config in configs}) > 1]
    return differ, [name for name in names if name not in differ]


def flat(config: Config) -> dict[str, Any]:
    """Returns every field by dotted name; the class of a part stands under the name of the part itself."""
    found = config_io.flat(config)
    return {name.removesuffix(".class"): value for name, value in found.items() if name != "class"}


def _present(name: str, config: dict[str, Any]) -> str | None:
    """Returns the value of a field; None where the config has none, unlike "None"."""
    return repr(config[name]) if name in config else None


def _row(name: str, configs: Sequence[dict[str, Any]]) -> list[object]:
    return [name, *(_value(config[name]) if name in config else "-" for config in configs)]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else repr(tuple(value) if isinstance(value, list) else value)
