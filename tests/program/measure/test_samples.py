"""Forward chains of pictures: their joint law; and that what is compiled for a run does not keep it."""

import gc
import itertools
import weakref

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import kinds, runs
from d3pm_jax.config.process import build_process
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop.metrics import read_metrics
from d3pm_jax.program.measure import samples
from d3pm_jax.program.measure.samples import Drawn, describe_drawing, draw_forward, times_to_show
from d3pm_jax.program.parts import diffusion
from d3pm_jax.program.parts.draw import Settled
from d3pm_jax.program.storage.run_folder import read_run
from d3pm_jax.runs import Draw
from d3pm_jax.runs.run import open_run
from d3pm_jax.sampling import Known, named
from d3pm_jax.sampling.chain import plan_levels
from d3pm_jax.schedules import continuous
from tests import tiny
from tests.families import BETA


def test_forward_chains_have_the_law_of_one_step_after_another():
    """Every (x_1, x_3, x_4) as often as the matrices say, an x_2 that is not recorded between."""
    N = 40_000
    process = d3pm.masked(d3pm.random_walk(BETA, np.array([[0, 1], [1, 0]])), BETA / 2)
    Q = np.asarray(process.Q(jnp.arange(1, 5)), np.float64)
    states = draw_forward(jax.random.key(0), process, np.zeros((N, 1), np.int32), [0, 1, 3, 4])[..., 0]
    assert (states[0] == 0).all()
    for path in itertools.product(range(3), repeat=3):
        i, j, k = path
        p = Q[0, 0, i] * (Q[1] @ Q[2])[i, j] * Q[3, j, k]
        share = np.mean((path == states[1:].T).all(1))
        assert abs(share - p) <= 4 * np.sqrt(p * (1 - p) / N), path
    assert not ((states[1] == 2) & (states[3] != 2)).any()  # a mask stays


def test_chains_of_examples_are_drawn_when_a_kind_shows_them_and_as_many_as_are_shown(
    tmp_path, small_network, monkeypatch
):
    numbers_drawn = []

    def draw(key, process, x0, times):
        numbers_drawn.append(len(x0))
        return np.stack([x0 for _ in times])

    monkeypatch.setattr(samples, "draw_forward", draw)
    tiny.write_run(tmp_path / "run", tiny.get_config())
    parts = open_run(tmp_path / "run").parts
    settled, _ = samples.settle(parts, Draw())
    times = times_to_show(settled, kinds.STATES)
    two, six = (kinds.Samples(np.zeros((n, 8, 8, 1), np.int32), 17) for n in (2, 6))
    reverse = np.stack([two.x for _ in times])
    chains = samples.chains_to_show(parts, jax.random.key(0), two, reverse, times, settled, six)
    assert numbers_drawn == []
    assert chains.forward().x.shape[1:] == (kinds.SHOWN_CHAINS, 8, 8, 1)
    assert numbers_drawn == [kinds.SHOWN_CHAINS]


def test_samples_by_the_plain_plan_do_not_build_the_process_again(tmp_path, small_network, monkeypatch):
    """For many categories and steps that takes longer than a batch."""
    tiny.write_run(tmp_path / "w", tiny.get_config())
    run = open_run(tmp_path / "w")
    built = []

    def build(spec):
        built.append(spec)
        return build_process(spec)

    monkeypatch.setattr(diffusion, "build_process", build)
    run.sample(jax.random.key(0), 2)
    assert not built
    run.sample(jax.random.key(0), 2, Draw(sampler="psi"))
    assert len(built) == 1


def test_what_a_run_keeps_compiled_does_not_keep_the_run(tmp_path, small_network):
    """Arrays on a device are given back with the last use of a run, not when Python looks for circles."""
    tiny.write_run(tmp_path / "w", tiny.get_config())
    run = open_run(tmp_path / "w")
    gc.disable()
    try:
        run.sample(jax.random.key(0), 2)
        run.evaluate_on(np.zeros((2, 8, 8, 1), np.int32))
        parts_left = weakref.ref(run.parts)
        del run
        assert parts_left() is None
    finally:
        gc.enable()


