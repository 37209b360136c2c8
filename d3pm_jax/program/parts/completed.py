"""Completes a config by its data: what is built is built from the result, and nothing asks again."""

import dataclasses

import numpy as np

from d3pm_jax.config import (
    FLOW,
    Config,
    build_process,
    check_fields,
    filled_field,
    find_extra_mask,
    from_data,
    open_examples,
)
from d3pm_jax.data import Description, Source, count_categories, count_categories_by_place
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.kinds import Kind, make_kind
from d3pm_jax.processes import Process
from d3pm_jax.program.parts import recipe, splits


@dataclasses.dataclass(frozen=True)
class Completed:
    """Holds a config that was checked, with the numbers of its data, what its data is, and its process."""

    config: Config
    description: Description  # of the data
    kind: Kind  # of the data
    process: Process | None  # with all of its steps; None of a flow
    extra_mask: int | None  # the mask of the process, where the data never has it


def complete(config: Config, description: Description) -> Completed:
    """Completes a config, which was checked, with the numbers of its data in place of every "data".

    Raises:
        UserError: the description is none, there is no kind for it, the config holds what it does not train,
            the data cannot be read, or the process cannot be built or is not for the data or the loss.
    """
    # What does not go together is refused before all of the data is counted.
    try:
        check_fields("data.describe()", description)
        recipe.check_config(config, description)
        kind = make_kind(description, config.data)
    except (ValueError, TypeError) as error:
        raise UserError(one_line(error, 1000)) from error

    config = fill_in(config, description)
    try:
        if config.trains == FLOW:
            recipe.check_categories(filled_field(config.process, "K"), description)
            return Completed(config, description, kind, None, None)
        process = build_process(config.process)
        extra_mask = find_extra_mask(config.process, process, description.categories)
        recipe.check_process(config, process, extra_mask, description)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(one_line(error, 1000)) from error
    return Completed(config, description, kind, process, extra_mask)


def fill_in(config: Config, description: Description) -> Config:
    """Returns a config with the numbers of its data in place of every "data".

    Raises:
        UserError: the data cannot be read.
    """

    def open_training_examples() -> Source:
        return splits.take_training_examples(config, open_examples(config.data, "train"))

    def count_training_categories() -> np.ndarray:
        return count_categories(open_training_examples(), description.categories)  # [categories]

    def count_places() -> np.ndarray:
        examples = open_training_examples()
        return count_categories_by_place(examples, description.shape, description.categories)

    if not from_data.needs_data(config):
        return config
    places = from_data.PlaceCounts(description.place_sizes, count_places)
    return from_data.fill(config, description.categories, count_training_categories, places)
