"""d3pm judge says which law samplers draw from: named ones, and functions of other libraries."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from d3pm_jax import judge
from d3pm_jax.cli.arguments import Counts, name_option
from d3pm_jax.config import Count, Epsilon, NonEmptyStr, Seed
from d3pm_jax.judge.judging import LEVEL
from d3pm_jax.judge.targets import Noise
from d3pm_jax.program.measure.record import write_record


@dataclasses.dataclass(frozen=True)
class JudgeCommand:
    """Says which law samplers draw from, as far as samples can tell.

    A sampler is a name, as `d3pm sample --sampler help` lists them, with fields as NAME:field=value,..; or
    FILE.py, or FILE.py:NAME, with a function sample(denoise, K, L, n, seed, calls) in NumPy, PyTorch or JAX.
    See docs/judge.md.

    Example: d3pm judge random_order maskgit:choice_temperature=0 my_sampler.py --calls 4,16,64
    """

    samplers: Annotated[
        Positional[tuple[str, ...]],
        name_option(metavar="SAMPLER [SAMPLER ...]", help_behavior_hint="(required)"),
    ]
    """what to judge; a FILE.py is run"""
    target: Annotated[NonEmptyStr, name_option(metavar="LAW")] = "chain"
    """the true law: chain, a random Markov chain of 8 categories; bigrams, of a text, with --text; network,
    of a random network of 4 places the enumerated law of the sampler, or of what a file `claims`; or a
    FILE.py that defines `target`, one of d3pm_jax.oracles"""
    text: Annotated[Path | None, name_option(metavar="FILE")] = None
    """with --target bigrams: a text of a-z and spaces"""
    length: Annotated[Count, name_option(metavar="L")] = 64
    """places of chain and bigrams"""
    calls: Annotated[Counts, name_option()] = (8, 16, 32, 64)
    """numbers of network calls to judge; a sampler that takes as many as it takes is judged once"""
    num: Annotated[Count, name_option(metavar="N")] = 3000
    """samples with each number of calls"""
    batches: Annotated[Count, name_option(metavar="B")] = 30
    """calls of a function that these samples are drawn in, at least 30"""
    noise: Annotated[Noise, name_option()] = "mask"
    """the noise that named samplers are run on; a file has its own"""
    seed: Annotated[Seed, name_option(metavar="N")] = 0
    """of samples and of exact ones"""
    level: Annotated[Epsilon, name_option(metavar="P")] = LEVEL
    """how likely, at most, it is said of a sampler with the true law that it has another"""
    out: Annotated[Path, name_option(metavar="DIR")] = Path("judged")
    """the folder of the results"""


def execute(command: JudgeCommand, words: list[str]) -> int:
    """Judges, prints and writes; returns the exit status."""
    subjects = [judge.read_subject(text, command.noise) for text in command.samplers]
    target = judge.read_target(command.target, command.length, command.text)
    protocol = judge.Protocol(command.calls, command.num, command.batches, command.seed, command.level)
    command.out.mkdir(parents=True, exist_ok=True)
    records = []
    for subject in subjects:
        record = judge.judge(subject, target, protocol, command.target)
        path, replaced = write_record(
            record, command.out, f"_{re.sub(r'[^a-zA-Z0-9=.-]+', '_', subject.name)}"
        )
        print("\n".join(judge.describe(record)))
        print(f"  {path}{replaced}", flush=True)
        records.append(record)
    picture = judge.save_picture(records, command.out / "judged.png")
    print(f"picture: {picture}")
    print(f"page: {judge.write_page(records, picture, command.out / 'judged.html')}")
    return 0
