"""Shows the figures of runs, each with the protocol that it was measured by."""

from collections.abc import Mapping, Sequence
from typing import Any

from d3pm_jax.kinds import QualityTable
from d3pm_jax.program.measure.bounds import ORDERS, PARTS
from d3pm_jax.program.measure.filling import MIXED, find_fillable_mask
from d3pm_jax.program.measure.record import Record, format_figure, list_incomparable
from d3pm_jax.program.measure.sample_quality import find_table
from d3pm_jax.report.folder import Reported
from d3pm_jax.show.markup import Html, build_table, join_html, note_missing, tag

HASH = 12  # characters of a hash that are shown
TOO_FEW = "too few"  # samples for a figure, whose value is then None
OF_BOUND = ("step", "steps", "grid", "terms", "N", "split", "belief", "dtype", "ema", "seed")
OF_LIKELIHOOD = ("step", "N", "split", "dtype", "ema", "seed")
OF_CERTIFICATE = ("step", "steps", "N", "split", "belief", "dtype", "ema", "seed")
OF_ACCURACY = ("step", "N", "split", "steps", "calls", "dtype", "ema", "seed")
OF_QUALITY = ("step", "grid", "sampler", "classes", "split", "features", "belief", "dtype", "ema", "seed")


def list_main_figures(run: Reported, best: Record | None) -> dict[str, object]:
    """Lists the main figures of a run by their titles, each with what it was measured on.

    Args:
        run: and what is in its folder.
        best: its figures of sample quality, of `select_best_quality`.
    """
    facts: dict[str, object] = {}
    if run.bound is not None:
        protocol = run.bound.protocol
        example_name = run.run.parts.kind.example_name
        titles = {"bits_per_dim": "test bits/dim", "nats": f"test nats per {example_name or 'example'}"}
        words = f"{protocol['N']} examples, {_describe_terms(run.bound)}, seed {protocol.get('seed')}"
        # The figure to look at comes first.
        for name in titles if example_name is None else reversed(titles):
            facts[titles[name]] = join_html(_show(run.bound, name), tag("small", words))
            words = f"the same {protocol['N']} examples"

    if run.likelihood is not None:
        words = f"{run.likelihood.protocol['N']} examples, {ORDERS[0]}"
        bits = _show(run.likelihood[ORDERS[0]], "bits_per_dim")
        facts["exact bits/dim"] = join_html(bits, tag("small", words))

    if best is not None:
        protocol = best.protocol
        words = f"{protocol['N']} samples beside split {protocol['split']}, "
        if protocol["steps"]:
            words += f"{protocol['steps']} steps, "
        words += f"seed {protocol['seed']}, in "
        small = tag("small", words, format_cell(protocol["features"]))
        name, title = find_table(best, run.run.parts.kind.quality).headline
        facts[title] = join_html(_format_value(best["figures"]["samples"], name, TOO_FEW), small)
    return facts


def _describe_terms(bound: Record) -> str:
    """Says of how many steps a bound is, and of how many calls if it is estimated; of a flow, its terms."""
    protocol = bound.protocol
    if not protocol.get("steps"):
        return str(protocol.get("terms"))
    words = f"{protocol['steps']} steps"
    if "calls" in bound and not bound.get("steps"):
        words += f", {bound['calls']} calls each"
    return words


def select_best_quality(runs: Sequence[Reported]) -> list[Record | None]:
    """Selects figures of sample quality of each run, at its step, so that all compare with each other.

    Those with most samples, then steps, of the first run that has any decide; None where a run has none like
    them.
    """
    of_runs = [[x for x in run.quality if x.protocol["step"] == run.run.step] for run in runs]
    known = [quality for quality in of_runs if quality]
    if not known:
        return [None] * len(runs)

    first = max(known[0], key=lambda record: (record.protocol["N"], record.protocol["steps"]))
    selected = []
    for quality in of_runs:
        alike = [record for record in quality if not list_incomparable(first, record)]
        selected.append(max(alike, key=lambda record: record.protocol["steps"], default=None))
    return selected


def tabulate_bounds(runs: Sequence[Reported]) -> Html:
    """Builds a table of all bounds, and says which commands give those that are not there."""
    rows = []
    notes = []
    remarks = []
    runs_by_baselines: dict[str, list[str]] = {}  # names of runs by what the baselines of their data reach
    for reported in runs:
        if not reported.draws_samples:
            continue
        for bound in reported.bounds:
            part_cells = [_format_value(bound, name) for name in PARTS]
            cells = [_show_bits(bound), _show(bound, "nats"), *part_cells]
            rows.append(_row_of_result(reported, bound, cells, OF_BOUND))
        if reported.bound is None:
            text = f"No bound of {reported.name} at step {reported.run.step:,} is known"
            notes.append(note_missing(text, reported.evaluate()))
        elif reported.bound.get("baselines"):
            baselines = reported.bound["baselines"]
            text = "; ".join(f"{name} {_format_baseline(baselines, name)}" for name in baselines)
            runs_by_baselines.setdefault(text, []).append(reported.name)
        for name, template in reported.run.parts.kind.remarks.items():
            value = (reported.bound or {}).get(name)
            if isinstance(value, float):
                remarks.append(tag("p", f"{reported.name}: {template.format(value)}."))

    words = (
        "Upper bounds on -log p of test examples, mean ± standard error over the examples. They compare "
        "where the examples are the same, with the same labels and conditions, and only there."
    )
    table = _table_of_results(words, ["bits/dim", "nats", *PARTS], OF_BOUND, rows)
    comparisons = [
        tag("p", f"For comparison, on the same examples as {', '.join(names)}: {text}.")
        for text, names in runs_by_baselines.items()
    ]
    return join_html(table, *comparisons, *remarks, *notes)


