"""Splits networks into graphs, parameters, buffers and streams of random numbers.

Flax says what a variable is by its class. `nnx.Param` is a parameter: it is trained, averaged and decayed.
Streams of random numbers (`nnx.RngState`) are made anew for every call. All others are buffers, in the word
of PyTorch: batch statistics, constants, integers, caches, plain arrays. No optimizer touches a buffer; only
a call in training changes it.

The variables of a network are its parameters and buffers together, in one `nnx.State`.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax.checks import bare
from d3pm_jax.errors import wrong_return
from d3pm_jax.keys import make_key
from d3pm_jax.types import Leaf, Params

Variables = Any  # Params, or any pytree of parameters that no module of Flax made


def split_variables(variables: Variables) -> tuple[Variables, Params | None]:
    """Splits variables into parameters and buffers, which are None where there are none."""
    if not isinstance(variables, nnx.State):
        return variables, None
    params, buffers = nnx.split_state(variables, nnx.Param, ...)
    if not jax.tree.leaves(buffers):
        # The very tree, so that checkpoints of networks without buffers keep theirs.
        return variables, None
    return params, buffers


def merge_variables(params: Variables, buffers: Params | None) -> Variables:
    """Joins parameters and buffers, the inverse of `split_variables`."""
    if buffers is None:
        return params
    return nnx.merge_state(params, buffers)


@partial(jax.tree_util.register_dataclass, data_fields=["hidden", "kernel", "bias"], meta_fields=["tied"])
@dataclasses.dataclass(frozen=True)
class LastLayer:
    """Holds what the logits of a projected network are made of."""

    hidden: Leaf  # [B, *S, width]
    kernel: Leaf  # [width, K], or an embedding [K, width]
    bias: Leaf | None  # [K]
    tied: bool  # whether the kernel is an embedding


class SplitModule(NamedTuple):
    """Holds what is left of a module without its variables: its graphs, and shapes of its streams."""

    training_graph: Any  # after `.train()`
    evaluation_graph: Any  # after `.eval()`
    streams: Params  # keys and counts of random numbers
    signature: inspect.Signature  # of its call
    called_method: Callable[..., Any]  # its __call__ or hidden, for messages that name where it is
    projected: bool = False  # whether its methods hidden and projection are called, and not __call__

    def takes_keyword(self, name: str) -> bool:
        """Says whether the module may be called with a keyword."""
        parameters = self.signature.parameters.values()
        return any(
            parameter.name == name or parameter.kind == parameter.VAR_KEYWORD for parameter in parameters
        )

    def merge(self, variables: Variables, key: Key[Array, ""] | None = None) -> Any:
        """Makes the module with these variables: in training mode with a key, in evaluation mode without."""
        graph = self.evaluation_graph if key is None else self.training_graph
        # Without copies Flax refuses to write to a variable that a transformation such as `grad` has seen.
        return nnx.merge(graph, variables, _seed_streams(self.streams, key), copy=True)

    def ask(self, module: Any, *args: Any, **options: Any) -> Any:
        """Calls the module that `merge` makes; of a projected one it returns a `LastLayer`."""
        if not self.projected:
            return bare(module)(*args, **options)
        last_layer = module.projection()
        if not (isinstance(last_layer, tuple) and len(last_layer) == 3 and isinstance(last_layer[2], bool)):
            expected = "a tuple (kernel, bias or None, whether the kernel is an embedding [K, width])"
            raise wrong_return(module.projection, last_layer, expected)
        # A variable of Flax may stand for its array.
        kernel, bias = (x[...] if isinstance(x, nnx.Variable) else x for x in last_layer[:2])
        return LastLayer(bare(module.hidden)(*args, **options), kernel, bias, last_layer[2])

    def call(
        self, variables: Variables, key: Key[Array, ""], /, *args: Any, **options: Any
    ) -> tuple[Any, Params | None]:
        """Calls the module in training mode; returns its output and its buffers after the call.

        What the call adds, such as intermediate values that it sows, is dropped.
        """
        module = self.merge(variables, key)
        output = self.ask(module, *args, **options)
        _, buffers = split_variables(variables)
        if buffers is None:
            return output, None
        # The values go into the variables as they were: a call may have put others in their place.
        after = dict(nnx.to_flat_state(nnx.state(module)))
        values = nnx.from_flat_state([(path, after[path]) for path, _ in nnx.to_flat_state(buffers)])
        return output, jax.tree.unflatten(jax.tree.structure(buffers), jax.tree.leaves(values))


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
        key: from which each takes its own. In evaluation it is None, and they are the same in every call.
    """
    if key is None:
        key = make_key(0)
    leaves, tree = jax.tree.flatten(streams)
    seeded = []
    for number, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # No split of the key, which the call of the module may get too, has a number as large. Layers
            # that are stacked have an array of keys.
            stream_key = jax.random.fold_in(key, 2**31 + number)
            seeded.append(jax.random.split(stream_key, leaf.shape))
        else:
            seeded.append(jnp.zeros(leaf.shape, leaf.dtype))
    return jax.tree.unflatten(tree, seeded)


