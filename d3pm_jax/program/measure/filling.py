"""Computes -log p of examples that a network fills in one element after the other, in orders of choice.

Such a network sees no time, and fills in any set of masked elements. Each order is a law of its own, and so
is the mixture of several.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import enumeration
from d3pm_jax.checks.arrays import describe
from d3pm_jax.config import Allowed, Count, check_fields
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.evaluation.bound import (
    all_orders_nats,
    evaluate_bound,
    exact_nats,
    left_to_right,
    random_blocks,
    random_order,
    summarize_bound,
    summarize_mixture,
)
from d3pm_jax.orders import MOST_PLACES, given_first, mixture
from d3pm_jax.processes import Mixing
from d3pm_jax.program.machine.devices import batch_sharding
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.parts.inputs import to_array
from d3pm_jax.program.parts.recipe import require

AllOrders = Literal["all"]
# Figures of M orders, in words.
MIXED = {"mean": "mean over {M} orders", "mixture": "mixture of {M} orders", "gain": "mean - mixture"}
Examples = Mapping[str, np.ndarray]  # "x", and if there are any "label", "weight" and "condition"


@dataclasses.dataclass(frozen=True)
class Orders:
    """Says in how many random orders elements are filled in, and whose these orders are."""

    num: Count
    own: bool = False
    """each example has orders of its own, in place of orders that are common to all examples"""
    by_block: bool = False
    """one block after the other, x[0], x[1], .. of each example x, such as frames or rows of pixels"""

    def __post_init__(self) -> None:
        with as_user_error():
            check_fields("", self)

    @property
    def law(self) -> str:
        """Says what the mixture of these orders is the likelihood of."""
        of_blocks = " of blocks" if self.by_block else ""
        if self.own:
            return f"a bound on -log p of the mixture over all orders{of_blocks}"
        return f"-log p of the mixture of these {self.num} orders{of_blocks}, exact"


def is_orders(value: object) -> TypeGuard[Orders | AllOrders]:
    """Tells whether it is a number of random orders, or the word for all of them."""
    return isinstance(value, Orders) or (isinstance(value, str) and value == "all")


AnyOrders = Annotated[
    Any, Allowed('runs.Orders(num), "all" or None', lambda value: value is None or is_orders(value))
]


def find_absorbing_mask(parts: Parts) -> int | None:
    """Returns the mask category of an absorbing run whose network never predicts it; None for other runs."""
    process = getattr(parts.recipe.process, "common", None)  # of a flow there is none
    is_absorbing = isinstance(process, Mixing) and process.pi_kind == "point"
    return parts.recipe.extra_mask if is_absorbing else None


def find_fillable_mask(parts: Parts) -> int | None:
    """Returns the mask category of a run whose network can fill in any set of elements; else None.

    Such a network sees no time, so that it answers for any number of masks, and never predicts the mask.
    """
    if getattr(parts.config.model, "see_time", True):
        return None
    return find_absorbing_mask(parts)


def require_fillable_mask(parts: Parts) -> int:
    """Returns what `find_fillable_mask` does. Raises UserError where there is none."""
    mask = find_fillable_mask(parts)
    if mask is None:
        raise UserError(
            "the network sees time, or has no extra mask, so it has a bound and no chain rule: take "
            "Absorbing with one more category than the data has, and Transformer(see_time=False)"
        )
    return mask


def check_blocks(shape: tuple[int, ...]) -> None:
    """Raises UserError where examples of shape *S have no blocks."""
    if len(shape) < 2:
        raise UserError(f"examples of shape {list(shape)} have no blocks: leave by_block (--by-block) out")


def check_all_orders(shape: tuple[int, ...]) -> None:
    """Raises UserError where examples of shape *S have too many orders for all of them."""
    D = math.prod(shape)
    if D > MOST_PLACES:
        raise UserError(
            f"all orders are of at most {MOST_PLACES} elements, and an example has {D}: take some, as 16 "
            f"(--orders 16)"
        )


def list_orders(
    orders: Orders | AllOrders, seed: int, N: int, shape: tuple[int, ...]
) -> Sequence[Callable[[], jax.Array] | AllOrders]:
    """Lists orders of examples of shape *S, each as a function that draws it, [N, *S], or [1, *S] for all.

    Raises:
        UserError: there are no blocks.
    """
    if isinstance(orders, str):
        return [orders]
    draw = random_order(seed)
    if orders.by_block:
        check_blocks(shape)
        draw = random_blocks(seed)
    # What is common to all examples are the orders of the first one.
    index = jnp.arange(N if orders.own else 1, dtype=jnp.int32)
    return [partial(draw, index, shape, number) for number in range(orders.num)]


def compute_nats(
    parts: Parts,
    examples: Examples,
    order: jax.Array | np.ndarray | AllOrders,
    batch_size: int,
    progress: Callable[[int], Any] = lambda done: None,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """Computes -log p of examples in an order, or in all of them, in nats [N].

    Args:
        parts: of a run with a network that fills in masks.
        examples: of its data.
        order: of their elements, [N, *S] or [1, *S], numbers in [0, 1); "all": the mixture of all orders.
        batch_size: how many at a time.
        progress: is called with the number of examples that are done.
        given: bool [N, *S], which elements are known and cost nothing.

    Raises:
        UserError: the network sees time, or has no extra mask; its weights are not finite; or there are too
            many orders for all of them.
    """
    mask = require_fillable_mask(parts)
    predict = require(parts.recipe.diffusion, "a diffusion", parts.config).predict
    x0 = examples["x"]
    inputs = parts.extra_inputs(examples)
    if given is not None:
        inputs["given"] = given
    # A program serves all orders, which are an argument of it.
    if isinstance(order, str):
        check_all_orders(x0.shape[1:])
        compiled = parts.once("all orders", lambda: all_orders_nats(predict, mask))
    else:
        compiled = parts.once("exact nats", lambda: exact_nats(predict, mask))
        order = np.broadcast_to(order, x0.shape)
        if given is not None:
            order = np.asarray(given_first(jnp.asarray(order), jnp.asarray(given)))
        inputs["order"] = order
    return evaluate_bound(
        compiled,
        parts.params,
        parts.recipe.process,
        x0,
        batch_size,
        batch_sharding(parts.mesh),
        inputs,
        progress,
    )


def compute_in_orders(
    parts: Parts,
    examples: Examples,
    orders: Sequence[Any],
    batch_size: int,
    progress: Callable[[int], Any] = lambda done: None,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """Computes `compute_nats` in each of M orders, which may be functions that draw them, [M, N]."""
    N = len(examples["x"])

    def compute(number: int, order: Any) -> np.ndarray:
        if callable(order):
            order = order()

        def report(done: int) -> None:
            progress((number * N + done) // len(orders))

        return compute_nats(parts, examples, order, batch_size, report, given)

    return np.stack([compute(number, order) for number, order in enumerate(orders)])


def summarize_orders(orders: Orders | AllOrders, nats: np.ndarray, D: int | np.ndarray) -> dict[str, Any]:
    """Summarizes the nats [M, N] of examples in orders, and says what their mixture is the likelihood of.

    Args:
        orders: in which they are.
        nats: of each example in each order; of all orders [1, N], of their mixture.
        D: as for `evaluation.bound.summarize_bound`.

    Returns:
        "law", in words, and "num"; the entries of `evaluation.bound.summarize_mixture`, of all orders the
        "mixture" alone.
    """
    if isinstance(orders, str):
        law = "-log p of the mixture of all orders, exact"
        return {"num": orders, "law": law, "mixture": summarize_bound(nats[0], D)}
    figures = summarize_mixture(nats, D, common=not orders.own)
    return dataclasses.asdict(orders) | {"law": orders.law} | figures


def compute_log_prob(
    parts: Parts,
    examples: Examples,
    given: Any,
    orders: Any,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Computes log p of examples, or of the rest of them where some of their elements are given, [N].

    Args:
        parts: of a run with a network that fills in masks.
        examples: of its data.
        given: bool [N, *S] or [*S]: which elements are given.
        orders: as `Run.log_prob` takes them.
        batch_size: how many at a time.
        seed: of random orders.

    Raises:
        UserError: the network has no chain rule; what is given, or the orders, cannot be used; or there are
            too many examples to enumerate.
    """
    x0 = examples["x"]
    shape = x0.shape[1:]
    if given is not None:
        given = np.asarray(given)
        if given.dtype != bool or given.shape not in (shape, x0.shape):
            raise UserError(f"given is {describe(given)}: pass booleans {list(shape)}, or {list(x0.shape)}")
        given = np.broadcast_to(given, x0.shape)
    if isinstance(orders, str) and orders == "bayes":
        return -_enumerate_conditional(parts, examples, given)
    chosen: Sequence[Any]
    if orders is None:
        chosen = [left_to_right(jnp.zeros(1, jnp.int32), shape)]
    elif is_orders(orders):
        chosen = list_orders(orders, seed, len(x0), shape)
    else:
        chosen = list(_read_orders(orders, shape)[:, None])
    nats = compute_in_orders(parts, examples, chosen, batch_size, given=given)  # [M, N]
    return -np.asarray(mixture(jnp.asarray(nats)).nats)


