"""Strict JAX settings for every test; two CPU devices, as the trainer uses; short compilation."""

import collections
import functools
import gc
import itertools
import os
import random
import tempfile
from pathlib import Path

import jax
import pytest
import threadpoolctl
from jax._src.interpreters import mlir, partial_eval
from jax.experimental.compilation_cache import compilation_cache

# One thread compiles, and up to JAX 0.10 by the older of XLA's two ways to emit code, which 0.12 lacks: half
# the time of the processor. XLA reads it when the first device is asked for. `make slow` sets it to nothing
# for what is marked optimised, which is compiled there as users compile it.
older = ["--xla_cpu_use_fusion_emitters=false"] if jax.__version_info__ < (0, 11) else []
os.environ.setdefault("XLA_FLAGS", " ".join(["--xla_cpu_parallel_codegen_split_count=1", *older]))

# Under a trace Flax asks each count of its random keys for a sharding, which has none, and JAX writes into
# an error that nobody reads where that count came from, on pages: half the time of building a network.
partial_eval.DynamicJaxprTracer._origin_msg = lambda self: ""

# Each program is written in an MLIR context of its own, into which JAX loads all dialects: a quarter of the
# time of a small program. The programs of a module share one.
mlir.make_ir_context = functools.cache(mlir.make_ir_context)

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


def folder_of_all_workers(tmp_path_factory):
    """Returns the folder that pytest made for this run of the tests."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def pytest_sessionstart(session):
    """Here and in other processes: nothing is read from, or left in, the user's home or temporary folder.

    It comes before the tests are imported, as Matplotlib, which they import, writes its list of fonts.
    """
    folder = folder_of_all_workers(session.config._tmp_path_factory)
    for variable, name in (("HOME", "home"), ("TMPDIR", "tmp")):
        (folder / name).mkdir(exist_ok=True)
        os.environ[variable] = str(folder / name)
    for variable in [*os.environ]:
        if variable.startswith("XDG_") or variable in (
            "TFDS_DATA_DIR",
            "MPLCONFIGDIR",
            "HF_HOME",
            "TORCH_HOME",
        ):
            del os.environ[variable]
    tempfile.tempdir = None  # so that TMPDIR is read again


@pytest.fixture(scope="session", autouse=True)
def short_compilation(tmp_path_factory):
    """Here and in other processes: little optimisation, and no program twice in one run of the tests."""
    settings = {
        "jax_disable_most_optimizations": True,  # but of tests that are marked optimised
        "jax_compilation_cache_dir": str(folder_of_all_workers(tmp_path_factory) / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    compilation_cache.reset_cache()  # what imports compiled came before it had a folder
    threadpoolctl.threadpool_limits(1)  # matrices are small: a second thread mostly waits for the first


# Files whose slow tests take longest in one of the passes. A file stays on one worker: the long ones come
# first, so that no worker is left alone with one at the end.
LONGEST = (
    "tests/test_notebooks.py",
    "tests/processes/test_by_place.py",
    "tests/checks/test_settings.py",
    "tests/test_strict.py",
    "tests/numerics/test_row_draws.py",
    "tests/test_readme.py",
    "tests/lowering/test_programs.py",
    "tests/checks/test_checks.py",
    "tests/evaluation/test_digit_features.py",
    "tests/cli/test_processes.py",
    "tests/runs/test_layouts.py",
    "tests/numerics/test_inverse_cdf.py",
    "tests/checks/test_parts.py",
    "tests/checks/test_returns.py",
    "tests/cli/test_stopped.py",
    "tests/sampling/test_samplers.py",
    "tests/compat/test_figures.py",
    "tests/losses/test_fused.py",
    "tests/lowering/test_forms.py",
    "tests/test_accelerator_kit.py",
    "tests/test_vmap.py",
    "parity_tests/test_procedures.py",
)


def pytest_addoption(parser):
    order = "runs files, and the tests of each, in the random order of SEED"
    parser.addoption("--shuffle", type=int, metavar="SEED", help=order)


def pytest_collection_modifyitems(config, items):
    """Puts the longest files first; with --shuffle, files and the tests of each are in a random order."""
    seed = config.getoption("shuffle")
    if seed is not None:
        rng = random.Random(seed)
        files = [[*tests] for _, tests in itertools.groupby(items, key=lambda item: item.location[0])]
        rng.shuffle(files)
        for tests in files:
            rng.shuffle(tests)
        items[:] = itertools.chain.from_iterable(files)
        return

    def place(item):
        name = item.location[0]
        if name in LONGEST:
            return LONGEST.index(name)
        return len(LONGEST)

    items.sort(key=place)


def pytest_collection_finish():
    """Has garbage looked for seldom, and not among what was imported: it took a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_terminal_summary(terminalreporter):
    """Prints the seconds that the tests of each folder took, all processes together."""
    seconds = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[str(Path(report.nodeid.split("::")[0]).parent)] += report.duration
    for folder, total in seconds.most_common():
        terminalreporter.write_line(f"{total:7.1f} s  {folder}")


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What a module compiled is not kept in memory for the next one."""
    yield
    jax.clear_caches()
    mlir.make_ir_context.cache_clear()