def test_known_elements_may_be_a_pair(tmp_path, small_network):
    tiny.write_run(tmp_path / "w", tiny.get_config())
    run = open_run(tmp_path / "w")
    known = np.zeros((8, 8, 1), bool)
    known[:4] = True
    elements = Known(np.full((8, 8, 1), 5, np.int32), known)
    by_name = run.sample(jax.random.key(0), 2, Draw(known=elements)).x0
    of_a_pair = run.sample(jax.random.key(0), 2, Draw(known=(elements.x0, known))).x0
    np.testing.assert_array_equal(by_name, of_a_pair)
    assert (by_name[:, known] == 5).all()
    assert (by_name[:, ~known] != 5).any()


def test_arguments_that_cannot_be_used_are_told_with_a_cure(tmp_path, small_network, monkeypatch):
    # As users call it: without the checks of types that tests have.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    tiny.write_run(tmp_path / "w", tiny.get_config())
    run = open_run(tmp_path / "w")
    key = jax.random.key(0)
    x0 = np.zeros((8, 8, 1), np.int32)
    known = np.ones((8, 8, 1), bool)

    def draw(**request):
        return run.sample(key, 4, Draw(**request))

    calls = {
        r"key is 0, expected one key: pass jax.random.key\(0\)": lambda: run.sample(0, 4),
        r"key is of dtype uint32, shape \(2,\), expected one key": lambda: run.sample(
            jax.random.key_data(key), 4
        ),
        r"key is of dtype key<fry>, shape \(2,\), expected": lambda: run.sample(jax.random.split(key), 4),
        "n = 0: it must be a whole number in 1..": lambda: run.sample(key, 0),
        "n = 2.5: it must be a whole number in 1..": lambda: run.sample(key, 2.5),
        "batch_size = '8': it must be a whole number": lambda: run.sample(key, 4, batch_size="8"),
        "chains = -1: it must be a whole number in 0..": lambda: run.sample(key, 4, chains=-1),
        "shape = 8: it must be a tuple": lambda: draw(shape=8),
        r"shapes \[5\] and \[8, 8, 1\]: pass \[8, 8, 1\], those": lambda: draw(known=(x0[0, :5, 0], known)),
        "types int32 and float64: pass integers, and booleans": lambda: draw(known=(x0, known.astype(float))),
        "hold 17..17: categories are 0..16": lambda: draw(known=(x0 + 17, known)),
        "takes no labels; leave it out, or train a network with model.classes": lambda: draw(label=1),
        "seed = -1: it must be a whole number in 0..": lambda: run.evaluate_on(x0[None], seed=-1),
        "batch_size = 0: it must be a whole number": lambda: run.evaluate_on(x0[None], batch_size=0),
        "calls = True: it must be a whole number": lambda: run.evaluate_on(x0[None], calls=True),
        "limit = 0: it must be a whole number in 1..": lambda: run.evaluate(limit=0),
        r"x0 has shape \(0, 8, 8, 1\), so it holds no examples": lambda: run.evaluate_on(x0[None][:0]),
        r"x of example 0 holds 17 at \[0, 0, 0\]": lambda: run.evaluate_on(x0[None] + 17),
        "x0 has dtype float64: categories are integers": lambda: run.evaluate_on(x0[None] * 0.5),
        r"the labels of x0 have shape \(2,\)": lambda: run.evaluate_on(x0[None], np.zeros(2, int)),
        "the label of example 0 is 10, but classes": lambda: run.evaluate_on(x0[None], np.array([10])),
        r"the weight is of .*, shape \(1, 8\): pass floats \[1, 8, 8, 1\]": lambda: run.evaluate_on(
            x0[None], weight=np.ones((1, 8))
        ),
        r"the weight holds nan\.\.nan: pass finite numbers": lambda: run.evaluate_on(
            x0[None], weight=np.full((1, 8, 8, 1), np.nan)
        ),
        r"the weight holds -1\.\.-1: pass finite": lambda: run.evaluate_on(
            x0[None], weight=-np.ones((1, 8, 8, 1))
        ),
        r"holds 0\.\.0: .* one of them above 0": lambda: run.evaluate_on(x0[None], weight=0.0 * x0[None]),
        r"t has shape \[\]: pass \[1\], a step for each of xt": lambda: run.predict(x0[None], 3),
        "there is no split 'trian': take train or test": lambda: run.read_batch("trian"),
        "there is no split 'valid': take train or test": lambda: run.read_split("valid"),
        "config is 'a.py': pass a Config, as config.io.read": lambda: runs.train("a.py", tmp_path / "new"),
        "workdir = None: it must be a path, as": lambda: runs.train(run.config, None),
        "start is 'w': pass a run, as runs.open": lambda: runs.train(run.config, tmp_path / "new", start="w"),
        "workdir = 3: it must be a path, as": lambda: runs.open(3),
        "config is 3: pass a Config, or the file": lambda: runs.open(tmp_path / "w", 3),
        "no config file none.py: pass the Python file": lambda: runs.open(tmp_path / "w", "none.py"),
        "run is 'w': pass a run, as runs.open": lambda: runs.export("w", tmp_path / "w.safetensors"),
        "steps = 0: it must be a whole number in 1..": lambda: runs.presample(run.config, tmp_path / "x", 0),
        r"record = 5: it must be a tuple, each a whole number in 0\.\.": lambda: draw(record=5),
        "known is of dtype int32, shape .*: pass a pair": lambda: draw(known=x0),
        r"draw is 1: pass a runs.Draw, as runs.Draw\(label=3\)": lambda: run.sample(key, 4, 1),
        "progress = True: it must be a function": lambda: run.sample(key, 4, progress=True),
        "sampler is 3: pass a sampling.Sampler, as": lambda: draw(sampler=3),
        "sampler = 'psy': there is none of this name; did you mean psi": lambda: draw(sampler="psy"),
        "label is passed, but the network of this run takes no labels: leave it out": lambda: run.predict(
            x0[None], np.array([1]), label=np.array([1])
        ),
        "n = -3: it must be a whole number in 1..": lambda: run.read_last("test", -3),
        "logs is a builtin_function_or_method: pass a list": lambda: runs.train(
            run.config, tmp_path / "new", logs=print
        ),
        "a log has methods log and close": lambda: runs.train(
            run.config, tmp_path / "new", logs=iter([print])
        ),
        "path = None: it must be a path, as": lambda: runs.export(run, None),
        "config is 'a.py': pass a Config": lambda: runs.presample("a.py", tmp_path / "x"),
        r"config is 'b.py': pass a Config": lambda: runs.import_weights("w", "b.py", tmp_path / "new"),
        r"file = Run\(.*: it must be a path, as": lambda: runs.import_weights(
            run, run.config, tmp_path / "new"
        ),
        "is a folder: pass the file that d3pm export": lambda: runs.import_weights(
            tmp_path / "w", run.config, tmp_path / "new"
        ),
    }
    assert read_run(str(tmp_path / "w")).config == run.config
    assert read_metrics(str(tmp_path / "w")) == []
    for message, call in calls.items():
        with pytest.raises(UserError, match=message):
            call()


def test_slots_are_written_as_numbers_and_names():
    x = np.zeros((2, 3), np.int32)
    drawn = Drawn(x, x[None], np.array([3, 4]), 5)
    content = describe_drawing(named.first_hitting(continuous.cosine), None, drawn)
    assert (content["calls"], content["program_calls"]) == (3.5, 5)
    assert describe_drawing(None, None, drawn) == {}
    assert content["sampler"]["step"]["schedule"] == "cosine"
    slots = describe_drawing(named.entropy_bound(np.inf), None, drawn)["sampler"]
    assert slots["step"]["count"] == {"class": "EntropyBound", "bound": "inf"}
    assert slots["shaping"]["forbid"] == []


@pytest.mark.parametrize("T", [1, 5, 10, 45, 100, 256, 1000, 4000])
def test_the_states_of_the_picture_are_among_those_of_the_gif(T):
    settled = Settled((1, 1), plan=plan_levels(range(T, -1, -1)))
    few = times_to_show(settled, kinds.base.STATES)
    many = times_to_show(settled, kinds.base.FRAMES)
    assert set(few) <= set(many)
    assert (many[0], many[-1], len(many)) == (0, T, min(T + 1, kinds.base.FRAMES))
