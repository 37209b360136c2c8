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


def make_page(content: Report) -> str:
    """Makes the document of a report."""
    dtypes = list(dict.fromkeys(row.dtype for row in content.rows))
    sections = [
        *_failures(content),
        *(_section_of_dtype(dtype, content) for dtype in dtypes),
        *_section_of_costs(content),
    ]
    links = [*dtypes]
    if content.costs:
        links.append("matmul")
    links.append("plots")
    nav = "".join(f'<a href="#{escape(link)}">{escape(link)}</a>' for link in links)
    title = "Parity of d3pm_jax and torch_ref"
    body = (
        f"<header><h1>{title}</h1>{_head(content)}<nav>{nav}</nav></header>"
        f'{"".join(sections)}<section id="plots"><h2>Plots</h2>{"".join(_plots(content))}</section>'
    )
    return build_document(title, Html(body))


def _head(content: Report) -> str:
    """What the report is of, how many comparisons failed, and on which machine."""
    count = len(content.rows)
    failed = len(report.failed(content.rows))
    if failed:
        verdict = f"{failed:,} of {count:,} comparisons failed"
        style = "verdict bad"
    else:
        verdict = f"all {count:,} comparisons passed"
        style = "verdict"

    facts = {"comparisons": f"{count:,}", "failed": f"{failed:,}"}
    if content.rows:
        row = max(content.rows, key=lambda row: row.used)
        facts["most of a tolerance used"] = f"{row.used:.0%} ({row.pair}, {row.dtype}, {row.comparison})"
    facts |= content.facts | {"written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items()
    )
    return (
        "<p>Every public kernel, the networks and whole procedures, number by number: value and gradient in "
        "PyTorch, in JAX and in compiled JAX, from the same arguments and the same noise.</p>"
        f'<p class="{style}">{verdict}</p><dl>{cards}</dl>'
        '<p class="hint"><b>Scaled</b> is what the tolerance holds: the difference over the size of the '
        "terms that enter a result. <b>Relative</b> and <b>ULP</b> are of single numbers, and large where a "
        "result is a difference that is almost 0. torch64 and jit64 are the same call in float64. For draws "
        "the first three columns count the integers that differ, and scaled is how far the noise lies from "
        "the boundary between them. Each line is the worst of its kind.</p>"
    )


def _failures(content: Report) -> Iterator[str]:
    failed = report.failed(content.rows)
    if failed:
        yield f'<section id="failed"><h2>Failed</h2>{_table([(row, 1) for row in failed])}</section>'


def _section_of_dtype(dtype: str, content: Report) -> str:
    rows = [row for row in content.rows if row.dtype == dtype]
    words = f"{len(rows):,} comparisons, {len(report.failed(rows)):,} failed."
    if dtype == "bfloat16":
        words += " Logits and their gradient are bfloat16, everything else is float32; networks are left out."
    table = _table(list(report.worst_rows(rows)))
    return f'<section id="{dtype}"><h2>{dtype}</h2><p class="soft">{words}</p>{table}</section>'


def _section_of_costs(content: Report) -> Iterator[str]:
    """The section of the other precision of matrix products, if one was asked for."""
    if content.costs:
        words = f"JAX beside itself in float32; held to no tolerance. {report.describe_cost(content)}."
        table = _table(list(report.worst_rows(content.costs)))
        yield (
            f'<section id="matmul"><h2>Matmul precision {escape(str(content.matmul))}</h2>'
            f'<p class="soft">{escape(words)}</p>{table}</section>'
        )


def _table(worst_rows: Sequence[tuple[Row, int]]) -> str:
    """A row for each kind of comparison, a group for each pair."""
    numbers = "".join(f'<th scope="col" class="number">{column}</th>' for column in COLUMNS)
    head = f'<th scope="col">pair</th><th scope="col">comparison</th>{numbers}<th scope="col">used</th>'
    bodies = []
    for pair, group in groupby(worst_rows, key=lambda worst: worst[0].pair):
        lines = [_line(row, count) for row, count in group]
        # The name of the pair stands in its first line, beside all of them.
        name = f'<th scope="rowgroup" rowspan="{len(lines)}">{escape(pair)}</th>'
        starts = [name, *[""] * (len(lines) - 1)]
        body = ""
        for start, (style, cells) in zip(starts, lines, strict=True):
            body += f"<tr{style}>{start}{cells}"
        bodies.append(f"<tbody>{body}</tbody>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}<th scope="col">worst case</th></tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def _line(row: Row, count: int) -> tuple[str, str]:
    """The attributes of a line, and its cells after the first."""
    sizes = (row.absolute, row.relative, row.ulp, row.scaled, row.tolerance)
    numbers = [f"{count:,}", *(_number(x, row) for x in sizes)]
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    style = "" if row.ok else ' class="bad"'
    return style, (
        f"<td>{escape(row.comparison)}</td>{cells}"
        f'<td>{_bar(row)}</td><td class="case">{escape(report.describe_case(row))}</td></tr>'
    )


def _number(x: float, row: Row) -> str:
    if x == np.inf == row.tolerance:
        return "none"
    return f"{x:.2g}"


def _bar(row: Row) -> str:
    """The part of the tolerance that is used; words where it fails or where there is none."""
    if not row.ok:
        return "<b>FAIL</b>"
    if row.tolerance == np.inf:
        return "shown only"
    near = ' class="near"' if row.used > 0.5 else ""
    width = f"{100 * row.used:.1f}%"
    return f'<span class="used"><span{near} style="width: {width}"></span></span>{100 * row.used:.2g}%'


def _plots(content: Report) -> Iterator[str]:
    drifting = []
    for outcome in content.outcomes:
        if any(drift.any() for drift in outcome.drift.values()):
            drifting.append(outcome)
    if drifting:
        words = (
            "Training from the same weights, data and noise: the largest difference of any parameter after "
            "each step, on the scale of the largest entry of its tensor. A float32 run is beside the other "
            "framework's and beside float64 with the same noise."
        )
        yield _figure(_drift(drifting), "Drift of the parameters in training", words)
    if content.rows:
        words = (
            "The largest scaled difference of each pair as a part of its tolerance. Pairs that use less than "
            "a millionth are at the left edge, pairs that fail at the right of the line."
        )
        yield _figure(_use(content.rows), "How much of its tolerance each pair uses", words)


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
        for comparison, drift in outcome.drift.items():
            colour = COLOURS.get(comparison, "#7a3e9d")
            axis.semilogy(np.arange(1, len(drift) + 1), drift, label=comparison, color=colour)
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
        largest: dict[str, float] = {}  # by the pairs that are compared in this type
        for row in rows:
            if row.dtype == dtype:
                largest[row.pair] = max(row.used, largest.get(row.pair, row.used))
        parts = np.clip(list(largest.values()), 1e-6, 10.0)
        lines = [pairs.index(pair) for pair in largest]
        axis.plot(parts, lines, "o", markersize=4, alpha=0.8, label=dtype)
    axis.axvline(1.0, color="#b42318", linewidth=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(pairs)), pairs, fontsize=7)
    axis.set_ylim(len(pairs) - 0.5, -0.5)
    axis.set_xlabel("part of the tolerance")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
