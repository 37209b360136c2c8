"""Makes one pure function of parameters from a network and its head."""

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax.blocks import Layout
from d3pm_jax.config import (
    Config,
    Head,
    LogisticHead,
    ScoreHead,
    Spec,
    has_own_compute,
    is_by_rows,
    make_logits,
)
from d3pm_jax.config.checks import says
from d3pm_jax.data import Description
from d3pm_jax.errors import locate_statement, wrong_return
from d3pm_jax.keys import make_key
from d3pm_jax.losses.projected import check_projection
from d3pm_jax.models import variables
from d3pm_jax.processes import Process
from d3pm_jax.program.machine import cluster
from d3pm_jax.program.machine.devices import projection_spread
from d3pm_jax.projection import Projection, spread_over
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.training.step import Predict, TrainPredict
from d3pm_jax.types import Params

Init = Callable[[Array], Any]  # key -> parameters and buffers


class Network(NamedTuple):
    """Holds a network and its head as pure functions.

    The parameters of a network, here and in all that calls these functions, are all of its variables: what is
    trained, and where it has them batch statistics, constants and other buffers.
    """

    # (params, xt, t, key=None, **inputs) -> logits of x_0 [B, *S, K], or of a projected head a `Projection`;
    # the inputs are label, weight, condition and layout, all of which may be left out
    predict: Predict
    init: Init
    train_predict: TrainPredict  # with a key, -> (logits, buffers), which are None where there are none
    # The same -> ((loc, log_scale), buffers), of which `heads.logistic` makes the logits; None of other heads
    train_parameters: TrainPredict | None = None
    classes: int | None = None  # how many labels it takes; None: it takes none
    dropping: Dropping | None = None  # of labels and conditions in training; it knows the null inputs
    extra_mask: int | None = None  # a mask that the data never has and the network never predicts


