"""Shows the figures of runs, each with the protocol that it was measured by."""

from collections.abc import Iterator, Sequence
from typing import Any

from d3pm_jax.evaluation.bound import with_error
from d3pm_jax.measure import protocol
from d3pm_jax.report.folder import Bound, Record
from d3pm_jax.show.markup import (
    Html,
    join,
    missing,
    table,
    tag,
)

HASH = 12  # characters of it that are shown
LOGITS = ("belief", "first_step")  # what they are taken for
OF_BOUND = ("step", "steps", "grid", "terms", "N", "split", *LOGITS, "dtype", "ema", "seed")
OF_QUALITY = ("step", "grid", "sampler", "classes", "split", "features", *LOGITS, "dtype", "ema", "seed")
ALSO = ("nearest", "copies", "copied")  # in rows of quality, beside the columns of the command's table
MEASURED = {
    "image": "Samples, and for comparison examples of the data and samples of the per-pixel histogram, "
    "beside all of the training split, in features of images.",
    "text": "Samples, and for comparison examples of the test split and samples of the unigram, beside the "
    "training split: the share of their words that it has too, how many of their words and of their runs of "
    "2 and 3 words are different, and the longest piece of them that is copied from it, in characters.",
}


def headline(record: Record, best: protocol.Figures | None) -> dict[str, object]:
    """Returns the figures of a run in a few words, each with what it was measured on.

    Args:
        record: the run.
        best: its figures of sample quality, of `comparable`.
    """
    facts: dict[str, object] = {}
    if record.bound is not None:
        known, result = record.bound.protocol, record.bound.result
        few = "" if record.bound.terms else f", {result.get('calls')} calls each"
        words = f"{known.get('N')} examples, {known['steps']} steps{few}, seed {known.get('seed')}"
        facts["test bits/dim"] = join(_bits(result), tag("small", words))
        words = f"the same {known.get('N')} examples"
        facts["test nats per example"] = join(_with_error(result, "nats", 2), tag("small", words))
    if best is not None:
        known, row = best.protocol, best.figures["samples"]
        words = f"{known.N} samples beside split {known.split}, {known.steps} steps, seed {known.seed}, in "
        small = tag("small", words, cell(known.features))
        name, title = ("known_words", "known words") if _is_text(row) else ("frechet", "Fréchet distance")
        facts[title] = join(_or_too_few(row[name]), small)
    return facts


def comparable(records: Sequence[Record]) -> list[protocol.Figures | None]:
    """Returns the figures of sample quality of each run, at its step, that all compare with each other.

    Those with most samples, then steps, of the first run that has any decide; None where a run has none like
    them.
    """
    found = [[x for x in record.quality if x.protocol.step == record.run.step] for record in records]
    most = [max(own, key=lambda x: (x.protocol.N, x.protocol.steps)) for own in found if own]
    alike = [[x for x in own if not protocol.differing(most[0].protocol, x.protocol)] for own in found]
    return [max(own, key=lambda x: x.protocol.steps, default=None) for own in alike]


def bounds(records: Sequence[Record]) -> Html:
    """Returns a table of all bounds, and which commands give those that are not there."""
    rows, notes = [], []
    for record in records:
        rows += [[record.name, *_bound(bound)] for bound in record.bounds]
        if record.bound is None:
            text = f"No bound of {record.name} at step {record.run.step:,} is known"
            notes.append(missing(text, record.evaluate()))
    head = ["run", "file", "bits/dim", "nats", "reconstruction", "prior", *OF_BOUND, "examples"]
    words = (
        "Upper bounds on -log p of test examples, mean ± standard error over the examples. They compare "
        "where the examples are the same, and only there."
    )
    shown = [tag("p", words, class_="soft"), table(list(head), rows, 2)] if rows else []
    return join(*shown, *_baselines(records), *notes)


def _bound(bound: Bound) -> Iterator[object]:
    known, result = bound.protocol, bound.result
    yield bound.path.name
    yield _bits(result)
    yield _with_error(result, "nats", 2)
    yield from (_number(result[name]) if name in result else "-" for name in ("reconstruction", "prior"))
    yield from (cell(known.get(name)) for name in OF_BOUND)
    digest = str(known.get("examples", "-"))
    yield tag("span", digest.removeprefix("sha256 ")[:HASH], title=digest)


