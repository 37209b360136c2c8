"""Calls all that `d3pm_jax.runs` offers with every argument spoilt in turn, and what users pass in returning
something else.

    python -m tests.checks.run_calls [FUNCTION ...]

These are the methods of `Run`, the fields of `Draw`, of guidance and of selection, and functions of folders
and files; what is passed in is a score, a progress, a guidance, a log. A call ends in one clear error of this
library that names the argument, or is right: `RIGHT` says which values are. Anything else is a defect:
silent, unclear, or NaN. It runs without the checks of types that the tests of this folder have, which users
have not either.
"""

import contextlib
import dataclasses
import functools
import io
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import processes, runs, schedules
from d3pm_jax.config import (
    Absorbing,
    Adam,
    Arrays,
    Config,
    HybridLoss,
    LabelLoss,
    NoisyClassifier,
    Reciprocal,
    Train,
    Transformer,
)
from d3pm_jax.data import Description
from d3pm_jax.sampling import Known, PartWay, named
from tests import tiny
from tests.checks.constructors import INF, NAN, WRONG, Call, Result, outcome, report
from tests.runs import conditioned

N = 2
L = 6
T = 4
CLASSES = 3
CATEGORIES = 4
DESCRIPTION = Description((L,), CATEGORIES, CLASSES)
X = np.arange(N * L, dtype=np.int32).reshape(N, L) % CATEGORIES
LABELS = np.array([0, 2], np.int32)
CONDITIONS = np.ones((N, *conditioned.CONDITION), np.int32)
STEPS = np.array([1, T], np.int32)

# What an argument of a role is spoilt with beside what is in WRONG.
MORE: dict[str, dict[str, Any]] = {
    "categories": {
        "floats": X.astype(float),
        "booleans": X > 0,
        "a -1": X - 1,
        "a K": X + 9,
        "complex": X * 1j,
        "longer": np.zeros((N, L + 1), int),
        "an axis more": X[..., None],
        "texts": X.astype(str),
        "objects": X.astype(object) + 0.5,
        "ragged": [[1], [1, 2]],
        "a 2**40": X.astype(np.int64) + 2**40,
        "a key": jax.random.key(0),
    },
    "steps": {
        "halves": np.full(N, 0.5),
        "a -1": np.full(N, -1),
        "a T + 1": np.full(N, T + 1),
        "a 2**40": np.full(N, 2**40),
        "one more": np.ones(N + 1, int),
        "an axis more": np.ones((N, 1), int),
        "booleans": np.ones(N, bool),
        "nan": np.full(N, NAN),
        "keys": jax.random.split(jax.random.key(0), N),
    },
    "labels": {
        "halves": LABELS + 0.5,
        "a -1": LABELS - 1,
        "a class too many": LABELS + 3,
        "an axis more": LABELS[:, None],
        "booleans": LABELS > 0,
        "none": LABELS[:0],
        "a 2**40": LABELS.astype(np.int64) + 2**40,
    },
    "conditions": {
        "texts": CONDITIONS.astype(str),
        "another shape": CONDITIONS[..., 0],
        "halves": CONDITIONS + 0.5,
        "a 2**40": CONDITIONS.astype(np.int64) + 2**40,
        "booleans": CONDITIONS > 0,
        "ragged": [[1], [1, 2]],
        "a key": jax.random.key(0),
    },
    "weights": {
        "a nan": np.full((N, L), NAN),
        "a -1": np.full((N, L), -1.0),
        "an inf": np.full((N, L), INF),
        "zeros": np.zeros((N, L)),
        "one for each": np.ones(N),
        "texts": X.astype(str),
        "complex": X * 1j,
        "objects": np.full((N, L), None),
        "keys": jax.random.split(jax.random.key(0), (N, L)),
        "bfloat16": np.ones((N, L), jnp.bfloat16),
    },
    "masks": {"of integers": X, "of another length": X[:, 1:] > 0, "of objects": np.full((N, L), None)},
    "keys": {"raw": jax.random.key_data(jax.random.key(0)), "two": jax.random.split(jax.random.key(0))},
    "config": {"another part": Adam(lr=1e-3), "a field": Config},
    "number": {"an array": np.ones(2)},
    "names": {"a name": "no sampler", "a step": named.maskgit().step},
}
for role in ("known", "wide", "padded"):
    MORE[f"{role} categories"] = MORE["categories"]