def split_network(
    config: Config, description: Description, process: Process, extra_mask: int | None
) -> Network:
    """Splits the network of a config into pure functions; nothing is computed yet.

    Args:
        config: of the run.
        description: of the data.
        process: the forward process, all of its steps.
        extra_mask: its mask, where the data never has it. A head of this library never predicts it.

    Returns:
        Its functions. With a key the network is in training mode, with dropout; without, in evaluation mode.
        Labels that the network ignores are not passed on.

    Raises:
        ValueError: the network cannot be built for such data, or changes its variables in shape, or its head
            does not forbid the mask that the loss needs.
    """
    head = config.head
    classes = network_classes(config, description)
    dropping = make_dropping(config.train.drop_condition, classes, description)
    spec = make_spec(description, head, process.K, process.T, classes, dropping, config.train.remat)
    if head.projected:
        _check_projected(config, description, process)

    def build(key: Array) -> Any:
        module = config.model.build(spec, nnx.Rngs(key))
        if module is None:
            raise wrong_return(config.model.build, module, "the network, an nnx.Module")
        return module

    module, shapes = variables.split_module(build, head.projected)
    # The weight has to be named: a network that takes any keyword need not know what padding is.
    takes_weight = "weight" in module.signature.parameters
    _check_padding(config, description, takes_weight)
    _check_condition(config, description, module)

    def choose_inputs(key: Key[Array, ""] | None, inputs: Mapping[str, Any]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        if module.takes_keyword("key"):
            chosen["key"] = key
        if classes is not None:
            chosen["label"] = inputs.get("label")
        layout = inputs.get("layout")
        if layout is not None:
            chosen["layout"] = layout
        if takes_weight:
            weight = inputs.get("weight")
            if layout is not None and weight is not None:
                weight = weight[:, layout.places]
            chosen["weight"] = weight
        condition = inputs.get("condition")
        if condition is not None and dropping is not None:
            condition = dropping.extend_condition(condition)
        if condition is not None:
            chosen["condition"] = condition
        return chosen

    def make_train_function(read: Callable[..., Any]) -> TrainPredict:
        """Returns what training calls, of which `read` makes logits, or what a head makes them of."""

        def train(params: Params, xt: Array, t: Array, key: Key[Array, ""], **inputs: Any) -> tuple[Any, Any]:
            output, buffers = module.call(params, key, xt, t, **choose_inputs(key, inputs))
            return read(output, xt), buffers

        return train

    # It is called once on shapes without numbers, so that an output or logits of another shape are refused
    # before a run begins, and not by whatever meets them first. Two examples show what one would hide: a
    # variable that takes the shape of a batch.
    layout = config.loss.network_layout(spec.shape)
    x = jnp.zeros((2, *spec.shape) if layout is None else (2, len(layout.places)), jnp.int32)
    t = jnp.ones(2, jnp.int32)
    inputs: dict[str, Any] = {}
    if classes is not None:
        inputs["label"] = jnp.zeros(2, jnp.int32)
    condition = None
    if description.condition is not None:
        condition = jnp.zeros((2, *description.condition), description.condition_type)
    key = make_key(0)
    _check_call(config, module, choose_inputs(key, inputs | {"condition": condition, "layout": layout}))
    call_network = make_train_function(lambda output, xt: output)

    # What it may look at comes first, so that its inputs of the program are numbered as here.
    watched = ["x_t", "t"]
    if layout is not None:
        watched += ["layout.attended", "layout.places"]
    if condition is not None:
        watched.append("the condition")

    def call_with(
        x: Array, t: Array, layout: Layout | None, condition: Array | None, params: Params
    ) -> tuple[Any, Any]:
        return call_network(params, x, t, key, layout=layout, condition=condition, **inputs)

    program, (output, new_buffers) = jax.make_jaxpr(call_with, return_shape=True)(
        x, t, layout, condition, shapes
    )
    num_outputs = len(jax.tree.leaves(output))
    if head.projected:
        # What comes of its last layer is an output like any other.
        output = _check_projection(config, process, _project(head.logits, output, x))
    # A head of the user's own may take any output: what it makes of it is checked below.
    is_own_head = type(head).logits not in (Head.logits, LogisticHead.logits, ScoreHead.logits)
    if not is_own_head:
        _check_output(module, output, x, spec)
    logits = jax.eval_shape(lambda output: head.logits(output, x, spec.K), output)
    is_array = isinstance(logits, jax.ShapeDtypeStruct)
    if not is_array or not jnp.issubdtype(logits.dtype, jnp.floating):
        expected = f"logits, of a float type, {[*x.shape, spec.K]}"
        raise wrong_return(head.logits, logits, expected, f" for x {list(x.shape)}")
    if logits.shape != (*x.shape, spec.K):
        raise ValueError(
            f"the network and its head give logits {list(logits.shape)} for x {list(x.shape)}: "
            f"expected {[*x.shape, spec.K]}"
        )

    model = type(config.model).__name__
    has_weights = len(jax.tree.leaves(shapes)) > 0
    seen = [name for i, name in enumerate(watched) if _sees(program.jaxpr, i, num_outputs)]
    for name in ("x_t", "the condition"):
        if has_weights and name in watched and name not in seen:
            _warn(f"the network of {model} does not look at {name}: use it in its __call__")
    if layout is not None and "layout.attended" not in seen:
        raise ValueError(
            f"the network of {model} does not look at layout.attended, so that it would see what it has to "
            f"predict: let each place attend to those of its row alone"
        )
    if not config.loss.tells_time and "t" in seen:
        raise ValueError(
            f"loss = {type(config.loss).__name__} is for a network that sees no time, and that of {model} "
            f"looks at t: take Transformer(see_time=False), or use t nowhere in its __call__"
        )

    may_predict_mask = is_own_head and head.gives == "logits"
    if may_predict_mask and extra_mask is not None and not _forbids(head, output, x, spec.K, extra_mask):
        if config.loss.needs_mask_of(process):
            raise ValueError(
                f"loss = {type(config.loss).__name__} needs an extra mask that the head forbids, but "
                f"{type(head).__name__}.logits does not: end it with d3pm_jax.forbid(logits, {extra_mask})"
            )
        _warn(
            f"category {extra_mask} is a mask that the data, of {description.categories} categories, "
            f"never has, but {type(head).__name__}.logits does not forbid it, so that samples may hold it: "
            f"end it with d3pm_jax.forbid(logits, {extra_mask}) in a new run"
        )
        extra_mask = None

    read_logits = partial(make_logits, head, K=spec.K, extra_mask=extra_mask, description=description)
    read = partial(_project, read_logits) if head.projected else read_logits

    def predict(params: Params, xt: Array, t: Array, key: Key[Array, ""] | None = None, **inputs: Any) -> Any:
        output = module.ask(module.merge(params, key), xt, t, **choose_inputs(key, inputs))
        return read(output, xt)  # [B, *S, K]

    _, buffers = variables.split_variables(shapes)
    if buffers is not None:
        _check_buffers(buffers, new_buffers)

    train_parameters = None
    # A head of the user's own may make its logits in any way.
    if isinstance(head, LogisticHead) and not is_own_head and extra_mask is None:
        train_parameters = make_train_function(partial(head.parameters, K=spec.K))
    return Network(
        predict=predict,
        init=partial(variables.init_variables, build),
        classes=classes,
        dropping=dropping,
        train_predict=make_train_function(read),
        train_parameters=train_parameters,
        extra_mask=extra_mask,
    )


def _check_projected(config: Config, description: Description, process: Process) -> None:
    """Raises ValueError for what logits cannot be made of, some places at a time."""
    head = type(config.head).__name__
    objectives = (config.loss, config.loss.of_bound())
    refused = next((objective for objective in objectives if not is_by_rows(objective)), None)
    loss = type(refused).__name__
    if config.head.outputs is not None:
        why = f"{head} makes logits of {config.head.outputs} outputs: take Head()"
    elif not (config.head.by_rows and says(config.head, "by_rows", "logits", "without_mask")):
        why = (
            f"head = {head} does not say that its logits are those of each place alone: if they are, set "
            f"by_rows = True in that class, else leave projected out"
        )
    elif description.sizes is not None or process.positional:
        why = "places have processes or categories of their own: leave projected out"
    elif has_own_compute(refused):
        why = f"loss = {loss} has a compute of its own: define ask in its place, or leave projected out"
    elif refused is not None:
        why = (
            f"loss = {loss} does not say that its terms are those of each place alone: if they are, set "
            f"by_rows = True in that class, else leave projected out"
        )
    else:
        return
    raise ValueError(f"head.projected = True, but {why}")


def _project(finish: Callable[..., Array], last: variables.LastLayer, xt: Array) -> Projection:
    """Returns what stands for the logits of a network that was given x_t."""
    return Projection(last.hidden, last.kernel, last.bias, xt, finish, last.tied)


def _check_projection(config: Config, process: Process, projection: Projection) -> Any:
    """Returns the output that comes of a projection, as shapes.

    Raises:
        ValueError: what it is made of does not fit each other, or the process.
    """
    try:
        check_projection(process, projection)
    except ValueError as error:
        raise ValueError(f"the network of {type(config.model).__name__}: {error}") from error
    return jax.eval_shape(Projection.output, projection)


def _forbids(head: Head, output: Any, xt: Array, K: int, mask: int) -> bool:
    """Tells whether a head of the user's own takes a mask out of its logits: it is given zeros, to see.

    Args:
        head: the head.
        output: of the network, as shapes.
        xt: its input x_t, [B, *S].
        K: number of categories.
        mask: one of them.
    """

    def forbids() -> Array:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), output)
        return jnp.all(head.logits(zeros, xt, K)[..., mask] == -jnp.inf)

    # As one program: logits of a long sequence and a large vocabulary are then never held in memory.
    return bool(jax.jit(forbids)())


