"""What the network's logits are taken for, compared on digits: trains, evaluates and draws what is missing.

    python benchmarks/beliefs.py [--out runs/beliefs] [--seeds 0,1,2] [--only WORD]

It trains every run of the table (a few minutes each on one core), takes up one that was stopped, and prints
the table of all that are finished. Each is a run as any other: `d3pm eval` and `d3pm sample` open it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from digits_quality import Judge

SAMPLES = 256


class Case(NamedTuple):
    """Holds a row of the table."""

    config: str
    belief: str
    ce_weight: str

    def workdir(self, out: Path, seed: int) -> Path:
        return out / f"{self.config}_{self.belief}_{self.ce_weight}_seed{seed}"


BELIEFS = ("d3pm", "leave_one_out", "denoiser")
CASES = [
    *(Case("uniform", belief, weight) for weight in ("0.01", "1") for belief in BELIEFS),
    *(Case("uniform", belief, "0") for belief in BELIEFS[1:]),
    *(Case("gaussian", belief, "0.01") for belief in BELIEFS),
]


# By config: what its runs of the table in docs/results.md were trained with, where that is not what it says.
SCHEDULES = {
    "uniform": (),
    "gaussian": ("--train.steps=3400", "--optimizer.decay-steps=3400", "--optimizer.lr=0.002"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/beliefs"), help="where the runs are")
    parser.add_argument("--seeds", default="0,1,2", help="of the trainings")
    parser.add_argument("--only", default="", help="a word that the names of the runs to work on hold")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for seed in seeds:
        for case in CASES:
            if args.only in case.workdir(args.out, seed).name:
                run(case, seed, case.workdir(args.out, seed))
    print(table(args.out, seeds))


def run(case: Case, seed: int, workdir: Path) -> None:
    """Does what is left of a run: training, evaluation, samples."""
    if not (workdir / "trained").exists():
        options = [
            f"--loss.belief={case.belief}",
            f"--loss.ce-weight={case.ce_weight}",
            f"--train.seed={seed}",
            *SCHEDULES[case.config],
        ]
        if (workdir / "config.json").exists():
            options.append("--resume")
        command("train", f"configs/digits_{case.config}.py", "--workdir", str(workdir), *options)
        (workdir / "trained").touch()
    if not (workdir / "eval.json").exists():
        command("eval", str(workdir))
    if not (workdir / "samples.npy").exists():
        command("sample", str(workdir), "--num", str(SAMPLES))


def command(*args: str) -> None:
    """Runs a command of d3pm."""
    subprocess.run([sys.executable, "-m", "d3pm_jax", *args], check=True)


def table(out: Path, seeds: list[int]) -> str:
    """Makes the Markdown table of what is finished."""
    judge = Judge()
    lines = [HEADER]
    for case in CASES:
        runs = [case.workdir(out, seed) for seed in seeds]
        runs = [run for run in runs if (run / "samples.npy").exists()]
        if runs:
            lines.append(row(case, runs, judge))
    return "\n".join(lines)


HEADER = """| noise | belief | ce_weight | bits/dim by seed | mean | samples called digits, by seed | all |
|---|---|---|---|---|---|---|"""


def row(case: Case, runs: list[Path], judge: Judge) -> str:
    bits = [json.loads((run / "eval.json").read_text())["bits_per_dim"] for run in runs]
    shares = [judge.share(np.load(run / "samples.npy")) for run in runs]
    error = np.sqrt(np.mean(shares) * (1 - np.mean(shares)) / (SAMPLES * len(runs)))
    columns = (
        case.config,
        f"`{case.belief}`",
        case.ce_weight,
        ", ".join(f"{x:.3f}" for x in bits),
        f"{np.mean(bits):.3f}{spread(bits)}",
        ", ".join(f"{x:.0%}" for x in shares),
        f"{np.mean(shares):.1%} ± {error:.1%}",
    )
    return f"| {' | '.join(columns)} |"


def spread(x: list[float], digits: int = 3) -> str:
    """Returns the standard error of a mean over seeds, in words; "" of one seed."""
    if len(x) == 1:
        return ""
    return f" ± {np.std(x, ddof=1) / np.sqrt(len(x)):.{digits}f}"


if __name__ == "__main__":
    main()
