"""Damage to the folder of a run and to exported weights: refused in one line with a cure, or without effect.

Quick: some of the bytes; slow: every one of our JSON and of exported weights, every tenth of other files.
"""

import collections
import dataclasses
import json
import os
import re
import shutil

import jax
import numpy as np
import pytest

from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import metrics, sinks as logs
from d3pm_jax.program.measure.bounds import EVAL
from d3pm_jax.program.measure.record import read_records
from d3pm_jax.program.measure.sample_quality import QUALITY
from d3pm_jax.program.measure.samples import SAMPLES
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint, manifest
from d3pm_jax.program.storage.names import CHECKPOINTS
from d3pm_jax.program.storage.run_folder import (
    check_description,
    claim_folder,
    describe_saved,
    read_examples,
    read_run,
    read_run_to_resume,
    write_run,
)
from d3pm_jax.runs import exported
from d3pm_jax.weights import twin
from tests import tiny
from tests.forked import Fork

EVERY_BYTE = (
    *("config.json", "format.json", "description.json", "manifest.json"),
    *("metrics.jsonl", "weights.safetensors"),
)
STRIDES = [pytest.param(499, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def parts(small_network):
    return build.initialize_state(build.build(complete(tiny.get_config(), tiny.DIGITS)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, parts):
    """The folder of a run at step 2, with a checkpoint of step 1, and an exported file."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    workdir.mkdir()
    examples = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1)).astype(np.int32)
    write_run(workdir, parts.config, tiny.DIGITS, {"x": examples})
    for step in (1, 2):
        state = dataclasses.replace(parts.state, step=jax.numpy.asarray(step, jax.numpy.int32))
        checkpoint.save_checkpoint(workdir / CHECKPOINTS, step, state, keep=2)
    with logs.append_lines(workdir, 0) as log:
        for step in (1, 2):
            log(step, {"loss": 0.5 / step, "kl": 1e-3})
    texts = {
        "config": config_io.dump_config(parts.config),
        "data": (workdir / "description.json").read_text(),
    }
    twin.save(workdir / "weights.safetensors", parts.state.params, texts)
    assert (workdir / "weights.safetensors").stat().st_size < 20_000
    return workdir


def opened(workdir, parts):
    """All that commands read of a run."""
    run = read_run(workdir)
    description = describe_saved(run)
    examples = read_examples(workdir, description)["x"]
    state = build.restore_state(workdir, parts, 2).state  # without a number the one before it is taken
    return run.config, description, examples, [np.asarray(x) for x in jax.tree.leaves(state)]


def imported(workdir, parts):
    """All that `d3pm import` reads of a file."""
    file = workdir / "weights.safetensors"
    config = exported.read_config(file)
    description = exported.read_description(file)
    try:
        params = twin.load(file, parts.state.params)
    except ValueError as error:
        raise UserError(str(error)) from error
    return config, description, None, [np.asarray(x) for x in jax.tree.leaves(params)]


def logged(workdir, parts):
    """The metrics of a run."""
    return metrics.read_metrics(workdir), None, None, []


def same(a, b):
    arrays = zip((a[2], *a[3]), (b[2], *b[3]), strict=True)
    return a[:2] == b[:2] and all(np.array_equal(x, y) for x, y in arrays)


def outcome(read, workdir, parts, expected):
    """What becomes of damage: "refused", "harmless" or "silent"; any other error is raised."""
    try:
        content = read(workdir, parts)
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert ": " in message
        return "refused"
    if same(content, expected):
        return "harmless"
    return "silent"


def damaged(content, stride):
    """Each byte with its lowest bit flipped, and the file cut at every tenth."""
    for i in range(0, len(content), stride):
        yield content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]
    for i in range(0, len(content), 10 * stride):
        yield content[:i]


def overwrite(file, content):
    """Writes a file in its place: a disk waits for each file that is emptied first."""
    with file.open("r+b") as opened_file:
        opened_file.write(content)
        opened_file.truncate()


def count_outcomes(read, workdir, parts, files, stride):
    expected = read(workdir, parts)
    outcomes = collections.Counter()
    for file in files:
        content = file.read_bytes()
        stride_of_file = stride if file.name in EVERY_BYTE else 10 * stride
        for other in damaged(content, stride_of_file):
            overwrite(file, other)
            outcomes[outcome(read, workdir, parts, expected)] += 1
        overwrite(file, content)
    assert same(read(workdir, parts), expected)
    return outcomes


def print_counts(read, workdir, files, stride):
    network.split_network = tiny.split
    parts = build.initialize_state(build.build(complete(tiny.get_config(), tiny.DIGITS)))
    print(json.dumps(count_outcomes(read, workdir, parts, files, stride)))


def counts(read, workdir, parts, files, stride):
    """How often each outcome comes."""
    if stride > 1:
        return count_outcomes(read, workdir, parts, files, stride)
    # Of so many calls most of the time is that of the checks of types that pytest adds to each: another
    # process has none.
    arguments = (read, workdir, files, stride)
    process = Fork(workdir.parent, print_counts, *arguments, JAX_NUM_CPU_DEVICES=jax.device_count())
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    return collections.Counter(json.loads(output))


@pytest.mark.parametrize("stride", STRIDES)
def test_no_byte_of_a_run_changes_it_silently(stride, saved, parts, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    names = ("config.json", "format.json", "description.json", "examples.npy", manifest.MANIFEST)
    files = [workdir / name for name in names]
    files += [x for x in (workdir / CHECKPOINTS / "2").rglob("*") if x.is_file() and x.stat().st_size < 9000]
    outcomes = counts(opened, workdir, parts, files, stride)
    print(f"{len(files)} files of a run: {dict(outcomes)}")
    assert outcomes["silent"] == 0
    assert outcomes["refused"] > 10 * outcomes["harmless"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("description.json", "is missing: restore it, or without it resume the run with its data"),
        ("examples.npy", "is missing: restore it, or without it resume the run with its data"),
        ("format.json", "is missing: restore it, or start again in a new workdir"),
        ("files.json", "is missing: restore it, or start again in a new workdir"),
        ("config.json", "holds no run"),
    ],
)
def test_a_missing_file_is_named(name, message, saved, parts, tmp_path):
    for file in saved.glob("*.*"):
        if file.name != name:
            shutil.copy(file, tmp_path)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, parts)


def test_a_run_without_its_description_is_resumed_with_its_data(saved, parts, tmp_path):
    """As the message says of the file, where the manifest still has its hash."""
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    (workdir / "description.json").unlink()
    without = read_run_to_resume(workdir, parts.config)
    check_description(without, tiny.DIGITS)
    claim_folder(parts.config, workdir, True, tiny.DIGITS, {})
    assert describe_saved(read_run(workdir)) == tiny.DIGITS


@pytest.mark.parametrize("first", ["deleted", "verified"])
def test_a_checkpoint_that_a_training_deletes_meanwhile_is_no_damage(
    first, saved, parts, tmp_path, monkeypatch
):
    folder = tmp_path / CHECKPOINTS
    verify = checkpoint._verify

    def meanwhile(path):
        if first == "verified":
            verify(path)
        checkpoint.delete_checkpoint(folder / "2")
        if first == "deleted":
            verify(path)

    shutil.copytree(saved / CHECKPOINTS, folder)
    monkeypatch.setattr(checkpoint, "_verify", meanwhile)
    assert build.restore_state(tmp_path, parts).state.step == 1
    shutil.copytree(saved / CHECKPOINTS / "2", folder / "2")
    with pytest.raises(UserError, match=r"step 2 is gone: a training has deleted .*; run the command again"):
        build.restore_state(tmp_path, parts, 2)


@pytest.mark.parametrize("stride", STRIDES)
def test_no_byte_of_exported_weights_changes_them_silently(stride, saved, parts, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    outcomes = counts(imported, workdir, parts, [workdir / "weights.safetensors"], stride)
    print(f"exported weights: {dict(outcomes)}")
    assert outcomes["silent"] == 0
    assert outcomes["refused"] > 10 * outcomes["harmless"]


@pytest.mark.parametrize("stride", STRIDES)
def test_files_without_hashes_and_metrics_end_in_no_traceback(stride, saved, parts, tmp_path):
    """Without a manifest a run is still read against its types; a digit may change."""
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    (workdir / manifest.MANIFEST).unlink()
    files = [workdir / name for name in ("config.json", "format.json", "description.json", "examples.npy")]
    outcomes = counts(opened, workdir, parts, files, stride)
    print(f"a run without a manifest: {dict(outcomes)}")
    assert outcomes["refused"] > outcomes["silent"]

    outcomes = counts(logged, workdir, parts, [workdir / metrics.METRICS], max(1, stride // 10))
    print(f"metrics: {dict(outcomes)}")
    assert outcomes["refused"] > 0


@pytest.mark.slow
def test_no_missing_entry_changes_a_run_silently(saved, parts, tmp_path):
    workdir = tmp_path / "run"
    expected = opened(saved, parts)
    outcomes = {}
    for path in sorted(saved.rglob("*")):
        shutil.copytree(saved, workdir)
        gone = workdir / path.relative_to(saved)
        if gone.is_dir():
            shutil.rmtree(gone)
        else:
            gone.unlink()
        outcomes[str(path.relative_to(saved))] = outcome(opened, workdir, parts, expected)
        shutil.rmtree(workdir)
    print(collections.Counter(outcomes.values()))
    assert "silent" not in outcomes.values()
    harmless = {name for name, result in outcomes.items() if result == "harmless"}
    in_the_folder_itself = {name for name in harmless if "/" not in name}
    assert in_the_folder_itself == {"manifest.json", "metrics.jsonl", "weights.safetensors"}


def read_all(workdir):
    read_run(workdir)
    for file_format in (SAMPLES, EVAL, QUALITY):
        read_records(workdir, file_format)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_named(make, tmp_path, saved):
    files = [path.name for path in saved.iterdir() if path.suffix in (".json", ".npy", ".jsonl")]
    assert {"config.json", "examples.npy", "manifest.json", "metrics.jsonl"} <= {*files}
    results = ("samples.json", "eval_limit100.json", "quality_3_samples.json")
    for name in ("layouts.jsonl", *files, *results):
        workdir = shutil.copytree(saved, tmp_path / name)
        path = workdir / name
        path.unlink(missing_ok=True)
        make(path)
        message = f"{path}: move it away, it is no file"
        if name in results:
            message = f"{name} is damaged (it is no file): "
        for read in (read_all, metrics.read_metrics) if name == "metrics.jsonl" else (read_all,):
            with pytest.raises(UserError, match=re.escape(message)):
                read(workdir)