def _warn(text: str) -> None:
    """Prints a line about a part of the user's own that may be meant otherwise."""
    if cluster.is_first():
        print(f"warning: {text}", file=sys.stderr)


def _sees(program: Any, number: int, num_outputs: int) -> bool:
    """Tells whether the first outputs of a program, a jaxpr, depend on its input of a number.

    What is a program of its own in it, such as a loop, counts as one operation, which sees all of its inputs.
    """
    seen = {id(program.invars[number])}
    for operation in program.eqns:
        if not seen.isdisjoint(map(id, operation.invars)):
            seen.update(map(id, operation.outvars))
    return not seen.isdisjoint(map(id, program.outvars[:num_outputs]))


def _check_call(config: Config, module: variables.SplitModule, inputs: dict[str, Any]) -> None:
    """Raises ValueError for a network that cannot be called with these inputs beside x_t and t."""
    if "label" in inputs and not module.takes_keyword("label"):
        place = locate_statement(module.called_method, f"def {module.called_method.__name__}")
        model = type(config.model).__name__
        cure = f"set classes = None in {model}"
        if not hasattr(config.model, "classes"):
            cure = f"give {model} a field classes: int | None = None"
        raise ValueError(
            f"{place}: the data has classes, but the network has no keyword label: add label=None, or "
            f"{cure}, which trains without labels"
        )
    if "layout" in inputs and not module.takes_keyword("layout"):
        place = locate_statement(module.called_method, f"def {module.called_method.__name__}")
        raise ValueError(
            f"{place}: loss = {type(config.loss).__name__} lays the places of the network out, but that of "
            f"{type(config.model).__name__} has no keyword layout: take Transformer, or add layout=None, by "
            f"whose `attended` its places attend"
        )
    try:
        module.signature.bind("xt", "t", **inputs)
    except TypeError as error:
        place = locate_statement(module.called_method, f"def {module.called_method.__name__}")
        call = ", ".join(["xt", "t", *(f"{name}={name}" for name in inputs)])
        raise ValueError(
            f"{place}: the network is called as f({call}): {error}; write f(xt, t, *, label=None, key=None)"
        ) from error


