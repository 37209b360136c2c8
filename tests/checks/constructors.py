"""Calls networks, sources, and functions of data, weights and checkpoints with every argument spoilt in turn.

    python -m tests.checks.constructors [FUNCTION ...]

A call ends in one clear error of this library that names the argument, gives a marked result (NaN) under
jit, or is right: `RIGHT` says which values are. Anything else is a defect: silent, unclear, or NaN. It runs
without the checks of types that the tests of this folder have, which users have not either.
"""

import collections
import functools
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from d3pm_jax import data, timesteps
from d3pm_jax.data import binarize, digit_conditions, images, mazes, source, windows
from d3pm_jax.errors import UserError
from d3pm_jax.models import (
    MLP,
    ArgmaxAR,
    ArgmaxCoupling,
    Classifier,
    Inputs,
    LSTMFeatures,
    NoisyClassifier,
    ScoreNet,
    Transformer,
    TransformerFeatures,
    UNet,
    UNetFeatures,
)
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.weights import twin
from tests.checks.table import raised_here

NAN = float("nan")
INF = float("inf")
WRONG: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "2.5": 2.5,
    "nan": NAN,
    "inf": INF,
    "2**32": 2**32,
    "10**5000": 10**5000,
    "1j": 1j,
    "'abc'": "abc",
    "''": "",
    "{}": {},
    "[]": [],
    "(-1,)": (-1,),
    "(2.5, nan)": (2.5, NAN),
    "[[1], [2]]": [[1], [2]],
    "zeros [2]": np.zeros(2),
    "texts [2]": np.array(["a", "b"]),
    "object": object(),
    "a class": dict,
}
# What is right for an argument of each role, of all that is in WRONG.
RIGHT = {
    "count": (),
    "count or None": ("None",),
    "from 0": ("0",),
    "far from 0": ("0", "2**32"),
    "limit": ("None", "2**32", "10**5000"),  # as many as there are
    "rate": ("0",),
    "flag": ("True",),
    "no flag": (),  # True is refused
    "counts": (),
    "counts or none": ("[]",),
    "numbers or None": ("None", "zeros [2]"),
    "type": ("None",),
    "text": ("'abc'",),
    "any text": ("'abc'", "''"),
    "text or None": ("None", "'abc'"),
    "other": (),
    "other or None": ("None",),
    "source": ("[]",),  # an empty one
    # Entries are checked when they are read.
    "sequence": ("[]", "(-1,)", "(2.5, nan)", "[[1], [2]]"),
    "two entries": ("(2.5, nan)", "[[1], [2]]"),
    "state": ("zeros [2]",),
    "texts or None": ("None", "{}"),
    "shape or None": ("None", "[]"),  # [] is that of a number
    "function": ("a class",),
}


class Call(NamedTuple):
    """Holds a function with arguments that it takes, and the roles of those that are spoilt."""

    name: str
    f: Callable[..., Any]
    good: dict[str, Any]
    roles: dict[str, str]
    is_quick: bool = True


def built_at_once(network: type) -> Callable[..., Any]:
    """Makes a function that builds a network, for arguments that are refused before."""
    return functools.partial(network, rngs=nnx.Rngs(0))


def built(network: type) -> Callable[..., Any]:
    """Makes a function that builds a network without numbers."""

    def build(**arguments: Any) -> Any:
        # Its own random numbers are made inside, where they are drawn.
        return nnx.eval_shape(lambda: network(**({"rngs": nnx.Rngs(0)} | arguments)))

    return build


UNET = {
    "K": 4,
    "channels": 1,
    "size": 8,
    "max_time": 10,
    "ch": 4,
    "ch_mult": (1,),
    "groups": 2,
    "num_res_blocks": 1,
}
SCORE_NET = {name: value for name, value in UNET.items() if name != "size"} | {"attn": ()}
TRANSFORMER = {"K": 4, "max_time": 10, "width": 8, "num_layers": 1, "num_heads": 2, "mlp_ratio": 1}
X = np.array([[0, 1, 2], [2, 1, 0], [1, 1, 1], [3, 0, 3]])
SOURCE = data.ArraySource(X)
DESCRIPTION = data.Description((3,), 4)
IMAGES = data.ArraySource(np.arange(16).reshape(2, 2, 2, 2) % 4)
PARAMS = {"a": {"kernel": jnp.ones((2, 3))}}
STATE = {"x": jnp.arange(3.0)}
HISTORY = timesteps.empty_history(3)


