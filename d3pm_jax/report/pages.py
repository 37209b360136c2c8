"""Puts the page together, and writes it."""

import html
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from d3pm_jax import __version__
from d3pm_jax.config import Config, io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.files import write_text
from d3pm_jax.models.variables import split_variables
from d3pm_jax.program.storage.names import REPORT
from d3pm_jax.report import curves, figures, folder, samples
from d3pm_jax.runs.run import Run, open_run
from d3pm_jax.show.markup import Html, build_cards, build_document, build_table, join_html, tag

NAMED = 4  # runs whose names are in the title, at most


def write(runs: Sequence[Run | Path | str] | Run | Path | str, out: Path | str | None = None) -> Path:
    """Writes a page about runs, in one file that loads no other, and returns its path.

    Args:
        runs: one or several, as `runs.open` returns them or by their folders.
        out: where to write; report.html in the folder of the first run by default.

    Raises:
        UserError: there is no such run, a file of it is damaged, `out` is in no folder, or there are more
            runs than colours, 8.
    """
    if isinstance(runs, Run | Path | str):
        runs = [runs]
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    if not opened:
        raise UserError("no runs: pass at least one, as in report.write(['runs/digits'])")
    path = opened[0].workdir / REPORT if out is None else Path(out)
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a directory: make it, or write the report elsewhere")
    write_text(path, page(opened))
    return path


def read_title(path: Path) -> str | None:
    """Returns the title of a page, as "Report of digits"; None where there is no page."""
    if not path.is_file():
        return None
    # The title stands before the style, the script and the pictures.
    with path.open(encoding="utf-8", errors="replace") as file:
        match = re.search("<title>(.*?)</title>", file.read(10_000))
    if match is None:
        return None
    return html.unescape(match[1])


def page(runs: Sequence[Run]) -> str:
    """Returns the page about runs as HTML.

    Raises:
        UserError: a file in their folders is damaged, their weights are not finite, or there are too many.
    """
    if len(runs) > curves.COLOURS:
        raise UserError(f"{len(runs)} runs: a page has {curves.COLOURS} colours, write several pages")
    reported_runs = folder.read_folders(runs)
    names = [reported.name for reported in reported_runs]
    subject = ", ".join(names) if len(names) <= NAMED else f"{len(names)} runs"
    title = f"Report of {subject}"

    def join_by_run(contents: Mapping[str, Html | None]) -> Html:
        """Joins contents by name of run, each below that name where there are several; None is nothing."""
        parts = []
        for name, content in contents.items():
            if content and len(reported_runs) > 1:
                parts.append(tag("h3", name))
            parts.append(content)
        return join_html(*parts)

    shown_samples = {}
    shown_chains = {}
    for reported in reported_runs:
        # A classifier draws nothing, and has its curves and its config on the page.
        if reported.draws_samples:
            # None where the network takes conditions that the run does not keep.
            shown = samples.draw_run(reported)
            shown_samples[reported.name] = samples.show_samples(reported, shown)
            shown_chains[reported.name] = samples.show_chains(reported, shown)
    sections = {
        "Bounds": figures.tabulate_bounds(reported_runs),
        "Accuracy": figures.tabulate_accuracies(reported_runs),
        "Exact likelihood": figures.tabulate_likelihoods(reported_runs),
        "Certificate": figures.tabulate_certificates(reported_runs),
        "Sample quality": figures.tabulate_quality(reported_runs),
        "Training": curves.plot_metrics(reported_runs),
        "Terms of the bound": curves.plot_terms(reported_runs),
        "Samples": join_by_run(shown_samples),
        "Made from examples": join_by_run({run.name: samples.show_made(run) for run in reported_runs}),
        "Nearest examples": join_by_run({run.name: samples.show_nearest(run) for run in reported_runs}),
        "Processes": join_by_run(shown_chains),
        "Config": tabulate_configs(reported_runs),
    }
    sections = {name: content for name, content in sections.items() if content}

    links = [tag("a", name, href=f"#{_anchor(name)}") for name in sections]
    words = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by d3pm_jax {__version__}. "
    if "Samples" in sections:
        drawn_things = "Samples and chains" if "Processes" in sections else "Samples"
        words += f"{drawn_things} are drawn from the averaged weights of the checkpoint."
    written = tag("p", words, class_="soft")
    head = tag("header", tag("h1", title), written, _tabulate_overview(reported_runs), tag("nav", *links))
    legend = curves.draw_legend(names)
    legends = {"Training": legend, "Terms of the bound": legend}
    body = [
        tag("section", tag("h2", name), legends.get(name), content, id=_anchor(name))
        for name, content in sections.items()
    ]
    return build_document(title, head, *body, script="film.js")


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _tabulate_overview(runs: Sequence[folder.Reported]) -> Html:
    """Says which runs these are, of what, and their figures: a run in boxes, several in a table."""
    facts_of_runs = []
    for reported, quality in zip(runs, figures.select_best_quality(runs), strict=True):
        run = reported.run
        params, _ = split_variables(run.params)
        num_params = sum(x.size for x in jax.tree.leaves(params))
        shape = " x ".join(map(str, run.parts.description.shape))
        step = f"{run.step:,} of {run.config.train.steps:,}"
        if reported.is_imported:
            step = "imported weights, not trained here"
        description = {
            "step": step,
            "process": run.parts.recipe.name,
            "network": f"{type(run.config.model).__name__}, {num_params:,} parameters",
            "data": f"{type(run.config.data).__name__}, {run.parts.description.kind} {shape}",
        }
        facts_of_runs.append(figures.list_main_figures(reported, quality) | description)
    if len(runs) == 1:
        return build_cards(facts_of_runs[0])

    names = curves.list_names(facts_of_runs)
    swatches = [tag("span", run.name, class_=f"swatch run-{i}") for i, run in enumerate(runs)]
    rows = [
        [swatch, *(facts.get(name, "-") for name in names)]
        for swatch, facts in zip(swatches, facts_of_runs, strict=True)
    ]
    return build_table(["run", *names], rows)


