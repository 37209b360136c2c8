"""The public functions of the twin say where their arguments are described, and have those arguments."""

import inspect
import subprocess
import sys

import d3pm_jax
import torch_ref


def test_docstrings_lead_to_the_arguments() -> None:
    for name in torch_ref.__all__:
        function = getattr(torch_ref, name)
        if inspect.isfunction(function):
            assert f"Arguments as in `d3pm_jax.{name}`" in (inspect.getdoc(function) or ""), name
            theirs = inspect.signature(function).parameters
            assert theirs.keys() <= inspect.signature(getattr(d3pm_jax, name)).parameters.keys(), name


def test_a_file_is_compared_without_what_trainings_need():
    """`pip install 'd3pm-jax[torch]'` brings neither pictures nor checkpoints."""
    code = """
import sys
sys.modules.update(dict.fromkeys(["PIL", "flax", "matplotlib", "optax", "orbax", "tyro"]))
import parity_tests.against.command
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
