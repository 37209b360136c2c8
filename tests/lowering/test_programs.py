"""What an accelerator gets: passes without loops, without the host, without what it cannot run."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.config import Argmax, ArgmaxCoupling, ByPlace, ScoreNet, UNet, io
from d3pm_jax.cpu import tiles
from d3pm_jax.models.variables import name_leaves
from d3pm_jax.program.compiled import cost
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.training.step import make_update
from tests.checks import table
from tests.config.shipped import CONFIGS, opened
from tests.families import FAMILIES
from tests.lowering.programs import NAMES, PLATFORMS, K, functions_of_process, gradient, lower, lower_for

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")

# Loops that are mostly not entered: over bands of terms far apart in `log_matmul`, forward and in the
# gradient, and in a loss over the elements whose fast form could not be relied on.
LOOPS = {"hybrid": 3, "p_sample": 1, "q_sample": 0}


def test_what_is_counted():
    def f(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: y @ y, jnp.linalg.cholesky(x))

    for platform, program in lower(f, jnp.ones((5, 5)), platforms=("cuda", "cpu")).items():
        assert program.loops == 1
        assert len(program.calls) == 1, platform
        assert (5, 5) in program.shapes
        assert program.largest == 100
    programs = lower(lambda x: jax.debug.callback(lambda y: None, x), 1.0, platforms=("cpu",))
    assert any("callback" in name for name in programs["cpu"].calls)


QUICK = ("uniform",)
OTHERS = tuple(name for name in NAMES if name not in QUICK)
MIXING = ("uniform", "absorbing", "marginal")  # which make no array with two axes of size K


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_family_is_passes_without_loops(name):
    """K = 256, 128 of 32 x 32 x 3: where a CPU loops over parts."""
    process = FAMILIES[name](K, 10)
    num_dense = {"gaussian": 1, "masked gaussian": 2}.get(name, 0)
    for function, (f, args) in functions_of_process(process).items():
        platforms = PLATFORMS
        if function == "p_sample":
            platforms = (*PLATFORMS, "cpu")
        programs = lower(f, *args, platforms=platforms)
        most = LOOPS[function.split(",")[0]] * num_dense
        by_parts = name == "gaussian" and function == "p_sample"  # where its product cannot be relied on
        for platform in PLATFORMS:
            program = programs[platform]
            assert program.loops <= most + by_parts, (function, platform)
            assert not program.calls
            assert program.largest <= 4 * 128 * 32 * 32 * 3 * 256, (function, program.largest)
            if name in MIXING:
                assert all(shape.count(K) < 2 for shape in program.shapes), function
        if function == "p_sample":
            assert programs["cpu"].loops + by_parts > programs["cuda"].loops


@pytest.mark.parametrize("platform", PLATFORMS)
def test_sums_of_blocks_are_no_reduction(platform):
    """Whose order is that of the device."""
    log_p = jax.ShapeDtypeStruct((4, 6, 100), jnp.float32)
    u = jax.ShapeDtypeStruct((4, 6), jnp.float32)
    traced = jax.jit(d3pm.categorical).trace(log_p, u, u)
    sums = re.compile(r"stablehlo\.reduce\([^)]*\), \(")  # of pairs
    assert not sums.findall(lower_for(platform, traced).as_text())
    assert sums.findall(lower_for("cpu", traced).as_text())


def test_a_matrix_for_each_element_is_taken_by_parts(monkeypatch):
    """A t of each element has K x K numbers for it: an accelerator's memory would not hold all."""
    monkeypatch.setattr(tiles, "MOST_FLOATS", 2**22)
    process = FAMILIES["gaussian"](K, 10)
    shape = (2, 500)
    x = jax.ShapeDtypeStruct(shape, jnp.int32)
    logits = jax.ShapeDtypeStruct((*shape, 256), jnp.float32)
    f = gradient(lambda l, p, x, t: d3pm.hybrid(p, l, x, x, t, 0.1).loss)
    for program in lower(f, logits, process, x, x).values():
        assert 1 <= program.loops <= 4  # over parts, over what is made again, and two of bands
        assert program.largest <= 4 * 2**22


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXING)
def test_mixing_makes_no_array_with_two_axes_of_size_K(name):
    K = 5003
    pi = np.arange(1, 5004) / np.arange(1, 5004).sum()
    process = {
        "uniform": lambda: d3pm.uniform(d3pm.cosine(10), K),
        "absorbing": lambda: d3pm.absorbing(d3pm.reciprocal(10), K, 7),
        "marginal": lambda: d3pm.marginal(d3pm.cosine(10), pi),
    }[name]()
    for function, (f, args) in functions_of_process(process, (4, 30)).items():
        for program in lower(f, *args).values():
            assert all(shape.count(K) < 2 for shape in program.shapes), function
            assert program.loops == 0


