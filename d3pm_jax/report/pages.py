"""Puts the page together, and writes it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jax

from d3pm_jax import __version__
from d3pm_jax.errors import UserError
from d3pm_jax.files import write_text
from d3pm_jax.measure.record import Record
from d3pm_jax.parts.build import name_process
from d3pm_jax.report import chains, curves, figures, folder, plots, samples, settings
from d3pm_jax.report.folder import Reported
from d3pm_jax.runs.run import Run, open_run
from d3pm_jax.show.markup import (
    Html,
    cards,
    document,
    join,
    table,
    tag,
)

FILE = "report.html"
NAMED = 4  # runs in the title


def write(runs: Sequence[Run | Path | str] | Run | Path | str, out: Path | str | None = None) -> Path:
    """Writes a page about runs that needs nothing else, and returns its path.

    Args:
        runs: one or several, as `runs.open` returns them or by their folders.
        out: where to write; report.html in the folder of the first run by default.

    Raises:
        UserError: there is no such run, a file of it is damaged, `out` is in no folder, or there are more
            runs than colours, 8.
    """
    several = [runs] if isinstance(runs, Run | Path | str) else list(runs)
    if not several:
        raise UserError("no runs: pass at least one, as in report.write(['runs/digits'])")
    opened = [run if isinstance(run, Run) else open_run(run) for run in several]
    path = opened[0].workdir / FILE if out is None else Path(out)
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a directory: make it, or write the report elsewhere")
    write_text(path, page(opened))
    return path


def page(runs: Sequence[Run]) -> str:
    """Returns the page about runs as HTML.

    Raises:
        UserError: a file in their folders is damaged, their weights are not finite, or there are too many.
    """
    if len(runs) > plots.COLOURS:
        raise UserError(f"{len(runs)} runs: a page has {plots.COLOURS} colours, write several pages")
    reported = folder.read(runs)
    names = [each.name for each in reported]
    title = f"Report of {', '.join(names) if len(names) <= NAMED else f'{len(names)} runs'}"
    sections = {
        "Bounds": figures.bounds(reported),
        "Sample quality": figures.quality(reported),
        "Training": curves.training(reported),
        "Terms of the bound": curves.terms(reported),
        **_pictures(reported),
        "Config": settings.settings(reported),
    }
    sections = {name: content for name, content in sections.items() if content}
    links = [tag("a", name, href=f"#{_anchor(name)}") for name in sections]
    head = tag("header", tag("h1", title), _written(), _overview(reported), tag("nav", *links))
    colours = plots.legend(names)
    legends = {"Training": colours, "Terms of the bound": colours}
    body = [
        tag("section", tag("h2", name), legends.get(name), content, id=_anchor(name))
        for name, content in sections.items()
    ]
    return document(title, head, *body, script="film.js")


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _written() -> Html:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    words = f"Written {now} by d3pm_jax {__version__}. "
    words += "Samples and chains are drawn from the averaged weights of the checkpoint."
    return tag("p", words, class_="soft")


def _overview(reported: Sequence[Reported]) -> Html:
    """Says which runs these are, of what, and their figures: a run in boxes, several in a table."""
    best = figures.best_quality(reported)
    facts = [_facts(each, quality) for each, quality in zip(reported, best, strict=True)]
    if len(reported) == 1:
        return cards(facts[0])
    names = list(dict.fromkeys(name for row in facts for name in row))
    swatches = [tag("span", r.name, class_=f"swatch {plots.colour(i)}") for i, r in enumerate(reported)]
    rows = [[swatches[i], *(row.get(name, "-") for name in names)] for i, row in enumerate(facts)]
    return table(["run", *names], rows)


def _facts(reported: Reported, quality: Record | None) -> dict[str, object]:
    run, leaves = reported.run, jax.tree.leaves(reported.run.params)
    kind, shape = run.parts.description.kind, run.parts.description.shape
    return figures.headline(reported, quality) | {
        "step": f"{run.step:,} of {run.config.train.steps:,}",
        "process": name_process(run.config, run.process),
        "network": f"{type(run.config.model).__name__}, {sum(x.size for x in leaves):,} parameters",
        "data": f"{type(run.config.data).__name__}, {kind} {' x '.join(map(str, shape))}",
    }


def _pictures(reported: Sequence[Reported]) -> dict[str, Html]:
    """Draws from each run, and shows samples, what is nearest to them, and chains."""
    drawn = [chains.draw(each) for each in reported]
    pairs = list(zip(reported, drawn, strict=True))
    close = [(each, samples.nearest(each)) for each in reported]
    return {
        "Samples": join(*(_named(reported, r, samples.samples(r, x)) for r, x in pairs)),
        "Nearest examples": join(*(_named(reported, r, found) for r, found in close if found)),
        "Processes": join(*(_named(reported, r, samples.processes(r, x)) for r, x in pairs)),
    }


def _named(reported: Sequence[Reported], one: Reported, content: Html) -> Html:
    """Puts the name of a run above, where there are several."""
    return join(tag("h3", one.name) if len(reported) > 1 else None, content)