def split_module(
    build: Callable[[Key[Array, ""]], Any], projected: bool = False
) -> tuple[SplitModule, Params]:
    """Splits the module that a function builds of a key from its variables; nothing is computed.

    Args:
        build: makes it.
        projected: whether its methods hidden and projection are called, and not the module.

    Returns:
        The module without variables, and the shapes of the variables.

    Raises:
        ValueError: what it builds is no module that can be called, or has not these methods.
    """
    traced = []

    # The module is split inside the trace: outside of it arrays are shapes, which Flax takes for settings.
    def trace(key: Key[Array, ""]) -> tuple[Params, Params]:
        module: Any = _build_module(build, key)
        _, streams, variables = nnx.split(module, nnx.RngState, ...)
        module.train()
        training_graph = nnx.graphdef(module)
        module.eval()
        evaluation_graph = nnx.graphdef(module)
        # A wrapped module of Linen takes anything, and says by its own signature what it can do with.
        called = getattr(module, "to_nnx__module", module)
        method = type(called).__call__
        signature = inspect.signature(called)
        if projected:
            _check_projected(module)
            method = type(module).hidden
            signature = inspect.signature(module.hidden)
        traced.append((training_graph, evaluation_graph, signature, method))
        return streams, variables

    streams, shapes = jax.eval_shape(trace, make_key(0))
    _check_variables(shapes)
    training_graph, evaluation_graph, signature, called_method = traced[0]
    module = SplitModule(training_graph, evaluation_graph, streams, signature, called_method, projected)
    return module, shapes


def is_narrow(dtype: Any) -> bool:
    """Says whether a type is one of floats of less than 32 bits, whose averages rounding would spoil."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def check_precision(params: Variables) -> None:
    """Raises ValueError for a parameter that is no real number of 32 bits or more."""
    for name, leaf in zip(name_leaves(params), jax.tree.leaves(params), strict=True):
        dtype = leaf.dtype
        what = f"{name or 'params'} is a parameter of {dtype}"
        # JAX gives the derivative of a real loss by a complex number such that an optimizer would descend in
        # the real part, and climb in the imaginary one.
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(f"{what}, which is not trained: make its real and imaginary part two parameters")
        if is_narrow(dtype):
            raise ValueError(
                f"{what}, in which rounding would lose small updates and spoil the average: make it float32 "
                f"and compute in {dtype} (in Flax dtype={dtype}, without param_dtype)"
            )


def check_sizes(variables: Variables) -> None:
    """Raises ValueError for an array without entries, with which no checkpoint can be written."""
    for name, leaf in zip(name_leaves(variables), jax.tree.leaves(variables), strict=True):
        if leaf.size == 0:
            raise ValueError(
                f"{name} has shape {list(leaf.shape)}, and an array without entries cannot be saved: leave "
                "it out"
            )


def _check_variables(shapes: Params) -> None:
    """Raises ValueError for a parameter that has no gradient, and for a key that is no stream."""
    params, _ = split_variables(shapes)
    for name, leaf in zip(name_leaves(params), jax.tree.leaves(params), strict=True):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise ValueError(
                f"{name} is an nnx.Param of {leaf.dtype}, which has no gradient: make it an nnx.Variable"
            )
    for name, leaf in zip(name_leaves(shapes), jax.tree.leaves(shapes), strict=True):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"{name} is a random key, which stays the same in every step: store the streams, rngs, "
                "instead"
            )


def init_variables(build: Callable[[Key[Array, ""]], Any], key: Key[Array, ""]) -> Params:
    """Builds a module of a key, and returns its variables."""
    variables = nnx.state(_build_module(build, key), nnx.Not(nnx.RngState))
    return jax.tree.map(jnp.asarray, variables)  # numbers of Python become arrays


def _check_projected(module: Any) -> None:
    """Raises ValueError for a module without the methods that head.projected needs."""
    for method in ("hidden", "projection"):
        if not callable(getattr(module, method, None)):
            raise ValueError(
                f"head.projected = True, but {type(module).__name__} defines no {method}: take Transformer, "
                f"write the methods hidden(xt, t, ..) and projection(), or leave projected out"
            )


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
    if any(base.__module__.startswith("torch.nn") for base in type(module).__mro__):
        raise ValueError(
            f"build returns {name}, a network of PyTorch, which cannot train here: write it as an "
            f"nnx.Module, into which d3pm import takes its weights (docs/pytorch.md)"
        )
    if not isinstance(module, nnx.Module):
        raise ValueError(f"build returns {name}: expected an nnx.Module")
    if not callable(module):
        raise ValueError(f"{name} defines no __call__: write f(xt, t, *, label, key)")

    for method in ("train", "eval"):
        if not callable(getattr(module, method)):
            raise ValueError(f"{name}.{method} takes the place of a method of Flax: give it another name")

    # Under a trace Flax takes an array that is made in `__init__` for a setting, as which its tracer would
    # outlive the trace.
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Pytree):
            for name, value in list(vars(node).items()):
                has_arrays = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
                if has_arrays and not nnx.is_data(value):
                    setattr(node, name, nnx.data(value))
    return module