def tabulate_configs(runs: Sequence[folder.Reported]) -> Html:
    """Builds a table of the fields that differ between runs, and a folded one of all others."""
    configs = [flatten_config(reported.run.config) for reported in runs]
    differing_names, same_names = compare_configs(configs)
    summary = f"all {len(same_names)} fields"
    parts = []
    if len(runs) > 1:
        summary = f"{len(same_names)} fields, the same of all"
        if differing_names:
            head = ["field", *(reported.name for reported in runs)]
            parts.append(build_table(head, [_value_row(name, configs) for name in differing_names]))
        else:
            parts.append(tag("p", "The configs are the same."))
    first_configs = configs[:1]  # whose values are those of all
    folded = build_table(["field", "value"], [_value_row(name, first_configs) for name in same_names])
    return join_html(*parts, tag("details", tag("summary", summary), folded))


def compare_configs(configs: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the fields that differ between configs, or are not in all, and those that are the same."""
    names = curves.list_names(configs)
    # A config that lacks a field has None here, which differs from the text "None" of a value.
    texts = [{name: repr(value) for name, value in config.items()} for config in configs]
    differ = [name for name in names if len({text.get(name) for text in texts}) > 1]
    same = [name for name in names if name not in differ]
    return differ, same


def flatten_config(config: Config) -> dict[str, Any]:
    """Returns every field by dotted name; the class of a part stands under the name of the part itself."""
    values = config_io.flatten_config(config)
    values.pop("class", None)  # of the config itself
    return {name.removesuffix(".class"): value for name, value in values.items()}


def _value_row(name: str, configs: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the name of a field, and its value in each of the configs."""
    return [name, *(_format_value(config.get(name, "-")) for config in configs)]


def _format_value(value: Any) -> str:
    """Formats a value as a config file has it: a list of JSON is a tuple there."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return repr(tuple(value))
    return repr(value)
