"""Shows what was judged: lines of text, a picture over the numbers of calls, and a page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from d3pm_jax.evaluation.bound import format_with_error
from d3pm_jax.files import write_text
from d3pm_jax.program.measure.record import Record
from d3pm_jax.show import curves
from d3pm_jax.show.markup import Html, build_document, build_table, encode_png, tag

DECIMALS = 4
# What a figure is, by what its name begins with.
TITLES = {
    "tv": "TV of all places",
    "transitions_tv": "TV of transitions",
    "transitions_kl": "KL of transitions [nats]",
    "pairs": "TV of places {} apart",
    "nats_ks": "largest difference of P(-log p < c)",
    "nats": "-log p [nats]",
    "impossible": "share that the law rules out",
    "entropy_rate": "entropy of transitions [nats]",
    "repeated": "share that repeats another of its call",
}
PANELS = ("transitions_tv", "transitions_kl", "nats")


def title(name: str) -> str:
    """Returns what a figure is called."""
    if name.startswith("pairs_"):
        return TITLES["pairs"].format(name.split("_")[1])
    return TITLES[name]


def describe(record: Record) -> list[str]:
    """Returns a record as lines: the verdict, and for each number of calls its own and the figures."""
    protocol = record.protocol
    lines = [
        f"{record['sampler']} against {record['target']} (K = {protocol['K']}, L = {protocol['length']}): "
        f"{record['verdict']}"
    ]
    if record["levels"]:
        lines.append(f"  levels: {record['levels']}")
    for row in record["rows"]:
        lines.append(f"  {name_calls(row)}: {row['verdict']}")
        lines += [f"    {' '.join(cells)}" for cells in _align(list_figures(row))]
    return lines


def name_calls(row: dict) -> str:
    """Says how many calls of the network a row is of, and how many were asked for."""
    taken = row["calls_taken"]
    if taken is None:
        return f"{row['calls']} calls asked for"
    if abs(taken - row["calls"]) < 0.05:
        return f"{row['calls']} calls"
    return f"{taken:.4g} calls, asked for {row['calls']}"


def list_figures(row: dict) -> list[tuple[str, str, str]]:
    """Lists the figures of a row: the name, the figure, and that of as many exact samples."""
    cells = [("", "sampled", "exact samples")]
    for name, figure in row["figures"].items():
        value = format_with_error(figure["value"], figure["error"], DECIMALS)
        floor = format_with_error(figure["floor"], figure["floor_error"], DECIMALS)
        cells.append((title(name), value, floor))
    return cells


def _align(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells]


def save_picture(records: Sequence[Record], path: Path) -> Path:
    """Writes a picture of bounds and figures over the numbers of calls, with those of exact samples."""
    lines: dict[str, curves.Line] = {}
    for record in records:
        rows = record["rows"]
        calls = [row["calls"] if row["calls_taken"] is None else row["calls_taken"] for row in rows]
        of_samples = {"TV at least": [row["tv_at_least"] for row in rows]}
        of_exact = {"TV at least": [0.0 for _ in rows]}
        for name in PANELS:
            of_samples[title(name)] = [row["figures"][name]["value"] for row in rows]
            of_exact[title(name)] = [row["figures"][name]["floor"] for row in rows]
        lines[record["sampler"]] = calls, of_samples
        lines[f"{record['sampler']}: as many exact samples"] = calls, of_exact
    caption = f"against {records[0]['target']}"
    curves.save_lines(path, lines, "network calls", caption=caption)
    return path


def write_page(records: Sequence[Record], picture: Path, path: Path) -> Path:
    """Writes a page of HTML that loads nothing: verdicts, the picture, and all figures."""
    heading = "What samplers draw from"
    head = ["sampler", "calls", "verdict"]
    verdicts = [
        [record["sampler"], name_calls(row), row["verdict"]] for record in records for row in record["rows"]
    ]
    protocol = records[0].protocol
    words = ", ".join(f"{name} = {value}" for name, value in protocol.items())
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    image = tag("img", src=encode_png(pixels), alt="bounds and figures over the numbers of calls")
    sections: list[Html] = [tag("section", build_table(head, verdicts), image)]
    for record in records:
        parts = [tag("h2", f"{record['sampler']}: {record['verdict']}")]
        if record["levels"]:
            parts.append(tag("p", f"levels: {record['levels']}"))
        for row in record["rows"]:
            first, *others = list_figures(row)
            parts += [tag("h3", name_calls(row)), tag("p", row["verdict"]), build_table(first, others, 1)]
        sections.append(tag("section", *parts))
    header = tag("header", tag("h1", heading), tag("p", words, class_="soft"))
    write_text(path, build_document(heading, header, *sections))
    return path
