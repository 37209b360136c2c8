"""Records of the folder of a run: their order, their names and the command that makes more."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

import d3pm_jax
from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import record as measured
from d3pm_jax.program.measure.bounds import EVAL, LABELS
from d3pm_jax.program.storage import checkpoint, names
from d3pm_jax.report import folder
from tests.report.records import RUN, Known, bound, record, write_result


def test_bounds_begin_with_this_step_most_steps_all_terms_most_examples(tmp_path):
    files = {
        "eval_a": bound(1.0, 1.0, 1.0, step=6),
        "eval_b": bound(1.0),
        "eval_c": bound(times=[1, 2], examples=99),
        "eval_d": bound(1.0, 1.0, examples=4),
        "eval_e": bound(1.0, 1.0, examples=5),
    }
    for name, tree in files.items():
        write_result(tmp_path / f"{name}.json", tree)
    records_read = folder.read_results(Known(step=7, workdir=tmp_path), EVAL)
    assert [x.path.stem[-1] for x in records_read] == ["e", "d", "c", "b", "a"]


def test_accuracies_begin_with_this_step_and_most_examples(tmp_path):
    for i, (step, n, times) in enumerate([(6, 9, [1]), (7, 3, [1, 2]), (7, 8, [1])]):
        content = {"step": step, "examples": n, "times": times, "cross_entropy": 1.0, "accuracy": 0.5}
        content["protocol"] = {"N": n, "step": step}
        measured.write_record(measured.Record(LABELS, content), tmp_path, f"_{i}")
    records_read = folder.read_results(Known(step=7, workdir=tmp_path), LABELS)
    assert [x.path.stem[-1] for x in records_read] == ["2", "1", "0"]


def test_no_two_runs_have_one_name():
    def run(path, step=7, T=4):
        return Known(
            workdir=Path(path), step=step, parts=SimpleNamespace(recipe=SimpleNamespace(num_steps=T))
        )

    assert folder.name_runs([run("runs/a"), run("runs/b")]) == ["a", "b"]
    assert folder.name_runs([run("a"), run("x/a"), run("a", T=2), run("a", step=6), run("a")]) == [
        "a, step 7, 4 steps (1)",
        "x/a, step 7, 4 steps",
        "a, step 7, 2 steps",
        "a, step 6, 4 steps",
        "a, step 7, 4 steps (2)",
    ]
    # A flow has no steps.
    assert folder.name_runs([run("a", T=0), run("x/a")]) == ["a, step 7", "x/a, step 7, 4 steps"]
    with pytest.raises(UserError, match="9 runs: a page has 8 colours, write several pages"):
        d3pm_jax.report.page([RUN] * 9)


def test_the_command_names_a_step_that_is_not_the_last(tmp_path):
    run = Known(**vars(RUN) | {"workdir": tmp_path})
    workdir = shlex.quote(str(tmp_path))
    assert record(run=run).evaluate() == f"d3pm eval {workdir} --step 7"  # training has deleted them
    for step, option in ((7, ""), (9, " --step 7")):
        manifest = tmp_path / names.CHECKPOINTS / str(step) / checkpoint.MANIFEST
        manifest.parent.mkdir(parents=True)
        manifest.touch()
        assert record(run=run).evaluate(" --x") == f"d3pm eval {workdir}{option} --x"
