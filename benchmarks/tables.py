"""What drawn rows of a table are worth, beside real ones. Needs pandas and scikit-learn.

    python benchmarks/tables.py RUN --train TRAIN.csv --test TEST.csv --target COLUMN [--without a,b,c]
        [--samples SAMPLES.csv]

RUN is a run of a table, whose columns say how values are read, and SAMPLES.csv its `samples.csv` or rows of
any other program. It prints

- utility: one classifier, scikit-learn's HistGradientBoostingClassifier as it comes, learns from the real
  training rows and from as many drawn ones, and both are tested on the real test rows: AUC for a target of
  two values, macro F1 for more. An error is the standard deviation over three seeds of the classifier. The
  target is a column, or COLUMN>NUMBER: is the column above the number. Columns of `--without`, and those of
  more categories than the classifier takes, are not shown to it; rows whose target is missing are left out.
- fidelity to the training rows, and
- distance: in which share of its columns, as codes, a row differs from the training row nearest to it;

both for drawn rows and for those of the test file, which are new and of the same law.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score, roc_auc_score

from d3pm_jax import runs
from d3pm_jax.config import Table
from d3pm_jax.data import Column
from d3pm_jax.data.columns import encode
from d3pm_jax.evaluation import tables

SEEDS = (0, 1, 2)
MOST_CATEGORIES = 255  # that the classifier takes of a column
NEAREST = 5000  # rows whose nearest training rows are looked for, at most

Rows = dict[
    str, np.ndarray
]  # by column: numbers as floats, NaN where one is missing, and codes of categories


class Task(NamedTuple):
    """Says what the classifier is to tell, and from what."""

    target: str  # a column, or COLUMN>NUMBER
    shown: list[str]  # columns
    is_categorical: list[bool]  # of each of these


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of a table")
    parser.add_argument("--train", type=Path, required=True, help="the real rows that were trained on")
    parser.add_argument("--test", type=Path, required=True, help="real rows that were not")
    parser.add_argument("--target", required=True, help="COLUMN, or COLUMN>NUMBER")
    parser.add_argument("--without", default="", help="columns that the classifier may not see")
    parser.add_argument("--samples", type=Path, help="drawn rows (RUN/samples.csv)")
    args = parser.parse_args()
    run = runs.open(args.run)
    data = run.config.data
    columns = run.parts.description.columns
    if not isinstance(data, Table) or columns is None:
        parser.error(f"{args.run} is no run of a table: name one")
    names = [column.name for column in columns]
    hidden = [args.target.rsplit(">", 1)[0], *filter(None, args.without.split(","))]
    for name in hidden:
        if name not in names:
            parser.error(f"no column is called {name!r}: there are {', '.join(names)}")

    train = read_rows(args.train, columns, data)
    test = read_rows(args.test, columns, data)
    drawn = read_rows(args.samples or args.run / "samples.csv", columns, data)
    size = len(train[names[0]])
    drawn = {name: values[:size] for name, values in drawn.items()}
    if len(drawn[names[0]]) < size:
        print(f"note: {len(drawn[names[0]])} drawn rows beside {size} real ones: d3pm sample --num {size}")

    print_utility(train, test, drawn, make_task(args.target, hidden, columns))
    print()
    print_fidelity(train, {"drawn": drawn, "test": test})
    print()
    print_distances(columns, train, {"drawn": drawn, "test": test})


def read_rows(path: Path, columns: tuple[Column, ...], data: Table) -> Rows:
    """Reads the columns of a CSV file."""
    frame = pd.read_csv(
        path,
        sep=data.separator,
        encoding=data.encoding,
        keep_default_na=False,
        na_values=list(data.missing),
        dtype={column.name: object for column in columns if column.lows is None},
        skipinitialspace=True,
    )
    rows = {}
    for column in columns:
        values = frame[column.name].to_numpy()
        rows[column.name] = encode(column, values) if column.lows is None else values.astype(float)
    return rows


# ---- Utility ----


def make_task(target: str, hidden: list[str], columns: tuple[Column, ...]) -> Task:
    """Shows the classifier all columns but the hidden ones and those that it cannot take."""
    visible = [column for column in columns if column.name not in hidden]
    too_many = [column.name for column in visible if column.lows is None and column.size > MOST_CATEGORIES]
    if too_many:
        print(f"note: the classifier is not shown {', '.join(too_many)}: over {MOST_CATEGORIES} categories")
    shown = [column for column in visible if column.name not in too_many]
    return Task(target, [column.name for column in shown], [column.lows is None for column in shown])


def print_utility(train: Rows, test: Rows, drawn: Rows, task: Task) -> None:
    """Prints the scores of the classifier after real and after drawn rows, and their difference."""
    by_real = score_by_seed(train, test, task)
    by_drawn = score_by_seed(drawn, test, task)
    print(f"utility: {task.target} from {', '.join(task.shown)}")
    for name, scores in {"real": by_real, "drawn": by_drawn, "real - drawn": by_real - by_drawn}.items():
        print(f"  {name:12}  {100 * scores.mean():6.2f} ± {100 * scores.std(ddof=1):.2f}")


def score_by_seed(rows: Rows, test: Rows, task: Task) -> np.ndarray:
    """Returns the scores on the test rows of classifiers that learned from `rows`, one for each seed."""
    x, y = select_known(rows, task)
    test_x, test_y = select_known(test, task)
    scores = []
    for seed in SEEDS:
        classifier = HistGradientBoostingClassifier(
            random_state=seed, categorical_features=task.is_categorical
        )
        classifier.fit(x, y)
        if len(classifier.classes_) == 2:
            p = classifier.predict_proba(test_x)[:, 1]
            scores.append(roc_auc_score(test_y == classifier.classes_[1], p))
        else:
            scores.append(f1_score(test_y, classifier.predict(test_x), average="macro"))
    return np.array(scores)


def select_known(rows: Rows, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the classifier sees of the rows whose target is known, and their target."""
    name, *threshold = task.target.rsplit(">", 1)
    y = rows[name]
    is_known = ~np.isnan(y)
    x = np.stack([rows[name] for name in task.shown], axis=1)
    if threshold:
        y = y > float(threshold[0])
    return x[is_known], y[is_known]


# ---- Fidelity and distance ----


def print_fidelity(train: Rows, compared: dict[str, Rows]) -> None:
    """Prints how like the training rows others are: 1 where all columns and pairs of them are the same."""
    print("fidelity")
    for name, rows in compared.items():
        figures = tables.summarize_fidelity(list(train.values()), list(rows.values()))
        known = {figure: value for figure, value in figures.items() if value is not None}
        print(f"  {name:6}", "  ".join(f"{figure} {value:.4f}" for figure, value in known.items()))


def print_distances(columns: tuple[Column, ...], train: Rows, compared: dict[str, Rows]) -> None:
    """Prints how far rows are from the nearest training rows."""
    print("distance to the nearest training row")
    training_codes = code_rows(columns, train)
    for name, rows in compared.items():
        distances = tables.find_distances(code_rows(columns, rows)[:NEAREST], training_codes)
        error = distances.std() / len(distances) ** 0.5
        copies = np.mean(distances == 0)
        print(
            f"  {name:6} {distances.mean():.4f} ± {error:.4f} of {len(distances)} rows, {copies:.2%} copies"
        )


def code_rows(columns: tuple[Column, ...], rows: Rows) -> np.ndarray:
    """Returns the codes [N, D] of rows."""
    codes = []
    for column in columns:
        values = rows[column.name]
        codes.append(values if column.lows is None else encode(column, values))
    return np.stack(codes, axis=1)


if __name__ == "__main__":
    main()
