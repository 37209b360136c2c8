"""The Python blocks of the README and of the docs run, in order, in one namespace for each file."""

import re
from pathlib import Path

import jax


def run_blocks(file):
    """The number of blocks, and the names that they leave."""
    blocks = re.findall(r"```python\n(.*?)```", Path(file).read_text(), re.S)
    names = {}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(compile(block, file, "exec"), names)
    return len(blocks), names


def test_readme():
    count, names = run_blocks("README.md")
    assert count == 3
    assert names["samples"].shape == (4, 64)
    assert (names["samples"] < 26).all()  # the mask is never left


def test_compat_page():
    count, names = run_blocks("docs/compat.md")
    assert count == 11
    assert jax.numpy.isfinite(names["log_p"][..., :-1]).all()
