"""The three beliefs on binarised MNIST: trains, evaluates and measures what is missing, one seed each.

    python benchmarks/beliefs_mnist.py --data-dir DIR [--out runs/beliefs_mnist]

DIR holds MNIST as TFDS prepares it. It takes up a training that was stopped, and prints the table of what is
finished: the bound on the first 1,000 test images at 100 and 10 steps, and the Fréchet distance of samples.
"""

import argparse
import json
from pathlib import Path

from beliefs import BELIEFS, command

from d3pm_jax.measure import sample_quality as protocol

STEPS = 1500
LIMIT = 1000
SAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="where MNIST lies")
    parser.add_argument("--out", type=Path, default=Path("runs/beliefs_mnist"), help="where the runs are")
    args = parser.parse_args()
    print("| belief | nats, 100 steps | nats, 10 steps | Fréchet distance, 50 steps |\n|---|---|---|---|")
    for belief in BELIEFS:
        print(row(belief, args.out / belief, args.data_dir))


def row(belief: str, workdir: Path, data_dir: str) -> str:
    """Does what is left of a run, and returns its row of the table."""
    options = [f"--loss.belief={belief}", f"--train.steps={STEPS}", f"--optimizer.decay-steps={STEPS}"]
    if (workdir / "config.json").exists():
        options.append("--resume")
    config = ["configs/bin_mnist_uniform.py", "--workdir", str(workdir), f"--data.dir={data_dir}"]
    command("train", *config, *options)
    evaluation = ["eval", str(workdir), "--data.dir", data_dir, "--limit", str(LIMIT)]
    if not (workdir / f"eval_steps10_limit{LIMIT}.json").exists():
        command(*evaluation, "--steps", "100,10")
    if not protocol.read_figures([workdir]):
        command(*evaluation, "--steps", "50", "--samples", str(SAMPLES))
    bounds = [json.loads((workdir / f"eval_steps{n}_limit{LIMIT}.json").read_text()) for n in (100, 10)]
    nats = [f"{bound['nats']:.2f} ± {bound['nats_standard_error']:.2f}" for bound in bounds]
    distance = protocol.read_figures([workdir])[0].values["samples"]["frechet"].value
    return f"| `{belief}` | {' | '.join(nats)} | {distance:.1f} |"


if __name__ == "__main__":
    main()
