"""The report as one HTML page that needs nothing else: no scripts, no requests, pictures inside.

Its style is that of `d3pm report`.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure

from d3pm_jax.show.markup import Html, build_document
from parity_tests import report
from parity_tests.compare import Row
from parity_tests.procedures import Outcome
from parity_tests.report import Report

COLUMNS = ("rows", "absolute", "relative", "ULP", "scaled", "tolerance")
COLOURS = {"torch = jit": "#1d5fa8", "torch = torch64": "#d9822b", "jit = torch64": "#2f8f5b"}


def page(found: Report) -> str:
    """The whole document."""
    dtypes = list(dict.fromkeys(row.dtype for row in found.rows))
    sections = [*_failures(found), *(_section(dtype, found) for dtype in dtypes), *_cost(found)]
    links = [*dtypes, *(["matmul"] if found.costs else []), "plots"]
    nav = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in links)
    title = "Parity of d3pm_jax and torch_ref"
    body = (
        f"<header><h1>{title}</h1>{_head(found)}<nav>{nav}</nav></header>"
        f'{"".join(sections)}<section id="plots"><h2>Plots</h2>{"".join(_plots(found))}</section>'
    )
    return build_document(title, Html(body))


def _head(found: Report) -> str:
    """What the report is, how it went, and where."""
    count, bad = len(found.rows), len(report.failed(found.rows))
    verdict = f"{bad:,} of {count:,} comparisons failed" if bad else f"all {count:,} comparisons passed"
    facts = {"comparisons": f"{count:,}", "failed": f"{bad:,}"}
    if found.rows:
        row = max(found.rows, key=lambda row: row.used)
        facts["most of a tolerance used"] = f"{row.used:.0%} ({row.pair}, {row.dtype}, {row.what})"
    facts |= found.facts | {"written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return (
        "<p>Every public kernel, the networks and whole procedures, number by number: value and gradient in "
        "PyTorch, in JAX and in compiled JAX, from the same arguments and the same noise.</p>"
        f'<p class="verdict{" bad" if bad else ""}">{verdict}</p><dl>{cards}</dl>'
        '<p class="hint"><b>Scaled</b> is what the tolerance holds: the difference over the size of the '
        "terms that enter a result. <b>Relative</b> and <b>ULP</b> are of single numbers, and large where a "
        "result is a difference that is almost 0. torch64 and jit64 are the same call in float64. For draws "
        "the first three columns count the integers that differ, and scaled is how far the noise lies from "
        "the boundary between them. Each line is the worst of its kind.</p>"
    )


def _failures(found: Report) -> Iterator[str]:
    bad = report.failed(found.rows)
    if bad:
        yield f'<section id="failed"><h2>Failed</h2>{_table([(row, 1) for row in bad])}</section>'


def _section(dtype: str, found: Report) -> str:
    rows = [row for row in found.rows if row.dtype == dtype]
    words = f"{len(rows):,} comparisons, {len(report.failed(rows)):,} failed."
    if dtype == "bfloat16":
        words += " Logits and their gradient are bfloat16, everything else is float32; networks are left out."
    kinds = list(report.kinds(rows))
    return f'<section id="{dtype}"><h2>{dtype}</h2><p class="soft">{words}</p>{_table(kinds)}</section>'


def _cost(found: Report) -> Iterator[str]:
    """Of the other precision of matrix products, if one was asked for."""
    if found.costs:
        words = f"JAX beside itself in float32; held to no tolerance. {report.price(found)}."
        table = _table(list(report.kinds(found.costs)))
        yield (
            f'<section id="matmul"><h2>Matmul precision {escape(str(found.matmul))}</h2>'
            f'<p class="soft">{escape(words)}</p>{table}</section>'
        )


def _table(kinds: Sequence[tuple[Row, int]]) -> str:
    """A row for each kind of comparison, a group for each pair."""
    numbers = "".join(f'<th scope="col" class="number">{name}</th>' for name in COLUMNS)
    head = f'<th scope="col">pair</th><th scope="col">comparison</th>{numbers}<th scope="col">used</th>'
    bodies = []
    for pair, group in groupby(kinds, key=lambda kind: kind[0].pair):
        rows = list(group)
        first = f'<th scope="rowgroup" rowspan="{len(rows)}">{escape(pair)}</th>'
        lines = [_line(row, count, first if i == 0 else "") for i, (row, count) in enumerate(rows)]
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}<th scope="col">worst case</th></tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def _line(row: Row, count: int, first: str) -> str:
    values = (row.absolute, row.relative, row.ulp, row.scaled, row.tolerance)
    numbers = [f"{count:,}", *("none" if x == np.inf == row.tolerance else f"{x:.2g}" for x in values)]
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    kind = "" if row.ok else ' class="bad"'
    return (
        f"<tr{kind}>{first}<td>{escape(row.what)}</td>{cells}"
        f'<td>{_bar(row)}</td><td class="case">{escape(report.case(row))}</td></tr>'
    )


def _bar(row: Row) -> str:
    """The part of the tolerance that is used; words where it fails or where there is none."""
    if not row.ok:
        return "<b>FAIL</b>"
    if row.tolerance == np.inf:
        return "shown only"
    near = ' class="near"' if row.used > 0.5 else ""
    width = f"{100 * row.used:.1f}%"
    return f'<span class="used"><span{near} style="width: {width}"></span></span>{100 * row.used:.2g}%'


def _plots(found: Report) -> Iterator[str]:
    drifting = [outcome for outcome in found.outcomes if any(y.any() for y in outcome.drift.values())]
    if drifting:
        words = (
            "Training from the same weights, data and noise: the largest difference of any parameter after "
            "each step, on the scale of the largest entry of its tensor. A float32 run is beside the other "
            "framework's and beside float64 with the same noise."
        )
        yield _figure(_drift(drifting), "Drift of the parameters in training", words)
    if found.rows:
        words = (
            "The largest scaled difference of each pair as a part of its tolerance. Pairs that use less than "
            "a millionth are at the left edge, pairs that fail at the right of the line."
        )
        yield _figure(_use(found.rows), "How much of its tolerance each pair uses", words)


def _figure(figure: Figure, alt: str, words: str) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    source = base64.b64encode(picture.getvalue()).decode()
    return (
        f'<figure><img class="plot" alt="{escape(alt)}" src="data:image/svg+xml;base64,{source}">'
        f"<figcaption><b>{escape(alt)}.</b> {escape(words)}</figcaption></figure>"
    )


def _drift(outcomes: Sequence[Outcome]) -> Figure:
    """A panel for each procedure and float type."""
    columns = min(2, len(outcomes))
    rows = -(-len(outcomes) // columns)
    figure = Figure(figsize=(5.2 * columns, 3 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey="row").flat)
    for axis, outcome in zip(axes, outcomes, strict=False):
        for who, y in outcome.drift.items():
            axis.semilogy(np.arange(1, len(y) + 1), y, label=who, color=COLOURS.get(who, "#7a3e9d"))
        axis.set_title(outcome.title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    for axis in axes[len(outcomes) :]:
        axis.axis("off")
    return figure


def _use(rows: Sequence[Row]) -> Figure:
    """A line for each pair, a dot for each float type."""
    pairs = list(dict.fromkeys(row.pair for row in rows))
    figure = Figure(figsize=(8.5, 0.7 + 0.19 * len(pairs)), layout="constrained")
    axis = figure.subplots()
    for dtype in dict.fromkeys(row.dtype for row in rows):
        used = [
            max((r.used for r in rows if (r.pair, r.dtype) == (pair, dtype)), default=-1.0) for pair in pairs
        ]
        shown = [(np.clip(x, 1e-6, 10.0), i) for i, x in enumerate(used) if x >= 0]
        axis.plot(*zip(*shown, strict=True), "o", markersize=4, alpha=0.8, label=dtype)
    axis.axvline(1.0, color="#b42318", linewidth=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(pairs)), pairs, fontsize=7)
    axis.set_ylim(len(pairs) - 0.5, -0.5)
    axis.set_xlabel("part of the tolerance")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
