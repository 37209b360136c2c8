"""The three beliefs on binarised MNIST: trains and evaluates what is missing, prints a table.

    python benchmarks/beliefs_mnist.py --data-dir DIR [--out runs/beliefs_mnist] [--seeds 0,1,2] [--steps 400]

DIR holds MNIST as TFDS prepares it. A run is `configs/bin_mnist_muon.py` with half of its width, so that it
takes some minutes of one core; one that was stopped is taken up again. The table has bounds on the first 500
test images: at 100 steps estimated from ten of them for each image, at 10 steps computed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from beliefs import BELIEFS, command, spread

LIMIT = 500
CALLS = 10
STEPS = (100, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="where MNIST lies")
    parser.add_argument("--out", type=Path, default=Path("runs/beliefs_mnist"), help="where the runs are")
    parser.add_argument("--seeds", default="0,1,2", help="of the trainings")
    parser.add_argument("--steps", type=int, default=400, help="of a training")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for seed in seeds:
        for belief in BELIEFS:
            run(workdir(args.out, belief, seed), belief, seed, args.data_dir, args.steps)
    print(table(args.out, seeds))


def workdir(out: Path, belief: str, seed: int) -> Path:
    return out / f"{belief}_seed{seed}"


def result(folder: Path, steps: int) -> Path:
    """Returns the file of a bound."""
    return folder / f"eval_steps{steps}_calls{CALLS}_limit{LIMIT}.json"


def run(folder: Path, belief: str, seed: int, data_dir: str, steps: int) -> None:
    """Does what is left of a run: training, evaluation."""
    options = [
        f"--data.dir={data_dir}",
        f"--loss.belief={belief}",
        f"--train.seed={seed}",
        f"--train.steps={steps}",
        f"--optimizer.rate.steps={steps}",
        f"--optimizer.rate.decay-steps={steps // 2}",
        "--model.ch=16",
        "--train.ema-decay=0.98",
        "--train.eval-every=1000000",
        "--train.sample-every=1000000",
    ]
    if (folder / "config.json").exists():
        options.append("--resume")
    command("train", "configs/bin_mnist_muon.py", "--workdir", str(folder), *options)
    if not all(result(folder, n).exists() for n in STEPS):
        evaluation = ["--steps", ",".join(map(str, STEPS)), "--calls", str(CALLS), "--limit", str(LIMIT)]
        command("eval", str(folder), *evaluation)


def table(out: Path, seeds: list[int]) -> str:
    """Makes the Markdown table, in nats."""
    columns = [f"{n} steps, by seed | mean" for n in STEPS]
    lines = [f"| belief | {' | '.join(columns)} |", "|" + "---|" * (1 + 2 * len(STEPS))]
    for belief in BELIEFS:
        cells = [f"`{belief}`"]
        for n in STEPS:
            files = [result(workdir(out, belief, seed), n) for seed in seeds]
            nats = [json.loads(file.read_text())["nats"] for file in files]
            cells += [", ".join(f"{x:.2f}" for x in nats), f"{np.mean(nats):.2f}{spread(nats, digits=2)}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