def networks(built: Callable[[type], Callable]) -> Iterator[Call]:
    common = {
        "K": "count",
        "channels": "count",
        "max_time": "count",
        "ch": "count",
        "ch_mult": "counts",
        "num_res_blocks": "from 0",
        "dropout": "rate",
        "groups": "count",
        "dtype": "type",
        "num_classes": "count or None",
        "num_heads": "count",
        "remat": "flag",
        "rngs": "other",
    }
    unet = common | {
        "size": "count",
        "attn_resolutions": "counts or none",
        "onehot_input": "flag",
        "outputs": "count or None",
        "channels_per_group": "count or None",
        "attention_eps": "count or None",
        "input_range": "count or None",
        "condition": "count or None",
    }
    score_net = common | {"attn": "counts or none", "time_dependent_weights": "numbers or None"}
    transformer = {name: "count" for name in TRANSFORMER} | {
        "dropout": "rate",
        "see_time": "flag",
        "num_classes": "count or None",
        "remat": "flag",
        "dtype": "type",
        "positions": "other",
        "shape": "other or None",
        "condition": "shape or None",
        "sizes": "other or None",
        "rngs": "other",
    }
    yield Call("UNet", built(UNet), UNET, unet)
    yield Call("ScoreNet", built(ScoreNet), SCORE_NET, score_net)
    yield Call("Transformer", built(Transformer), TRANSFORMER, transformer)
    classifier = {"shape": "counts", "classes": "count", "rngs": "other"}
    yield Call("Classifier", built(Classifier), {"shape": (8, 8, 1), "classes": 3}, classifier)
    noisy = {"shape": (8, 8, 1), "K": 4, "classes": 3, "max_time": 10, "width": 8}
    roles = dict.fromkeys(("K", "classes", "max_time", "width", "num_layers", "embedding"), "count")
    roles |= {"shape": "counts", "dropout": "rate", "rngs": "other"}
    yield Call("NoisyClassifier", built(NoisyClassifier), noisy, roles)
    inputs = {"shape": (2, 3), "K": 4}
    roles = {"shape": "counts", "K": "count", "sizes": "other or None", "condition": "shape or None"}
    yield Call("Inputs", Inputs, inputs, roles | dict.fromkeys(("max_time", "num_classes"), "count or None"))
    mlp = {"inputs": Inputs((2, 3), 4), "width": 8, "num_layers": 1}
    roles = {"inputs": "other", "width": "count", "num_layers": "count", "dropout": "rate", "remat": "flag"}
    yield Call("MLP", built(MLP), mlp, roles | {"dtype": "type", "rngs": "other"})
    yield from networks_of_flows(built)


def networks_of_flows(built: Callable[[type], Callable]) -> Iterator[Call]:
    features = {"length": 2, "n_in": 2, "causal": True, "width": 8, "num_layers": 1}
    roles = dict.fromkeys(("length", "n_in", "width", "num_layers"), "count")
    roles |= {"causal": "flag", "rngs": "other"}
    yield Call("LSTMFeatures", built(LSTMFeatures), features, roles | {"input_dropout": "rate"})
    transformer = {"num_heads": "count", "mlp_ratio": "count", "dropout": "rate"}
    yield Call(
        "TransformerFeatures", built(TransformerFeatures), features | {"num_heads": 1}, roles | transformer
    )
    make_features = functools.partial(LSTMFeatures, width=8, num_layers=1)
    flow = {"length": 2, "K": 3, "num_mixtures": 1, "make_features": make_features, "context_width": 1}
    roles = dict.fromkeys(("length", "K", "num_mixtures", "context_width"), "count")
    roles |= {"context": "other", "share_codes": "flag", "rngs": "other"}
    yield Call("ArgmaxAR", built(ArgmaxAR), flow, roles)
    del flow["length"], roles["length"]
    coupling = {"shape": "count", "num_steps": "count", "squeeze": "count"}
    yield Call("ArgmaxCoupling", built(ArgmaxCoupling), flow | {"shape": 2, "num_steps": 1}, roles | coupling)
    unet = {"size": (2, 2), "n_in": 2, "causal": False, "ch": 2, "ch_mult": (1,), "groups": 1}
    roles = dict.fromkeys(("size", "n_in", "ch", "groups", "num_heads"), "count")
    roles |= {"causal": "no flag", "ch_mult": "counts", "num_res_blocks": "from 0", "dropout": "rate"}
    yield Call("UNetFeatures", built(UNetFeatures), unet, roles | {"rngs": "other"})