def _format_baseline(baselines: Mapping[str, Any], name: str) -> str:
    """Formats what a baseline reaches: bits per dimension, or nats with their error where they are known."""
    if isinstance(baselines[name], Mapping):
        return f"{_show(baselines[name], 'nats')} nats"
    return f"{_format_value(baselines, name)} bits/dim"


def _show_bits(bound: Record) -> Html:
    """Formats a bound in bits per dimension; the importance bound of a flow has its ELBO below it."""
    elbo = None
    if "elbo_bits_per_dim" in bound:
        elbo = tag("small", f"ELBO {_show(bound, 'elbo_bits_per_dim')}")
    return join_html(_show(bound, "bits_per_dim"), elbo)


def _row_of_result(
    reported: Reported, result: Record, cells: Sequence[object], fields: Sequence[str]
) -> list[object]:
    """Returns the row of a result in a `_table_of_results`: its cells between its file and its protocol."""
    # A flow has no steps.
    steps = result.protocol.get("steps") or None
    protocol = {**result.protocol, "calls": result.get("calls"), "steps": steps}
    protocol_cells = [format_cell(protocol.get(name)) for name in fields]
    digest = str(protocol.get("examples", "-"))
    examples = tag("span", digest.removeprefix("sha256 ")[:HASH], title=digest)
    return [reported.name, result.file.name, *cells, *protocol_cells, examples]


def _table_of_results(
    words: str, titles: Sequence[str], fields: Sequence[str], rows: Sequence[list[object]], left: int = 2
) -> Html | None:
    """Builds a table of rows of `_row_of_result` below words about them; None where there is none.

    Args:
        words: about the figures.
        titles: of the cells.
        fields: of the protocol.
        rows: of results.
        left: how many columns begin at the left: the run, its file, and other names.
    """
    if not rows:
        return None
    head = ["run", "file", *titles, *fields, "examples"]
    return join_html(tag("p", words, class_="soft"), *_split_off_alike(head, rows, fields, left))


def _split_off_alike(
    head: Sequence[str], rows: Sequence[list[object]], fields: Sequence[str], left: int
) -> tuple[Html, Html | None]:
    """Builds a table, and what its rows have alike of these fields: all of them are wider than a screen.

    A cell that is empty is like all others.
    """
    cells = {name: {row[i] for row in rows} - {""} for i, name in enumerate(head)}
    alike = {name: cells[name].pop() for name in fields if len(cells[name]) == 1}
    others = [i for i, name in enumerate(head) if name not in alike]
    table = build_table([head[i] for i in others], [[row[i] for i in others] for row in rows], left)
    words = [f"{name} {value}" for name, value in alike.items() if value != "-"]
    return table, tag("p", f"In all rows: {', '.join(words)}.", class_="soft") if words else None


def tabulate_accuracies(runs: Sequence[Reported]) -> Html:
    """Builds a table of how often classifiers are right, of `d3pm eval`."""
    rows = []
    notes = []
    for reported in runs:
        if not reported.draws_samples and not reported.accuracies:
            text = f"How often {reported.name} tells the label is not known"
            notes.append(note_missing(text, reported.evaluate()))
        for accuracy in reported.accuracies:
            figures = [_show(accuracy, name) for name in ("accuracy", "cross_entropy")]
            rows.append(_row_of_result(reported, accuracy, figures, OF_ACCURACY))
    words = "Of noised test examples, mean ± standard error: over t = 0..T, or as many t as there are calls."
    return join_html(_table_of_results(words, ["accuracy", "cross entropy"], OF_ACCURACY, rows), *notes)


def tabulate_likelihoods(runs: Sequence[Reported]) -> Html:
    """Builds a table of all exact likelihoods, of `d3pm eval --chain-rule`."""
    rows = []
    notes = []
    for reported in runs:
        for likelihood in reported.likelihoods:
            shown = {order: likelihood[order] for order in ORDERS}
            mixed = likelihood.get("orders", {})
            shown |= {
                words.format(M=mixed["num"]): mixed[name] for name, words in MIXED.items() if name in mixed
            }
            for order, row in shown.items():
                figures = [_show(row, name) for name in ("bits_per_dim", "nats")]
                rows.append(_row_of_result(reported, likelihood, [order, *figures], OF_LIKELIHOOD))
        if not reported.likelihoods and find_fillable_mask(reported.run.parts) is not None:
            text = f"The exact likelihood of {reported.name} was not computed"
            notes.append(note_missing(text, reported.evaluate(" --chain-rule 100")))
    words = (
        "-log p of test examples by the chain rule, an element after the other: exact for each order, no "
        "bound. In random orders, one is drawn for each example."
    )
    table = _table_of_results(words, ["order", "bits/dim", "nats"], OF_LIKELIHOOD, rows, left=3)
    return join_html(table, *notes)