MORE["categories of a size"] = MORE["categories"]
MORE["labels of each"] = MORE["labels"] | {"one more": np.zeros(N + 1, int)}
MORE["labels that are needed"] = MORE["labels of each"]
MORE["conditions of each"] = MORE["conditions"] | {"one more": np.ones((N + 1, *conditioned.CONDITION), int)}
# What is right for a role, of all that it is spoilt with.
RIGHT: dict[str, tuple[str, ...]] = {
    "categories of a size": ("[[1], [2]]", "longer"),
    "wide categories": ("0", "[[1], [2]]"),
    "known categories": ("0", "[[1], [2]]", "a -1"),
    "padded categories": ("-1", "0", "(-1,)", "[[1], [2]]", "a -1", "longer", "an axis more"),
    "masks": ("True",),
    "masks or None": ("None",),
    "seed": ("0",),
    "from 0 or None": ("None", "0"),
    "from 0 far or None": ("None", "0"),
    "count or None": ("None",),
    "flag": ("True",),
    "progress": (),
    "other or None": ("None",),
    "config or None": ("None",),
    "step or None": ("None",),
    "steps or None": ("None",),
    "labels or None": ("None", "0"),
    "labels of each": ("None",),
    "no condition": ("None",),
    "weights": ("None", "bfloat16"),
    "number": ("-1", "0", "2.5", "2**32"),
    "number or None": ("None", "-1", "0", "2.5", "2**32"),
    "record": ("[]",),
    "names": ("None",),
    "times": ("[]",),
    "shape or None": ("None", "[]"),
    "sequence": ("[]",),
    "empty": ("[]", "''", "{}"),
    "new path": ("'abc'",),
    "folder": ("'abc'",),  # an empty one
    "folders": ("[]", "texts [2]"),
}
# A class is called, and raises an error of its own.
FAILS_BY_ITSELF = {(name, "a class") for name in ("progress", "score")}


# Other words for arguments.
WORDS = {
    ("BestOf", "n"): "candidates",
    ("Particles", "n"): "particles",
    ("Draw of known", "x0"): "known",
    ("Draw of known", "mask"): "known",
    ("Draw of start", "x0"): "start",
    ("evaluate_on", "x0"): "x0|x of example 0|xt",
    ("evaluate_on", "labels"): "labels?",
    ("log_prob", "x"): "x|x0|labels",  # which a good x without labels lacks
    ("bayes_conditional", "x"): "x|x0|labels",
    ("Draw", "start"): "start|strength",
    ("Draw", "guidance"): "guidance|gamma",
    ("open", "steps"): "steps|grid",
    ("prepare_quality", "inception"): "samples|inception",
}


def in_role(role: str) -> str:
    return role.removesuffix(" or None")


def score(x: Any) -> Any:
    return jnp.zeros(len(x))


class Log:
    """A log of one's own."""

    def log(self, step: int, values: Any) -> None:
        pass

    def close(self) -> None:
        pass


def make_config(folder: Path) -> Config:
    """Returns a config of few places, and writes its data."""
    for name in ("x", "y"):
        rng = np.random.default_rng(0)
        array = rng.integers(0, CATEGORIES, (8, L)) if name == "x" else rng.integers(0, CLASSES, 8)
        np.save(folder / f"{name}.npy", array)
    x, y = (str(folder / f"{name}.npy") for name in ("x", "y"))
    return Config(
        data=Arrays(x, x, CATEGORIES, train_labels=y, test_labels=y, classes=CLASSES),
        process=Absorbing(K=CATEGORIES + 1, steps=T, beta=Reciprocal(), mask_id=CATEGORIES),
        model=Transformer(width=8, num_layers=1, num_heads=1, classes=CLASSES, see_time=False),
        loss=HybridLoss(ce_weight=1.0),
        optimizer=Adam(lr=1e-3),
        train=Train(steps=1, batch_size=4, drop_condition=0.1),
    )


