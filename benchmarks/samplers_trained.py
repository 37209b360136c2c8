"""Samplers on trained networks: how good samples are by how many calls of the network each took.

    python benchmarks/samplers_trained.py RUN [RUN ...] [--out runs/samplers] [--only WORD] [--calls 5,10,25]
        [--data-dir DIR] [--pictures FOLDER]

RUN is a run of images with labels or of a text, with uniform noise or an extra mask. For each run, sampler
and number of calls it draws what is missing (500 samples), measures it, and prints tables. A sampler that
takes one call a step has as many steps of the process, evenly spaced, as calls; one that also corrects has
half as many; of one that stops by itself there are several settings. `--pictures` writes SAMPLERS_RUN.png of
the first samples of images, and samplers_trained.png of all figures.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from digits_quality import Judge
from PIL import Image
from scipy.special import entr

from d3pm_jax import runs, show
from d3pm_jax.evaluation import frechet, texts
from d3pm_jax.evaluation.neighbours import K as NEIGHBOURS, precision_recall
from d3pm_jax.kinds.features import choose_features
from d3pm_jax.kinds.text import CONTEXT
from d3pm_jax.runs import Draw
from d3pm_jax.runs.run import Run
from d3pm_jax.sampling import Sampler, named
from d3pm_jax.sampling.places import Cosine, RandomOrder, Reveal
from d3pm_jax.show.curves import save_figure

NUM = 500
BATCH = 50  # a U-Net of 28 x 28 is a sixth faster on it than on 125
CALLS = (5, 10, 25, 50, 100)
SEED = 0
GROUPS = 10  # of samples, each left out once: the standard error of a figure that is no mean
BLOCKS = 4  # of a text
SHORT = 2  # characters before each, of n-grams that are counted on samples
THRESHOLDS = (0.1, 0.2, 0.4, 0.8, 0.95)
BOUNDS = (32.0, 16.0, 8.0, 2.0, 0.5)  # nats
SHOWN = 8  # samples in a picture
LINES = 3  # of a text
COLOURS = 64  # of a picture


class Case(NamedTuple):
    """Holds a sampler at one setting."""

    name: str
    setting: str  # "10", or what the number of calls follows from
    sampler: Sampler
    steps: int | None  # of the process; None: all

    def path(self, out: Path, run: Run) -> Path:
        return out / run.workdir.name / f"{self.name}_{self.setting.replace(' ', '')}.npz"


# ---- Which samplers ----


def make_cases(run: Run, calls: list[int]) -> Iterator[Case]:
    """Yields the samplers of a run's process, each at several numbers of calls."""
    # Uniform noise has no category of its own.
    if run.parts.recipe.categories == run.process.K:
        for n in calls:
            yield from uniform_cases(n)
        return
    places = int(np.prod(run.parts.description.shape))
    for n in calls:
        yield from mask_cases(run, n, places)
    for threshold in THRESHOLDS:
        sampler = named.fast_dllm_threshold(threshold)
        yield Case("fast_dllm_threshold", f"threshold {threshold:g}", sampler, None)
    for bound in BOUNDS:
        yield Case("entropy_bound", f"bound {bound:g}", named.entropy_bound(bound), None)
    yield Case("random_order", "1 a call", named.random_order(), None)
    yield Case("first_hitting", "1 a call", named.first_hitting(), None)


