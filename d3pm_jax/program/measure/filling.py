"""Computes -log p of examples that a network fills in one element after the other, in orders of choice.

Such a network sees no time, and fills in any set of masked elements. Each order is a law of its own, and so
is the mixture of several.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
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
    count_elements,
    exact_nats,
    left_to_right,
    mixture_nats,
    random_blocks,
    random_order,
    summarize_bound,
    summarize_mixture,
)
from d3pm_jax.orders import MOST_PLACES, given_first
from d3pm_jax.processes import Mixing
from d3pm_jax.program.measure.examples import Examples, evaluate
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.parts.inputs import to_array
from d3pm_jax.program.parts.recipe import require
from d3pm_jax.projection import all_logits

AllOrders = Literal["all"]
# Figures of M orders, in words.
MIXED = {"mean": "mean over {M} orders", "mixture": "mixture of {M} orders", "gain": "mean - mixture"}


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
    if getattr(parts.config.model, "see_time", True) or not parts.config.loss.fills_any_order:
        return None
    return find_absorbing_mask(parts)


def require_fillable_mask(parts: Parts) -> int:
    """Returns what `find_fillable_mask` does. Raises UserError where there is none."""
    loss = parts.config.loss
    if not loss.fills_any_order:
        raise UserError(
            f"the network of loss = {type(loss).__name__} does not fill in masks in any order, so it has a "
            f"bound and no chain rule here: take ContinuousAbsorbing or AnyOrder"
        )
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
            f"all orders are of at most {MOST_PLACES} elements, and the whole example has {D}: take some, "
            f"as 16 (--orders 16)"
        )


def draw_orders(orders: Orders, seed: int, N: int, shape: tuple[int, ...]) -> Iterator[jax.Array]:
    """Draws orders of examples of shape *S one after the other, each [N, *S], or [1, *S] for all examples.

    Raises:
        UserError: there are no blocks.
    """
    draw = random_order(seed)
    if orders.by_block:
        check_blocks(shape)
        draw = random_blocks(seed)
    # What is common to all examples are the orders of the first one.
    index = jnp.arange(N if orders.own else 1, dtype=jnp.int32)
    # Number 0 is the order of the row "in random orders" of an exact likelihood.
    for number in range(1, orders.num + 1):
        yield draw(index, shape, number)


def compute_in_orders(
    parts: Parts,
    examples: Examples,
    every_order: Iterable[jax.Array | np.ndarray],
    batch_size: int,
    progress: Callable[[int], Any] = lambda done: None,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """Computes -log p of examples in each of M orders, in nats [M, N].

    Args:
        parts: of a run with a network that fills in masks.
        examples: of its data.
        every_order: M times numbers in [0, 1), [N, *S] or [1, *S]: the element of the lowest comes first.
        batch_size: how many at a time.
        progress: is called with the number of examples that are done, counted anew in each order.
        given: bool [N, *S], which elements are known and cost nothing.

    Raises:
        UserError: the network sees time, or has no extra mask; or its weights are not finite.
    """
    mask = require_fillable_mask(parts)
    predict = require(parts.recipe.diffusion, "a diffusion", parts.config).predict
    x0 = examples["x"]
    # A program serves all orders, which are an argument of it.
    compiled = parts.once("exact nats", lambda: exact_nats(predict, mask))
    nats = []
    for number, order in enumerate(every_order):
        inputs = {"order": np.broadcast_to(order, x0.shape)}
        if given is not None:
            first = given_first(jnp.asarray(inputs["order"]), jnp.asarray(given))
            inputs = {"order": np.asarray(first), "given": given}

        def report(done: int, before: int = number * len(x0)) -> None:
            progress(before + done)

        nats.append(evaluate(parts, compiled, examples, batch_size, report, **inputs))
    return np.stack(nats)


def compute_in_all_orders(
    parts: Parts,
    examples: Examples,
    batch_size: int,
    progress: Callable[[int], Any] = lambda done: None,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """Computes -log p of the mixture of all orders, in nats [N], by the arguments of `compute_in_orders`.

    Raises:
        UserError: as there; or an example has more than 16 elements, or weights.
    """
    mask = require_fillable_mask(parts)
    predict = require(parts.recipe.diffusion, "a diffusion", parts.config).predict
    x0 = examples["x"]
    check_all_orders(x0.shape[1:])
    compiled = parts.once("all orders", lambda: all_orders_nats(predict, mask))
    if given is None:
        given = np.zeros(x0.shape, bool)
    return evaluate(parts, compiled, examples, batch_size, progress, given=given)


def compute_mixture(
    parts: Parts,
    examples: Examples,
    orders: Orders | AllOrders,
    batch_size: int,
    seed: int,
    progress: Callable[[int], Any],
) -> dict[str, Any]:
    """Computes figures of the mixture of orders, and says what it is the likelihood of.

    Returns:
        "law", in words, and "num"; the entries of `evaluation.bound.summarize_mixture`, of all orders the
        "mixture" alone.
    """
    x0 = examples["x"]
    D = count_elements(x0, examples.get("weight"))
    if isinstance(orders, str):
        nats = compute_in_all_orders(parts, examples, batch_size, progress)
        law = "-log p of the mixture of all orders, exact"
        return {"num": orders, "law": law, "mixture": summarize_bound(nats, D)}
    drawn = draw_orders(orders, seed, len(x0), x0.shape[1:])
    nats = compute_in_orders(parts, examples, drawn, batch_size, lambda done: progress(done // orders.num))
    figures = summarize_mixture(nats, D, common=not orders.own)
    return dataclasses.asdict(orders) | {"law": orders.law} | figures


def compute_log_prob(
    parts: Parts, examples: Examples, given: Any, orders: Any, batch_size: int, seed: int
) -> np.ndarray:
    """Computes log p of examples, or of the rest of them where some of their elements are given, [N].

    Args:
        parts: of a run with a network that fills in masks.
        examples: of its data.
        given: bool [N, *S] or [*S]: which elements are given; None for none.
        orders: as `Run.log_prob` takes them.
        batch_size: how many at a time.
        seed: of random orders.

    Raises:
        UserError: the network has no chain rule; or what is given, or the orders, cannot be used.
    """
    x0 = examples["x"]
    shape = x0.shape[1:]
    if given is not None:
        given = _read_given(given, x0)
    every_order: Iterable[jax.Array | np.ndarray]
    if orders is None:
        every_order = [left_to_right(jnp.zeros(1, jnp.int32), shape)]
    elif not is_orders(orders):
        every_order = _read_orders(orders, shape)
    elif isinstance(orders, str):
        return -compute_in_all_orders(parts, examples, batch_size, given=given)
    else:
        every_order = draw_orders(orders, seed, len(x0), shape)
    return -mixture_nats(compute_in_orders(parts, examples, every_order, batch_size, given=given))


def _read_given(given: Any, x0: np.ndarray) -> np.ndarray:
    """Returns which elements are given, bool [N, *S]. Raises UserError where it is said in another way."""
    given = np.asarray(given)
    shapes = (x0.shape[1:], x0.shape)
    if given.dtype != bool or given.shape not in shapes:
        words = ", or ".join(str(list(shape)) for shape in shapes)
        raise UserError(f"given is {describe(given)}: pass booleans {words}")
    return np.broadcast_to(given, x0.shape)


def _read_orders(orders: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Reads orders of a user's own, floats [.., *S] in [0, 1), [M, *S].

    Raises:
        UserError: they are not; or two elements of one order have the same number.
    """
    axes = ", ".join(map(str, shape))
    D = math.prod(shape)
    cure = (
        f'pass runs.Orders(num), "all", or floats [M, {axes}] in [0, 1) without ties, the element of the '
        f"lowest first; of a list of places they are np.argsort(places).reshape({axes}) / {D}"
    )
    values = to_array("orders", orders, cure)
    is_of_examples = values.ndim >= len(shape) and values.shape[values.ndim - len(shape) :] == shape
    if not is_of_examples or values.size == 0 or values.dtype.kind != "f":
        raise UserError(f"orders is {describe(values)}: {cure}")
    flat = values.reshape(-1, D)
    has_ties = np.any(np.diff(np.sort(flat, axis=1)) == 0)
    if has_ties or not np.all((flat >= 0) & (flat < 1)):
        raise UserError(f"orders holds {flat.min()}..{flat.max()}, or a number twice: {cure}")
    ranks = np.argsort(np.argsort(flat, axis=1), axis=1)
    return (ranks / D).astype(np.float32).reshape(-1, *shape)