class Opened:
    """Holds runs that are called, each made where it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = make_config(folder)

    @functools.cached_property
    def run(self) -> runs.Run:
        """Of masks and labels, trained without labels too."""
        tiny.write_run(self.folder / "run", self.config, 1, DESCRIPTION)
        return runs.open(self.folder / "run", batch_size=N)

    @functools.cached_property
    def conditioned(self) -> runs.Run:
        config = conditioned.get_config()
        tiny.write_run(self.folder / "conditioned", config, 1, config.data.describe())
        return runs.open(self.folder / "conditioned", config, batch_size=N)

    @functools.cached_property
    def classifier(self) -> runs.Run:
        model = NoisyClassifier(width=8, num_layers=1)
        config = dataclasses.replace(self.config, loss=LabelLoss(), model=model, train=Train(steps=1))
        tiny.write_run(self.folder / "classifier", config, 1, DESCRIPTION)
        return runs.open(self.folder / "classifier", batch_size=N)


def calls(opened: Opened) -> Iterator[Call]:
    yield from calls_of_run(opened)
    yield from draws(opened)
    yield from files(opened)


def calls_of_run(opened: Opened) -> Iterator[Call]:
    run = opened.run
    inputs = {"xt": X, "t": STEPS, "label": LABELS}
    roles = {"xt": "categories", "t": "steps", "label": "labels of each", "condition": "no condition"}
    yield Call("predict", run.predict, inputs, roles)
    roles = {"condition": "conditions of each", "label": "labels that are needed"}
    inputs |= {"condition": CONDITIONS}
    yield Call("predict with a condition", lambda **x: opened.conditioned.predict(**x), inputs, roles)
    roles = {"xt": "categories", "t": "steps"}
    yield Call("classify", lambda **x: opened.classifier.classify(**x), {"xt": X, "t": STEPS}, roles)
    roles = {
        "key": "keys",
        "n": "count",
        "draw": "other",
        "batch_size": "count",
        "progress": "progress",
        "chains": "from 0 or None",
    }
    yield Call("sample", run.sample, {"key": jax.random.key(0), "n": 1, "draw": runs.Draw()}, roles)
    yield Call("respaced", run.respaced, {"steps": 2}, {"steps": "steps of a run"})
    roles = {"limit": "count or None", "batch_size": "count", "seed": "seed", "calls": "count or None"}
    yield Call("evaluate", run.evaluate, {"limit": 2, "batch_size": 2}, roles)
    reading = {"split": "other", "limit": "count or None"}
    for f in (run.read_batch, run.read_split):
        yield Call(f.__name__, f, {"split": "test"}, reading)
    yield Call("read_sample_inputs", run.read_sample_inputs, {}, {"limit": "count or None"})
    yield Call("read_last", run.read_last, {"split": "test", "n": 2}, {"split": "other", "n": "count"})
    roles = {"examples": "other", "batch_size": "count", "seed": "seed", "progress": "progress"}
    roles |= {"orders": "other or None"}
    yield Call("compute_likelihood", run.compute_likelihood, {"examples": {"x": X, "label": LABELS}}, roles)
    roles = {"n": "count", "draws": "count", "batch_size": "count", "seed": "seed", "progress": "progress"}
    yield Call("certify", run.certify, {"n": 2, "draws": 1, "batch_size": 2}, roles)
    roles = {"x": "other", "given": "masks or None", "orders": "other or None"}
    roles |= {"batch_size": "count", "seed": "seed"}
    good = {"x": {"x": X, "label": LABELS}, "given": X > 1}
    yield Call("log_prob", run.log_prob, good, roles)
    roles = {"x": "other", "given": "masks"}
    yield Call(
        "bayes_conditional", run.bayes_conditional, {"x": {"x": X, "label": LABELS}, "given": X > 1}, roles
    )
    roles = {"num": "count", "own": "flag", "by_block": "flag"}
    yield Call("Orders", runs.Orders, {"num": 1}, roles)
    yield Call("measure_jumps", run.measure_jumps, {}, {"progress": "progress"})
    roles = {"num": "other", "batch_size": "other", "inception": "other"}
    yield Call("prepare_quality", run.prepare_quality, {"num": 2}, roles)
    roles = {"reference": "other", "num": "count", "seed": "seed", "batch_size": "count"}
    roles |= {"progress": "progress", "sampler": "names"}
    reference = runs_reference()
    yield Call("measure_quality", run.measure_quality, {"reference": reference, "num": 2}, roles)
    roles = {
        "x0": "categories of a size",
        "labels": "labels of each",
        "batch_size": "count",
        "seed": "seed",
        "progress": "progress",
        "calls": "count or None",
        "weight": "weights",
        "condition": "no condition",
    }
    yield Call("evaluate_on", run.evaluate_on, {"x0": X, "labels": LABELS}, roles)
    yield Call(
        "evaluate_on with a condition",
        lambda **x: opened.conditioned.evaluate_on(**x),
        {"x0": X, "labels": LABELS, "condition": CONDITIONS},
        {"condition": "conditions of each"},
    )


def runs_reference() -> Any:
    from d3pm_jax.kinds import Measured, Reference

    return Reference("2 examples", "places", {"test": {"n": 2}}, lambda x: Measured({"n": len(x)}))


def draws(opened: Opened) -> Iterator[Call]:
    """Yields samples with each field of what is asked for."""
    key = jax.random.key(0)

    def sample(run: runs.Run, **good: Any) -> Callable[..., Any]:
        return lambda **fields: run.sample(key, 2, runs.Draw(**(good | fields)), batch_size=2)

    roles = {
        "label": "labels or None",
        "condition": "no condition",
        "known": "other or None",
        "start": "other or None",
        "sampler": "names",
        "guidance": "number or None",
        "select": "other or None",
        "shape": "shape or None",
        "record": "record",
        "where": "other or None",
    }
    yield Call("Draw", sample(opened.run), {}, roles)

    def with_condition(condition: Any) -> Any:
        return sample(opened.conditioned)(condition=condition)

    yield Call("Draw with a condition", with_condition, {}, {"condition": "conditions"})

    def known(x0: Any, mask: Any) -> Any:
        return sample(opened.run)(known=Known(x0, mask))

    good = {"x0": X, "mask": X > 1}
    yield Call("Draw of known", known, good, {"x0": "known categories", "mask": "masks"})

    def start(x0: Any, strength: Any) -> Any:
        return sample(opened.run)(start=PartWay(x0, strength))

    good = {"x0": X, "strength": 0.5}
    yield Call("Draw of start", start, good, {"x0": "wide categories", "strength": "other"})

    def best(score: Any, n: Any) -> Any:
        return sample(opened.run)(select=runs.BestOf(score, n))

    def steered(score: Any, n: Any) -> Any:
        return sample(opened.run)(select=runs.Particles(score, n))

    yield Call("BestOf", best, {"score": score, "n": 2}, {"score": "other", "n": "count"})
    yield Call("Particles", steered, {"score": score, "n": 2}, {"score": "other", "n": "count"})

    def free(**fields: Any) -> Any:
        return sample(opened.run)(guidance=runs.ClassifierFreeGuidance(**fields))

    roles = {"gamma": "number", "on": "other or None", "late": "from 0 far or None"}
    yield Call("ClassifierFreeGuidance", free, {"gamma": 1.0}, roles)

    def by_classifier(**fields: Any) -> Any:
        fields = {"classifier": opened.classifier} | fields
        return sample(opened.run)(guidance=runs.ClassifierGuidance(**fields))

    roles = {"classifier": "other", "gamma": "number", "exact": "flag"}
    yield Call("ClassifierGuidance", by_classifier, {}, roles)


def files(opened: Opened) -> Iterator[Call]:
    """Yields what opens runs and what reads and writes their files."""
    folder = opened.folder
    run = opened.run
    roles = {"workdir": "other", "config": "config or None", "step": "step or None"}
    roles |= {"steps": "steps or None", "batch_size": "count", "data_dir": "other or None"}
    yield Call("open", runs.open, {"workdir": run.workdir}, roles)

    def train(**arguments: Any) -> Any:
        shutil.rmtree(folder / "new", ignore_errors=True)
        return runs.train(**arguments)

    roles = {"config": "config", "workdir": "new path", "resume": "flag", "start": "other or None"}
    roles |= {"wandb": "other or None", "logs": "empty"}
    yield Call("train", train, {"config": opened.config, "workdir": folder / "new"}, roles)
    path = folder / "w.safetensors"
    yield Call(
        "export",
        runs.export,
        {"run": run, "path": path},
        {"run": "other", "path": "new path", "raw": "flag"},
    )
    runs.export(run, path)

    def import_weights(**arguments: Any) -> Any:
        shutil.rmtree(folder / "new", ignore_errors=True)
        return runs.import_weights(**arguments)

    good = {"file": path, "config": opened.config, "workdir": folder / "new"}
    roles = {"file": "other", "config": "config", "workdir": "new path", "description": "other or None"}
    yield Call("import_weights", import_weights, good, roles)
    roles = {"config": "config", "path": "new path", "steps": "count or None"}
    good = {"config": opened.config, "path": folder / "noise"}
    yield Call("presample", runs.presample, good, roles)
    for f in (runs.network, runs.denoiser):
        yield Call(f.__name__, f, {"file": path}, {"file": "other"})
    denoise = runs.denoiser(path)
    roles = {"xt": "categories", "t": "steps", "label": "labels of each", "condition": "no condition"}
    yield Call("denoiser()", denoise, {"xt": X, "t": STEPS, "label": LABELS}, roles | {"weight": "weights"})
    process = processes.absorbing(schedules.reciprocal(T), CATEGORIES + 1, CATEGORIES)
    good = {"key": jax.random.key(0), "process": process, "x0": X, "times": [0, T]}
    roles = {"key": "keys", "process": "other", "x0": "padded categories", "times": "times"}
    yield Call("draw_forward", runs.draw_forward, good, roles)
    record = run.evaluate(2, 2)
    for name in ("a", "b"):
        good = {"a": record, "b": record}
        yield Call("list_incomparable", runs.list_incomparable, good, {name: "other"})
    yield Call("read_metrics", runs.read_metrics, {"workdir": run.workdir}, {"workdir": "folder"})
    yield Call("read_quality", runs.read_quality, {"workdirs": [run.workdir]}, {"workdirs": "folders"})
    quality = run.measure_quality(runs_reference(), 2).record
    roles = {"quality": "other", "workdir": "new path"}
    yield Call("write_quality", runs.write_quality, {"quality": quality, "workdir": run.workdir}, roles)
    roles = {"results": "sequence", "user_table": "other or None"}
    yield Call("format_quality", runs.format_quality, {"results": [quality]}, roles)


Wanted = Callable[[Call, str, str], bool]  # of a call, an argument and a case


def spoilt(calls: Iterator[Call], wanted: Wanted) -> Iterator[Result]:
    """Spoils every argument of every call that is wanted, by call, argument and case."""
    printed = io.StringIO()  # by trainings
    for call in calls:
        for name, role in call.roles.items():
            for case, value in {**WRONG, **MORE.get(in_role(role), {})}.items():
                if value is None and role == "labels that are needed":
                    continue  # by the network of the tests
                if (name, case) in FAILS_BY_ITSELF or not wanted(call, name, case):
                    continue
                f = functools.partial(call.f, **(call.good | {name: value}))
                with contextlib.redirect_stdout(printed):
                    kind, how = outcome(f, WORDS.get((call.name, name), name), case in RIGHT.get(role, ()))
                if kind == "unclear" and how.startswith(("FileNotFoundError", "IsADirectoryError")):
                    kind = "clear"  # as the system says it, with the path
                yield kind, f"{call.name}({name}) {case}", how


class Returns(runs.Guidance):
    """Guidance of one's own, whose network is any function, or none."""

    def __init__(self, guided: Any, settled: Any = None) -> None:
        self.guided = guided
        self.settled = settled or self

    def settle(self, extra_mask: Any, dropping: Any, sampler: Any) -> Any:
        return self.settled

    def guide(self, network: Any, inputs: Any, label: Any, dropping: Any) -> Any:
        return self.guided

    def options(self) -> dict[str, Any]:
        return {}

    def in_words(self) -> str:
        return ""


