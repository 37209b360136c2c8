"""The examples run, small, and end well below a network that learnt nothing; each fits on a page."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm

FILES = {path.stem: path for path in (Path(__file__).parents[1] / "examples").glob("*.py")}
SMALL = {"steps": 40, "batch": 32, "width": 32, "held_out": 8}


def load(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FILES[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, capsys, **smaller):
    """The bound that it prints."""
    with jax.numpy_rank_promotion("allow"):
        load(name).main(**SMALL | smaller)
    printed = capsys.readouterr().out
    assert re.match(r"step +0  loss 0\.\d+", printed)
    return float(re.search(r"^test bits/dim: (\S+)", printed, re.M)[1])


# Data, kind, order and config of their own, which tests/examples/ runs.
WHOLE_JOBS = {"chorales", "sudoku"}


def test_each_fits_on_a_page():
    programs = {"one_device", "mesh", "linen_network", "own_process_and_loss"}
    programs |= {"against_own_code", "character_embeddings", "scheduler_object"}
    programs |= {"masked_program", "uniform_program"}
    assert set(FILES) == programs | WHOLE_JOBS
    lines = {name: path.read_text().splitlines() for name, path in FILES.items()}
    written = {name: sum(line != "" for line in lines[name]) for name in programs}
    assert {name: n for name, n in written.items() if n > 80} == {}
    assert {name: len(lines[name]) for name in WHOLE_JOBS if len(lines[name]) > 200} == {}


@pytest.mark.slow
def test_one_device(capsys):
    assert 1.5 < run("one_device", capsys) < 3  # 4.05 after one step


@pytest.mark.slow
def test_one_device_and_a_mesh_give_the_same_numbers(capsys):
    assert jax.device_count() == 2
    on_one_device = run("one_device", capsys)
    on_mesh = run("mesh", capsys)
    assert on_mesh == pytest.approx(on_one_device, abs=2e-3)


@pytest.mark.slow  # the others compile much the same
def test_linen_network(capsys):
    assert 0.8 < run("linen_network", capsys) < 1.4  # 1.86 after one step; the entropy is 0.906


@pytest.mark.slow  # its process is tested below, and one like it in tests/processes
def test_own_process_and_loss(capsys):
    assert 1.5 < run("own_process_and_loss", capsys, batch=8, held_out=2) < 3  # 3.65 after one step


def test_characters_of_the_same_habits_are_near(tmp_path, capsys, monkeypatch):
    """Two letters that stand between the same ones, one of them rare, are nearer than any other."""
    text = tmp_path / "letters.txt"
    file = tmp_path / "places.npy"
    text.write_text("".join(f"{'mu'[i % 7 == 0]}{'bd'[i % 2]}" for i in range(4000)))
    monkeypatch.setattr("sys.argv", ["", str(file), "--text", str(text), "--neighbours", "1"])
    load("character_embeddings").main()
    assert capsys.readouterr().out.splitlines() == [
        "'b' 'b' 'd'",
        "'d' 'b' 'd'",
        "'m' 'm' 'u'",
        "'u' 'm' 'u'",
    ]
    assert np.load(file).shape == (4, 8)
    placed = load("character_embeddings").embed_by_neighbours(np.array([[0, 1, 0, 1], [1, 1, 0, 1]]), K=3)
    np.testing.assert_allclose(placed.reshape(3, 2, 3).sum(-1), 0, atol=1e-12)
    np.testing.assert_allclose(placed[2], placed[:2].mean(axis=0))  # that the text lacks


def test_own_process_is_a_process(x64):
    """Its two tables agree: x_t given x_0 is t steps of x_t given x_{t-1}; log_push is their product."""
    Thinning = load("own_process_and_loss").Thinning
    process = Thinning(jnp.linspace(1, 0, Thinning.T + 1))
    t = jnp.arange(Thinning.T + 1)
    p = np.random.default_rng(0).dirichlet(np.ones(17))
    with jax.numpy_rank_promotion("allow"):
        Q, Qbar, pushed = jax.jit(
            lambda process, log_p: (process.Q(t), process.Qbar(t), process.log_push(log_p, t))
        )(process, jnp.log(np.tile(p, (len(t), 1))))
    np.testing.assert_allclose(Qbar[0], np.eye(17))
    np.testing.assert_allclose(Qbar[1:], Qbar[:-1] @ Q[1:], atol=1e-13)
    np.testing.assert_allclose(np.exp(pushed), p @ Qbar, rtol=1e-10)
    np.testing.assert_allclose(Qbar[-1], np.tile(np.exp(process.log_prior()), (17, 1)))


def test_a_scheduler_object_draws_the_chain_of_the_library(capsys):
    scheduler, noise, drawn = load("scheduler_object").main()

    def denoise(xt, time):
        return jnp.zeros((*xt.shape, 5)).at[..., 3].set(4.0)

    denoiser = d3pm.Denoiser(scheduler.short, denoise)
    xT = scheduler.draw_prior(noise[0])
    chain = d3pm.sampling.run(denoiser, xT, lambda t, stream: noise[11 - t])
    np.testing.assert_array_equal(drawn, chain.x0)
    assert (np.asarray(drawn) == 3).mean() > 0.5
    xt = scheduler.add_noise(jnp.full((4, 6), 2), noise[0], jnp.array([0, 1, 50, 100]))
    assert (np.asarray(xt[0]) == 2).all()
