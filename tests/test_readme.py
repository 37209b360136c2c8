"""The Python blocks of the README and of the docs run, in order, in one namespace for each page."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from d3pm_jax.config import io as config_io

ROOT = Path(__file__).parents[1]


def blocks(page):
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


def check_readme(names):
    assert names["samples"].shape == (4, 64)
    assert (names["samples"] < 26).all()  # the mask is never left


def check_library(names):
    assert names["short"].T == 10
    assert 0 < names["error"] < names["mean"]


def check_training(names):
    config = names["get_config"]()
    assert config.head.data_categories(config.process.build().K) == 17
    assert names["losses"][-1] < names["losses"][0]


def check_own_parts(names):
    assert names["x0"].shape == (4, 24)
    assert names["x0"].max() < 3
    assert names["run"].step == 20


def check_compat(names):
    assert np.isfinite(names["log_p"][..., :-1]).all()


def check_pytorch(names):
    """The networks of exported files are those that were saved, whatever the config."""
    torch, torch_ref = names["torch"], names["torch_ref"]
    config = config_io.from_file(ROOT / "configs/digits_absorbing.py")
    options = {"ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "groups": 8, "attn_resolutions": (4,)}
    saved = torch_ref.models.UNet(18, 1, 8, 100, onehot_input=True, **options).eval()
    metadata = {"config": config_io.dump(config), "data": json.dumps({"shape": [8, 8, 1]})}
    names["safetensors"].torch.save_file(saved.state_dict(), "exported.safetensors", metadata)
    xt, t = torch.full((2, 8, 8, 1), 17), torch.tensor([1, 100])
    with torch.no_grad():
        found = names["denoise"](*names["network"]("exported.safetensors"))(xt, t)
        expected = torch_ref.forbid(torch_ref.residual(saved(xt, t), xt), 17)
    assert torch.equal(found, expected)


CHECKS = {
    "README.md": check_readme,
    "docs/architecture.md": None,
    "docs/compat.md": check_compat,
    "docs/library.md": check_library,
    "docs/own-parts.md": check_own_parts,
    "docs/pytorch.md": check_pytorch,
    "docs/training.md": check_training,
}
OTHERS = [page for page in (f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md"))) if blocks(page)]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page == "README.md" else [pytest.mark.slow])
        for page in sorted({*CHECKS, *OTHERS})
    ],
)
def test_page(page, tmp_path, monkeypatch):
    found = blocks(page)
    assert found, "it had Python blocks"
    if any("import torch" in block for block in found):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)  # for the files that they write
    names = {}
    with jax.numpy_rank_promotion("allow"):
        for block in found:
            exec(compile(block, page, "exec"), names)
    check = CHECKS.get(page)
    if check is not None:
        check(names)
