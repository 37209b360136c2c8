"""Makes batches of int32 categories from a random-access source, a pure function of (seed, batch number)."""

import functools
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int, Int32

from d3pm_jax.checks import Count, Natural, Seed, Size, declared, integers_from
from d3pm_jax.data.description import Description, convert_conditions
from d3pm_jax.data.source import DatasetError, FunctionSource, Source, check_example, check_source

Example = dict[str, Any]
Batch = dict[str, np.ndarray]
RandomMap = Callable[[Example, np.random.Generator], Example]

# Several threads read ahead. A source may be an open file, which has one place to read from: all of them
# together ask for one example at a time. A source may read another one, so the lock can be taken again.
_READING = threading.RLock()
# Examples that are in memory together where all of them are counted.
COUNTED_AT_ONCE = 1024


@declared()
def train_batches(
    source: Source,
    batch_size: Size,
    seed: Seed,
    num_categories: Size,
    start: Annotated[int, integers_from(0, 2**60)] = 0,
    random_map: RandomMap | None = None,
    description: Description | None = None,
    part: Natural = 0,
    parts: Count = 1,
) -> Iterator[Batch]:
    """Makes endless shuffled batches; every epoch has its own order, and a batch may span two epochs.

    Batch number i depends on (seed, i) only, so a run resumed with start = i sees what it would have seen.

    Args:
        source: the examples.
        batch_size: B, at most len(source).
        seed: 0 .. 2**32 - 1.
        num_categories: K; every value must lie in 0 .. K - 1.
        start: number of the first batch; costs nothing.
        random_map: changes each example; its generator depends on seed and place alone.
        description: what the examples have to be.
        part, parts: each batch is cut into `parts` parts, and only part number `part` is read and returned.

    Returns:
        Iterator of {"x": int32 [B / parts, *S]}, with "label": int32 [B / parts], "weight": float32
        [B / parts, *S] and "condition": [B / parts, *C] where examples have them.

    Raises:
        TypeError, ValueError: an argument is not what it has to be.
        DatasetError: batch_size exceeds the split, or (while iterating) an example is not what it has to be.
    """
    import grain

    check_batch_size(source, batch_size)
    if part >= parts:
        raise ValueError(f"part = {part}: it must be in 0..{parts - 1}, as parts = {parts}")
    if batch_size % parts:
        raise ValueError(f"parts = {parts} do not divide batch_size = {batch_size}: change one of them")
    collate = functools.partial(_collate, num_categories=num_categories, description=description)
    # Without a number of epochs Grain repeats until there are sys.maxsize examples. The number of batches of
    # one example would then overflow, so the examples are repeated half as often.
    num_epochs = sys.maxsize // (2 * len(source))
    dataset = grain.MapDataset.source(_add_numbers(source)).seed(seed).shuffle().repeat(num_epochs)
    if random_map is not None:

        def change(example: Example, rng: np.random.Generator) -> Example:
            unnumbered = {name: value for name, value in example.items() if name != "number"}
            # A random map may write into arrays, which the source may keep: it gets copies.
            for name in ("x", "condition"):
                if name in unnumbered:
                    unnumbered[name] = np.array(unnumbered[name])
            changed = random_map(unnumbered, rng)
            check_example(changed, f"random_map turns example {example['number']} into")
            return {**changed, "number": example["number"]}

        dataset = dataset.random_map(change)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    # Batch number i is cut into `parts` consecutive small batches, which have the numbers i * parts, ..,
    # i * parts + parts - 1. The part of this process is number i * parts + part.
    part_batches = dataset.batch(batch_size // parts, batch_fn=collate)
    return iter(part_batches[start * parts + part :: parts].to_iter_dataset(options))


@declared()
def check_batch_size(source: Source, batch_size: Size) -> None:
    """Raises DatasetError where a batch is larger than the split that it comes from."""
    check_source("source", source)
    if not len(source):
        raise DatasetError("the source has no examples: name a split that has some")
    if batch_size > len(source):
        raise DatasetError(
            f"batch size {batch_size} exceeds the {len(source)} examples of the train split: set batch_size, "
            f"train.batch_size of a config, to {len(source)} or less"
        )


@declared()
def read_all(
    source: Source,
    num_categories: Size,
    limit: int | None = None,
    description: Description | None = None,
) -> tuple[Int32[np.ndarray, "N ..."], Int32[np.ndarray, " N"] | None]:
    """Reads every example, or the first `limit`, in order.

    Args:
        source: the examples.
        num_categories: K; every value must lie in 0 .. K - 1.
        limit: read at most this many; None reads all.
        description: what the examples have to be.

    Returns:
        (x int32 [N, *S], labels int32 [N], or None where the examples have no label).

    Raises:
        DatasetError: nothing to read, or an example is not what it has to be.
    """
    batch = read_batch(source, num_categories, limit, description)
    return batch["x"], batch.get("label")


@declared()
def read_batch(
    source: Source,
    num_categories: Size,
    limit: int | None = None,
    description: Description | None = None,
) -> Batch:
    """Reads every example, or the first `limit`, in order, as one batch like those of `train_batches`.

    Args:
        source: the examples.
        num_categories: K; every value must lie in 0 .. K - 1.
        limit: read at most this many; None reads all.
        description: what the examples have to be.

    Raises:
        DatasetError: nothing to read, or an example is not what it has to be.
    """
    numbered = _add_numbers(source)
    size = len(source)
    if limit is not None:
        size = min(limit, size)
    if len(source) == 0:
        raise DatasetError("nothing to read: the split has no examples, name one that has")
    if size < 1:
        raise DatasetError(f"nothing to read: the split has {len(source)} examples and the limit is {limit}")
    return _collate([numbered[i] for i in range(size)], num_categories, description)


@declared()
def count_categories(source: Source, num_categories: Size) -> Int[np.ndarray, " K"]:
    """Counts how often each category occurs in all examples, without elements of weight 0.

    Raises:
        DatasetError: a value is not a category.
    """
    numbered = _add_numbers(source)
    counts = np.zeros(num_categories, np.int64)
    for i in range(len(source)):
        batch = _collate([numbered[i]], num_categories)
        x = batch["x"]
        if "weight" in batch:
            x = x[batch["weight"] > 0]
        counts += np.bincount(x.ravel(), minlength=num_categories)
    return counts


@declared()
def count_categories_by_place(
    source: Source, shape: tuple[Size, ...], num_categories: Size
) -> Int[np.ndarray, "*S K"]:
    """Counts how often each place has each category in all examples, without elements of weight 0.

    Args:
        source: the examples.
        shape: *S of an example.
        num_categories: K; of places with fewer categories the last counts are 0.

    Raises:
        DatasetError: a value is not a category.
    """
    numbered = _add_numbers(source)
    num_places = math.prod(shape)
    counts = np.zeros(num_places * num_categories, np.int64)
    for start in range(0, len(source), COUNTED_AT_ONCE):
        numbers = range(start, min(start + COUNTED_AT_ONCE, len(source)))
        batch = _collate([numbered[number] for number in numbers], num_categories)
        x = batch["x"].reshape(len(numbers), num_places)
        cells = np.arange(num_places) * num_categories + x  # [n, places]
        if "weight" in batch:
            cells = cells[batch["weight"].reshape(x.shape) > 0]  # [M]
        counts += np.bincount(cells.ravel(), minlength=len(counts))
    return counts.reshape(*shape, num_categories)


def _add_numbers(source: Source) -> Source:
    """Adds to each example of a source its number, which messages name.

    Raises:
        TypeError: the source gives no examples.
    """
    check_source("source", source)

    def read(number: int) -> Example:
        with _READING:
            example = source[number]
        check_example(example, f"example {number} of the source is")
        return {**example, "number": number}

    return FunctionSource(len(source), read)


def _collate(
    examples: Sequence[Example], num_categories: int, description: Description | None = None
) -> Batch:
    """Stacks examples to a batch, and checks each against the description.

    Raises:
        DatasetError: naming the first example that is not.
    """
    numbers = [example["number"] for example in examples]
    x = _stack_x(examples, numbers, None if description is None else description.shape)
    _check_categories(x, numbers, num_categories, description)
    batch: Batch = {"x": x.astype(np.int32)}
    for name in ("label", "weight"):
        _check_all_have(examples, numbers, name)
    if description is not None:
        _check_has_described(examples[0], numbers[0], description)
    if "label" in examples[0]:
        classes = None if description is None else description.classes
        batch["label"] = _stack_labels(examples, numbers, classes)
    if "weight" in examples[0]:
        batch["weight"] = _stack_weights(examples, numbers, x.shape[1:])
    if description is not None and description.condition is not None:
        batch["condition"] = _stack_conditions(examples, numbers, description)
    elif description is not None and "condition" in examples[0]:
        shape = np.shape(examples[0]["condition"])
        raise DatasetError(
            f"example {numbers[0]} has a condition {list(shape)}, but the data is described without one: add "
            f"condition={shape} to its Description, or leave it out of the examples"
        )
    return batch


def _stack_x(
    examples: Sequence[Example], numbers: Sequence[int], shape: tuple[int, ...] | None
) -> np.ndarray:
    """Returns x [B, *S] of integers; without a shape *S is that of the first example."""
    arrays = [_read_array(example, "x", number) for example, number in zip(examples, numbers, strict=True)]
    shape = shape or arrays[0].shape
    for array, number in zip(arrays, numbers, strict=True):
        # `_collate` makes them int32, which would truncate other values without an error.
        if not np.issubdtype(array.dtype, np.integer):
            raise DatasetError(
                f"x of example {number} has dtype {array.dtype}: categories are integers, convert them"
            )
        if array.shape != shape:
            raise DatasetError(
                f"x of example {number} has shape {array.shape}, expected {shape}: give all one shape"
            )
        if not array.size:
            raise DatasetError(f"x of example {number} has shape {array.shape}: it is empty, leave it out")
    return np.stack(arrays)


def _read_array(example: Example, name: str, number: int) -> np.ndarray:
    """Returns an entry of an example as an array."""
    try:
        return np.asarray(example[name])
    except ValueError as error:
        raise DatasetError(f"{name} of example {number} is not an array: {error}") from error


def _check_all_have(examples: Sequence[Example], numbers: Sequence[int], name: str) -> None:
    """Raises DatasetError where some examples have an entry and others have not."""
    has_entry = [name in example for example in examples]
    if any(has_entry) and not all(has_entry):
        raise DatasetError(
            f"example {numbers[has_entry.index(False)]} has no {name}, which example "
            f"{numbers[has_entry.index(True)]} has: give it to all or none"
        )


def _check_has_described(example: Example, number: int, description: Description) -> None:
    """Raises DatasetError where an example has no label or weight, which the data is described with."""
    if description.classes is not None and "label" not in example:
        raise DatasetError(
            f"example {number} has no label, but the data is described with {description.classes} classes: "
            f"add label to the examples, and to what random_map returns, or leave classes out of the "
            f"Description of a new run"
        )
    if description.padded and "weight" not in example:
        raise DatasetError(
            f"example {number} has no weight, but the data is described as padded: add weight to the "
            f"examples, 0 where x is padding, and to what random_map returns, or leave padded out of the "
            f"Description of a new run"
        )


def _check_categories(
    x: np.ndarray, numbers: Sequence[int], num_categories: int, description: Description | None
) -> None:
    low = int(x.min())
    high = int(x.max())
    if low < 0:
        raise DatasetError(f"{_where(x, low, numbers)}, but categories start at 0: shift the data")
    categories_of_data = num_categories if description is None else description.categories
    # Data that counts from 1 has no 0, and its largest category is one too large.
    from_one = ""
    if low == 1 and high in (num_categories, categories_of_data):
        from_one = ", or subtract 1 from the data where it counts from 1"
    if high >= categories_of_data and description is not None:
        raise DatasetError(
            f"{_where(x, high, numbers)}, but the data is described as 0..{categories_of_data - 1}: "
            f"set its categories, and with them K, to {high + 1} or more{from_one}"
        )
    if high >= num_categories:
        raise DatasetError(
            f"{_where(x, high, numbers)}, but K = {num_categories} allows only 0..{num_categories - 1}: "
            f"set K to {high + 1} or more (256 for 8-bit images, one more with an extra mask){from_one}"
        )
    if description is not None and description.sizes is not None:
        _check_sizes(x, numbers, description.place_sizes)


def _check_sizes(x: np.ndarray, numbers: Sequence[int], sizes: np.ndarray) -> None:
    """Raises DatasetError where x [B, *S] has a category that its place, of sizes [*S], does not have."""
    outside = np.argwhere(x >= sizes)
    if len(outside):
        example, *place = outside[0].tolist()
        raise DatasetError(
            f"x of example {numbers[example]} holds {x[tuple(outside[0])]} at {place}, but the data is "
            f"described as 0..{sizes[tuple(place)] - 1} there: correct the data, or the size"
        )


def _stack_labels(
    examples: Sequence[Example], numbers: Sequence[int], classes: int | None
) -> Int32[np.ndarray, " B"]:
    labels = [example["label"] for example in examples]
    integers = [label for label in labels if isinstance(label, int | np.integer)]
    for label, number in zip(labels, numbers, strict=True):
        if not isinstance(label, int | np.integer):
            raise DatasetError(f"the label of example {number} is {label!r}: labels are integers")
        if not -(2**31) <= label < 2**31:
            raise DatasetError(f"the label of example {number} is {label}: it is kept as int32")
        if classes is not None and not 0 <= label < classes:
            from_one = ""
            if label == classes and min(integers) == 1:
                from_one = ", or subtract 1 from all where they count from 1"
            raise DatasetError(
                f"the label of example {number} is {label}, but classes = {classes} allows only "
                f"0..{classes - 1}: correct the label, or set classes{from_one}"
            )
    return np.array(labels).astype(np.int32)


def _stack_weights(examples: Sequence[Example], numbers: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """Returns the weights, float32 [B, *S]; a single number of an example is that of all its elements."""
    weights = []
    for example, number in zip(examples, numbers, strict=True):
        weight = _read_array(example, "weight", number)
        if weight.dtype.kind not in "biuf" and weight.dtype.name != "bfloat16":
            raise DatasetError(f"the weight of example {number} has dtype {weight.dtype}: pass floats")
        if weight.shape not in ((), shape):
            raise DatasetError(
                f"the weight of example {number} has shape {weight.shape}: pass {shape}, as x has"
            )
        # The comparison is written so that NaN fails it.
        if not np.all((weight >= 0) & (weight < np.inf)):
            raise DatasetError(
                f"the weight of example {number} holds {weight.min():g}..{weight.max():g}: weights are "
                f"finite numbers of at least 0"
            )
        weights.append(weight.astype(np.float32))
    return np.stack([np.broadcast_to(weight, shape) for weight in weights])


def _stack_conditions(
    examples: Sequence[Example], numbers: Sequence[int], description: Description
) -> np.ndarray:
    """Returns the conditions [B, *C] in the type of the description."""
    conditions = []
    for example, number in zip(examples, numbers, strict=True):
        if "condition" not in example:
            raise DatasetError(f"example {number} has no condition, which the data is described with: add it")
        condition = _read_array(example, "condition", number)
        if condition.shape != description.condition:
            raise DatasetError(
                f"the condition of example {number} has shape {condition.shape}, expected "
                f"{description.condition}: give all one shape"
            )
        try:
            conditions.append(convert_conditions(condition, description.condition_type))
        except ValueError as error:
            raise DatasetError(f"the condition of example {number} {error}") from error
    return np.stack(conditions)


def _where(x: np.ndarray, value: int, numbers: Sequence[int]) -> str:
    """Says which example of x [B, *S] holds a value first, and at which index."""
    example, *index = np.argwhere(x == value)[0]
    return f"x of example {numbers[example]} holds {value} at {[int(i) for i in index]}"