def data_functions() -> Iterator[Call]:
    train = {"source": SOURCE, "batch_size": 2, "seed": 0, "num_categories": 4}
    roles = {
        "source": "other",
        "batch_size": "count",
        "seed": "from 0",
        "num_categories": "count",
        "start": "far from 0",
        "random_map": "other or None",
        "description": "other or None",
        "part": "from 0",
        "parts": "count",
    }
    yield Call("train_batches", lambda **x: next(data.train_batches(**x)), train, roles)
    batch_size = {"source": "two entries", "batch_size": "count"}
    yield Call("check_batch_size", data.check_batch_size, {"source": SOURCE, "batch_size": 2}, batch_size)
    reading = {
        "source": "other",
        "num_categories": "count",
        "limit": "limit",
        "description": "other or None",
    }
    for f in (data.read_all, data.read_batch):
        yield Call(f.__name__, f, {"source": SOURCE, "num_categories": 4}, reading)
    counting = {"source": "source", "num_categories": "count"}
    yield Call("count_categories", data.count_categories, {"source": SOURCE, "num_categories": 4}, counting)
    by_place = {"source": SOURCE, "shape": (3,), "num_categories": 4}
    roles = counting | {"shape": "counts"}
    yield Call("count_categories_by_place", data.count_categories_by_place, by_place, roles)


def sources() -> Iterator[Call]:
    arrays = {"x": "other", "labels": "other or None", "name": "any text", "conditions": "other or None"}
    yield Call("ArraySource", data.ArraySource, {"x": X}, arrays)
    part = {"source": "other", "start": "from 0", "stop": "count"}
    yield Call("Part", data.Part, {"source": SOURCE, "start": 1, "stop": 3}, part)
    description = {
        "shape": "counts",
        "categories": "count",
        "classes": "count or None",
        "kind": "text",
        "symbols": "other or None",
        "padded": "flag",
        "digest": "text or None",
        "condition": "shape or None",
        "condition_type": "other",
        "sizes": "other or None",
        "columns": "other or None",
    }
    fields = {"shape": (3,), "categories": 4}
    yield Call("Description", data.Description, fields, description)
    image = {"records": "sequence", "keys": "other", "shape": "counts", "name": "text"}
    good = {"records": [{"image": X}], "keys": {"x": "image"}, "shape": (2, 2, 1)}
    yield Call("ImageSource", data.ImageSource, good, image)
    tokens = {"tokens": np.arange(10), "length": 3}
    for f in (windows.Windows, windows.Overlapping):
        yield Call(f.__name__, f, tokens, {"tokens": "other", "length": "count"})
    padded = {"tokens": "other", "ends": "other", "length": "count"}
    yield Call("Padded", windows.Padded, tokens | {"ends": np.array([4, 10])}, padded)
    binary = {"source": "source", "levels": "count", "how": "other", "split": "other"}
    good = {"source": IMAGES, "levels": 4, "how": "threshold", "split": "train"}

    def read_binary(**arguments: Any) -> Any:
        binary_source = binarize.BinarySource(**arguments)
        return [binary_source[i] for i in range(len(binary_source))]

    yield Call("BinarySource", read_binary, good, binary)
    maze = {"cells": "count", "size": "count", "seed": "from 0", "split": "other", "conditioned": "flag"}
    good = {"cells": 3, "size": 2, "seed": 0, "split": "train"}
    yield Call("MazeSource", mazes.MazeSource, good, maze)
    good = {"source": IMAGES, "condition_of": lambda x: x}
    conditioned = {"source": "sequence", "condition_of": "function"}
    yield Call("ConditionedSource", digit_conditions.ConditionedSource, good, conditioned)