def of_logits(change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda xt, time: change(jnp.zeros((*xt.shape, CATEGORIES + 1)))


NO_NETWORKS: dict[str, Any] = {
    "None": None,
    "a text": "abc",
    "a number": 3,
    "no argument": lambda: None,
    "one argument": lambda xt: None,
    "a keyword": lambda xt, time, *, scale: None,
    "to None": of_logits(lambda logits: None),
    "to a text": of_logits(lambda logits: "abc"),
    "to integers": of_logits(lambda logits: logits.astype(int)),
    "to another K": of_logits(lambda logits: logits[..., 1:]),
    "to K + 1": of_logits(lambda logits: jnp.concatenate([logits, logits], -1)),
    "to another length": of_logits(lambda logits: logits[:, 1:]),
    "to an example": of_logits(lambda logits: logits[0]),
    "to a number for each": of_logits(lambda logits: logits[..., 0]),
    "to nan": of_logits(lambda logits: logits * np.nan),
    "to inf": of_logits(lambda logits: logits + np.inf),
    "to a pair": of_logits(lambda logits: (logits, logits)),
}
NO_SCORES: dict[str, Any] = {
    "no argument": lambda: None,
    "two arguments": lambda x, y: None,
    "to None": lambda x: None,
    "to a text": lambda x: "abc",
    "to a dict": lambda x: {},
    "to one number": lambda x: jnp.zeros(()),
    "to one more": lambda x: jnp.zeros(len(x) + 1),
    "to one for each place": lambda x: jnp.zeros(x.shape),
    "to nan": lambda x: jnp.full(len(x), np.nan),
    "to inf": lambda x: jnp.full(len(x), np.inf),
    "to -inf": lambda x: jnp.full(len(x), -np.inf),
    "to complex": lambda x: jnp.zeros(len(x), np.complex64),
    "to booleans": lambda x: jnp.zeros(len(x), bool),
}


def returning(opened: Opened) -> Iterator[Result]:
    """Passes functions that return something else, or are called otherwise."""
    key = jax.random.key(0)

    def draw(**fields: Any) -> Any:
        return opened.run.sample(key, 2, runs.Draw(**fields), batch_size=4)

    for case, network in NO_NETWORKS.items():
        f = functools.partial(draw, guidance=Returns(network))
        kind, how = outcome(f, "network|guide", False)
        yield kind, f"Guidance.guide: {case}", how
    for case, settled in {"a text": "abc", "a number": 3, "a class": dict}.items():
        f = functools.partial(draw, guidance=Returns(of_logits(lambda logits: logits), settled))
        kind, how = outcome(f, "settle", False)
        yield kind, f"Guidance.settle: {case}", how
    for select in (runs.BestOf, runs.Particles):
        for case, no_score in NO_SCORES.items():
            kind, how = outcome(functools.partial(draw, select=select(no_score, 2)), "score", False)
            yield kind, f"{select.__name__}.score: {case}", how


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        opened = Opened(Path(folder))

        def is_wanted(call: Call, name: str, case: str) -> bool:
            return not names or call.name in names

        report("runs", spoilt(calls(opened), is_wanted), [])
        report("what is passed to runs", returning(opened), [])


if __name__ == "__main__":
    main(sys.argv[1:])
