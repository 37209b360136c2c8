"""Runs and records of numbers written out, for the parts of a page: no network is called."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

from d3pm_jax import kinds
from d3pm_jax.config import io as config_io
from d3pm_jax.data import Description
from d3pm_jax.program.measure import bounds, record as measured, sample_quality as protocol, samples
from d3pm_jax.program.parts import build
from d3pm_jax.report import folder
from d3pm_jax.runs.run import Run

EVAL = bounds.EVAL
FORMATS = {"eval": EVAL, "exact": bounds.EXACT, "samples": samples.SAMPLES}  # by what names begin with
DIGITS = Description((8, 8, 1), 17, 10, "image")


class KnownParts(build.Parts):
    """Parts of which only so much is known."""

    def __init__(self, **known):
        vars(self).update(known)


class Known(Run):
    """A run of which only so much is known."""

    step = process = config = None

    def __init__(self, **known):
        vars(self).update(known)


RUN = Known(
    step=7,
    workdir=Path("runs/a"),
    config=config_io.read_config_file(Path("configs/digits_absorbing.py")),
    process=SimpleNamespace(T=4),
    parts=SimpleNamespace(
        description=DIGITS, kind=kinds.make_kind(DIGITS), recipe=SimpleNamespace(draw=True, classes=None)
    ),
)

PROTOCOL = protocol.Protocol(
    N=9,
    split="train",
    reference="150 examples, sha256 ab",
    features="sums, sha256 0123456789abcdef",
    step=7,
    steps=5,
    grid="even",
    sampler="ancestral",
    classes="none",
    ema=0.9,
    belief="d3pm",
    dtype="float32",
    seed=3,
)


def record(name="a", run=RUN, bounds=(), quality=()):
    bound_records = [measured.Record(EVAL, result, Path(f"eval_{i}.json")) for i, result in enumerate(bounds)]
    return folder.Reported(name, run, [], bound_records, list(quality), None)


def bound(*terms, **entries):
    """What a file of `d3pm eval` holds."""
    times = list(range(1, len(terms) + 1))
    content = {"step": 7, "examples": 3, "times": times, "steps": list(terms), "bits_per_dim": 1.0}
    content |= {"seed": None, "baselines": {}} | entries
    protocol = {"N": content["examples"], "step": content["step"], "seed": content["seed"]}
    return content | {"protocol": protocol | {"steps": len(times)} | entries.get("protocol", {})}


def write_result(path, content):
    """Writes a file as a command does."""
    file_format = FORMATS[path.stem.partition("_")[0]]
    suffix = path.stem.removeprefix(file_format.name)
    measured.write_record(measured.Record(file_format, content), path.parent, suffix)


def quality(name, frechet=1.0, **changes):
    row = {"n": changes.get("N", 9), "frechet": frechet, "precision": 0.5, "recall": None}
    return of_quality(name, {"samples": row}, dataclasses.replace(PROTOCOL, **changes), "image")


def of_quality(name, rows, known, kind):
    return measured.Record(protocol.QUALITY, protocol.make_record(rows, known, kind), Path(name))
