"""Splits networks into graphs, parameters, buffers and streams of random numbers.

Flax says what a variable is by its class. `nnx.Param` is a parameter: it is trained, averaged and decayed.
Streams of random numbers (`nnx.RngState`) are made anew for every call. All others are buffers, in the word
of PyTorch: batch statistics, constants, integers, caches, plain arrays. No optimizer touches a buffer; what a
call in training writes to it is kept.

The variables of a network are its parameters and buffers together, in one `nnx.State`.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax.types import Params

Variables = Any  # Params, or any pytree of parameters that no module of Flax made


def split_variables(variables: Variables) -> tuple[Variables, Params | None]:
    """Splits variables into parameters and buffers, which are None where there are none."""
    if not isinstance(variables, nnx.State):
        return variables, None
    params, buffers = nnx.split_state(variables, nnx.Param, ...)
    if not jax.tree.leaves(buffers):
        return variables, None
    return params, buffers


def merge_variables(params: Variables, buffers: Params | None) -> Variables:
    """Joins parameters and buffers, the inverse of `split_variables`."""
    if buffers is None:
        return params
    return nnx.merge_state(params, buffers)


def average_variables(average: Variables, newest: Variables, weight: Array) -> Variables:
    """Moves an average of variables towards the newest ones: average + weight (newest - average).

    Averaged are parameters and batch statistics of floats. Every other buffer is the newest: a mean of
    integers is none, and a mean of a constant with itself may be another number, by rounding.
    """
    params, buffers = split_variables(newest)
    average_params, _ = split_variables(average)
    params: Any = optax.incremental_update(params, average_params, weight)
    if buffers is None:
        return params

    statistics, others = nnx.split_state(buffers, nnx.BatchStat, ...)
    average_statistics = nnx.filter_state(average, nnx.BatchStat)

    def move(old: Array, new: Array) -> Array:
        if jnp.issubdtype(new.dtype, jnp.floating):
            return (1.0 - weight) * old + weight * new
        return new

    statistics = jax.tree.map(move, average_statistics, statistics)
    return nnx.merge_state(params, statistics, others)


class SplitModule(NamedTuple):
    """Holds what is left of a module without its variables: its graphs, and shapes of its streams."""

    training_graph: Any  # after `.train()`
    evaluation_graph: Any  # after `.eval()`
    streams: Params  # keys and counts of random numbers
    signature: inspect.Signature  # of its call

    def takes_keyword(self, name: str) -> bool:
        """Says whether the module may be called with a keyword."""
        parameters = self.signature.parameters.values()
        return any(
            parameter.name == name or parameter.kind == parameter.VAR_KEYWORD for parameter in parameters
        )

    def merge(self, variables: Variables, key: Key[Array, ""] | None = None) -> Any:
        """Makes the module with these variables: in training mode with a key, in evaluation mode without."""
        graph = self.evaluation_graph
        if key is not None:
            graph = self.training_graph
        # Without copies Flax refuses to write to a variable that a transformation such as `grad` has seen.
        return nnx.merge(graph, variables, _seed_streams(self.streams, key), copy=True)

    def call(
        self, variables: Variables, key: Key[Array, ""], /, *args: Any, **options: Any
    ) -> tuple[Any, Params | None]:
        """Calls the module in training mode; returns its output and its buffers after the call.

        What the call adds, such as intermediate values that it sows, is dropped.
        """
        module = self.merge(variables, key)
        output = module(*args, **options)
        _, buffers = split_variables(variables)
        if buffers is None:
            return output, None
        after = dict(nnx.to_flat_state(nnx.state(module)))
        return output, nnx.from_flat_state([(path, after[path]) for path, _ in nnx.to_flat_state(buffers)])


def name_leaves(variables: Variables) -> list[str]:
    """Names the leaves of variables in their order, such as "layers.qkv.kernel"."""
    paths = jax.tree_util.tree_flatten_with_path(variables)[0]
    return [
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value") for path, _ in paths
    ]


def _seed_streams(streams: Params, key: Key[Array, ""] | None) -> Params:
    """Makes the streams of a module anew: a key of its own for each, and counts that start from 0.

    Args:
        streams: their shapes.
        key: from which each takes its own; a constant in evaluation, which draws nothing.
    """
    if key is None:
        key = jax.random.key(0)
    leaves, tree = jax.tree.flatten(streams)
    seeded = []
    for number, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # Layers that are stacked have an array of keys.
            seeded.append(jax.random.split(jax.random.fold_in(key, number), leaf.shape))
        else:
            seeded.append(jnp.zeros(leaf.shape, leaf.dtype))
    return jax.tree.unflatten(tree, seeded)


def split_module(build: Callable[[Key[Array, ""]], Any]) -> tuple[SplitModule, Params]:
    """Splits the module that a function builds of a key from its variables; nothing is computed.

    Returns:
        The module without variables, and the shapes of the variables.

    Raises:
        ValueError: what it builds is no module that can be called.
    """
    traced = []

    # The module is split inside the trace: outside of it arrays are shapes, which Flax takes for settings.
    def trace(key: Key[Array, ""]) -> tuple[Params, Params]:
        module = _build_module(build, key)
        _, streams, variables = nnx.split(module, nnx.RngState, ...)
        module.train()
        training_graph = nnx.graphdef(module)
        module.eval()
        evaluation_graph = nnx.graphdef(module)
        traced.append((training_graph, evaluation_graph, inspect.signature(module)))
        return streams, variables

    streams, shapes = jax.eval_shape(trace, jax.random.key(0))
    training_graph, evaluation_graph, signature = traced[0]
    return SplitModule(training_graph, evaluation_graph, streams, signature), shapes


def init_variables(build: Callable[[Key[Array, ""]], Any], key: Key[Array, ""]) -> Params:
    """Builds a module of a key, and returns its variables."""
    return nnx.state(_build_module(build, key), nnx.Not(nnx.RngState))


def _build_module(build: Callable[[Key[Array, ""]], Any], key: Key[Array, ""]) -> nnx.Module:
    """Builds a module and checks that it is one."""
    module = build(key)
    name = type(module).__name__
    if isinstance(module, type):
        raise ValueError(f"build returns the class {module.__name__}: return an object of it")
    if isinstance(module, flax.linen.Module):
        raise ValueError(
            f"build returns {name}, a module of Flax Linen: return nnx.bridge.ToNNX({name}(...), rngs=rngs), "
            f"initialised with .lazy_init(xt, t)"
        )
    if not isinstance(module, nnx.Module):
        raise ValueError(f"build returns {name}: expected an nnx.Module")
    if not callable(module):
        raise ValueError(f"{name} defines no __call__: write f(xt, t, *, label, key)")

    # Under a trace Flax takes an array that is made in `__init__` for a setting, as which its tracer would
    # outlive the trace.
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Module):
            for name, value in list(vars(node).items()):
                if isinstance(value, jax.Array):
                    setattr(node, name, nnx.data(value))
    return module