def _check_output(module: variables.SplitModule, output: Any, xt: Array, spec: Spec) -> None:
    """Raises ValueError where the output of a network is not the array that its head takes.

    Args:
        module: the network.
        output: what it returns, as shapes.
        xt: its input x_t, [B, *S].
        spec: the sizes that it has to fit.
    """
    size = spec.K
    size_name = "spec.K"
    if spec.outputs is not None:
        size = spec.outputs
        size_name = "spec.outputs"
    expected = [*xt.shape, size]
    place = locate_statement(module.called_method, "return")
    if not isinstance(output, jax.ShapeDtypeStruct):
        raise ValueError(
            f"{place}: the network returns {type(output).__name__}: return one array, for x "
            f"{list(xt.shape)} {expected}"
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            f"{place}: the network returns {output.dtype}: return logits, which are of a float type"
        )

    shape = list(output.shape)
    if shape == expected:
        return
    message = f"{place}: the network returns {shape} for x {list(xt.shape)}, expected {expected}"
    if shape == [xt.shape[0], size, *xt.shape[1:]]:
        message += f": move its axis of {size_name} to the end, by jnp.moveaxis(h, 1, -1)"
    elif math.prod(shape) == math.prod(expected) and shape[-1] % size == 0:
        message += ": end with .reshape(*xt.shape, -1)"
    elif xt.shape in (output.shape, output.shape[:-1]):
        message += f": end it with a layer of {size_name} = {size} features"
    raise ValueError(message)


def _check_buffers(buffers: Params, new_buffers: Params) -> None:
    """Raises ValueError where a call gives a buffer another shape or type."""
    names = variables.name_leaves(buffers)
    pairs = zip(names, jax.tree.leaves(buffers), jax.tree.leaves(new_buffers), strict=True)
    for name, before, after in pairs:
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            raise ValueError(
                f"a call of the network changes its variable {name} from {before.dtype} "
                f"{list(before.shape)} to {after.dtype} {list(after.shape)}: keep its shape and type, "
                "and compute what depends on the batch in __call__"
            )


