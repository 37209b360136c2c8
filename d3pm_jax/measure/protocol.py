"""Says how figures of sample quality were measured, and keeps each protocol's in a file of its own."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from d3pm_jax.config.checks import check_fields
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import read_json, write_text

COMPARED = ("N", "split", "reference", "features")  # which figures have to have in common
OF_IMAGES = {"frechet": "Fréchet", "precision": "precision", "recall": "recall"}
OF_TEXTS = {
    "known_words": "known words",
    "distinct_1": "distinct words",
    "distinct_2": "2-grams",
    "distinct_3": "3-grams",
    "longest_copy": "longest copy",
}
FILES = "quality_*.json"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Says all that a figure of sample quality depends on."""

    N: int
    """samples"""
    split: str
    """of the data, which they are compared with"""
    reference: str
    """its number of examples and their hash"""
    features: str
    """in which they are compared, and the hash of their weights"""
    step: int
    """of the checkpoint"""
    steps: int
    """of the reverse chain"""
    grid: str
    """which steps of the process these are"""
    sampler: str
    """how a step is taken"""
    classes: str
    """which classes the network was told"""
    ema: float
    """decay of the averaged weights"""
    belief: str
    """what the logits are"""
    first_step: str
    """the rule at t = 1"""
    dtype: str
    """of the network"""
    seed: int
    """of the noise"""


class Figures(NamedTuple):
    """Holds what a file holds."""

    path: Path
    figures: dict[str, dict[str, Any]]  # by what was compared with the reference, "samples" first
    protocol: Protocol


def differing(a: Protocol, b: Protocol) -> list[str]:
    """Lists the entries by which figures of two protocols are not comparable; none where they are."""
    return [name for name in COMPARED if getattr(a, name) != getattr(b, name)]


def file_name(protocol: Protocol) -> str:
    """Names the file of a protocol, by its sizes and a hash of all of it."""
    text = json.dumps(dataclasses.asdict(protocol), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"quality_n{protocol.N}_steps{protocol.steps}_seed{protocol.seed}_{digest}.json"


def write(workdir: Path, figures: dict[str, dict[str, Any]], protocol: Protocol) -> Path:
    """Writes figures to the file of their protocol in the folder of a run, and returns its path."""
    path = workdir / file_name(protocol)
    content = {"protocol": dataclasses.asdict(protocol), "figures": figures}
    write_text(path, json.dumps(content, indent=1))
    return path


def read(workdirs: Sequence[Path]) -> list[Figures]:
    """Reads all figures of sample quality of runs.

    Raises:
        UserError: a file of them is damaged.
    """
    return [_read(path) for workdir in workdirs for path in sorted(workdir.glob(FILES))]


def _read(path: Path) -> Figures:
    try:
        tree = read_json(path)
        protocol = Protocol(**tree["protocol"])
        check_fields("protocol", protocol)
        found = {str(name): _checked(dict(row)) for name, row in tree["figures"].items()}
        return Figures(path, {"samples": found.pop("samples"), **found}, protocol)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): delete it and measure again") from error


def columns(row: dict[str, Any]) -> dict[str, str]:
    """Returns the figures of a row that tables show, those of images or those of texts, with their titles."""
    return OF_TEXTS if "known_words" in row else OF_IMAGES


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row. Raises ValueError where it lacks a figure that the table shows."""
    figures = [row[name] for name in columns(row)]
    if type(row["n"]) is not int or not all(x is None or type(x) in (int, float) for x in figures):
        raise ValueError("a figure is no number")
    return row


def table(found: Sequence[Figures]) -> list[str]:
    """Lists figures side by side, a line for each file, and says by what some are not comparable.

    What the samples are to be compared with, such as the test split, is listed once for each reference.
    """
    shown = columns(found[0].figures["samples"] if found else {})
    titles = "  ".join(f"{title:>7}" for title in shown.values())
    lines, firsts = [f"{'':<44} {'N':>6} {'steps':>5} {titles}"], []
    for one in found:
        lines.append(_line(f"{one.path.parent.name}/{one.path.stem}", one, "samples", shown))
        differ = differing(found[0].protocol, one.protocol)
        if differ:
            lines[-1] += f"  NOT COMPARABLE with the first line: other {', '.join(differ)}"
        if all(differing(first, one.protocol) for first in firsts):
            firsts.append(one.protocol)
            lines += [_line(f"  {name}", one, name, shown) for name in one.figures if name != "samples"]
    return lines


def _line(title: str, one: Figures, name: str, shown: dict[str, str]) -> str:
    row, steps = one.figures[name], one.protocol.steps if name == "samples" else ""
    cells = "  ".join(f"{_cell(row, key):>{max(7, len(said))}}" for key, said in shown.items())
    mark = "" if row["n"] == one.protocol.N else "  NOT COMPARABLE with the samples: other N"
    return f"{title:<44} {row['n']:>6} {steps:>5} {cells}{mark}"


def _cell(row: dict[str, Any], key: str) -> str:
    """Returns a figure as text; "-" where it is one of other data."""
    value = row.get(key)
    if value is None:
        return "too few" if key in row else "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