def tabulate_certificates(runs: Sequence[Reported]) -> Html:
    """Builds a table of the rows of all certificates, of `d3pm eval --certify`."""
    rows = []
    notes = []
    for reported in runs:
        for certificate in reported.certificates:
            for row in certificate["rows"]:
                figures = [_show(row, name) for name in ("bits_per_dim", "nats", "difference")]
                cells = [row["name"], row["law"], *figures]
                rows.append(_row_of_result(reported, certificate, cells, OF_CERTIFICATE))
            words = "; ".join([f"paired: above {certificate['reference']}", *certificate["notes"]])
            notes.append(tag("p", f"{certificate.file.name} of {reported.name}: {words}.", class_="soft"))
    words = (
        "What is known of -log p of the same test examples, each row of the law that it names. Rows of one "
        "law compare, and the differences, in nats, are paired over the examples."
    )
    titles = ["row", "law", "bits/dim", "nats", "paired"]
    return join_html(_table_of_results(words, titles, OF_CERTIFICATE, rows, left=4), *notes)


def tabulate_quality(runs: Sequence[Reported]) -> Html:
    """Builds tables of all figures of sample quality, of `d3pm eval --samples`: a table for each kind."""
    notes = []
    for reported in runs:
        kind = reported.run.parts.kind
        if reported.quality or kind.quality is None or not reported.draws_samples:
            continue
        options = kind.quality_options()  # as "--samples 2000", or None
        if options is not None:
            text = f"How good samples of {reported.name} are was not measured"
            notes.append(note_missing(text, reported.evaluate(f" {options}")))

    # The words of a table tell it apart: figures with the same words are of the same kind of data.
    tables: dict[str, tuple[QualityTable, list[tuple[str, Record]]]] = {}  # each result with its run's name
    for reported in runs:
        for record in reported.quality:
            table = find_table(record, reported.run.parts.kind.quality)
            _, results = tables.setdefault(table.words, (table, []))
            results.append((reported.name, record))
    return join_html(*[_quality_table(*entry) for entry in tables.values()], *notes)


def _quality_table(table: QualityTable, results: Sequence[tuple[str, Record]]) -> Html:
    """Builds the table of results of one kind, each with the name of its run, and the words above it."""
    _, first = results[0]
    also = {name: name for name in table.also if name in first["figures"]["samples"]}
    titles = {**table.columns, **also}

    rows = []
    for run, record in results:
        differing_fields = list_incomparable(first, record)
        for name, row in record["figures"].items():
            n = row["n"]
            # A row of fewer examples than samples cannot be compared, whatever its protocol is.
            other_fields = differing_fields
            if not differing_fields and n != record.protocol["N"]:
                other_fields = ["N"]
            compares = f"no: other {', '.join(other_fields)}" if other_fields else "yes"
            figures = [_format_value(row, key, TOO_FEW) for key in titles]
            rows.append([run, name, f"{n:,}", *figures, compares, *_protocol_cells(record, name)])

    head = ["run", "of", "n", *titles.values(), "compares with row 1", "steps", "file", *OF_QUALITY]
    words = f"{table.words} Figures compare where N, split, reference and features are the same."
    parts = _split_off_alike([*head, "reference"], rows, OF_QUALITY, 2)
    return join_html(tag("p", words, class_="soft"), *parts)


def _protocol_cells(record: Record, name: str) -> list[object]:
    """Returns the cells of the protocol, which stand once for a result: in the row of its samples."""
    if name != "samples":
        return [""] * (3 + len(OF_QUALITY))
    protocol = record.protocol
    reference = tag("span", protocol["reference"].partition(", sha256 ")[0], title=protocol["reference"])
    cells = [format_cell(protocol[field]) for field in OF_QUALITY]
    return [protocol["steps"] or "-", record.file.name, *cells, reference]


def _show(row: Mapping[str, Any], name: str) -> str:
    """Formats a figure with its standard error, as a page shows it."""
    return format_figure(row, name, "±")


def _format_value(row: Mapping[str, Any], name: str, none: str = "infinite") -> str:
    """Formats a figure without an error.

    Args:
        row: of figures by name; "-" stands for one that it has not.
        name: of the figure.
        none: what None stands for, which is null in a file.
    """
    if name not in row:
        return "-"
    if row[name] is None:
        return none
    if isinstance(row[name], int | float):
        return f"{row[name]:.4g}"
    return repr(row[name])


def format_cell(value: object) -> object:
    """Formats a value of a protocol; a hash is shortened, and whole where the mouse rests on it."""
    if value is None:
        return "-"
    text = str(value)
    if "sha256 " not in text:
        return text
    before, digest = text.rsplit("sha256 ", 1)
    return tag("span", f"{before}{digest[:HASH]}", title=text)