# How many steps an inverse takes is not known before, numbers one after the other are a loop, and its
# gradient another.
INVERSES = {
    "flows.invert_mixture_logit": 1,
    "flows.invert_mixture_affine": 1,
    "flows.invert_coupling": 1,
    "flows.invert_autoregressive": 3,
    "losses.projected": 1,  # over some places at a time
}
FACTORISED = ("flows.linear", "flows.invert_linear")  # a matrix [D, D] by a library
STEPS = (
    "likelihood",
    "orders.all_orders",
    "enumeration.",
    "sampling.run",
    "sampling.sample",
    "sampling.best_of",
    "sampling.steer",
    "sampling.chain",
    "sampling.guidance.all_changes",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "dense", "masked"])
def test_every_public_function(name, monkeypatch):
    """With their gradients; a loop over steps is one, and that of the bands of `log_matmul`.

    Of one family all functions, of the others those that know the family. What "absorbing" and "marginal" do
    in another way than "uniform", their draws and losses, is in `test_a_family_is_passes_without_loops`.
    """
    monkeypatch.setattr(tiles, "FLOATS", 1)
    seen = 0
    for call in table.public(table.PROCESSES[name]):
        if not call.traced or call.name == "sampling.per_example":  # which returns a function
            continue
        if name != "uniform" and not call.of_process:
            continue
        floats = {k: x for k, x in call.good.items() if call.roles[k] == "floats"}
        others = {k: x for k, x in call.good.items() if k in call.traced and k not in floats}
        static = {k: x for k, x in call.good.items() if k not in call.traced}

        def f(floats, others, call=call, static=static):
            return call.f(**floats, **others, **static)

        results = jax.tree.leaves(jax.eval_shape(f, floats, others))
        smooth = floats and any(jnp.issubdtype(x.dtype, jnp.floating) for x in results)
        banded = call.name == "numerics.log_matmul" or name == "dense"
        bands = 1
        if smooth:
            f = gradient(f)
            bands = 2
        most = call.name.startswith(STEPS) + banded * bands + INVERSES.get(call.name, 0)
        with jax.debug_key_reuse(False):  # the table has one key
            for platform, program in lower(f, floats, others).items():
                assert program.loops <= most, (call.name, platform)
                assert call.name in FACTORISED or not program.calls, (call.name, platform)
        seen += 1
    if name == "uniform":
        assert seen > 70
    else:
        assert seen > 35


REAL = "digits_classes"  # of levels, attention at one of them, and labels


def with_fewer_layers(config):
    """Returns a config of few steps, whose network has one level: a block of each kind, and attention."""
    if isinstance(config.process, Argmax | ByPlace):  # a flow has neither, and each place has its own steps
        return config
    process = dataclasses.replace(config.process, steps=20)
    model = config.model
    if isinstance(model, UNet):
        model = dataclasses.replace(model, ch_mult=(1,), num_res_blocks=0, attn_resolutions=())
    elif isinstance(model, ScoreNet):
        model = dataclasses.replace(model, ch_mult=(1,), num_res_blocks=0, attn=())
    return dataclasses.replace(config, process=process, model=model)


def one_of_each_structure():
    """The configs that have other parts, conditions or classes than those before them; REAL is the first."""
    chosen = {}
    for path in sorted(CONFIGS, key=lambda path: path.stem != REAL):
        config = io.read_config_file(path)
        parts = [type(getattr(config, x.name)) for x in dataclasses.fields(config) if x.name != "data"]
        conditioned = getattr(config.data, "conditioned", False)
        has_classes = bool(getattr(config.model, "classes", None))
        chosen.setdefault((*parts, conditioned, has_classes, config.train.drop_condition > 0), path)
    return chosen.values()


@pytest.mark.slow
@pytest.mark.parametrize("path", one_of_each_structure(), ids=lambda path: path.stem)
@pytest.mark.usefixtures("text_cache")
def test_the_training_step_of_a_config(path, tmp_path, monkeypatch):
    """A transformer has a loop over its layers, forward and backward, and an LSTM over the places.

    What is asserted of a step does not depend on how often a layer is repeated: that several levels add
    nothing is seen in one config.
    """
    monkeypatch.chdir(tmp_path)
    config, description = opened(path)
    if path.stem != REAL:
        config = with_fewer_layers(config)
    parts = build.build(complete(config, description))
    batch, noise = cost.abstract_inputs(parts)
    update = make_update(**build.step_arguments(parts))
    layers = 2 * (type(parts.config.model).__name__ == "Transformer")
    lstms = 2 * sum(name.endswith("recurrent.kernel") for name in name_leaves(parts.state.params))
    process = parts.recipe.process
    loops_of_loss = int(getattr(parts.config.head, "projected", False))  # over places
    if isinstance(process, d3pm.processes.Dense):
        # Where elements that the fast form cannot be relied on for are more than a part of a CPU, they are
        # made again in a loop over parts.
        loops_of_loss = 2 + (batch["x"].size * process.K > tiles.FLOATS)
    # The matrices between couplings have determinants, by a library.
    factorised = isinstance(parts.config.model, ArgmaxCoupling)
    for program in lower(update, parts.state, process, batch, noise, parts.key).values():
        assert program.loops == layers + lstms + loops_of_loss
        assert factorised or not program.calls
