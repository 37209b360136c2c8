"""Compares samplers by the number of network calls under beliefs that are exact: no network is trained.

    python benchmarks/samplers.py exact [--picture docs/images/samplers_exact.png]
    python benchmarks/samplers.py language [--only WORD] [--picture docs/images/samplers_language.png]
    python benchmarks/samplers.py draws

exact: the law of what each sampler draws, by enumeration, of four places of three categories.
language: samples of a Markov chain of length 64, whose exact belief is computed forward and backward.
draws: what rounding of float32 does to three ways of drawing the same law.
Each prints tables in Markdown; docs/samplers-measured.md says what they mean.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
import samplers_draws as draws
import samplers_language as language
from matplotlib.figure import Figure
from PIL import Image

import d3pm_jax as d3pm
from d3pm_jax import oracles, sampler_laws
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling import Chain, Denoiser, Sampler, Shaping, even_grid, sample
from d3pm_jax.sampling.named import SAMPLERS
from d3pm_jax.show.curves import save_figure

# ---- exact ----

CATEGORIES = 3
LENGTH = 4
STEPS = 64  # of the processes that are respaced
GRIDS = (1, 2, 4, 8, 16, 32, 64)
SMALLEST_SHOWN = 1e-6  # nats, in the picture


class Line(NamedTuple):
    """Describes a line of a table or plot: a sampler with one number that changes."""

    name: str
    samplers: list[Sampler]
    parameters: list[str]  # what is different in each, in words
    steps: list[int]  # of the process, for each


class Point(NamedTuple):
    """Holds what a sampler costs and how far its law is from that of the data, in nats."""

    parameter: str
    calls: float
    sampled_from_data: float  # sum p_sampled log(p_sampled / p_data)
    data_from_sampled: float


def make_data_law(seed: int = 0, spread: float = 1.5) -> np.ndarray:
    """Returns a random law [3, .., 3] of places that depend on each other."""
    weights = np.exp(spread * np.random.default_rng(seed).normal(size=(CATEGORIES,) * LENGTH))
    return weights / weights.sum()


def total_correlation(data: np.ndarray) -> float:
    """KL of the law from the product of the laws of its places, nats: what one call can at best leave."""
    product = np.ones(())
    for place in range(LENGTH):
        others = tuple(other for other in range(LENGTH) if other != place)
        product = np.multiply.outer(product, data.sum(axis=others))
    return kl(data.ravel(), product.ravel())


def make_processes() -> dict[str, Process]:
    """Returns a process of each kind, 64 steps each, for categories 0, 1, 2."""
    K = CATEGORIES
    beta = d3pm.reciprocal(STEPS)  # alpha_bar falls evenly to 0
    inner = d3pm.uniform(d3pm.schedules.from_alpha_bar(np.linspace(1, 0.5, STEPS + 1)), K)
    path = np.array([[-1, 1, 0], [1, -2, 1], [0, 1, -1]])
    slowest = 1 - 0.999 * np.arange(STEPS + 1) / STEPS  # what is left of the slowest mode falls evenly
    return {
        "absorbing": d3pm.absorbing(beta, K + 1, mask_id=K),
        "uniform": d3pm.uniform(beta, K),
        "marginal": d3pm.marginal(beta, np.array([0.5, 0.3, 0.2])),
        "mask on top of uniform": d3pm.masked(inner, beta),
        "Gaussian": d3pm.gaussian(np.linspace(0.02, 0.8, STEPS), K),
        "nearest neighbours": d3pm.processes.from_rate(path, -np.diff(np.log(slowest))),
    }


def list_lines(kind: str) -> Iterator[Line]:
    """Lists the lines of a process: every sampler that is for it."""
    mixes = kind in ("uniform", "marginal", "absorbing")
    yield by_steps("ancestral")
    if mixes:
        for c in (1.0, 0.5, 0.0):
            yield by_steps("ddim", c=c)
    for kappa in (0.95, 0.5):
        yield by_steps("psi", kappa=kappa)
    if mixes or kind == "mask on top of uniform":
        yield by_steps("tau_leaping")
        yield by_steps("euler")
    if mixes:
        yield by_steps("predictor_corrector", h=0.1)
        yield by_steps("predictor_corrector", h=0.01)
    # What a place remembers is too much to enumerate with more steps.
    few = {"absorbing": GRIDS, "mask on top of uniform": (1, 2, 4)}
    yield by_steps("stratified", few.get(kind, (1, 2)))
    yield by_steps("gibbs")
    if kind == "absorbing":
        yield by_steps("remdm_cap")
        yield by_steps("remdm_rescale")
        yield by_steps("remdm_confidence", (1, 2, 4))
        yield by_field("remdm_loop", rows=(12, 20, 40))
        yield by_steps("blocks", (1,), block=1)
        yield by_steps("blocks", (1, 2, 4, 8, 16, 32), block=2)
        yield by_field("first_hitting")
        yield by_field("random_order")
        yield by_field("margin", noise=(0.0, 0.5))
        yield by_field("speculative", drafts=(1, 2, 3, 4))
        yield by_field("llada", rows=(1, 2, 3, 4))
        yield by_field("p2", rows=(1, 2, 4, 8, 16))
        yield by_field("p2", rows=(1, 2, 4, 8, 16), eta=(2.0,))
        yield by_field("maskgit", rows=(1, 2, 3, 4, 8))
        yield by_field("maskgit", rows=(1, 2, 3, 4, 8), choice_temperature=(0.0,))
        yield by_field("fast_dllm_threshold", threshold=(0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1))
        yield by_field("fast_dllm_factor", factor=(4.0, 2.0, 1.5, 1.0, 0.5, 0.1))
        yield by_field("entropy_bound", bound=(np.inf, 2.0, 1.0, 0.5, 0.0))


def by_steps(name: str, grids: tuple[int, ...] = GRIDS, **fields: float) -> Line:
    """Makes a line of one sampler by the number of steps of the process."""
    label = ", ".join([name, *(f"{field} = {value:g}" for field, value in fields.items())])
    return Line(label, [SAMPLERS[name](**fields)] * len(grids), [f"{n} steps" for n in grids], list(grids))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """sum p log(p / q), nats; inf where q is 0 and p is not."""
    held = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[held] * (np.log(p[held]) - np.log(q[held]))))


def by_field(name: str, steps: int = STEPS, **fields: tuple[float, ...]) -> Line:
    """Makes a line of a sampler by the values of its first field; others have one value."""
    if not fields:
        return Line(name, [SAMPLERS[name]()], ["-"], [steps])
    (field, values), *others = fields.items()
    fixed = {other: value for other, (value,) in others}
    label = ", ".join([name, *(f"{other} = {value:g}" for other, value in fixed.items())])
    samplers = [SAMPLERS[name](**{field: value}, **fixed) for value in values]
    return Line(label, samplers, [f"{field} = {value:g}" for value in values], [steps] * len(values))


def compute_points(process: Process, data: np.ndarray, line: Line) -> list[Point]:
    """Returns the points of a line."""
    points = []
    for sampler, parameter, steps in zip(line.samplers, line.parameters, line.steps, strict=True):
        respaced = d3pm.respace(process, even_grid(STEPS, steps))
        network = oracles.network(oracles.table(data), process)
        law, calls = sampler_laws.enumerate_sampler(sampler, respaced, LENGTH, network)
        p = data.ravel()
        points.append(Point(parameter, calls, kl(law, p), kl(p, law)))
    return points


def run_exact(out: Path, picture: Path | None) -> None:
    """Computes what is not yet in a file, prints the tables, and draws the picture."""
    jax.config.update("jax_enable_x64", True)
    data = make_data_law()
    path = out / "exact.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    lines = {}
    for kind, process in make_processes().items():
        lines[kind] = {}
        for line in list_lines(kind):
            key = f"{kind}: {line.name}"
            if key not in known:
                known[key] = compute_points(process, data, line)
                out.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(known))
            lines[kind][line.name] = [Point(*point) for point in known[key]]
        print(exact_tables(kind, lines[kind]), flush=True)
    most = total_correlation(data)
    print(f"total correlation of the law: {most:.4f} nats")
    if picture is not None:
        draw_exact(lines, picture)


def exact_tables(kind: str, lines: dict[str, list[Point]]) -> str:
    """Makes the Markdown tables of a process, of both divergences."""
    text = []
    for name, value in (
        ("KL of the sampled law from the data law", lambda p: p.sampled_from_data),
        ("KL of the data law from the sampled law", lambda p: p.data_from_sampled),
    ):
        text += [f"{kind}: {name}, nats", "", steps_table(lines, value), "", fields_table(lines, value), ""]
    return "\n".join(text)


def steps_table(lines: dict[str, list[Point]], value: Callable[[Point], float]) -> str:
    """Makes a table with a column for each number of steps."""
    rows = [f"| sampler | {' | '.join(map(str, GRIDS))} |", "|---" * (len(GRIDS) + 1) + "|"]
    for name, points in lines.items():
        by_steps = {p.parameter: p for p in points}
        columns = [by_steps.get(f"{n} steps") for n in GRIDS]
        if any(columns):
            cells = ["" if p is None else format_nats(value(p)) for p in columns]
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def fields_table(lines: dict[str, list[Point]], value: Callable[[Point], float]) -> str:
    """Makes a table of samplers whose number of calls follows from a field: calls and divergence of each."""
    rows = []
    for name, points in lines.items():
        shown = [p for p in points if not p.parameter.endswith("steps")]
        if shown:
            cells = "; ".join(f"{p.parameter}: {p.calls:.3g} calls, {format_nats(value(p))}" for p in shown)
            rows.append(f"| {name} | {cells} |")
    return "\n".join(["| sampler | by its field |", "|---|---|", *rows]) if rows else ""


def format_nats(x: float) -> str:
    if x < 1e-12:
        return "0"
    return f"{x:.4f}" if x >= 1e-4 else f"{x:.0e}"


def draw_exact(lines: dict[str, dict[str, list[Point]]], path: Path) -> None:
    """Draws KL of the sampled law from the data law by calls, a line for each sampler."""
    names = list(dict.fromkeys(name for of_kind in lines.values() for name in of_kind))
    panels = {}
    for kind, of_kind in lines.items():
        moving, revealing = {}, {}
        for name, points in of_kind.items():
            is_moving = points[0].parameter.endswith("steps") or name == "remdm_loop"
            (moving if is_moving else revealing)[name] = points
        panels[kind] = moving
        if revealing:
            panels[f"{kind}, revealing places"] = revealing
    figure = Figure(figsize=(11, 14), layout="constrained")
    grid = figure.subplots(4, 2).ravel()
    for axes, (title, of_panel) in zip(grid, panels.items(), strict=False):
        for name, points in of_panel.items():
            calls = [p.calls for p in points]
            nats = [max(p.sampled_from_data, SMALLEST_SHOWN) for p in points]
            axes.plot(calls, nats, label=name, linewidth=1, **line_style(names.index(name)))
        axes.set(title=title, xlabel="network calls", ylabel="KL, nats", yscale="log", xscale="log")
        ticks = [n for n in GRIDS if n <= max(p.calls for points in of_panel.values() for p in points)]
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
        axes.set_ylim(SMALLEST_SHOWN / 2, 2)
        axes.legend(frameon=False, fontsize=6, ncols=2, loc="lower left")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    save_small(path, figure)


# ---- language ----

LANGUAGE_STEPS = 256
LANGUAGE_GRIDS = (4, 16, 64)
HALVES = (2, 8, 32)  # with one move of a corrector after each row but the last
SAMPLES = 2000
FIGURES = (("nats", "-log p", 3), ("pairs", "pairs", 4), ("triples", "triples", 4))  # field, title, digits


class LanguagePoint(NamedTuple):
    """Holds what a sampler costs and how far its samples are from the language."""

    parameter: str
    calls: float
    figures: language.Figures


def list_language_lines(kind: str) -> Iterator[Line]:
    """Lists the lines of a process on the language."""
    yield by_steps("ancestral", LANGUAGE_GRIDS)
    yield with_shaping(by_steps("ancestral", LANGUAGE_GRIDS), "temperature = 0.8", Shaping(temperature=0.8))
    yield with_shaping(by_steps("ancestral", LANGUAGE_GRIDS), "top_p = 0.9", Shaping(top_p=0.9))
    if kind == "uniform":
        yield by_steps("ddim", LANGUAGE_GRIDS, c=1.0)
    yield by_steps("ddim", LANGUAGE_GRIDS, c=0.5)
    yield by_steps("psi", LANGUAGE_GRIDS, kappa=0.95)
    yield by_steps("tau_leaping", LANGUAGE_GRIDS)
    yield by_steps("euler", LANGUAGE_GRIDS)
    yield by_steps("predictor_corrector", HALVES)
    yield by_steps("stratified", LANGUAGE_GRIDS)
    yield by_steps("gibbs", HALVES)
    if kind == "uniform":
        return
    yield by_steps("remdm_cap", LANGUAGE_GRIDS)
    yield by_steps("remdm_rescale", LANGUAGE_GRIDS)
    yield by_steps("remdm_confidence", LANGUAGE_GRIDS)
    yield by_field("remdm_loop", LANGUAGE_STEPS, rows=LANGUAGE_GRIDS)
    yield by_steps("blocks", (1,), block=1)
    yield by_steps("blocks", (2, 8), block=8)
    yield by_field("first_hitting", LANGUAGE_STEPS)
    yield by_field("random_order", LANGUAGE_STEPS)
    yield by_field("margin", LANGUAGE_STEPS, noise=(0.0, 0.5))
    yield by_field("speculative", LANGUAGE_STEPS, drafts=(4, 16))
    yield by_field("llada", LANGUAGE_STEPS, rows=LANGUAGE_GRIDS)
    yield by_field("p2", LANGUAGE_STEPS, rows=LANGUAGE_GRIDS)
    yield by_field("maskgit", LANGUAGE_STEPS, rows=LANGUAGE_GRIDS)
    yield by_field("maskgit", LANGUAGE_STEPS, rows=LANGUAGE_GRIDS, choice_temperature=(0.0,))
    yield by_field("fast_dllm_threshold", LANGUAGE_STEPS, threshold=(0.3, 0.5, 0.7, 0.9))
    yield by_field("fast_dllm_factor", LANGUAGE_STEPS, factor=(8.0, 4.0, 2.0, 1.0))
    yield by_field("entropy_bound", LANGUAGE_STEPS, bound=(16.0, 4.0, 1.0, 0.0))


def with_shaping(line: Line, name: str, shaping: Shaping) -> Line:
    """Makes the same line with shaped logits."""
    samplers = [dataclasses.replace(sampler, shaping=shaping) for sampler in line.samplers]
    return line._replace(name=f"{line.name}, {name}", samplers=samplers)


def run_language(out: Path, only: str, picture: Path | None) -> None:
    """Draws and measures what is not yet in a file, prints the tables, and draws the picture."""
    text = language.make_language()
    K = language.CATEGORIES
    beta = d3pm.reciprocal(LANGUAGE_STEPS)
    processes = {"absorbing": d3pm.absorbing(beta, K + 1, mask_id=K), "uniform": d3pm.uniform(beta, K)}
    path = out / "language.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    lines = {}
    for kind, process in processes.items():
        lines[kind] = {}
        for line in list_language_lines(kind):
            points = []
            for sampler, parameter, steps in zip(line.samplers, line.parameters, line.steps, strict=True):
                key = f"{kind}: {line.name}: {parameter}"
                if key not in known and only in key:
                    known[key] = draw_language_point(text, process, sampler, steps)
                    out.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(known))
                if key in known:
                    calls, figures = known[key]
                    points.append(LanguagePoint(parameter, calls, language.Figures(*figures)))
            if points:
                lines[kind][line.name] = points
    truth = language.measure(text, text.draw(np.random.default_rng(1), SAMPLES))
    print(language_tables(text, truth, lines))
    if picture is not None:
        draw_language(text, truth, lines, picture)


def draw_language_point(
    text: language.Language, process: Process, sampler: Sampler, steps: int
) -> tuple[float, language.Figures]:
    """Returns calls and figures of a sampler."""
    respaced = d3pm.respace(process, even_grid(LANGUAGE_STEPS, steps))
    denoiser = Denoiser(respaced, language.make_denoise(text, process), "leave_one_out")
    shape = (SAMPLES, language.LENGTH)

    @jax.jit
    def draw(key: jax.Array) -> Chain:
        return sample(key, denoiser, shape, sampler)

    chain = draw(jax.random.key(0))
    if int(chain.failed_at):
        raise ValueError(f"{sampler} had nothing to draw from in row {int(chain.failed_at)}")
    return float(chain.calls.mean()), language.measure(text, np.asarray(chain.x0))


def language_tables(
    text: language.Language, truth: language.Figures, lines: dict[str, dict[str, list[LanguagePoint]]]
) -> str:
    """Makes the Markdown tables: of each figure by steps, and of samplers by their field."""
    rows = [
        f"entropy of a position: {text.entropy / language.LENGTH:.4f} nats; samples of the language itself: "
        f"-log p, KL of pairs and of triples {', '.join(format_figures(truth))}"
    ]
    for kind, of_kind in lines.items():
        rows += ["", kind, "", language_steps_table(of_kind), "", language_fields_table(of_kind)]
    return "\n".join(rows)


def language_steps_table(lines: dict[str, list[LanguagePoint]]) -> str:
    """Makes a table with columns of each figure by the number of calls, or one less of a corrector."""
    columns = [(field, calls) for field, _, _ in FIGURES for calls in LANGUAGE_GRIDS]
    titles = [f"{title}, {calls}" for _, title, _ in FIGURES for calls in LANGUAGE_GRIDS]
    rows = [f"| sampler | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, points in lines.items():
        cells = {}
        for point in points:
            if point.parameter.endswith("steps"):
                calls = min(LANGUAGE_GRIDS, key=lambda n: abs(n - point.calls))
                cells |= {
                    (field, calls): text
                    for (field, _, _), text in zip(FIGURES, format_figures(point.figures), strict=True)
                }
        if cells:
            rows.append(f"| {name} | {' | '.join(cells.get(column, '') for column in columns)} |")
    return "\n".join(rows)


def language_fields_table(lines: dict[str, list[LanguagePoint]]) -> str:
    """Makes a table of the samplers whose number of calls follows from a field, a row for each value."""
    rows = []
    for name, points in lines.items():
        for point in points:
            if not point.parameter.endswith("steps"):
                label = name if point.parameter == "-" else f"{name}, {point.parameter}"
                cells = [label, f"{point.calls:.3g}", *format_figures(point.figures)]
                rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return ""
    header = [
        "| sampler | calls | -log p of a position | KL of pairs | KL of triples |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*header, *rows])


def format_figures(figures: language.Figures) -> list[str]:
    """Writes the figures with their standard errors."""
    numbers = figures._asdict()
    return [format_error(numbers[field], numbers[f"{field}_error"], digits) for field, _, digits in FIGURES]


def format_error(x: float, error: float, digits: int) -> str:
    """Writes a number with its standard error in units of the last digit: 1.582(3)."""
    return f"{x:.{digits}f}({max(round(error * 10**digits), 1)})"


def draw_language(
    text: language.Language,
    truth: language.Figures,
    lines: dict[str, dict[str, list[LanguagePoint]]],
    path: Path,
) -> None:
    """Draws -log p and KL of triples by calls, a column for each process."""
    figure = Figure(figsize=(11, 10), layout="constrained")
    grid = figure.subplots(2, len(lines), squeeze=False, sharey="row", sharex=True)
    names = list(dict.fromkeys(name for of_kind in lines.values() for name in of_kind))
    handles = {}
    for column, (kind, of_kind) in enumerate(lines.items()):
        nats, triples = grid[:, column]
        for name, points in of_kind.items():
            points = sorted(points, key=lambda p: p.calls)
            calls = [p.calls for p in points]
            figures = [p.figures for p in points]
            style = {**line_style(names.index(name)), "linewidth": 1}
            handles[name] = nats.errorbar(
                calls, [f.nats for f in figures], [f.nats_error for f in figures], **style
            )
            triples.errorbar(calls, [f.triples for f in figures], [f.triples_error for f in figures], **style)
        nats.axhline(text.entropy / language.LENGTH, color="grey", linewidth=0.8, linestyle=":")
        triples.axhline(truth.triples, color="grey", linewidth=0.8, linestyle=":")
        nats.set(title=kind, xscale="log")
        triples.set(yscale="log", xlabel="network calls")
        triples.set_xticks(LANGUAGE_GRIDS, LANGUAGE_GRIDS)
        triples.minorticks_off()
    grid[0, 0].set_ylabel("-log p of a position, nats (dotted: the entropy)")
    grid[1, 0].set_ylabel("KL of triples, nats (dotted: samples of the language)")
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", frameon=False, fontsize=8, ncols=4
    )
    save_small(path, figure)


def save_small(path: Path, figure: Figure) -> None:
    """Writes a picture in 64 colours, which lines need no more of: a third of the bytes."""
    save_figure(path, figure)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(64).save(path, optimize=True)


def line_style(i: int) -> dict[str, Any]:
    """Returns what tells the line of a number from others."""
    return {
        "marker": "osv^DxP*"[i % 8],
        "markersize": 4,
        "color": matplotlib.colormaps["tab20"](i % 20),
    }


# ---- draws ----

ROWS = (16, 256, 1024)
PLACES = 20_000
SMALL, LARGE = 4, 16  # groups of categories


def run_draws() -> None:
    """Prints what ways of drawing make of a belief in float32."""
    print("| categories | law | how it is drawn | rows | entropy | -log belief | rarest group |")
    print("|---|---|---|---|---|---|---|")
    for groups in (SMALL, LARGE):
        vocabulary = draws.Vocabulary(groups)
        print(draws_row(vocabulary, "the belief", "", "", draws.summarize(vocabulary, vocabulary.p)))
        coin = draws.summarize(vocabulary, draws.law_of_x0_and_coin(vocabulary))
        print(draws_row(vocabulary, "x_0, then a coin", "inverse cdf", "any", coin))
        for rows in ROWS:
            summary = draws.summarize(vocabulary, draws.law_of_inverse_cdf(vocabulary, rows))
            print(draws_row(vocabulary, "the law of x_s", "inverse cdf", rows, summary))
        print(gumbel_row(vocabulary, "x_0, then a coin", "any", 1), flush=True)
        for rows in ROWS:
            print(gumbel_row(vocabulary, "the law of x_s", rows, rows), flush=True)
    by_jax, by_groups = draws.count_first_row(draws.Vocabulary(LARGE), ROWS[0], PLACES)
    print(f"\nfirst of {ROWS[0]} rows, {PLACES} places, by group from the most frequent, the mask last:")
    print(f"jax.random.categorical: {by_jax.tolist()}\nby groups: {by_groups.tolist()}")


def draws_row(
    vocabulary: draws.Vocabulary, law: str, how: str, rows: int | str, drawn: draws.Drawn, places: int = 0
) -> str:
    """Makes a row of the table; of places that were drawn, with the standard error of a share."""
    share = f"{drawn.rarest:.2%}"
    if places:
        share += f" ± {np.sqrt(drawn.rarest * (1 - drawn.rarest) / places):.2%}"
    K = len(vocabulary.p)
    return f"| {K:,} | {law} | {how} | {rows} | {drawn.entropy:.3f} | {drawn.nats:.3f} | {share} |"


def gumbel_row(vocabulary: draws.Vocabulary, law: str, label: int | str, rows: int) -> str:
    """Makes a row of draws by Gumbel noise, whose law over groups is sampled."""
    counts = draws.draw_by_gumbel(vocabulary, rows, PLACES)
    shares = np.repeat(counts / counts.sum() / vocabulary.sizes, vocabulary.sizes)
    summary = draws.summarize(vocabulary, shares)
    return draws_row(vocabulary, law, "Gumbel", label, summary, PLACES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("exact", "language", "draws"))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/samplers_exact"), help="where figures are kept"
    )
    parser.add_argument("--only", default="", help="a word of the lines of the language to draw")
    parser.add_argument("--picture", type=Path, help="where to draw them")
    args = parser.parse_args()
    match args.part:
        case "exact":
            run_exact(args.out, args.picture)
        case "language":
            run_language(args.out, args.only, args.picture)
        case "draws":
            run_draws()


if __name__ == "__main__":
    main()