def _baselines(records: Sequence[Record]) -> Iterator[Html]:
    """Says what histograms of the training split reach on the same examples."""
    found: dict[str, list[str]] = {}
    for record in records:
        compared = {} if record.bound is None else record.bound.result.get("baselines", {})
        if compared:
            figures = "; ".join(f"{name} {_number(value)} bits/dim" for name, value in compared.items())
            found.setdefault(figures, []).append(record.name)
    for figures, names in found.items():
        yield tag("p", f"For comparison, on the same examples as {', '.join(names)}: {figures}.")


def quality(records: Sequence[Record]) -> Html:
    """Returns tables of all figures of sample quality, of `d3pm eval --samples`: of images, and of texts."""
    text = "How good samples of {} are was not measured"
    notes = [
        missing(text.format(record.name), record.evaluate(" --samples 2000"))
        for record in records
        if not record.quality and record.run.parts.description.kind in MEASURED
    ]
    kinds: dict[str, list[tuple[Record, protocol.Figures]]] = {}
    for record in records:
        for figures in record.quality:
            kind = "text" if _is_text(figures.figures["samples"]) else "image"
            kinds.setdefault(kind, []).append((record, figures))
    return join(*(_qualities(pairs, kind) for kind, pairs in kinds.items()), *notes)


def _is_text(row: dict[str, Any]) -> bool:
    return protocol.columns(row) is protocol.OF_TEXTS


def _qualities(found: Sequence[tuple[Record, protocol.Figures]], kind: str) -> Html:
    first, rows, shown = found[0][1].protocol, [], found[0][1].figures["samples"]
    columns = protocol.columns(shown) | {name: name for name in ALSO if name in shown}
    for record, figures in found:
        differ = protocol.differing(first, figures.protocol)
        for name, row in figures.figures.items():
            other = differ or (["N"] if row["n"] != figures.protocol.N else [])
            compares = f"no: other {', '.join(other)}" if other else "yes"
            cells = [_or_too_few(row[key]) if key in row else "-" for key in columns]
            rows.append([record.name, name, f"{row['n']:,}", *cells, compares, *_protocol(figures, name)])
    head = ["run", "of", "n", *columns.values(), "compares with row 1", "steps", "file", *OF_QUALITY]
    words = f"{MEASURED[kind]} Figures compare where N, split, reference and features are the same."
    return join(tag("p", words, class_="soft"), table([*head, "reference"], rows, 2))


def _protocol(found: protocol.Figures, name: str) -> Iterator[object]:
    """Tells the protocol of samples once, in their own row."""
    if name != "samples":
        yield from [""] * (3 + len(OF_QUALITY))
        return
    known = found.protocol
    yield known.steps
    yield found.path.name
    yield from (cell(getattr(known, field)) for field in OF_QUALITY)
    yield tag("span", known.reference.partition(", sha256 ")[0], title=known.reference)


def _bits(result: dict[str, Any]) -> str:
    return _with_error(result, "bits_per_dim", 3, "standard_error")


def _with_error(result: dict[str, Any], name: str, digits: int, error: str = "") -> str:
    value, spread = result.get(name), result.get(error or f"{name}_standard_error")
    if value is None:
        return "infinite" if name in result else "-"
    return with_error(value, spread, digits, "±")


def _number(value: object) -> str:
    if value is None:
        return "infinite"
    return f"{value:.4g}" if isinstance(value, int | float) else repr(value)


def _or_too_few(value: object) -> str:
    """Returns a figure of samples, of which there may have been too few for it."""
    return "too few" if value is None else _number(value)


def cell(value: object) -> object:
    """Returns a value of a protocol, its hashes shortened."""
    if value is None:
        return "-"
    text = str(value)
    if "sha256 " not in text:
        return text
    before, digest = text.rsplit("sha256 ", 1)
    return tag("span", f"{before}{digest[:HASH]}", title=text)
