"""Diffusion and argmax flows on points of the plane at equal compute: trains, evaluates, draws a picture.

    python benchmarks/plane.py [--coding gray] [--only WORD] [--out runs/plane] [--picture FILE.png]

What is there already is not trained or evaluated again. Each is a run as any other: `d3pm eval` and `d3pm
sample` open it.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import NamedTuple, get_args

import jax
import numpy as np

from d3pm_jax import runs
from d3pm_jax.config import (
    Absorbing,
    Argmax,
    ArgmaxCoupling,
    Config,
    Cosine,
    LSTMFeatures,
    Plane,
    Reciprocal,
    Transformer,
    Uniform,
)
from d3pm_jax.config.io import read_config_file
from d3pm_jax.data import plane
from d3pm_jax.evaluation.bound import elbo_and_importance_bound, evaluate_bound
from d3pm_jax.kinds.plane import draw_masses, spread_points
from d3pm_jax.show.images import save_figure

CONFIGS = Path(__file__).parents[1] / "configs"
# So many that each took 30 seconds of one CPU core, as measured in turn.
STEPS = {"uniform": 3000, "mask": 3800, "coupling": 1500, "AR": 3200}
GRAY_STEPS = 700  # of twelve places, about as long
SAMPLES = 20_000
DRAWS = 100  # of v, for the IWBO of a point
POINTS = 4000  # of the test split, on which bounds are computed


class Case(NamedTuple):
    """Holds a row of the table."""

    density: plane.Density
    coding: plane.Coding
    model: str
    workdir: Path


def make_config(case: Case) -> Config:
    """Returns the config of a row."""
    data = Plane(case.density, case.coding)
    K = data.describe().categories
    uniform = read_config_file(CONFIGS / "plane_uniform.py")
    argmax = read_config_file(CONFIGS / "plane_argmax.py")
    config = uniform if case.model in ("uniform", "mask") else argmax
    steps = STEPS[case.model] if case.coding == "plain" else GRAY_STEPS
    train = dataclasses.replace(config.train, steps=steps, checkpoint_every=steps, sample_every=0)
    optimizer = dataclasses.replace(config.optimizer, decay_steps=steps)
    config = dataclasses.replace(config, data=data, optimizer=optimizer, train=train)
    # The bits of a Gray code are not alike, as the two coordinates are.
    positions = "learned" if case.coding == "gray" else "rotary"
    transformer = Transformer(64, 3, positions=positions)
    match case.model:
        case "uniform":
            process = Uniform(K, 50, Cosine())
            return dataclasses.replace(config, process=process, model=transformer)
        case "mask":
            process = Absorbing(K + 1, 50, Reciprocal(), mask_id=K)
            model = dataclasses.replace(transformer, see_time=False)
            return dataclasses.replace(config, process=process, model=model)
        case "coupling":
            model = ArgmaxCoupling(
                num_steps=4,
                num_mixtures=8,
                features=LSTMFeatures(width=64, num_layers=1),
                context_width=64,
                squeeze=2 if case.coding == "gray" else 1,
            )
            return dataclasses.replace(config, process=Argmax(K), model=model)
        case "AR":
            return dataclasses.replace(config, process=Argmax(K))
    raise ValueError(f"model = {case.model!r}: take one of {', '.join(STEPS)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--coding", choices=get_args(plane.Coding), default="plain")
    parser.add_argument("--only", default="", help="a word that the names of the runs to work on hold")
    parser.add_argument("--out", type=Path, default=Path("runs/plane"), help="where the runs are")
    parser.add_argument("--picture", type=Path, help="where to draw densities of samples")
    args = parser.parse_args()
    cases = []
    for density in get_args(plane.Density):
        for model in STEPS:
            name = f"{density}_{args.coding}_{model}"
            if args.only in name:
                cases.append(Case(density, args.coding, model, args.out / name))
    for case in cases:
        print(format_row(case, measure(case)), flush=True)
    if args.picture is not None:
        draw(cases, args.picture)


def measure(case: Case) -> dict[str, float]:
    """Returns the figures of a row, which are computed where there are none, after training if need be."""
    path = case.workdir / "plane.json"
    if path.exists():
        return json.loads(path.read_text())
    config = make_config(case)
    if not (case.workdir / "checkpoints").exists():
        runs.train(config, case.workdir)
    run = runs.open(case.workdir, config)
    x = run.read_batch("test", POINTS)["x"]
    cells = plane.decode_gray(x) if case.coding == "gray" else x
    exact_nats = -np.log(plane.cell_masses(case.density)[cells[:, 0], cells[:, 1]])  # [N]
    figures = {"entropy": plane.compute_entropy(case.density)}
    for name, nats in compute_nats(run, x).items():
        above = nats - exact_nats
        figures[name] = float(above.mean())
        figures[f"{name}_error"] = float(above.std(ddof=1) / np.sqrt(len(above)))
    figures["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(run.params))
    samples = run.sample(jax.random.key(0), SAMPLES, batch_size=1000).x0
    np.save(case.workdir / "plane_samples.npy", samples)
    shares = spread_points(samples, config.data.describe().categories)
    figures["variation"] = float(np.abs(shares - plane.cell_masses(case.density)).sum() / 2)
    path.write_text(json.dumps(figures))
    return figures


def compute_nats(run: runs.Run, x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns nats [N] of the bound of each point, and of a flow those of its ELBO as well."""
    recipe = run.parts.recipe
    calls = DRAWS if recipe.process is None else None
    compiled = recipe.bound.compile(calls, 0)
    bound = evaluate_bound(compiled, run.params, recipe.process, x, batch_size=500)
    if calls is None:
        return {"above": np.asarray(bound.total())}
    elbo, importance_bound = elbo_and_importance_bound(bound)
    return {"above": importance_bound, "elbo_above": elbo}


def format_row(case: Case, figures: dict[str, float]) -> str:
    """Formats a row of the Markdown table."""
    elbo = ""
    if "elbo_above" in figures:
        elbo = f"{figures['elbo_above']:.3f} ± {figures['elbo_above_error']:.3f}"
    cells = [
        case.density,
        case.model,
        f"{figures['parameters']:,}",
        f"{figures['entropy']:.3f}",
        f"{figures['entropy'] + figures['above']:.3f}",
        f"{figures['above']:.3f} ± {figures['above_error']:.3f}",
        elbo,
        f"{figures['variation']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def draw(cases: list[Case], path: Path) -> None:
    """Draws the exact density of each data set, and those of the samples of its models beside it."""
    from matplotlib.figure import Figure

    densities = list(dict.fromkeys(case.density for case in cases))
    columns = ["data", *STEPS]
    figure = Figure(figsize=(2 * len(columns), 2.1 * len(densities)), layout="constrained")
    axes = figure.subplots(len(densities), len(columns), squeeze=False)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column)
    for axis in axes.flat:
        axis.axis("off")
    for row, density in zip(axes, densities, strict=True):
        row[0].imshow(draw_masses(plane.cell_masses(density)))
    for case in cases:
        samples = np.load(case.workdir / "plane_samples.npy")
        shares = spread_points(samples, 64 if case.coding == "plain" else 2)
        axis = axes[densities.index(case.density)][columns.index(case.model)]
        axis.imshow(draw_masses(shares))
    save_figure(path, figure)


if __name__ == "__main__":
    main()