def files(folder: Path) -> Iterator[Call]:
    np.save(folder / "x.npy", X)
    yield Call("open_npy", data.open_npy, {"path": folder / "x.npy"}, {"path": "other"})
    idx = {"folder": "other", "name": "other"}
    yield Call("read_idx", source.read_idx, {"folder": folder, "name": "train"}, idx)
    split = {"name": "digits", "split": "train", "data_dir": str(folder)}
    roles = {"name": "other", "split": "other", "data_dir": "other or None"}
    yield Call("open_split", data.open_split, split, roles, is_quick=False)
    roles = {"name": "other", "data_dir": "other or None"}
    yield Call("describe_data_set", images.describe_data_set, {"name": "digits"}, roles, is_quick=False)

    weights = folder / "a.safetensors"
    twin.save(weights, PARAMS)
    yield Call("twin.to_torch", twin.to_torch, {"params": PARAMS}, {"params": "other"})
    roles = {"params": "other", "state_dict": "other"}
    good = {"params": PARAMS, "state_dict": twin.to_torch(PARAMS)}
    yield Call("twin.from_torch", twin.from_torch, good, roles)
    roles = {"path": "other", "params": "other", "metadata": "texts or None"}
    yield Call("twin.save", twin.save, {"path": weights, "params": PARAMS}, roles)
    roles = {"path": "other", "like": "other"}
    yield Call("twin.load", twin.load, {"path": weights, "like": PARAMS}, roles)
    yield Call("twin.read_metadata", twin.read_metadata, {"path": weights}, {"path": "other"})

    saved = folder / "checkpoints"
    checkpoint.save_checkpoint(saved, 1, STATE, 2)
    roles = {"folder": "other", "step": "from 0", "state": "state", "keep": "from 0"}
    good = {"folder": saved, "step": 2, "state": STATE, "keep": 2}

    def save_anew(**arguments: Any) -> None:
        shutil.rmtree(saved / "2", ignore_errors=True)
        checkpoint.save_checkpoint(**arguments)

    yield Call("save_checkpoint", save_anew, good, roles)

    def open_saver(**arguments: Any) -> None:
        with checkpoint.Saver(**arguments):
            pass

    yield Call("Saver", open_saver, {"folder": saved, "keep": 2}, {"folder": "other", "keep": "from 0"})
    for f in (checkpoint.list_steps, checkpoint.list_folders, checkpoint.find_newest_step):
        yield Call(f.__name__, f, {"folder": saved}, {"folder": "other"})
    good = {"folder": saved, "step": 1}
    roles = {"folder": "other", "step": "other"}
    yield Call("check_checkpoint", checkpoint.check_checkpoint, good, roles)
    roles = {"folder": "other", "step": "other", "like": "other"}
    yield Call("restore_state", checkpoint.restore_state, good | {"like": STATE}, roles)
    good = {"folder": folder / "none", "step": 1}
    roles = {"folder": "other", "step": "from 0"}
    yield Call("set_aside_later_steps", checkpoint.set_aside_later_steps, good, roles)
    yield Call(
        "delete_checkpoint", checkpoint.delete_checkpoint, {"path": folder / "none"}, {"path": "other"}
    )


def calls(folder: Path, built: Callable[[type], Callable]) -> Iterator[Call]:
    yield from networks(built)
    yield from data_functions()
    yield from sources()
    yield from files(folder)


class Case(NamedTuple):
    """Holds a call that is wrong in what an argument holds, and the word that its error has to have."""

    name: str
    f: Callable[[], Any]
    word: str


def first_batch(*examples: Any, **arguments: Any) -> Any:
    return next(data.train_batches(list(examples), len(examples), 0, 4, **arguments))


def history_of(mean_square: Any, counts: Any) -> Any:
    return timesteps.LossHistory(mean_square, counts)


