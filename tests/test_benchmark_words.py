"""A word that a benchmark does not know is refused in one line, before anything is measured."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_word_that_is_not_known_is_refused_in_one_line(name):
    words = [sys.executable, f"benchmarks/{name}.py", "nosuch"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr
    assert f"{name}.py: error: " in ended.stderr.splitlines()[-1]
    assert PROGRAMS[name] in ended.stderr.splitlines()[-1]