def _check_condition(config: Config, description: Description, module: variables.SplitModule) -> None:
    """Raises ValueError for data with a condition and a network that does not take it."""
    if description.condition is None or module.takes_keyword("condition"):
        return
    cure = "take UNet, Transformer, MLP, or a network of your own whose __call__ takes the keyword condition"
    if not module.called_method.__module__.startswith("d3pm_jax."):
        cure = "add the keyword condition to its __call__"
    raise ValueError(
        f"the data has a condition {list(description.condition)}, but the network of "
        f"{type(config.model).__name__} has no keyword condition: {cure}"
    )


def _check_padding(config: Config, description: Description, takes_weight: bool) -> None:
    """Raises ValueError for padded data and a network that cannot be told the weights of elements.

    The weight of an element is 0 where it is padding.
    """
    if description.padded and not takes_weight:
        raise ValueError(
            f"the data is padded, but the network of {type(config.model).__name__} has no keyword "
            "weight, which says where: take Transformer, or packing='wrapped'"
        )


def network_classes(config: Config, description: Description) -> int | None:
    """Returns how many classes the network takes labels of, or None if it takes no labels.

    That is `model.classes`, or for a model without that field the number of classes of the data.

    Raises:
        ValueError: it is not the number of classes of the data.
    """
    classes = getattr(config.model, "classes", description.classes)
    if classes not in (None, description.classes):
        if description.classes is None:
            classes_of_data = "no labels"
        else:
            classes_of_data = f"{description.classes} classes"
        raise ValueError(
            f"model.classes = {classes}, but the data has {classes_of_data}: set it to {description.classes}"
        )
    return classes


def make_dropping(rate: float, classes: int | None, description: Description) -> Dropping | None:
    """Makes what drops labels and conditions at a rate, and knows the null inputs; None for a rate of 0.

    Args:
        rate: `train.drop_condition`.
        classes: of the labels that the network takes, as `network_classes` says.
        description: of the data.

    Raises:
        ValueError: there is nothing to drop.
    """
    if rate == 0:
        return None
    if classes is None and description.condition is None:
        cure = "leave it out"
        if description.classes is not None:
            cure = f"set model.classes = {description.classes}, or leave it out"
        raise ValueError(
            f"train.drop_condition = {rate} drops labels and conditions, but the network takes "
            f"neither: {cure}"
        )
    if description.condition == ():
        raise ValueError(
            f"train.drop_condition = {rate} adds a feature to conditions, and theirs are single numbers: "
            f"give them an axis, as condition=(1,)"
        )
    return Dropping(rate, classes, description.condition, description.condition_type)


def make_spec(
    description: Description,
    head: Head,
    K: int,
    T: int,
    classes: int | None,
    dropping: Dropping | None,
    remat: bool = False,
) -> Spec:
    """Makes the sizes that a network of a diffusion is built for.

    Args:
        description: of the data.
        head: of the network.
        K, T: of the process.
        classes: of the labels that the network takes, as `network_classes` says.
        dropping: of labels and conditions, which has one more label, and one more feature of conditions.
        remat: compute its layers again for the gradient.
    """
    if dropping is None:
        num_labels = classes
        condition_shape = description.condition
    else:
        num_labels = dropping.num_labels
        condition_shape = dropping.extended_condition
    return Spec(description.shape, K, head.outputs, num_labels, T, remat, condition_shape, description.sizes)


def call_in_training(
    module: variables.SplitModule, params: Params, key: Key[Array, ""], *args: Any
) -> tuple[Any, Any]:
    """Calls a network in training mode, with the key if it takes one; returns its output and its buffers."""
    if module.takes_keyword("key"):
        return module.call(params, key, *args, key=key)
    return module.call(params, key, *args)


def spread_over_mesh(predict: Callable[..., Any], sharding: jax.sharding.NamedSharding) -> Callable[..., Any]:
    """Spreads x_t of predict, and so all that is computed from it, over the devices of a mesh."""

    def predict_on_mesh(params: Params, xt: Array, *args: Any, **extra_inputs: Any) -> Any:
        output = predict(params, jax.lax.with_sharding_constraint(xt, sharding), *args, **extra_inputs)
        return spread_over(output, projection_spread(sharding.mesh))

    return predict_on_mesh