def wrong_contents() -> Iterator[Case]:
    """Yields wrong examples, arrays, weights and histories."""
    x = np.array([0, 1, 2])
    f32 = np.ones(3, np.float32)
    examples = {
        "without x": ({"label": 1}, "x"),
        "an array": (x, "example 0"),
        "None": (None, "example 0"),
        "x of floats": ({"x": f32}, "x"),
        "x of NaN": ({"x": f32 * NAN}, "x"),
        "x of a text": ({"x": "abc"}, "x"),
        "x ragged": ({"x": [[1], [1, 2]]}, "x"),
        "x empty": ({"x": x[:0]}, "x"),
        "x of K": ({"x": x + 2}, "x"),
        "x of -1": ({"x": x - 1}, "x"),
        "x of booleans": ({"x": x > 0}, "x"),
        "a label of 2.5": ({"x": x, "label": 2.5}, "label"),
        "a label of nan": ({"x": x, "label": NAN}, "label"),
        "a label of 2**32": ({"x": x, "label": 2**32}, "label"),
        "a label None": ({"x": x, "label": None}, "label"),
        "weights of nan": ({"x": x, "weight": f32 * NAN}, "weight"),
        "weights of -1": ({"x": x, "weight": -f32}, "weight"),
        "weights of inf": ({"x": x, "weight": f32 * INF}, "weight"),
        "a weight of 'abc'": ({"x": x, "weight": "abc"}, "weight"),
        "a weight None": ({"x": x, "weight": None}, "weight"),
        "weights complex": ({"x": x, "weight": f32 * 1j}, "weight"),
        "weights of two": ({"x": x, "weight": f32[:2]}, "weight"),
    }
    for name, (example, word) in examples.items():
        yield Case(f"train_batches of an example: {name}", functools.partial(first_batch, example), word)
        read = functools.partial(data.read_batch, [example], 4)
        yield Case(f"read_batch of an example: {name}", read, word)
    pairs = {
        "a label in one": ({"x": x, "label": 1}, {"x": x}),
        "a label in the other": ({"x": x}, {"x": x, "label": 1}),
    }
    for name, pair in pairs.items():
        yield Case(f"read_batch: {name}", functools.partial(data.read_batch, pair, 4), "label")
    weighted = ({"x": x}, {"x": x, "weight": 1.0})
    yield Case("read_batch: one weight", functools.partial(data.read_batch, weighted, 4), "weight")
    shapes = ({"x": x}, {"x": x[:2]})
    yield Case("read_batch: two shapes", functools.partial(data.read_batch, shapes, 4), "shape")
    for value in (None, x, {"label": 1}, 2.5):
        change = functools.partial(first_batch, {"x": x}, random_map=lambda example, rng, y=value: y)
        yield Case(f"train_batches: a random_map to {value!r}", change, "random_map")
    for name, array in {
        "floats": f32,
        "a list": [[1]],
        "one axis": x,
        "booleans": X > 0,
        "complex": X * 1j,
        "texts": X.astype(str),
    }.items():
        yield Case(f"ArraySource of {name}", functools.partial(data.ArraySource, array), "x")
    for name, labels in {"floats": np.ones(4), "three": x, "a list": [1, 2, 3, 4]}.items():
        yield Case(f"ArraySource, labels {name}", functools.partial(data.ArraySource, X, labels), "labels")
    for name, conditions in {"texts": np.array(["a"] * 4), "three": f32, "a list": [1, 2, 3, 4]}.items():
        make = functools.partial(data.ArraySource, X, conditions=conditions)
        yield Case(f"ArraySource, conditions {name}", make, "conditions")

    tensors = {
        "complex": np.ones((3, 2), np.complex64),
        "of NaN": np.full((3, 2), NAN, np.float32),
        "of inf": np.full((3, 2), INF, np.float32),
        "of texts": np.full((3, 2), "a"),
        "of objects": np.full((3, 2), None),
        "ragged": [[1.0], [1.0, 2.0]],
        "None": None,
        "transposed": np.ones((2, 3), np.float32),
    }
    for name, tensor in tensors.items():
        load = functools.partial(twin.from_torch, PARAMS, {"a.weight": tensor})
        yield Case(f"twin.from_torch of a tensor {name}", load, "a.weight")
    for name, params in {"a text": {"a": "b"}, "a number": {"a": 1.0}, "an object": {"a": object()}}.items():
        yield Case(f"twin.to_torch of {name}", functools.partial(twin.to_torch, params), "params")

    two = jnp.zeros(2)
    three = jnp.zeros(3, jnp.int32)
    histories = {
        "of unequal lengths": history_of(two, three),
        "of NaN": history_of(jnp.full(3, NAN), three),
        "of -1": history_of(jnp.full(3, -1.0), three),
        "of counts below 0": history_of(jnp.zeros(3), three - 1),
        "of counts that are floats": history_of(jnp.zeros(3), jnp.zeros(3)),
        "of numbers": history_of(1.0, 1),
        "of None": history_of(None, None),
        "of no steps": history_of(two[:0], three[:0]),
        "of two axes": history_of(jnp.zeros((3, 2)), jnp.zeros((3, 2), jnp.int32)),
    }
    for name, history in histories.items():
        know = functools.partial(timesteps.probabilities, history)
        yield Case(f"timesteps.probabilities: a history {name}", know, "history")
        if history.T:
            update = functools.partial(timesteps.update, history, jnp.array([1]), jnp.ones(1))
            yield Case(f"timesteps.update: a history {name}", update, "history")
    draw = functools.partial(timesteps.importance, jnp.array([0.5]), jnp.zeros(3))
    yield Case("timesteps.importance: p of zeros", draw, "p")


