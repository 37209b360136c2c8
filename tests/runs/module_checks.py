"""What is asked of every network that people bring.

python -m tests.runs.module_checks [NAME ...] prints a row for each module of `tests.runs.modules`.
"""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax.models.variables import name_leaves, split_variables
from d3pm_jax.placing import fetch
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.training.step import make_loss_step
from d3pm_jax.weights import twin
from tests.runs import modules


def batches(steps):
    source = modules.Sequences().open("train")
    rng = np.random.default_rng(0)
    for _ in range(steps):
        x = np.stack([source[i]["x"] for i in rng.integers(0, 64, 8).tolist()])
        yield {"x": jnp.asarray(x, jnp.int32)}


def make_parts(name, mesh=None, accumulate=1):
    config = modules.get_config(modules.Named(name), accumulate=accumulate)
    return build.initialize_state(build.build(complete(config, config.data.describe()), mesh=mesh))


def copy_state(parts):
    """The state before the first step, which a step may take the memory of."""
    # With their types: a parameter that is a number of Python has none of its own, and one that a checkpoint
    # gives back has, which would be another program.
    return jax.tree.map(lambda x: jnp.array(x, x.dtype), parts.state)


def train(parts, rows, state, step):
    """The state after these batches."""
    for batch in rows:
        state, metrics = step(state, parts.recipe.process, batch, parts.key)
        assert np.isfinite(metrics["loss"])
    return state


def losses_of(parts, rows, step=None):
    """The losses of the first steps."""
    step = step or make_loss_step(**build.step_arguments(parts))
    state = copy_state(parts)
    losses = []
    for batch in rows:
        state, metrics = step(state, parts.recipe.process, batch, parts.key)
        losses.append(metrics["loss"])
    return jnp.stack(losses)


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(fetch(a)), jax.tree.leaves(fetch(b)), strict=True)
    return max(float(np.abs(np.asarray(x, float) - np.asarray(y, float)).max()) for x, y in pairs)


def check_module(name, folder, steps=60):
    """Trains, resumes, accumulates, spreads, evaluates, exports and imports; returns the differences."""
    parts = make_parts(name)
    step = make_loss_step(**build.step_arguments(parts))
    rows = list(batches(steps))
    half = train(parts, rows[: steps // 2], copy_state(parts), step)
    checkpoint.save_checkpoint(folder / "checkpoints", steps // 2, half, 1)
    whole = train(parts, rows[steps // 2 :], half, step)
    restored = build.restore_state(folder, parts).state
    resumed = train(parts, rows[steps // 2 :], restored, step)
    result = {
        "parameters that moved": _count_moved(parts, whole),
        "resumed": largest_difference(whole, resumed),
    }

    # A constant is the same to the bit, in the state and in its average.
    for state in (whole.params, whole.ema):
        before = dict(zip(name_leaves(parts.state.params), jax.tree.leaves(parts.state.params), strict=True))
        after = dict(zip(name_leaves(state), jax.tree.leaves(state), strict=True))
        for leaf in modules.CONSTANT & before.keys():
            np.testing.assert_array_equal(before[leaf], after[leaf])

    # Losses are compared, and not parameters: of a gradient that is 0 but for rounding, as that of a shift
    # before BatchNorm, Adam makes a step of any size.
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), parts.mesh.axis_names)
    alone = make_parts(name, mesh)
    losses = losses_of(parts, rows[:4], step)
    result["on one device"] = largest_difference(losses_of(alone, rows[:4]), losses)

    accumulated = make_parts(name, accumulate=2)
    if name in modules.RANDOM | modules.OF_BATCH:
        # Its losses are others, so that nothing is compared: it is not compiled.
        step_in_parts = make_loss_step(**build.step_arguments(accumulated))
        jax.eval_shape(step_in_parts, accumulated.state, parts.recipe.process, rows[0], parts.key)
    else:
        result["accumulated"] = largest_difference(losses_of(accumulated, rows[:4]), losses)

    predict = jax.jit(parts.recipe.diffusion.network)
    x = jnp.asarray(rows[0]["x"])
    t = jnp.full(len(x), 3)
    logits = predict(whole.ema, x, t)
    in_two = jnp.concatenate([predict(whole.ema, x[i : i + 4], t[:4]) for i in (0, 4)])
    result["in two batches"] = largest_difference(logits, in_two)

    file = folder / "weights.safetensors"
    twin.save(file, whole.ema)
    result["imported"] = largest_difference(logits, predict(twin.load(file, whole.ema), x, t))
    return result


def _count_moved(parts, state):
    before = jax.tree.leaves(split_variables(parts.state.params)[0])
    after = jax.tree.leaves(split_variables(state.params)[0])
    moved = [bool(np.any(np.asarray(x) != np.asarray(y))) for x, y in zip(before, after, strict=True)]
    return f"{sum(moved)} of {len(moved)}"


def main(names):
    jax.config.update("jax_num_cpu_devices", 2)
    for name in names or modules.WORKING:
        with tempfile.TemporaryDirectory() as folder:
            result = check_module(name, Path(folder))
        cells = [f"{what} {x if isinstance(x, str) else format(x, '.0e')}" for what, x in result.items()]
        print(f"{name}: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
