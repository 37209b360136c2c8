"""Shows the figures of runs, each with the protocol that it was measured by."""

from collections.abc import Sequence

from d3pm_jax.evaluation.bound import format_with_error
from d3pm_jax.kinds import QualityTable
from d3pm_jax.measure.record import Record, Value, list_incomparable
from d3pm_jax.measure.sample_quality import find_table
from d3pm_jax.report.folder import Reported
from d3pm_jax.show.markup import Html, build_table, join_html, note_missing, tag

HASH = 12  # characters of it that are shown
PARTS = ("reconstruction", "prior")  # of a bound
OF_BOUND = ("step", "steps", "grid", "terms", "N", "split", "belief", "dtype", "ema", "seed")
OF_QUALITY = ("step", "grid", "sampler", "classes", "split", "features", "belief", "dtype", "ema", "seed")


def list_main_figures(run: Reported, best: Record | None) -> dict[str, object]:
    """Returns the figures of a run in a few words, each with what it was measured on.

    Args:
        run: and what is in its folder.
        best: its figures of sample quality, of `select_best_quality`.
    """
    facts: dict[str, object] = {}
    if run.bound is not None:
        known, figures = run.bound.protocol, run.bound.values["bound"]
        few = "" if run.bound.arrays["bound"]["steps"] else f", {known.get('calls')} calls each"
        words = f"{known.get('N')} examples, {known['steps']} steps{few}, seed {known.get('seed')}"
        facts["test bits/dim"] = join_html(_with_error(figures.get("bits_per_dim"), 3), tag("small", words))
        words = f"the same {known.get('N')} examples"
        facts["test nats per example"] = join_html(_with_error(figures.get("nats"), 2), tag("small", words))
    if best is not None:
        known, figures = best.protocol, best.values["samples"]
        words = f"{known['N']} samples beside split {known['split']}, {known['steps']} steps, "
        small = tag("small", words, f"seed {known['seed']}, in ", format_cell(known["features"]))
        name, title = find_table(best, run.run.parts.kind.quality).headline
        facts[title] = join_html(_or_too_few(figures[name].value), small)
    return facts


def select_best_quality(runs: Sequence[Reported]) -> list[Record | None]:
    """Returns the figures of sample quality of each run, at its step, that all compare with each other.

    Those with most samples, then steps, of the first run that has any decide; None where a run has none like
    them.
    """
    found = [[x for x in each.quality if x.protocol["step"] == each.run.step] for each in runs]
    most = [max(own, key=lambda x: (x.protocol["N"], x.protocol["steps"])) for own in found if own]
    alike = [[x for x in own if not list_incomparable(most[0], x)] for own in found]
    return [max(own, key=lambda x: x.protocol["steps"], default=None) for own in alike]


def tabulate_bounds(runs: Sequence[Reported]) -> Html:
    """Returns a table of all bounds, and which commands give those that are not there."""
    rows, notes = [], []
    reached: dict[str, list[str]] = {}  # runs by what histograms of the training split reach
    for each in runs:
        for bound in each.bounds:
            known, figures = bound.protocol, bound.values["bound"]
            shown = [_with_error(figures.get("bits_per_dim"), 3), _with_error(figures.get("nats"), 2)]
            shown += [_number(figures[name].value) if name in figures else "-" for name in PARTS]
            digest = str(known.get("examples", "-"))
            examples = tag("span", digest.removeprefix("sha256 ")[:HASH], title=digest)
            cells = [format_cell(known.get(name)) for name in OF_BOUND]
            rows.append([each.name, bound.path.name, *shown, *cells, examples])
        if each.bound is None:
            text = f"No bound of {each.name} at step {each.run.step:,} is known"
            notes.append(note_missing(text, each.evaluate()))
        elif each.bound.values["baselines"]:
            baselines = each.bound.values["baselines"].items()
            text = "; ".join(f"{name} {_number(x.value)} {x.unit}" for name, x in baselines)
            reached.setdefault(text, []).append(each.name)
    compared = [
        tag("p", f"For comparison, on the same examples as {', '.join(names)}: {text}.")
        for text, names in reached.items()
    ]
    head = ["run", "file", "bits/dim", "nats", "reconstruction", "prior", *OF_BOUND, "examples"]
    words = (
        "Upper bounds on -log p of test examples, mean ± standard error over the examples. They compare "
        "where the examples are the same, and only there."
    )
    shown = [tag("p", words, class_="soft"), build_table(head, rows, 2)] if rows else []
    return join_html(*shown, *compared, *notes)


def tabulate_quality(runs: Sequence[Reported]) -> Html:
    """Returns tables of all figures of sample quality, of `d3pm eval --samples`: a table for each kind."""
    text = "How good samples of {} are was not measured"
    notes = [
        note_missing(text.format(each.name), each.evaluate(" --samples 2000"))
        for each in runs
        if not each.quality and each.run.parts.kind.quality is not None
    ]
    tables: dict[str, tuple[QualityTable, list[tuple[str, Record]]]] = {}
    for each in runs:
        for found in each.quality:
            kind = find_table(found, each.run.parts.kind.quality)
            tables.setdefault(kind.words, (kind, []))[1].append((each.name, found))
    shown = []
    for kind, pairs in tables.values():
        first, rows = pairs[0][1], []
        also = [name for name in kind.also if name in first.values["samples"]]
        columns = {**kind.columns, **{name: name for name in also}}
        for run, record in pairs:
            differ = list_incomparable(first, record)
            for name, row in record.values.items():
                n = row["n"].value
                other = differ or (["N"] if n != record.protocol["N"] else [])
                compares = f"no: other {', '.join(other)}" if other else "yes"
                cells = [_or_too_few(row[key].value) if key in row else "-" for key in columns]
                rows.append([run, name, f"{n:,}", *cells, compares, *_protocol(record, name)])
        head = ["run", "of", "n", *columns.values(), "compares with row 1", "steps", "file", *OF_QUALITY]
        words = f"{kind.words} Figures compare where N, split, reference and features are the same."
        shown += [tag("p", words, class_="soft"), build_table([*head, "reference"], rows, 2)]
    return join_html(*shown, *notes)


def _protocol(found: Record, name: str) -> list[object]:
    """Tells the protocol of samples once, in their own row."""
    if name != "samples":
        return [""] * (3 + len(OF_QUALITY))
    known = found.protocol
    reference = tag("span", known["reference"].partition(", sha256 ")[0], title=known["reference"])
    return [known["steps"], found.path.name, *(format_cell(known[field]) for field in OF_QUALITY), reference]


def _with_error(figure: Value | None, digits: int) -> str:
    if figure is None:
        return "-"
    if figure.value is None:
        return "infinite"
    return format_with_error(figure.value, figure.error, digits, "±")


def _number(value: object) -> str:
    if value is None:
        return "infinite"
    return f"{value:.4g}" if isinstance(value, int | float) else repr(value)


def _or_too_few(value: object) -> str:
    """Returns a figure of samples, of which there may have been too few for it."""
    return "too few" if value is None else _number(value)


def format_cell(value: object) -> object:
    """Returns a value of a protocol, its hashes shortened."""
    if value is None:
        return "-"
    text = str(value)
    if "sha256 " not in text:
        return text
    before, digest = text.rsplit("sha256 ", 1)
    return tag("span", f"{before}{digest[:HASH]}", title=text)