class NetworkCall(NamedTuple):
    """Holds a network that may be called, and arguments that it takes."""

    name: str
    network: Any  # its parameters are zeros
    good: dict[str, Any]


def network_calls() -> Iterator[NetworkCall]:
    images = jnp.array([[[0, 1], [2, 3]], [[1, 0], [3, 2]]])[..., None]  # [2, 2, 2, 1]
    inputs = {"xt": images, "t": jnp.array([1, 10]), "label": jnp.array([0, 2]), "key": jax.random.key(0)}
    build = {"num_classes": 3}
    condition = {"condition": jnp.ones((2, 3))}
    unet = with_zeros(UNet, UNET | build | {"size": 2, "condition": (3,), "num_res_blocks": 0})
    yield NetworkCall("UNet()", unet, inputs | condition)
    yield NetworkCall("ScoreNet()", with_zeros(ScoreNet, SCORE_NET | build | {"num_res_blocks": 0}), inputs)
    transformer = with_zeros(Transformer, TRANSFORMER | build)
    sequences = inputs | {"xt": images[:, :, :, 0].reshape(2, 4), "weight": jnp.ones((2, 4))}
    yield NetworkCall("Transformer()", transformer, sequences)


def with_zeros(network: type, arguments: dict[str, Any]) -> Any:
    """Builds a network whose parameters are 0."""
    graph, shapes = nnx.split(built(network)(**arguments))
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))


OPTIONAL_INPUTS = ("label", "key", "weight")


def wrong_inputs(call: NetworkCall) -> Iterator[tuple[str, str, Any, bool]]:
    """Yields the name of an input, a case, what to pass, and whether its shape and type are right."""
    for name, good in call.good.items():
        for case, value in WRONG.items():
            is_right = (value is None and name in OPTIONAL_INPUTS) or (name, case) == ("t", "zeros [2]")
            if not is_right:
                yield name, case, value, False
        if name == "key":
            yield name, "raw", jax.random.key_data(good), False
            yield name, "two keys", jax.random.split(good), False
            continue
        yield name, "an axis more", good[..., None], False
        yield name, "an axis less", good[0], False
        yield name, "an example more", jnp.concatenate([good, good[:1]]), False
        yield name, "complex64", good.astype("complex64"), False
        if name != "weight":
            yield name, "bool", good.astype("bool"), False
        if name == "xt" and good.ndim == 4:
            yield name, "channels first", jnp.moveaxis(good, -1, 1), False
        if name == "condition":
            yield name, "wider", jnp.ones((2, 4)), False
        if name in ("xt", "label"):
            yield name, "floats", good.astype(float), False
        values = {"xt": (-1, 4, 2**31 - 1), "t": (-1, 11), "label": (-2, 3), "weight": (-1, NAN, INF)}
        for value in values.get(name, (NAN, INF)):
            first = (0,) * good.ndim
            yield name, f"a value of {value}", good.at[first].set(value), True
        if name == "t":
            for value in (NAN, INF, -0.5, 10.5):
                yield name, f"a real value of {value}", good.astype(float).at[0].set(value), True


# A function that is called, and raises an error of its own.
FAILS_BY_ITSELF = ("random_map", "a class")
# Other words for arguments.
ALIASES = {
    "batch_size": "batch size",
    "source": "split",
    "records": "record",
    "state_dict": "state dict",
    "path": "no file abc",
    "folder": "no file abc",
    "name": "abc",
    "data_dir": "data directory abc",
}
OUTCOMES = ("clear", "marked", "legal", "unclear", "silent", "NaN")
DEFECTS = ("unclear", "silent", "NaN")


