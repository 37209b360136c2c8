"""Puts the page together, and writes it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from d3pm_jax import __version__
from d3pm_jax.config import Config, io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.files import write_text
from d3pm_jax.parts.build import name_process
from d3pm_jax.report import curves, figures, folder, samples
from d3pm_jax.report.folder import Reported
from d3pm_jax.runs.run import Run, open_run
from d3pm_jax.show.markup import Html, build_cards, build_document, build_table, join_html, tag
from d3pm_jax.storage.names import REPORT

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
    path = opened[0].workdir / REPORT if out is None else Path(out)
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a directory: make it, or write the report elsewhere")
    write_text(path, page(opened))
    return path


def page(runs: Sequence[Run]) -> str:
    """Returns the page about runs as HTML.

    Raises:
        UserError: a file in their folders is damaged, their weights are not finite, or there are too many.
    """
    if len(runs) > curves.COLOURS:
        raise UserError(f"{len(runs)} runs: a page has {curves.COLOURS} colours, write several pages")
    reported = folder.read_folders(runs)
    names = [each.name for each in reported]
    title = f"Report of {', '.join(names) if len(names) <= NAMED else f'{len(names)} runs'}"
    drawn = [(each, samples.draw_run(each)) for each in reported]
    close = [(each, samples.show_nearest(each)) for each in reported]
    sections = {
        "Bounds": figures.tabulate_bounds(reported),
        "Sample quality": figures.tabulate_quality(reported),
        "Training": curves.plot_metrics(reported),
        "Terms of the bound": curves.plot_terms(reported),
        "Samples": join_html(*(_named(reported, r, samples.show_samples(r, x)) for r, x in drawn)),
        "Nearest examples": join_html(*(_named(reported, r, found) for r, found in close if found)),
        "Processes": join_html(*(_named(reported, r, samples.show_chains(r, x)) for r, x in drawn)),
        "Config": tabulate_configs(reported),
    }
    sections = {name: content for name, content in sections.items() if content}
    links = [tag("a", name, href=f"#{_anchor(name)}") for name in sections]
    words = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by d3pm_jax {__version__}. "
    words += "Samples and chains are drawn from the averaged weights of the checkpoint."
    written = tag("p", words, class_="soft")
    head = tag("header", tag("h1", title), written, _overview(reported), tag("nav", *links))
    colours = curves.draw_legend(names)
    legends = {"Training": colours, "Terms of the bound": colours}
    body = [
        tag("section", tag("h2", name), legends.get(name), content, id=_anchor(name))
        for name, content in sections.items()
    ]
    return build_document(title, head, *body, script="film.js")


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _overview(reported: Sequence[Reported]) -> Html:
    """Says which runs these are, of what, and their figures: a run in boxes, several in a table."""
    best = figures.select_best_quality(reported)
    facts = []
    for each, quality in zip(reported, best, strict=True):
        run = each.run
        numbers = sum(x.size for x in jax.tree.leaves(run.params))
        shape = " x ".join(map(str, run.parts.description.shape))
        more = {
            "step": f"{run.step:,} of {run.config.train.steps:,}",
            "process": name_process(run.config, run.process),
            "network": f"{type(run.config.model).__name__}, {numbers:,} parameters",
            "data": f"{type(run.config.data).__name__}, {run.parts.description.kind} {shape}",
        }
        facts.append(figures.list_main_figures(each, quality) | more)
    if len(reported) == 1:
        return build_cards(facts[0])
    names = list(dict.fromkeys(name for row in facts for name in row))
    swatches = [tag("span", r.name, class_=f"swatch run-{i}") for i, r in enumerate(reported)]
    rows = [[swatches[i], *(row.get(name, "-") for name in names)] for i, row in enumerate(facts)]
    return build_table(["run", *names], rows)


def _named(reported: Sequence[Reported], one: Reported, content: Html) -> Html:
    """Puts the name of a run above, where there are several."""
    return join_html(tag("h3", one.name) if len(reported) > 1 else None, content)


def tabulate_configs(runs: Sequence[Reported]) -> Html:
    """Returns what differs between runs side by side, and folded all fields of each."""
    configs = [flatten_config(each.run.config) for each in runs]
    differ, rest = compare_configs(configs)
    found = []
    if len(runs) > 1 and differ:
        shown = [{name: _value(value) for name, value in config.items()} for config in configs]
        rows = [[name, *(values.get(name, "-") for values in shown)] for name in differ]
        found.append(build_table(["field", *(each.name for each in runs)], rows))
    elif len(runs) > 1:
        found.append(tag("p", "The configs are the same."))
    words = f"{len(rest)} fields, the same of all" if len(runs) > 1 else f"all {len(rest)} fields"
    folded = build_table(["field", "value"], [[name, _value(configs[0][name])] for name in rest])
    return join_html(*found, tag("details", tag("summary", words), folded))


def compare_configs(configs: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the fields that differ between configs, or are not in all, and those that are the same."""
    names = list(dict.fromkeys(name for config in configs for name in config))
    # None stands where a config has no such field, unlike "None"
    texts = [{name: repr(value) for name, value in config.items()} for config in configs]
    differ = [name for name in names if len({text.get(name) for text in texts}) > 1]
    return differ, [name for name in names if name not in differ]


def flatten_config(config: Config) -> dict[str, Any]:
    """Returns every field by dotted name; the class of a part stands under the name of the part itself."""
    found = config_io.flatten_config(config)
    return {name.removesuffix(".class"): value for name, value in found.items() if name != "class"}


def _value(value: Any) -> str:
    return value if isinstance(value, str) else repr(tuple(value) if isinstance(value, list) else value)
