"""What guidance is worth on trained networks: of the class that is asked for, distinct, and near the data.

    python benchmarks/guidance.py RUN [RUN ...] [--gammas 0,1,2,4] [--steps N] [--on x_s]
        [--out runs/guidance] [--data-dir DIR] [--picture FILE.png]

RUN is a run of images with labels that was trained with --train.drop-condition above 0. For each run and
gamma it draws what is missing (500 samples, sample i of class i modulo all), measures it, and prints a table:

- class asked: the share that a classifier gives the class that was asked for. Of digits it is the one of
  digits_quality.py, of other images that of the features;
- distinct: the share of different images among them;
- Fréchet, precision and recall: in features of a classifier of the data, against the training split.

`--picture` writes the first samples of each class, a row of pictures for each run.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from digits_quality import Judge
from samplers_trained import Figure, Figures, leave_groups_out, save_small, share, stored

from d3pm_jax import runs, show
from d3pm_jax.evaluation import frechet
from d3pm_jax.evaluation.neighbours import K as NEIGHBOURS, precision_recall
from d3pm_jax.kinds.features import choose_features
from d3pm_jax.runs import ClassifierFreeGuidance
from d3pm_jax.runs.run import Run

NUM = 500
BATCH = 50  # 100 images a call where it is two in one
SEED = 0
SHOWN = 4  # samples of each class in a picture


class Case(NamedTuple):
    """Holds a way to guide a run."""

    guidance: ClassifierFreeGuidance
    steps: int | None  # of the process; None: all

    def path(self, out: Path, run: Run) -> Path:
        """Returns the file of its samples."""
        name = f"gamma{self.guidance.gamma:g}"
        if self.guidance.on is not None:
            name += f"_{self.guidance.on}"
        if self.steps is not None:
            name += f"_steps{self.steps}"
        return out / run.workdir.name / f"{name}.npz"


class Drawn(NamedTuple):
    """Holds a case with its samples, how many calls of the network each took, and the figures."""

    case: Case
    x: np.ndarray  # int32 [NUM, *S]
    calls: float
    figures: Figures


def draw_missing(run: Run, cases: list[Case], out: Path) -> None:
    """Draws the samples of each case that has no file."""
    for case in cases:
        path = case.path(out, run)
        if not path.exists():
            respaced = run if case.steps is None else run.respaced(case.steps)
            drawn = respaced.draw(jax.random.key(SEED), NUM, batch_size=BATCH, guidance=case.guidance)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, x=drawn.x0, calls=drawn.calls)
            print(f"{path}: {drawn.calls.mean():.0f} calls", flush=True)


class Measures:
    """Measures images of a run against its data: the features are made when they are first needed."""

    def __init__(self, run: Run):
        self._run = run
        self._train = run.read_batch("train")
        labels = self._train["label"]
        self._features = choose_features(run.parts.description, self._train["x"], labels, None, 128)
        self._of_train, _ = self._features.compute(self._train["x"])
        self._statistics = frechet.compute_statistics(self._of_train)
        self._judge = Judge() if run.parts.description.shape == (8, 8, 1) else None

    def measure(self, x: np.ndarray, labels: np.ndarray) -> Figures:
        """Returns the figures of images [N, *S] that are to be of these classes [N]."""
        features, called_classes = self._features.compute(x)
        if self._judge is not None:
            called_classes = self._judge.classes(x)
        num_distinct = len(np.unique(x.reshape(len(x), -1), axis=0))
        spaced = self._of_train[np.linspace(0, len(self._of_train) - 1, NUM).astype(int)]
        precision, recall = precision_recall(spaced, features, NEIGHBOURS)

        def distance(features: np.ndarray) -> float:
            return frechet.compute_distance(frechet.compute_statistics(features), self._statistics)

        return {
            "class asked": share(float(np.mean(called_classes == labels)), len(x)),
            "distinct": Figure(num_distinct / len(x)),
            # Every tenth sample is of one class, which no group of the jackknife may be.
            "Fréchet": leave_groups_out(distance, np.random.default_rng(SEED).permutation(features)),
            "precision": share(precision, len(x)),
            "recall": share(recall, len(spaced)),
        }

    def measure_real(self) -> dict[str, Figures]:
        """Returns the figures of as many examples of either split."""
        chosen = np.random.default_rng(SEED).choice(len(self._train["x"]), NUM, replace=False)
        test = self._run.read_batch("test", NUM)
        return {
            f"{NUM} training images": self.measure(self._train["x"][chosen], self._train["label"][chosen]),
            f"{len(test['x'])} test images": self.measure(test["x"], test["label"]),
        }


def measure_all(run: Run, cases: list[Case], out: Path) -> tuple[list[Drawn], dict[str, Figures]]:
    """Measures the samples of all cases and real images; figures are stored beside the samples."""
    prepared: list[Measures] = []  # which takes long, and is done when needed

    def prepare() -> Measures:
        if not prepared:
            prepared.append(Measures(run))
        return prepared[0]

    labels = np.arange(NUM) % (run.parts.recipe.classes or 1)
    results = []
    for case in cases:
        path = case.path(out, run)
        file = np.load(path)
        x = file["x"]
        rows = stored(path.with_suffix(".json"), lambda x=x: {"samples": prepare().measure(x, labels)})
        results.append(Drawn(case, x, float(file["calls"].mean()), rows["samples"]))
    real = stored(out / run.workdir.name / "real.json", lambda: prepare().measure_real())
    return results, real


def print_table(run: Run, results: list[Drawn], real: dict[str, Figures]) -> None:
    """Prints the figures by gamma, and below them those of real images."""
    names = list(next(iter(real.values())))
    print(f"\n## {run.caption}\n")
    print(f"| gamma | calls | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for result in results:
        cells = [str(result.figures[name]) for name in names]
        print(f"| {result.case.guidance.gamma:g} | {result.calls:.0f} | {' | '.join(cells)} |")
    for title, figures in real.items():
        print(f"| {title} | | {' | '.join(str(figures[name]) for name in names)} |")


def draw_picture(all_results: list[tuple[Run, list[Drawn]]], path: Path) -> None:
    """Draws the first samples of each class: a row for each run, and a column for each gamma."""
    from matplotlib.figure import Figure as Canvas

    columns = max(len(results) for _, results in all_results)
    canvas = Canvas(figsize=(2.6 * columns, 1.35 * len(all_results)), layout="constrained")
    axes = canvas.subplots(len(all_results), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (run, results) in zip(axes, all_results, strict=True):
        classes = run.parts.recipe.classes or 1
        for axis, result in zip(row, results, strict=False):
            tiles = show.to_rgb(result.x[: SHOWN * classes], run.parts.recipe.categories)
            axis.imshow(show.grid(tiles, classes), interpolation="nearest")
            title = f"gamma = {result.case.guidance.gamma:g}, {result.calls:.0f} calls"
            axis.set_title(f"{run.workdir.name}: {title}", fontsize=6, pad=2)
    save_small(path, canvas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="the folder of a run")
    parser.add_argument("--gammas", default="0,1,2,4", help="how far to guide, by commas")
    parser.add_argument("--steps", type=int, help="of the process; all by default")
    parser.add_argument("--on", choices=("x_s", "x_0"), help="the law that is guided; by default by process")
    parser.add_argument("--out", type=Path, default=Path("runs/guidance"), help="where samples are kept")
    parser.add_argument("--data-dir", type=Path, help="where the data lies, if not where it was")
    parser.add_argument("--picture", type=Path, help="the file for a picture")
    args = parser.parse_args()
    all_results = []
    for workdir in args.run:
        # With one device the network is called on whole batches.
        run = runs.open(workdir, batch_size=1, data_dir=args.data_dir)
        gammas = [float(word) for word in args.gammas.split(",")]
        cases = [Case(ClassifierFreeGuidance(gamma, args.on), args.steps) for gamma in gammas]
        draw_missing(run, cases, args.out)
        results, real = measure_all(run, cases, args.out)
        print_table(run, results, real)
        all_results.append((run, results))
    if args.picture is not None:
        draw_picture(all_results, args.picture)


if __name__ == "__main__":
    main()