def _read_orders(orders: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Reads orders of a user's own, [M, *S] or [*S], as numbers in [0, 1), [M, *S].

    Raises:
        UserError: they are not; or two elements of one order have the same number.
    """
    axes = ", ".join(map(str, shape))
    D = math.prod(shape)
    cure = (
        f'pass runs.Orders(num), "all", "bayes", or numbers [M, {axes}], the element of the lowest first: '
        f"integers that are each of 0..{D - 1}, or floats without ties"
    )
    values = to_array("orders", orders, cure)
    if values.shape == shape:
        values = values[None]
    if values.shape[1:] != shape or len(values) == 0 or values.dtype.kind not in "iuf":
        raise UserError(f"orders is {describe(values)}: {cure}")
    flat = values.reshape(len(values), D)
    ranks = np.argsort(np.argsort(flat, axis=1), axis=1)
    is_order = np.all(flat == ranks)
    if values.dtype.kind == "f":
        has_ties = np.any(np.sort(flat, axis=1)[:, 1:] == np.sort(flat, axis=1)[:, :-1])
        is_order = np.isfinite(flat).all() and not has_ties
    if not is_order:
        raise UserError(f"orders holds {flat.min()}..{flat.max()}, which is no order of {D} elements: {cure}")
    return (ranks / D).astype(np.float32).reshape(values.shape)


def _enumerate_conditional(parts: Parts, examples: Examples, given: np.ndarray | None) -> np.ndarray:
    """Computes -log p(the rest | what is given) [N] in the law of all orders, of all examples that there are.

    Raises:
        UserError: there are too many, or the law is another for each example.
    """
    inputs = parts.extra_inputs(examples)
    if inputs:
        raise UserError(
            f'orders = "bayes" enumerates one law for all examples, and they have {", ".join(inputs)}: take '
            f'"all"'
        )
    x0 = examples["x"]
    network = require(parts.recipe.diffusion, "a diffusion", parts.config).network

    def fill_in(xt: jax.Array) -> jax.Array:
        return network(parts.params, xt, jnp.ones(len(xt), jnp.int32))

    with as_user_error():
        K = parts.recipe.categories
        log_law = enumeration.fill_in_law(fill_in, x0.shape[1:], K, require_fillable_mask(parts))
        if given is None:
            given = np.zeros(x0.shape, bool)
        return np.asarray(
            enumeration.conditional(jnp.asarray(log_law), jnp.asarray(x0), jnp.asarray(given), K)
        )
