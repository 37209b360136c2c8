"""A kind of one's own is trained, sampled, shown, evaluated, measured and reported."""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.commands import error, status
from tests.kinds import plane

CONFIG = Path(plane.__file__)


def test_points_of_the_plane_are_a_kind_like_any_other(tmp_path, capsys):
    workdir = tmp_path / "w"
    assert status("train", CONFIG, "--workdir", workdir) == 0
    with Image.open(workdir / "samples" / "step_0000004.png") as picture:
        assert picture.height > plane.SIDE
    config_option = ("--config", CONFIG)
    assert "parts of its own" in error(capsys, "sample", workdir)

    assert status("sample", workdir, "--num", 64, *config_option) == 0
    out = capsys.readouterr().out
    assert f"samples: {workdir / 'samples.png'}\n" in out
    x = np.load(workdir / "samples.npy")
    assert x.shape == (64, 2)
    refused = error(capsys, "sample", workdir, "--gif", *config_option)
    assert "of kind 'plane', which this run has; leave it out" in refused
    assert "of kind 'plane'; leave it out" in error(
        capsys, "sample", workdir, "--prompt", "a", *config_option
    )

    assert status("eval", workdir, "--samples", 64, *config_option) == 0
    out = capsys.readouterr().out
    result = json.loads((workdir / "eval.json").read_text())
    assert result["bits_per_point"] == 2 * result["bits_per_dim"]
    assert f", {result['bits_per_point']:.3f} bits/point" in out
    assert "histogram of each place: " in out
    assert re.search(r"on the ring\n", out)
    (path,) = workdir.glob("quality_*.json")
    assert json.loads(path.read_text())["figures"]["test"]["on_ring"] > 0.5

    assert status("report", workdir, *config_option) == 0
    page = (workdir / "report.html").read_text()
    for words in (
        "Share on the ring.",
        "plane 2",
        'alt="64 points"',
        "Reverse, noise to sample",
        "Reverse, played",
    ):
        assert words in page
