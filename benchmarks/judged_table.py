"""Prints what `d3pm judge` wrote into a folder as one table in Markdown, a line for each number of calls.

d3pm judge random_order maskgit --target bigrams --text FILE --length 128 --calls 8,128 --out DIR
python benchmarks/judged_table.py DIR
"""

import argparse
import json
from pathlib import Path

COLUMNS = {"transitions_tv": "TV of transitions", "transitions_kl": "KL of transitions", "nats": "-log p"}


def main() -> None:
    """Reads the records of a folder, and prints their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="--out of `d3pm judge`")
    records = [
        json.loads(path.read_text()) for path in sorted(parser.parse_args().folder.glob("judged_*.json"))
    ]
    print(" | ".join(["| sampler", "calls", *COLUMNS.values(), "verdict |"]))
    print("|---" * (len(COLUMNS) + 3) + "|")
    first = records[0]["rows"][0]["figures"]
    floors = [write(first[name]["floor"], first[name]["floor_error"]) for name in COLUMNS]
    print(" | ".join(["| exact samples", "-", *floors, "- |"]))
    for record in records:
        for row in record["rows"]:
            taken = row["calls"] if row["calls_taken"] is None else row["calls_taken"]
            figures = [
                write(row["figures"][name]["value"], row["figures"][name]["error"]) for name in COLUMNS
            ]
            print(" | ".join([f"| {record['sampler']}", f"{taken:.4g}", *figures, f"{row['verdict']} |"]))


def write(value: float, error: float) -> str:
    """Writes a figure with its standard error in units of the last of four decimals, or of two."""
    decimals = 2 if value >= 10 else 4
    return f"{value:.{decimals}f}({round(error * 10**decimals)})"


if __name__ == "__main__":
    main()
