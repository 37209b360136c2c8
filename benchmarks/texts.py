"""Three noises on texts at equal compute: trains, evaluates and draws what is missing, prints the table.

    python benchmarks/texts.py [--letters FILE] [--steps 2000] [--out runs/texts] [--only WORD] [OPTIONS]

FILE is a text of a-z and spaces; without it there are the plays alone. OPTIONS are of `d3pm train`, for all.
What was stopped is taken up. Each is a run as any other: `d3pm eval` and `d3pm sample` open it.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

NOISES = ("absorbing", "uniform", "neighbours")
CALLS = 10  # of the network, for the evaluation of an example
EXACT = 64  # examples of the chain rule
SAMPLES = 16
EVALUATED = f"eval_calls{CALLS}.json"


class Case(NamedTuple):
    """Holds a row of the table."""

    text: str
    noise: str
    workdir: Path
    letters: Path | None  # the text, where it is not that of the library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--letters", type=Path, help="a text of a-z and spaces")
    parser.add_argument("--steps", type=int, default=2000, help="of each training (2000)")
    parser.add_argument("--out", type=Path, default=Path("runs/texts"), help="where the runs are")
    parser.add_argument("--only", default="", help="a word that the names of the runs to work on hold")
    args, options = parser.parse_known_args()
    cases = [Case("shakespeare", noise, args.out / f"shakespeare_{noise}", None) for noise in NOISES]
    if args.letters is not None:
        letters = args.letters.resolve()
        cases += [Case("letters", noise, args.out / f"letters_{noise}", letters) for noise in NOISES]
    for case in cases:
        if args.only in case.workdir.name:
            run(case, args.steps, options)
    print(table([case for case in cases if (case.workdir / EVALUATED).exists()]))


def run(case: Case, steps: int, options: list[str]) -> None:
    """Does what is left of a run: training, evaluation, samples."""
    if not (case.workdir / "trained").exists():
        train(case, steps, options)
    if not (case.workdir / EVALUATED).exists():
        chain_rule = []
        if case.noise == "absorbing":
            chain_rule = ["--chain-rule", str(EXACT)]
        command("eval", str(case.workdir), "--calls", str(CALLS), *chain_rule)
    if not (case.workdir / "samples.txt").exists():
        command("sample", str(case.workdir), "--num", str(SAMPLES))


def train(case: Case, steps: int, options: list[str]) -> None:
    """Trains, and adds the seconds that its processes had a core to those in the folder."""
    arguments = [f"--train.steps={steps}", f"--optimizer.decay-steps={steps}", *options]
    if case.letters is not None:
        arguments.append(f"--data.train={case.letters}")
    if case.noise == "neighbours":
        arguments.append(f"--process.file={embeddings(case)}")
    if (case.workdir / "config.json").exists():
        arguments.append("--resume")
    before = cpu_seconds()
    config = f"configs/{case.text}_{case.noise}.py"
    try:
        command("train", config, "--workdir", str(case.workdir), *arguments)
    finally:
        with (case.workdir / "cpu_seconds").open("a") as file:
            file.write(f"{cpu_seconds() - before}\n")
    (case.workdir / "trained").touch()


def embeddings(case: Case) -> Path:
    """Returns the file of the characters' places, which is made if there is none."""
    file = case.workdir.with_suffix(".npy").resolve()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        script = [sys.executable, "examples/character_embeddings.py", str(file)]
        if case.letters is not None:
            script += ["--text", str(case.letters), "--tokenizer", "letters27"]
        subprocess.run(script, check=True)
    return file


def cpu_seconds() -> float:
    """Returns how long the processes that this one has waited for had a core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(*args: str) -> None:
    """Runs a command of d3pm."""
    subprocess.run([sys.executable, "-m", "d3pm_jax", *args], check=True)


def table(cases: list[Case]) -> str:
    """Makes the Markdown table of what is finished."""
    lines = [
        "| text | noise | CPU minutes | bound | left to right | any order |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        minutes = sum(map(float, (case.workdir / "cpu_seconds").read_text().split())) / 60
        exact = read(case.workdir / f"exact_chain_rule{EXACT}.json")
        both = (bits(exact.get(name)) for name in ("left to right", "in random orders"))
        cells = (case.text, case.noise, f"{minutes:.0f}", bits(read(case.workdir / EVALUATED)), *both)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read(path: Path) -> dict[str, Any]:
    """Reads a file of figures, {} where there is none."""
    if not path.exists():
        return {}
    return json.loads(path.read_text())


def bits(figure: dict[str, float] | None) -> str:
    """Formats bits per dimension with their standard error, "" where there are none."""
    if not figure:
        return ""
    return f"{figure['bits_per_dim']:.3f} ± {figure['standard_error']:.3f}"


if __name__ == "__main__":
    main()
