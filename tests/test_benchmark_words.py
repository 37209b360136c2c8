"""A word that a benchmark does not know is refused in one line, before anything is measured."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.forked import Fork

FOLDER = Path(__file__).parents[1] / "benchmarks"
# Those that take words which are no files.
PROGRAMS = {
    "accelerator": "unknown part nosuch",
    "compile_times": "unknown range nosuch",
    "compiled": "unknown word nosuch",
    "exact": "invalid choice: 'nosuch'",
    "exact_planes": "invalid choice: 'nosuch'",
    "judge": "invalid choice: 'nosuch'",
    "kernels": "unknown study nosuch",
    "networks": "unknown step nosuch",
    "loop": "invalid choice: 'nosuch'",
    "samplers": "invalid choice: 'nosuch'",
    "steering": "invalid choice: 'nosuch'",
    "vectoriser": "unknown N nosuch",
}


def run_benchmark(name, word):
    """Runs a benchmark as `python benchmarks/NAME.py WORD`."""
    file = str(FOLDER / f"{name}.py")
    sys.path[0] = str(FOLDER)
    sys.argv = [file, word]
    runpy.run_path(file, run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_word_that_is_not_known_is_refused_in_one_line(name, tmp_path):
    ended = Fork(tmp_path, run_benchmark, name, "nosuch", as_users=True, JAX_PLATFORMS="cpu")
    _, errors = ended.communicate(timeout=100)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in errors
    assert f"{name}.py: error: " in errors.splitlines()[-1]
    assert PROGRAMS[name] in errors.splitlines()[-1]
