"""What an import of the library brings, and what it must not."""

import subprocess
import sys


def test_importing_the_library_stays_light():
    heavy = [
        "torch",
        "tensorflow",
        "tensorflow_datasets",
        "matplotlib",
        "flax",
        "optax",
        "orbax",
        "grain",
        "sklearn",
    ]
    code = f"import sys, d3pm_jax; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    code = code.replace("d3pm_jax;", "d3pm_jax.cli.main;").replace(f"{heavy}", f"{['jax', *heavy]}")
    # the package itself imports JAX; nothing else may come with the command line
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "['jax']\n"
