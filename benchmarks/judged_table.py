"""Prints what `d3pm judge` wrote into a folder as one table in Markdown, a line for each sampler.

d3pm judge random_order maskgit --target bigrams --text FILE --length 128 --calls 8,32,128 --out DIR
python benchmarks/judged_table.py DIR
"""

import argparse
import json
from pathlib import Path
from typing import Any

FIGURES = {"transitions_tv": "TV of transitions", "transitions_kl": "KL of transitions"}


def main() -> None:
    """Reads the records of a folder, and prints their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="--out of `d3pm judge`")
    paths = sorted(parser.parse_args().folder.glob("judged_*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    all_calls = sorted({row["calls"] for record in records for row in record["rows"]})
    titles = [f"{title}, {calls}" for title in FIGURES.values() for calls in all_calls]
    last = all_calls[-1]
    print(" | ".join(["| sampler", *titles, f"-log p, {last}", f"TV at least, {last} |"]))
    print("|---" * (len(titles) + 3) + "|")
    floor = records[0]["rows"][-1]["figures"]
    floors = [write(floor[name]["floor"], floor[name]["floor_error"]) for name in FIGURES]
    cells = [cell for cell in floors for _ in all_calls]
    print(
        " | ".join(
            ["| *exact samples*", *cells, write(floor["nats"]["floor"], floor["nats"]["floor_error"]), " |"]
        )
    )
    for record in records:
        print(line_of(record, all_calls))


def line_of(record: dict[str, Any], all_calls: list[int]) -> str:
    """Returns the line of a sampler; one that takes as many calls as it takes has the last cells alone."""
    of_calls = {row["calls"]: row for row in record["rows"]}
    if len({row["calls_taken"] for row in record["rows"]}) == 1:
        of_calls = {all_calls[-1]: record["rows"][-1]}
    cells = []
    for name in FIGURES:
        for calls in all_calls:
            figure = of_calls[calls]["figures"][name] if calls in of_calls else None
            cells.append("" if figure is None else write(figure["value"], figure["error"]))
    last = of_calls[all_calls[-1]]
    nats = last["figures"]["nats"]
    told = f"{last['tv_at_least']:.2g}" if last["tv_at_least"] > 0 else "not told apart"
    return " | ".join([f"| {record['sampler']}", *cells, write(nats["value"], nats["error"]), f"{told} |"])


def write(value: float, error: float) -> str:
    """Writes a figure with its standard error in units of its last decimal."""
    decimals = 1 if value >= 10 else 4
    return f"{value:.{decimals}f}({round(error * 10**decimals)})"


if __name__ == "__main__":
    main()
