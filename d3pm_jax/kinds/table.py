"""Defines the kind of tables: rows in words, columns and pairs of them beside the data's, trees to beat."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from d3pm_jax.data import Column
from d3pm_jax.data.columns import decode, find_code, measure_log_volumes
from d3pm_jax.data.tables import check_names
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation import baselines, tables
from d3pm_jax.evaluation.bound import summarize_bound
from d3pm_jax.extras import require
from d3pm_jax.kinds.array import PLACES, ArrayKind
from d3pm_jax.kinds.base import Batch, Measured, QualityTable, Reference, Samples, Split
from d3pm_jax.kinds.blocks import Associations, Histograms
from d3pm_jax.sampling import Known

SEED = 0  # of the draws that samples are compared with, and of numbers within their bins
COMPARED = 50_000  # training rows that columns and pairs are compared with, at most
NEAREST = 1000  # samples whose nearest training rows are looked for, at most: the first ones

QUALITY = QualityTable(
    columns={
        "ks": "KS",
        "tv": "TV",
        "correlation": "correlation",
        "contingency": "contingency",
        "association": "association",
        "distance": "distance",
        "copies": "copies",
    },
    also=("shapes", "trends"),
    headline=("trends", "pair trends"),
    words="Samples, and for comparison rows of the test split and rows of independent columns, beside up to "
    f"{COMPARED:,} rows of the training split, chosen at random. KS and TV: 1 - the distance of the laws of "
    "a column, the mean over numbers and over categories. Correlation and contingency: the same of pairs of "
    "numbers, and of other pairs. Numbers of both sides are drawn within their bins: an error that the bins "
    "make does not show. Shapes and trends: the means over all columns and over all pairs. "
    "Association: the mean difference of Cramér's V over all pairs. Distance: in which share of its columns "
    "a row differs from the nearest of all training rows, in the mean. Copies: how many rows differ in none. "
    f"Both are of the first {NEAREST:,} rows at most; where they are those of the test split, rows are new.",
)


class TableKind(ArrayKind):
    """Says that examples are rows of a table, a category for each of its columns."""

    name = "table"
    plural = "tables"
    axes = 1
    place_name = "column"
    example_name = "row"
    # Fewer rows do not show which columns depend on each other.
    samples_drawn = examples_kept = 2000
    # Numbers are in 64 bins as a rule, and single numbers that many rows have are beside these.
    bars = 128
    remarks: ClassVar = {
        "log_volume": "log-volume of the bins of numbers: {:.3f} nats per row, not comparable across binnings"
    }
    quality = QUALITY

    @property
    def columns(self) -> tuple[Column, ...]:
        """Returns the columns of the description, whose number is that of the places."""
        return self.description.columns or ()

    def check(self) -> None:
        super().check()
        if not self.columns:
            raise UserError(
                "columns = None: a table has some; pass columns=(Column(...), ...), or take kind='array'"
            )

    def describe_data(self) -> list[str]:
        """Returns a line for each column, with its type, its number of categories and some of them."""
        width = max(len(column.name) for column in self.columns)
        lines = ["columns, their types (data.types says others), and their categories:"]
        for column in self.columns:
            values = ", ".join(column.labels)
            if column.lows is not None:
                values = f"{column.labels[0]}, .., {', '.join(column.labels[len(column.lows) - 1 :])}"
            lines.append(
                f"  {column.name:<{width}}  {column.type:<11}  {column.size:>6,}  {one_line(values, 60)}"
            )
        return lines

    def find_known(self, where: Mapping[str, Any]) -> Known:
        names = [column.name for column in self.columns]
        x0 = np.zeros(len(names), np.int32)
        is_known = np.zeros(len(names), bool)
        check_names("where", map(str, where), names)
        for name, value in where.items():
            place = names.index(name)
            x0[place] = find_code(self.columns[place], value)
            is_known[place] = True
        return Known(x0, is_known)

    def make_frame(self, samples: np.ndarray, seed: int = 0) -> Any:
        """Returns rows int [N, D] with the names and values of columns, which numbers are drawn for."""
        require(__name__, "pandas", extra="tables")
        import pandas

        # Row by row, so that a row does not depend on how many there are.
        u = np.random.default_rng(seed).random(samples.shape)  # [N, D]
        values_by_name = {}
        for place, column in enumerate(self.columns):
            values = pandas.Series(decode(column, samples[:, place], u[:, place]))
            # These may be missing, unlike integers of NumPy.
            values_by_name[column.name] = values.astype("Int64") if column.type == "integer" else values
        return pandas.DataFrame(values_by_name)

    def name_places(self, shape: tuple[int, ...]) -> list[str]:
        return [column.name for column in self.columns[:PLACES]]

    def name_category(self, place: int, category: int) -> str:
        return self.columns[place].labels[category]

    def extra_figures(self, bound: Mapping[str, Any], examples: Batch) -> dict[str, float]:
        """Returns the mean over rows of the log of the volume that the bins of their numbers have.

        A bound for values as they are written is that of the codes and this, as a number is uniform within
        its bin. Numbers whose decimals are None count by their densities.
        """
        if all(column.lows is None for column in self.columns):
            return {}
        nats = np.zeros(len(examples["x"]))
        for column, codes in zip(self.columns, examples["x"].T, strict=True):
            nats += measure_log_volumes(column)[codes]
        return {"log_volume": float(nats.mean())}

    def baselines(self, train: Split, test: Batch, say: Callable[[str], Any]) -> Mapping[str, Any]:
        """Returns the nats per row of independent columns and of the tree of Chow and Liu."""
        x0, _ = train.read_unweighted()  # [M, D]
        sizes = [column.size for column in self.columns]
        nats_by_name = {
            "independent columns": baselines.histogram_nats(x0, test["x"], np.array(sizes), 0.5),
            "Chow-Liu tree": tables.tree_nats(tables.fit_tree(x0, sizes), test["x"]),
        }
        return {name: summarize_bound(nats, len(sizes)) for name, nats in nats_by_name.items()}

    def prepare_quality(
        self, train: Split, test: Split, num: int, batch_size: int = 128, inception: Path | None = None
    ) -> Reference:
        """Compares the training split with samples, the test split, and rows of independent columns."""
        x0, _ = train.read_unweighted()  # [M, D]
        sizes = [column.size for column in self.columns]
        pairs = np.triu_indices(len(sizes), 1)
        compared_rows = _choose_rows(x0, COMPARED)
        compared_values = self._draw_values(compared_rows)
        associations = tables.associate_columns(compared_rows, sizes)[pairs]

        def measure(x: np.ndarray) -> Measured:
            figures = tables.summarize_fidelity(compared_values, self._draw_values(x))
            mean_difference = None
            if len(associations):
                differences = tables.associate_columns(x, sizes)[pairs] - associations
                mean_difference = float(np.abs(differences).mean())
            distances = tables.find_distances(x[:NEAREST], x0)
            nearest = {"distance": float(distances.mean()), "copies": float(np.mean(distances == 0))}
            return Measured({"n": len(x), **figures, "association": mean_difference, **nearest})

        test_rows = _choose_rows(test.read_unweighted()[0], num)
        rows = {"test": test_rows, "independent": baselines.histogram_samples(x0, num, SEED)}
        figures = {name: measure(x).figures for name, x in rows.items()}
        compared = f"{len(x0)} rows, sha256 {hashlib.sha256(x0.tobytes()).hexdigest()}"
        return Reference(compared, f"{len(sizes)} columns", figures, measure)

    def _draw_values(self, x: np.ndarray) -> list[np.ndarray]:
        """Returns the columns of rows [N, D]: numbers drawn within their bins, and categories as they are."""
        rng = np.random.default_rng(SEED)
        values = []
        for column, codes in zip(self.columns, x.T, strict=True):
            if column.lows is None:
                values.append(codes)
            else:
                values.append(decode(column, codes, rng.random(len(codes))).astype(float))
        return values

    def show_histograms(self, samples: Samples, examples: Samples | None) -> Histograms:
        labels = [_label_bars(column, self.bars) for column in self.columns[:PLACES]]
        return super().show_histograms(samples, examples)._replace(labels=labels)

    def show_associations(self, samples: Samples, examples: Samples | None) -> Associations:
        names = [column.name for column in self.columns[:PLACES]]
        sizes = [column.size for column in self.columns[:PLACES]]
        of_data = None
        if examples is not None:
            of_data = tables.associate_columns(examples.x[:, :PLACES], sizes)
        of_samples = tables.associate_columns(samples.x[:, :PLACES], sizes)
        return Associations(names, of_samples, of_data, "Cramér's V")


def _choose_rows(x: np.ndarray, most: int) -> np.ndarray:
    """Chooses so many rows at random, or all of them; the order of a file may follow a column."""
    return x[np.random.default_rng(SEED).permutation(len(x))[:most]]


def _label_bars(column: Column, bars: int) -> list[str]:
    """Returns a text for each of at most so many bars of a column: of several codes, the first and last."""
    width = -(-column.size // bars)
    labels = []
    for first in range(0, column.size, width):
        last = min(first + width, column.size) - 1
        label = column.labels[first]
        if last > first:
            label += f" … {column.labels[last]}"
        labels.append(label)
    return labels
