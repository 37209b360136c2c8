"""A table of people that are made up, as a CSV file."""

import csv
from pathlib import Path

import numpy as np

NAMES = ("age", "sex", "city", "size", "height", "income", "score")
CITIES = ("Bergen", "Köln", "Lyon", "Oslo", "Pisa", "Turku")
SIZES = ("small", "middle", "large")


def make_rows(num_rows: int, seed: int = 0) -> list[list[str]]:
    """Rows of texts: integers with many values and few, decimals, a value that many have, missing ones."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, num_rows)
    sex = np.where(rng.random(num_rows) < 0.4, "Female", "Male")
    city = np.array(CITIES)[np.minimum(rng.geometric(0.5, num_rows) - 1, 5)]
    size = np.array(SIZES)[np.clip(age // 30 - 1 + rng.integers(0, 2, num_rows), 0, 2)]
    height = np.round(160 + 12 * (sex == "Male") + 6 * rng.normal(size=num_rows), 1)
    income = np.where(rng.random(num_rows) < 0.3, 0.0, rng.lognormal(10, 1, num_rows))
    score = np.where(rng.random(num_rows) < 0.1, "?", rng.integers(0, 6, num_rows).astype(str))
    columns = [age, sex, city, size, height, income, score]
    return [list(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]


def write_table(
    path: Path, rows: list[list[str]], names: tuple[str, ...] = NAMES, separator: str = ","
) -> str:
    """Writes rows below the names of columns, and returns the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([list(names), *rows])
    return str(path)