def uniform_cases(n: int) -> Iterator[Case]:
    """Yields samplers for uniform noise of at most n calls."""
    one_a_step = {
        "ancestral": named.ancestral(),
        "ddim": named.ddim(),
        "psi": named.psi(),
        "tau_leaping": named.tau_leaping(),
        "euler": named.euler(),
        "stratified": named.stratified(),
    }
    for name, sampler in one_a_step.items():
        yield Case(name, str(n), sampler, n)
    # A corrector takes a call at each level but the last.
    for name, sampler in {"predictor_corrector": named.predictor_corrector(), "gibbs": named.gibbs()}.items():
        yield Case(name, str(n), sampler, (n + 1) // 2)


def mask_cases(run: Run, n: int, places: int) -> Iterator[Case]:
    """Yields samplers for masks of at most n calls."""
    yield Case("ancestral", str(n), named.ancestral(), n)
    yield Case("remdm_cap", str(n), named.remdm_cap(), n)
    if n >= 11:  # 5% of fewer rows are none
        yield Case("remdm_loop", str(n), named.remdm_loop(rows=n), None)
    if n <= places:
        yield Case("maskgit", str(n), named.maskgit(rows=n), None)
        # The same numbers of places, but any: what choosing by probability is worth.
        yield Case("random_cosine", str(n), Sampler(Reveal(RandomOrder(), Cosine(n))), None)
    # A network that is told t never saw one block done and the others masked.
    sees_time = getattr(run.config.model, "see_time", True)
    if n >= 2 * BLOCKS and not sees_time:
        yield Case("blocks", str(n), named.blocks(places // BLOCKS), n // BLOCKS)


# ---- Drawing ----


def draw_missing(run: Run, cases: list[Case], out: Path) -> None:
    """Draws the samples of each case that has no file."""
    for case in cases:
        path = case.path(out, run)
        if not path.exists():
            x, calls = draw_samples(run, case)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, x=x, calls=calls)
            print(f"{path}: {calls.mean():.1f} calls", flush=True)


def draw_samples(run: Run, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Draws NUM samples, and returns them with the calls that each would need alone."""
    respaced = run.respaced(case.steps or run.process.T)
    drawn = respaced.sample(jax.random.key(SEED), NUM, Draw(sampler=case.sampler), batch_size=BATCH)
    return drawn.x0, drawn.calls


# ---- Measuring ----


class Figure(NamedTuple):
    """Holds a number and its standard error, None where none is known."""

    value: float
    error: float | None = None

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.value:.2f}"
        digits = 1 if self.error >= 1 else 2
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


Figures = dict[str, Figure]
Measure = Callable[[np.ndarray], Figures]


def leave_groups_out(statistic: Callable[[np.ndarray], float], x: np.ndarray) -> Figure:
    """Returns a statistic of samples, with the standard error of the jackknife over groups of them."""
    group = np.arange(len(x)) % GROUPS
    without = np.array([statistic(x[group != i]) for i in range(GROUPS)])
    error = np.sqrt((GROUPS - 1) * without.var())
    return Figure(statistic(x), float(error))


def share(p: float, n: int) -> Figure:
    """Returns a share of n samples with its standard error."""
    return Figure(p, float(np.sqrt(p * (1 - p) / n)))


def measure_images(run: Run) -> tuple[Measure, dict[str, Figures]]:
    """Returns what measures images, and the figures of as many examples of either split."""
    train = run.read_batch("train")
    features = choose_features(run.parts.description, train["x"], train["label"], None, 128)
    of_train, _ = features.compute(train["x"])
    statistics = frechet.compute_statistics(of_train)
    spaced = of_train[np.linspace(0, len(of_train) - 1, NUM).astype(int)]
    judge = Judge() if run.parts.description.shape == (8, 8, 1) else None

    def distance(of_samples: np.ndarray) -> float:
        return frechet.compute_distance(frechet.compute_statistics(of_samples), statistics)

    def measure(x: np.ndarray) -> Figures:
        of_samples, _ = features.compute(x)
        precision, recall = precision_recall(spaced, of_samples, NEIGHBOURS)
        figures = {
            "Fréchet": leave_groups_out(distance, of_samples),
            "precision": share(precision, len(x)),
            "recall": share(recall, len(spaced)),
        }
        if judge is not None:
            figures["called digits"] = share(judge.share(x), len(x))
        return figures

    chosen = np.random.default_rng(SEED).choice(len(train["x"]), NUM, replace=False)
    test = run.read_batch("test", NUM)["x"]
    rows = {f"{NUM} training images": train["x"][chosen], f"{len(test)} test images": test}
    return measure, {name: measure(x) for name, x in rows.items()}


def measure_texts(run: Run) -> tuple[Measure, dict[str, Figures]]:
    """Returns what measures texts, and the figures of as many examples of the test split.

    These are bits of a character by n-grams of the training split; bits of a character of the test split by
    short n-grams counted on the samples, of which repetition makes much; and the entropy of the characters
    of a sample.
    """
    train = run.read_batch("train")["x"]
    test = run.read_batch("test", NUM)["x"]
    K = run.parts.recipe.categories
    description = run.parts.description
    vocabulary = texts.collect_vocabulary([description.text(train.ravel())])

    def measure(x: np.ndarray, counted: np.ndarray) -> Figures:
        # Contexts of the first tokens of a sample reach into the one before.
        nats = texts.ngram_nats(train.ravel(), x.ravel(), K, CONTEXT).reshape(x.shape)[:, CONTEXT:]
        nats_of_test = texts.ngram_nats(counted.ravel(), test.ravel(), K, SHORT).reshape(test.shape)
        shares = np.stack([(x == k).mean(1) for k in range(K)], axis=1)  # [N, K]
        lines = [description.text(row) for row in x]
        return {
            "bits by n-grams": mean(nats.mean(1) / np.log(2)),
            "bits of test": Figure(float(nats_of_test.mean() / np.log(2))),
            "entropy": mean(entr(shares).sum(1) / np.log(2)),
            "known words": Figure(texts.known_words(lines, vocabulary)),
            "distinct words": Figure(texts.distinct_ngrams(lines, 1)),
            "distinct pairs": Figure(texts.distinct_ngrams(lines, 2)),
        }

    chosen = np.random.default_rng(SEED).choice(len(train), NUM, replace=False)
    return lambda x: measure(x, x), {f"{len(test)} test texts": measure(test, train[chosen])}


def mean(x: np.ndarray) -> Figure:
    """Returns a mean with its standard error."""
    return Figure(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))))


class Result(NamedTuple):
    """Holds a case with its first samples, the mean number of calls, and the figures."""

    case: Case
    x: np.ndarray  # int32 [SHOWN, *S]
    calls: float
    figures: Figures


class OfRun(NamedTuple):
    """Holds the results of a run, and what real examples have."""

    run: Run
    results: list[Result]
    real: dict[str, Figures]

    @property
    def headline(self) -> str:
        """Returns the name of the first figure."""
        return next(iter(next(iter(self.real.values()))))


def measure_all(run: Run, cases: list[Case], out: Path) -> OfRun:
    """Measures the cases that are drawn; figures are stored beside the samples."""
    is_text = run.parts.description.kind == "text"
    make = measure_texts if is_text else measure_images
    prepared: list[tuple[Measure, dict[str, Figures]]] = []  # which takes long, and is done when needed

    def measure_with() -> tuple[Measure, dict[str, Figures]]:
        if not prepared:
            prepared.append(make(run))
        return prepared[0]

    results = []
    for case in cases:
        path = case.path(out, run)
        if path.exists():
            file = np.load(path)
            x = file["x"]
            figures = stored(path.with_suffix(".json"), lambda x=x: {"samples": measure_with()[0](x)})
            results.append(Result(case, x[:SHOWN], float(file["calls"].mean()), figures["samples"]))
    real = stored(out / run.workdir.name / "real.json", lambda: measure_with()[1])
    return OfRun(run, results, real)


def stored(path: Path, compute: Callable[[], dict[str, Figures]]) -> dict[str, Figures]:
    """Reads rows of figures from a file; where there is none, computes them and writes it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(compute(), indent=1))
    rows = json.loads(path.read_text())
    return {row: {name: Figure(*x) for name, x in figures.items()} for row, figures in rows.items()}


# ---- Showing ----


def print_tables(of_run: OfRun) -> None:
    """Prints figures by sampler and calls: the headline, then the others, then those of other settings."""
    run, results, real = of_run
    headline, *others = next(iter(real.values()))
    print(f"\n## {run.caption}\n")
    chosen = [result for result in results if result.case.setting.isdigit()]
    calls = sorted({int(result.case.setting) for result in chosen})
    for title, show_figures in (
        (f"{headline}, by calls", lambda figures: str(figures[headline])),
        (f"{' / '.join(others)}, by calls", lambda figures: short(figures, others)),
    ):
        print(f"| {title} | {' | '.join(map(str, calls))} |\n|---|{'---|' * len(calls)}")
        for name in dict.fromkeys(result.case.name for result in chosen):
            by_calls = {int(r.case.setting): r.figures for r in chosen if r.case.name == name}
            cells = [show_figures(by_calls[n]) if n in by_calls else "" for n in calls]
            print(f"| `{name}` | {' | '.join(cells)} |")
        print()
    print(f"| | setting | calls | {headline} | {' / '.join(others)} |\n|---|---|---|---|---|")
    for result in results:
        if result not in chosen:
            cells = (result.case.setting, f"{result.calls:.1f}", str(result.figures[headline]))
            print(f"| `{result.case.name}` | {' | '.join(cells)} | {short(result.figures, others)} |")
    for name, figures in real.items():
        print(f"| {name} | | | {figures[headline]} | {short(figures, others)} |")


def short(figures: Figures, names: list[str]) -> str:
    """Writes some figures without their errors."""
    return " / ".join(f"{figures[name].value:.2f}" for name in names)


def print_lines(of_run: OfRun) -> None:
    """Prints the first texts of each case."""
    for result in of_run.results:
        print(f"\n{result.case.name}, {result.calls:.0f} calls:\n")
        for x in result.x[:LINES]:
            print(of_run.run.parts.description.text(x))


def draw_samplers(of_run: OfRun, path: Path) -> None:
    """Draws the first images of each case: a row for each sampler, and a column for each setting of it."""
    from matplotlib.figure import Figure as Canvas

    names = list(dict.fromkeys(result.case.name for result in of_run.results))
    canvas = Canvas(figsize=(1.2 + 1.62 * len(CALLS), 0.98 * len(names)), layout="constrained")
    axes = canvas.subplots(len(names), len(CALLS), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, name in zip(axes, names, strict=True):
        row[0].text(-0.05, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
        by_calls = sorted((r for r in of_run.results if r.case.name == name), key=lambda r: r.calls)
        for i, result in enumerate(by_calls):
            column = i
            if result.case.setting.isdigit():
                column = CALLS.index(int(result.case.setting))
            axis = row[column]
            axis.imshow(tile(result.x, of_run.run.parts.recipe.categories), interpolation="nearest")
            axis.set_title(f"{result.calls:.0f} calls", fontsize=7, pad=2)
    save_small(path, canvas)


def tile(x: np.ndarray, categories: int) -> np.ndarray:
    """Puts images into two rows, with grey lines between them: uint8 [h, w, 3]."""
    rgb = np.pad(show.to_rgb(x, categories), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=90)
    n, h, w, _ = rgb.shape
    return rgb.reshape(2, n // 2, h, w, 3).swapaxes(1, 2).reshape(2 * h, n // 2 * w, 3)


def draw_figures(all_runs: list[OfRun], path: Path) -> None:
    """Draws the headline of each run by calls, a line for each sampler, and what real examples have."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9, 4.2 * -(-len(all_runs) // 2)), layout="constrained")
    axes = canvas.subplots(-(-len(all_runs) // 2), 2, squeeze=False)
    for axis in axes.flat[len(all_runs) :]:
        axis.axis("off")
    for axis, of_run in zip(axes.flat, all_runs, strict=False):
        for i, name in enumerate(dict.fromkeys(result.case.name for result in of_run.results)):
            line = sorted(
                (r.calls, r.figures[of_run.headline]) for r in of_run.results if r.case.name == name
            )
            x, figures = zip(*line, strict=True)
            errors = [figure.error or 0.0 for figure in figures]
            y = [figure.value for figure in figures]
            axis.errorbar(x, y, errors, marker="osv^DPX*<>"[i], markersize=4, linewidth=1, label=name)
        for (name, figures), style in zip(of_run.real.items(), (":", "--"), strict=False):
            axis.axhline(figures[of_run.headline].value, color="grey", linestyle=style, label=name)
        axis.set_xscale("log")
        if of_run.run.parts.description.kind == "image":
            axis.set_yscale("log")
        axis.set_xticks(CALLS, [str(n) for n in CALLS])
        axis.set_title(of_run.run.workdir.name, fontsize=10)
        axis.set_xlabel("calls of the network")
        axis.set_ylabel(of_run.headline)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    save_small(path, canvas)


def save_small(path: Path, canvas: Any) -> None:
    """Writes a figure of Matplotlib with a palette, which makes the file a third as large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(path, canvas)
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="the folder of a run")
    parser.add_argument("--out", type=Path, default=Path("runs/samplers"), help="where samples are kept")
    parser.add_argument(
        "--only", default="", help="samplers to draw, whose samples are missing: some of them, by commas"
    )
    parser.add_argument("--calls", default=",".join(map(str, CALLS)), help="numbers of calls to draw")
    parser.add_argument("--data-dir", type=Path, help="where the data lies, if not where it was")
    parser.add_argument("--pictures", type=Path, help="the folder for pictures")
    args = parser.parse_args()
    calls = [int(n) for n in args.calls.split(",")]
    names = args.only.split(",") if args.only else None
    all_runs = []
    for workdir in args.run:
        # With one device the network is called on whole batches.
        run = runs.open(workdir, batch_size=1)
        if args.data_dir is not None and "dir" in run.config.data.places:
            run = runs.open(workdir, batch_size=1, data_dir=args.data_dir)
        wanted = [case for case in make_cases(run, calls) if names is None or case.name in names]
        draw_missing(run, wanted, args.out)
        all_runs.append(measure_all(run, list(make_cases(run, list(CALLS))), args.out))
    for of_run in all_runs:
        print_tables(of_run)
        if of_run.run.parts.description.kind == "text":
            print_lines(of_run)
        elif args.pictures is not None:
            draw_samplers(of_run, args.pictures / f"samplers_{of_run.run.workdir.name}.png")
    if args.pictures is not None:
        draw_figures(all_runs, args.pictures / "samplers_trained.png")


if __name__ == "__main__":
    main()
