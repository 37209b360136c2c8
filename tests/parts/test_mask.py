"""An extra mask that nothing forbids: no run begins with one, and one that is there already is opened."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs, runs
from d3pm_jax.errors import UserError
from d3pm_jax.loop import loop
from d3pm_jax.parts import begin, build
from d3pm_jax.parts.completed import complete
from d3pm_jax.storage import run_folder
from tests import tiny

BETA = configs.Reciprocal()
EXTRA = configs.Absorbing(K=18, steps=10, beta=BETA, mask_id=17)  # the data has 17 categories
LOOSE = r"^category 17 is a mask that the data, of 17 categories, never has, but head.forbid = None, "
pytestmark = pytest.mark.usefixtures("small_network")


@dataclasses.dataclass(frozen=True)
class Levels(configs.Head):
    """A head of a user's own that forbids the mask by itself."""

    def data_categories(self, K):
        return 17


def config_of(process, head=configs.Head()):  # noqa: B008
    return dataclasses.replace(tiny.get_config(), process=process, head=head)


def built(*parts):
    return build.build(complete(config_of(*parts), tiny.DIGITS), mesh=tiny.one_device_mesh())


@pytest.mark.parametrize(
    ("process", "cure"),
    [
        (EXTRA, r": set head.forbid = 17$"),
        (dataclasses.replace(EXTRA, K=20), r": set process.K = 18 and head.forbid = 17$"),
        (configs.Masked(tiny.get_config().process, BETA), r": set head.forbid = 17$"),
    ],
)
def test_no_run_begins_with_a_mask_that_samples_may_hold(process, cure):
    parts = built(process)
    with pytest.raises(UserError, match=LOOSE + ".*" + cure):
        build.check_mask(parts)


def test_weights_of_a_run_of_before_begin_one_with_a_warning(tmp_path, capsys):
    parts = built(EXTRA)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), parts.state.params)
    begin.begin_run(parts, tmp_path / "run", params)
    printed = capsys.readouterr().err
    assert printed.startswith("warning: category 17 is a mask")
    assert printed.endswith(": set head.forbid = 17 in a new run\n")
    assert printed.count("\n") == 1
    assert (tmp_path / "run" / "config.json").is_file()


@pytest.mark.parametrize(
    "parts",
    [
        (EXTRA, configs.Head(forbid=17)),
        (EXTRA, Levels()),
        (dataclasses.replace(EXTRA, K=17, mask_id=3),),  # a category of the data
        (dataclasses.replace(tiny.get_config().process, K=20),),  # no mask at all
    ],
)
def test_all_others_begin(parts, capsys):
    build.check_mask(built(*parts))
    build.warn_of_free_mask(built(*parts))
    assert capsys.readouterr().err == ""


def test_training_and_its_trial_refuse_it_and_a_run_of_before_is_opened(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.arange(16 * 64).reshape(16, 8, 8, 1) % 17)
    data = configs.Arrays(str(tmp_path / "x.npy"), str(tmp_path / "x.npy"), 17, "image")
    config = dataclasses.replace(config_of(EXTRA), data=data)
    with pytest.raises(UserError, match=LOOSE):
        loop.build_run(config)
    with pytest.raises(UserError, match=LOOSE):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

    tiny.write_run(tmp_path / "old", config, description=data.describe())
    runs.open(tmp_path / "old")
    assert capsys.readouterr().err == (
        "warning: category 17 is a mask that the data, of 17 categories, never has, but head.forbid = None, "
        "so that samples may hold it: set head.forbid = 17 in a new run\n"
    )
    loop.build_run(config, run_folder.read_run(tmp_path / "old"))
    assert capsys.readouterr().err.startswith("warning: category 17 is a mask")
