"""The Python blocks of the README run, in order, in one namespace."""

import re
from pathlib import Path

import jax


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    assert len(blocks) == 3
    names = {}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert names["samples"].shape == (4, 64)
    assert (names["samples"] < 26).all()  # the mask is never left
