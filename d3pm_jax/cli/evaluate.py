"""d3pm eval: the bound on the test split, its parts, and two baselines."""

import argparse
import json
from pathlib import Path

import numpy as np

from d3pm_jax import baselines, data, plots
from d3pm_jax.cli.setup import open_run
from d3pm_jax.likelihood import Bound, bits_per_dim
from d3pm_jax.training import checkpoint, run
from d3pm_jax.training.evaluate import evaluate_bound


def execute(args: argparse.Namespace) -> int:
    """Evaluates; returns the exit status."""
    parts, train, test = open_run(args)
    levels = run.num_levels(parts.config)
    images, _ = data.read_all(test, levels, args.limit)
    bound = evaluate_bound(parts, images, args.batch_size, args.seed)
    result = summary(bound, D=images[0].size)
    result |= {"step": int(parts.state.step), "examples": len(images), "seed": args.seed}
    result["times"] = np.asarray(parts.tr.time[1:]).tolist()
    result["baselines"] = _baselines(train, images, levels)
    checkpoint.write_text(args.workdir / "eval.json", json.dumps(result, indent=1))
    plot = _plot(args.workdir, result["steps"])
    split = parts.config.data.test_split
    print(f"checkpoint of step {result['step']}, {len(images)} examples of split {split!r}")
    print(f"  reconstruction -log p(x_0 | x_1)  {result['reconstruction']:.4f} bits/dim")
    print(f"  denoising, sum over t = 2..{len(result['steps'])}    {sum(result['steps'][1:]):.4f} bits/dim")
    print(f"  prior KL(q(x_T | x_0) || p(x_T))  {result['prior']:.2e} bits/dim")
    print(f"terms of every t: {plot} and {args.workdir / 'eval.json'}")
    print("for comparison, on the same examples:")
    for name, value in result["baselines"].items():
        print(f"  {name}: {value:.3f} bits/dim")
    error = result["standard_error"]
    print(f"test bits/dim: {result['bits_per_dim']:.3f} +- {'unknown' if error is None else f'{error:.3f}'}")
    return 0


def summary(bound: Bound, D: int) -> dict:
    """The bound in bits per dimension: mean over examples, standard error, and parts."""
    total = np.asarray(bits_per_dim(bound.total(), D), np.float64)
    steps = np.asarray(bits_per_dim(bound.steps, D), np.float64).mean(1)
    return {
        "bits_per_dim": float(total.mean()),
        "standard_error": float(total.std(ddof=1) / len(total) ** 0.5) if len(total) > 1 else None,
        "reconstruction": float(steps[0]),
        "prior": float(np.mean(bits_per_dim(bound.prior, D))),
        "steps": steps.tolist(),
    }


def _baselines(train: data.ImageSource, test: np.ndarray, levels: int) -> dict[str, float]:
    images, labels = data.read_all(train, levels)
    found = {"per-pixel histogram": baselines.histogram_nats(images, test, levels)}
    if labels is not None:
        name = f"mixture of {len(np.unique(labels))} class histograms"
        found[name] = baselines.class_mixture_nats(images, labels, test, levels)
    return {name: bits_per_dim(float(np.mean(nats)), test[0].size) for name, nats in found.items()}


def _plot(workdir: Path, steps: list[float]) -> Path:
    path = workdir / "bound_terms.png"
    curves = {
        "term of the bound\n[bits/dim]": steps,
        "sum from t to T\n[bits/dim]": np.cumsum(steps[::-1])[::-1],
    }
    plots.save_curves(path, range(1, len(steps) + 1), curves, "t")
    return path