def holds_nan(result: Any) -> bool:
    leaves = [x for x in jax.tree.leaves(result) if isinstance(x, jax.Array | np.ndarray | float)]
    real = [np.asarray(x) for x in leaves if jnp.issubdtype(np.asarray(x).dtype, jnp.floating)]
    return any(np.isnan(x).any() for x in real)


def outcome(f: Callable[[], Any], word: str, is_right: bool) -> tuple[str, str]:
    """Says what came of a call whose error has to have a word in it, and how."""
    try:
        result = f()
    except (TypeError, ValueError, UserError) as error:
        message = str(error)
        names_it = re.search(rf"\b({re.escape(word)}|{ALIASES.get(word, word)})\b", message)
        is_clear = names_it and "\n" not in message and len(message) < 500 and raised_here(error)
        return ("clear" if is_clear else "unclear"), f"{type(error).__name__}: {message[:200]!r}"
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {str(error)[:200]!r}"
    if holds_nan(result):
        return "NaN", ""
    return ("legal" if is_right else "silent"), ""


Result = tuple[str, str, str]  # what came of a call, which one it was, and how it ended


def constructed(folder: Path, skips_right: bool = False) -> Iterator[Result]:
    """Spoils every argument of every constructor and function, and what their arguments hold."""
    for call in calls(folder, built_at_once if skips_right else built):
        if skips_right and not call.is_quick:
            continue
        for name, role in call.roles.items():
            for case, value in WRONG.items():
                is_right = case in RIGHT[role]
                if (is_right and skips_right) or (name, case) == FAILS_BY_ITSELF:
                    continue
                f = functools.partial(call.f, **(call.good | {name: value}))
                kind, how = outcome(f, name, is_right)
                yield kind, f"{call.name}({name}) {case}", how
    if not skips_right:
        for case in wrong_contents():
            kind, how = outcome(case.f, case.word, False)
            yield kind, case.name, how


def called() -> Iterator[Result]:
    """Calls the networks with each input spoilt, whose values are known."""
    for call in network_calls():
        for name, case, value, _ in wrong_inputs(call):
            f = functools.partial(call.network, **(call.good | {name: value}))
            kind, how = outcome(f, name, False)
            yield kind, f"{call.name}({name}) {case}", how


def called_under_jit(runs: bool = True) -> Iterator[Result]:
    """Calls the networks with each input spoilt, whose values only a program knows.

    Args:
        runs: whether the programs are run. Shapes and types are refused before.
    """
    for call in network_calls():
        program = jax.jit(lambda inputs, network=call.network: network(**inputs))
        if runs:
            expected = program(call.good)
        for name, case, value, has_right_shape in wrong_inputs(call):
            inputs = call.good | {name: value}
            if not has_right_shape:
                if isinstance(value, jax.Array):
                    f = functools.partial(jax.eval_shape, lambda x, f=call.network: f(**x), inputs)
                    kind, how = outcome(f, name, False)
                    yield kind, f"{call.name}({name}) {case}", how
            elif runs:
                result = np.asarray(program(inputs))
                is_marked = np.isnan(result[0]).all() if name != "key" else False
                as_before = np.array_equal(result[1], expected[1])
                kind = "marked" if is_marked and as_before else "silent"
                yield kind, f"{call.name}({name}) {case}", ""
    if runs:
        t, p_t = jax.jit(timesteps.importance)(jnp.array([0.5]), jnp.zeros(3))
        kind = "marked" if t[0] == -1 and np.isnan(p_t[0]) else "silent"
        yield kind, "timesteps.importance: p of zeros", f"{t} {p_t}"


def report(title: str, results: Iterator[Result], names: list[str]) -> None:
    """Prints each defect and the number of outcomes of each kind."""
    counts = collections.Counter()
    for kind, which, how in results:
        if names and not which.startswith(tuple(names)):
            continue
        counts[kind] += 1
        if kind in DEFECTS:
            print(f"{kind:8} {which} {how}")
    print(f"{title}:", ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES), flush=True)


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        report("constructors", constructed(Path(folder)), names)
    report("networks, eager", called(), names)
    report("networks, jit", called_under_jit(), names)


if __name__ == "__main__":
    main(sys.argv[1:])