def compute_bayes(parts: Parts, examples: Examples, given: Any) -> np.ndarray:
    """Computes log p(the rest | what is given) [N] in the law of all orders, of all examples that there are.

    Args:
        parts: of a run with a network that fills in masks.
        examples: of its data.
        given: bool [N, *S] or [*S]: which elements are given.

    Raises:
        UserError: there are too many partial examples, or the law is another for each example.
    """
    inputs = parts.extra_inputs(examples)
    if inputs:
        raise UserError(
            f"Bayes' rule needs one law of all examples, and these have {', '.join(inputs)}: take "
            f'log_prob(x, given, "all")'
        )
    x0 = examples["x"]
    K = parts.recipe.categories
    network = require(parts.recipe.diffusion, "a diffusion", parts.config).network

    def fill_in(xt: jax.Array) -> jax.Array:
        return all_logits(network(parts.params, xt, jnp.ones(len(xt), jnp.int32)))

    with as_user_error():
        log_law = enumeration.fill_in_law(fill_in, x0.shape[1:], K, require_fillable_mask(parts))
        is_given = jnp.asarray(_read_given(given, x0))
        nats = enumeration.conditional(jnp.asarray(log_law), jnp.asarray(x0), is_given, K)
    return -np.asarray(nats, np.float64)
