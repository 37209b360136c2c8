"""Makes the recipe of a classifier of noised examples."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from d3pm_jax.checks import bare
from d3pm_jax.config import Config, Spec
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, locate_statement, wrong_return
from d3pm_jax.evaluation.bound import Compiled, compile_label_terms, summarize_labels
from d3pm_jax.keys import make_key
from d3pm_jax.models import variables
from d3pm_jax.placing import place
from d3pm_jax.processes import Process
from d3pm_jax.program.machine.devices import batch_sharding, replicated_sharding
from d3pm_jax.program.parts.diffusion import describe_steps, name_process, respace_recipe
from d3pm_jax.program.parts.network import call_in_training, spread_over_mesh
from d3pm_jax.program.parts.recipe import Bound, Classifier, Recipe
from d3pm_jax.training.classifier import ClassifierLoss
from d3pm_jax.types import Params


def make_classifier(
    config: Config, description: Description, full_process: Process, mesh: jax.sharding.Mesh
) -> Callable[[Process], Recipe]:
    """Builds the network of a config that trains a classifier; returns its recipe as a function of a process.

    Args:
        config: of the run, with the numbers of its data.
        description: of the data.
        full_process: the process with all of its steps; the recipe may be made with fewer.
        mesh: of the devices.

    Raises:
        ValueError, UserError: a value of the config cannot be used.
    """
    if description.classes is None:
        raise ValueError(
            "the data has no labels, which loss = LabelLoss() trains to predict: take data with labels"
        )
    K = full_process.K
    classes = description.classes
    spec = Spec(
        description.shape, K, outputs=None, classes=classes, T=full_process.T, remat=config.train.remat
    )

    def build(key: Key[Array, ""]) -> nnx.Module:
        return config.model.build(spec, nnx.Rngs(key))

    module, shapes = variables.split_module(build)
    _check_call(config, module, shapes, spec)

    def log_probs(params: Params, one_hots: Float[Array, "B *S K"], time: Array) -> Float[Array, "B classes"]:
        logits = bare(module.merge(params))(one_hots, time)
        return jax.nn.log_softmax(logits)

    def classify(params: Params, xt: Array, time: Array) -> Float[Array, "B classes"]:
        return log_probs(params, jax.nn.one_hot(xt, K), time)

    def train_predict(params: Params, xt: Array, time: Array, key: Key[Array, ""]) -> tuple[Array, Any]:
        one_hots = jax.nn.one_hot(xt, K)  # [B, *S, K]
        return call_in_training(module, params, key, one_hots, time)

    sharding = batch_sharding(mesh)
    loss = ClassifierLoss(config.loss, config.timesteps, spread_over_mesh(train_predict, sharding))

    def make_recipe(process: Process) -> Recipe:
        times = np.asarray(process.time)
        return Recipe(
            name=f"{name_process(config, process)}, {classes} classes",
            K=K,
            times=times,
            conditions={**describe_steps(process), "belief": "-"},
            init=partial(variables.init_variables, build),
            loss=loss,
            bound=_make_figures(spread_over_mesh(classify, sharding), times),
            process=place(process, replicated_sharding(mesh)),
            respace=partial(respace_recipe, make_recipe, config),
            classifier=Classifier(log_probs, classify),
            classes=classes,
        )

    return make_recipe


def _make_figures(classify: Callable[..., Array], times: np.ndarray) -> Bound:
    """Makes the cross entropy and the accuracy, over all steps 0..T or so many, evenly spread from 0 to T."""
    num_times = len(times)

    def choose_steps(calls: int | None) -> Sequence[int]:
        if calls is None:
            return range(num_times)
        return np.linspace(0, num_times - 1, calls).round().astype(int).tolist()

    def compile_terms(calls: int | None, seed: int) -> Compiled:
        if calls is not None and not 1 <= calls <= num_times:
            raise UserError(f"calls = {calls}: it must be in 1..{num_times}, the steps 0..T")
        return compile_label_terms(classify, choose_steps(calls), seed)

    return Bound(
        calls=num_times,
        compile=compile_terms,
        times=lambda calls: [int(times[step]) for step in choose_steps(calls)],
        summarize=lambda terms, D, calls: summarize_labels(terms),
        describe=lambda figures, figures_in_words: f"{len(figures['times'])} steps: {figures_in_words}",
        main_figures=("cross_entropy", "accuracy"),
        nats=lambda means: None,
        some_terms="{calls} steps, evenly spread",
    )


def _check_call(config: Config, module: variables.SplitModule, shapes: Params, spec: Spec) -> None:
    """Raises ValueError where the network does not give logits of the label for one-hots and times.

    It is called once on shapes without numbers, before a run begins.
    """
    try:
        module.signature.bind("one_hots", "t")
    except TypeError as error:
        place_of_call = locate_statement(module.called_method, "def __call__")
        raise ValueError(
            f"{place_of_call}: the network of {type(config.model).__name__} is called as f(one_hots, t): "
            f"{error}; write f(one_hots, t, *, key=None)"
        ) from error
    # Two examples show what one would hide: logits without an axis of examples.
    one_hots = jnp.zeros((2, *spec.shape, spec.K))
    time = jnp.zeros(2, jnp.int32)
    logits, _ = jax.eval_shape(partial(call_in_training, module), shapes, make_key(0), one_hots, time)
    is_float = jnp.issubdtype(getattr(logits, "dtype", np.int32), jnp.floating)
    if not is_float or logits.shape != (2, spec.classes):
        cure = f"logits of the label, of a float type, [2, {spec.classes}]"
        raise wrong_return(module.called_method, logits, cure, f" for one_hots {list(one_hots.shape)}")
